//! Sessions on the host: the same functions as in a browser.

use std::fs;
use std::slice;

use ttq_packed::Coding;
use ttq_packed::network::{Arena, CompileOptions, Graph, Network, Operation, Unary};
use ttq_wasm::{
    Session, ttq_close, ttq_codes, ttq_dim, ttq_error, ttq_file, ttq_input, ttq_load, ttq_open, ttq_output, ttq_run,
    ttq_unpack,
};

/// The MNIST network.
fn network() -> Vec<u8> {
    fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/mnist/network.safetensors")).unwrap()
}

fn open(file: &[u8]) -> Box<Session> {
    let mut session = ttq_open(file.len()).unwrap();
    // SAFETY: the session has as many bytes.
    unsafe { slice::from_raw_parts_mut(ttq_file(&mut session), file.len()) }.copy_from_slice(file);
    session
}

/// Returns the sentence of an error of `len` bytes.
fn sentence(session: &Session, len: usize) -> String {
    // SAFETY: the function that failed returned the number of its bytes.
    String::from_utf8(unsafe { slice::from_raw_parts(ttq_error(session), len) }.to_vec()).unwrap()
}

#[test]
fn outputs_are_those_of_the_network() {
    let file = network();
    let mut session = open(&file);
    assert_eq!(ttq_load(&mut session, 0), 0);
    let dims = |output| (0..4).map(|axis| ttq_dim(&session, output, axis)).collect::<Vec<_>>();
    assert_eq!([dims(0), dims(1)], [vec![1, 28, 28, 0], vec![10, 0, 0, 0]]);
    let x: Vec<f32> = (0..784).map(|i| (i as f32).sin()).collect();
    // SAFETY: the input has the size of the shape.
    unsafe { slice::from_raw_parts_mut(ttq_input(&mut session), 784) }.copy_from_slice(&x);
    assert_eq!(ttq_run(&mut session), 0);
    // SAFETY: the output has the size of the shape.
    let y = unsafe { slice::from_raw_parts(ttq_output(&session), 10) };
    let mut expected = [0.0; 10];
    let network = Network::read(&file, &CompileOptions::default()).unwrap();
    network.run(&mut Arena::new(), &x, &mut expected).unwrap();
    assert_eq!(y, expected);
    ttq_close(Some(session));
}

#[test]
fn codes_are_those_of_the_ternary_weights_in_the_order_of_the_graph() {
    let mut session = open(&network());
    assert_eq!(ttq_load(&mut session, 2), 0);
    let counts = [0, 1, 2].map(|weight| ttq_unpack(&mut session, weight));
    assert_eq!(counts, [32 * 16 * 5 * 5, 512 * 128, 0]);
    let count = ttq_unpack(&mut session, 0);
    // SAFETY: the function returned the number of codes.
    let codes = unsafe { slice::from_raw_parts(ttq_codes(&session), count) };
    assert!([-1, 0, 1].iter().all(|code| codes.contains(code)) && codes.iter().all(|code| (-1..=1).contains(code)));
}

#[test]
fn errors_are_sentences() {
    let mut session = open(b"no file");
    let len = ttq_run(&mut session);
    assert_eq!(sentence(&session, len), "no network is loaded: call `ttq_load` first");
    let len = ttq_load(&mut session, 0);
    assert!(sentence(&session, len).contains("bytes"), "{}", sentence(&session, len));
    let file = network();
    for byte in (0..file.len()).step_by(97) {
        let mut damaged = file.clone();
        damaged[byte] ^= 4;
        let mut session = open(&damaged);
        let len = ttq_load(&mut session, 0);
        assert!(len > 0 && !sentence(&session, len).contains('\n'), "byte {byte}");
        assert!(ttq_run(&mut session) > 0);
    }
}

#[test]
fn int8_without_ranges_is_an_error() {
    let mut graph = Graph::new([2]).unwrap();
    let y = graph.apply("relu", Operation::Unary(Unary::Relu), &[graph.input()]).unwrap();
    graph.set_output(y).unwrap();
    let mut session = open(&graph.write(Coding::Plain, None).unwrap());
    for (int8, expected) in [(1, "Graph::calibrate"), (2, "Graph::calibrate"), (3, "must be 0, 1 or 2")] {
        let len = ttq_load(&mut session, int8);
        assert!(sentence(&session, len).contains(expected), "{}", sentence(&session, len));
    }
    assert_eq!(ttq_load(&mut session, 0), 0);
    // No network is loaded after an error.
    assert!(ttq_load(&mut session, 1) > 0 && ttq_run(&mut session) > 0 && ttq_dim(&session, 0, 0) == 0);
}
