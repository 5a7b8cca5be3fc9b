//! What must hold for the file of a stranger. The fuzz target `network` checks it too.

use ttq_packed::network::format::{NETWORK_KEY, checksum};
use ttq_packed::network::{Arena, CompileOptions, Graph, Int8, Network, NetworkError};
use ttq_packed::{Coding, file};

use crate::allocations::allocated;

/// Limit of the compiler.
const ELEMENTS: usize = 1 << 12;
/// Maximum number of bytes for each byte of a file: constants, folded with scales, as weights of Winograd's algorithm.
const BYTES_PER_BYTE: usize = 512;
/// Maximum number of bytes for each element of the limit: values, folded constants, and offsets to copy them.
const BYTES_PER_ELEMENT: usize = 256;
/// Elements of inputs: indices of tables beyond their ends, and numbers that are not finite.
const INPUTS: [f32; 7] = [0.5, -3.0, 1e30, 1.0, f32::NAN, -1e-40, f32::NEG_INFINITY];

/// Reads a file and runs its network on two items. Neither panics, memory is bounded, and a graph survives writing.
pub(crate) fn check(file: &[u8], int8: Int8) -> Result<(), NetworkError> {
    let mut options = CompileOptions::default();
    (options.max_elements, options.int8, options.items) = (ELEMENTS, int8, Some(1));
    let (result, most) = allocated(|| Network::read(file, &options));
    let limit = BYTES_PER_BYTE * file.len() + BYTES_PER_ELEMENT * ELEMENTS;
    assert!(most <= limit, "{most} bytes for {}", file.len());
    let network = result?;
    let [input, output]: [usize; 2] = [network.input_dims(), network.output_dims()].map(|dims| dims.iter().product());
    let x: Vec<f32> = INPUTS.into_iter().cycle().take(2 * input).collect();
    network.run(&mut Arena::new(), &x, &mut vec![0.0; 2 * output]).expect("a run");
    let written = Graph::read(file)?.write(Coding::Plain, None).expect("a graph that was read can be written");
    let again = Graph::read(&written).expect("a written graph can be read");
    assert_eq!(again.write(Coding::Plain, None).expect("it can be written again"), written);
    Ok(())
}

/// Replaces both recorded checksums by the correct ones, if the contents can be parsed.
pub(crate) fn repair(mut file: Vec<u8>) -> Vec<u8> {
    let field = br#"\"crc32\":\""#;
    for (key, checksum) in [(NETWORK_KEY, checksum(&file).ok()), (file::METADATA_KEY, None)] {
        let find = |file: &[u8], from: usize, text: &[u8]| {
            file[from..].windows(text.len()).position(|window| window == text).map(|at| from + at + text.len())
        };
        // The second one covers the contents of the model, which the first one is no part of.
        let checksum = checksum.or_else(|| (key == file::METADATA_KEY).then(|| file::checksum(&file).ok()).flatten());
        let at = find(&file, 0, key.as_bytes()).and_then(|at| find(&file, at, field));
        if let (Some(at), Some(checksum)) = (at, checksum)
            && let Some(digits) = file.get_mut(at..at + checksum.len())
        {
            digits.copy_from_slice(checksum.as_bytes());
        }
    }
    file
}
