//! A hundred thousand damaged files: none panics, none allocates more than it justifies, and whatever is read is a model.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::BTreeMap;

use fastrand::Rng;
use ttq_packed::archive::VALUES_PER_BYTE_LIMIT;
use ttq_packed::{Coding, DenseTensor, FileError, PackedModel};

use crate::forge::{assemble, open, seal};
use crate::random;

const MUTATIONS: usize = 120_000;
/// Bytes in memory for each byte of a file: the codes of an archive.
const MEMORY: usize = VALUES_PER_BYTE_LIMIT / 4;
/// Bytes in memory whatever the file, such as an error's message.
const LITTLE: usize = 1024;

/// The system's allocator, with the bytes that a thread holds and the most it held.
struct Watched;

thread_local! {
    static HELD: Cell<usize> = const { Cell::new(0) };
    static MOST: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.set(HELD.get().wrapping_add(layout.size()));
        MOST.set(MOST.get().max(HELD.get()));
        // SAFETY: the caller's promises about `layout` are those that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // What one thread allocates another may free.
        HELD.set(HELD.get().wrapping_sub(layout.size()));
        // SAFETY: `pointer` came from `System.alloc` with this `layout`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Watched = Watched;

/// Reads a file, and says how many bytes that took at most at one time.
fn read(file: &[u8]) -> (Result<PackedModel, FileError>, usize) {
    HELD.set(0);
    MOST.set(0);
    let result = PackedModel::read(file);
    (result, MOST.get())
}

/// A few kilobytes with every feature in it.
fn original() -> (PackedModel, Vec<u8>) {
    let mut rng = Rng::with_seed(1);
    let mut model = PackedModel::default();
    for (name, shape, per_channel) in [
        ("conv.weight", &[8, 4, 3, 3][..], true),
        ("archived.weight", &[64, 32], false),
        ("sparse.weight", &[30, 41], true),
        ("scalar.weight", &[], false),
        ("empty.weight", &[0, 3], true),
    ] {
        model.weights.insert(name.into(), random::weight(&mut rng, shape, 0.8, per_channel));
    }
    let bias = DenseTensor::from_f32([8], &[0.5; 8]).unwrap();
    model.tensors.insert("half".into(), bias.to_f16().unwrap());
    model.tensors.insert("bias".into(), bias);
    model.config = Some(r#"{"layers": [8, 64], "name": "ternär"}"#.into());
    let file =
        model.write_with(|name, _| if name.starts_with("conv") { Coding::Plain } else { Coding::Archive }).unwrap();
    (model, file)
}

/// One random damage: anywhere, or to the header alone or the data alone, so that the rest of the file stays readable.
fn damage(rng: &mut Rng, file: Vec<u8>) -> Vec<u8> {
    match (rng.u8(0..4), open(&file)) {
        (1, Some((header, data))) => assemble(&edit_number(rng, &header), &data),
        (2, Some((header, data))) => {
            let header = change(rng, header.into_bytes());
            [&(header.len() as u64).to_le_bytes(), header.as_slice(), &data].concat()
        }
        (3, Some((header, mut data))) if !data.is_empty() => {
            let at = rng.usize(0..data.len());
            data[at] = if rng.bool() { rng.u8(..) } else { data[at] ^ 1 << rng.u8(0..8) };
            assemble(&header, &data)
        }
        _ => change(rng, file),
    }
}

/// A flipped bit, another byte, an end cut off, a piece taken out or put elsewhere.
fn change(rng: &mut Rng, mut bytes: Vec<u8>) -> Vec<u8> {
    if bytes.is_empty() {
        return bytes;
    }
    let at = rng.usize(0..bytes.len());
    match rng.u8(0..6) {
        0 => bytes[at] ^= 1 << rng.u8(0..8),
        1 => bytes[at] = rng.choice(*b"\0\x01\x7f\xff0129\"{}[],:-eU").unwrap(),
        2 => bytes.truncate(at),
        3 => drop(bytes.drain(at..(at + rng.usize(1..40)).min(bytes.len()))),
        kind => {
            let from = rng.usize(0..bytes.len());
            let piece = bytes[from..(from + rng.usize(1..40)).min(bytes.len())].to_vec();
            // Over what is there, or in between.
            let end = if kind == 4 { at } else { (at + piece.len()).min(bytes.len()) };
            bytes.splice(at..end, piece);
        }
    }
    bytes
}

/// Another number for one of the header.
fn edit_number(rng: &mut Rng, header: &str) -> String {
    let digits: Vec<usize> = header.match_indices(|c: char| c.is_ascii_digit()).map(|(at, _)| at).collect();
    let Some(at) = rng.choice(digits) else { return header.to_string() };
    let (before, number) = header.split_at(at);
    let after = number.trim_start_matches(|c: char| c.is_ascii_digit());
    let numbers = ["0", "1", "2", "3", "7", "8", "255", "4294967296", "18446744073709551615", "99999999999999999999"];
    format!("{before}{}{after}", rng.choice(numbers).unwrap())
}

#[test]
fn damaged_files_are_refused_or_are_models() {
    let (model, file) = original();
    println!("a file of {} bytes", file.len());
    let mut rng = Rng::with_seed(2);
    let (mut models, mut same, mut refused) = (0, 0, BTreeMap::new());
    for mutation in 0..MUTATIONS {
        let mut mutant = file.clone();
        for _ in 0..rng.usize(1..3) {
            mutant = damage(&mut rng, mutant);
        }
        // Half of them with a right checksum, so that what comes behind it is tried, too.
        let sealed = mutation % 2 == 0;
        if sealed {
            mutant = seal(mutant);
        }
        let (result, most) = read(&mutant);
        assert!(most <= LITTLE + MEMORY * mutant.len(), "mutation {mutation}: {most} bytes for {}", mutant.len());
        match result {
            Ok(found) => {
                models += 1;
                same += usize::from(found == model);
                assert!(sealed || found == model, "mutation {mutation}: the checksum let a damage pass");
                let again = PackedModel::read(&found.write(Coding::Archive).unwrap()).unwrap();
                assert_eq!(again, found, "mutation {mutation}");
            }
            Err(error) => *refused.entry(kind(&error)).or_insert(0) += 1,
        }
    }
    println!("{models} of {MUTATIONS} are read, {same} of them as the original; refused: {refused:?}");
    // The test would be worth nothing if all mutants died at the door.
    assert!(models > same && same > 0);
    for kind in ["Checksum", "Weight", "Archive", "Duplicate", "Overlap", "OutOfBounds", "Missing", "Tensor", "Entry"] {
        assert!(refused.contains_key(kind), "no mutant was refused as {kind}");
    }
}

/// The variant's name.
fn kind(error: &FileError) -> String {
    let text = format!("{error:?}");
    text.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_string()
}

#[test]
fn a_header_of_many_small_things_takes_memory_in_proportion() {
    let tensor = |i: usize| format!(r#""{i}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}"#);
    let tensors = (0..10_000).map(tensor).collect::<Vec<_>>().join(",");
    let weights = (0..10_000).map(|i| format!(r#"\"{i}\":{{\"shape\":[],\"output_axis\":0,\"coding\":\"plain\"}}"#));
    let weights = weights.collect::<Vec<_>>().join(",");
    let description = |weights: &str| format!(r#"{{\"version\":1,\"crc32\":\"\",\"weights\":{{{weights}}}}}"#);
    for (name, header) in [
        ("entries", format!("{{{}1}}", (0..50_000).map(|i| format!("\"{i}\":0,")).collect::<String>() + "\"\":")),
        ("tensors", format!("{{{tensors}}}")),
        (
            "metadata",
            format!(
                r#"{{"__metadata__":{{{}"":""}}}}"#,
                (0..50_000).map(|i| format!("\"{i}\":\"\",")).collect::<String>()
            ),
        ),
        ("weights", format!(r#"{{"__metadata__":{{"ttq-packed":"{}"}}}}"#, description(&weights))),
        ("dimensions", format!(r#"{{"a":{{"dtype":"U8","shape":[{}1],"data_offsets":[0,0]}}}}"#, "0,".repeat(100_000))),
    ] {
        let file = assemble(&header, &[]);
        let (result, most) = read(&file);
        println!("{name}: {:.1} bytes a byte, {}", most as f64 / file.len() as f64, result.as_ref().unwrap_err());
        assert!(most <= LITTLE + MEMORY * file.len(), "{name}: {most} bytes for {}", file.len());
    }
}
