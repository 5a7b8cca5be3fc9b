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
/// Bytes that one allocation may take for each byte of the file: the codes of an archive.
const ALLOCATION: usize = VALUES_PER_BYTE_LIMIT / 4;

/// The system's allocator, and the largest request of a thread.
struct Watched;

thread_local! {
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // A thread that ends has no cell any more, and runs no test.
        LARGEST.try_with(|largest| largest.set(largest.get().max(layout.size()))).ok();
        // SAFETY: the caller's promises about `layout` are those that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from `System.alloc` with this `layout`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Watched = Watched;

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

/// One random damage.
fn damage(rng: &mut Rng, file: &mut Vec<u8>) {
    let at = rng.usize(0..file.len());
    match rng.u8(0..7) {
        0 => file[at] ^= 1 << rng.u8(0..8),
        1 => file[at] = rng.choice(*b"\0\x01\x7f\xff0129\"{}[],:-eU").unwrap(),
        2 => file.truncate(at),
        3 => {
            let end = rng.usize(at..(at + 40).min(file.len()));
            file.drain(at..end);
        }
        // A piece of the file in another place, over what is there or in between.
        kind @ (4 | 5) => {
            let from = rng.usize(0..file.len());
            let piece = file[from..(from + rng.usize(1..40)).min(file.len())].to_vec();
            let end = if kind == 4 { at } else { (at + piece.len()).min(file.len()) };
            file.splice(at..end, piece);
        }
        _ => *file = edit_number(rng, file),
    }
}

/// Another number for one of the header, the header's length being right again.
fn edit_number(rng: &mut Rng, file: &[u8]) -> Vec<u8> {
    let Ok((header, data)) = std::panic::catch_unwind(|| open(file)) else { return file.to_vec() };
    let numbers: Vec<usize> = header.char_indices().filter(|(_, c)| c.is_ascii_digit()).map(|(at, _)| at).collect();
    let Some(&at) = rng.choice(&numbers) else { return file.to_vec() };
    let end = header[at..].find(|c: char| !c.is_ascii_digit()).map_or(header.len(), |length| at + length);
    let number = rng.choice(["0", "1", "2", "3", "255", "4294967296", "18446744073709551615", "99999999999999999999"]);
    assemble(&format!("{}{}{}", &header[..at], number.unwrap(), &header[end..]), &data)
}

#[test]
fn damaged_files_are_refused_or_are_models() {
    let (model, file) = original();
    println!("a file of {} bytes", file.len());
    let mut rng = Rng::with_seed(2);
    let (mut read, mut same, mut refused) = (0, 0, BTreeMap::new());
    for mutation in 0..MUTATIONS {
        let mut mutant = file.clone();
        for _ in 0..rng.usize(1..4) {
            if !mutant.is_empty() {
                damage(&mut rng, &mut mutant);
            }
        }
        // Half of them with a right checksum, so that what comes behind it is tried, too.
        let sealed = mutation % 2 == 0;
        if sealed {
            mutant = seal(mutant);
        }
        LARGEST.set(0);
        let result = PackedModel::read(&mutant);
        let largest = LARGEST.get();
        assert!(
            largest <= 1024 + ALLOCATION * mutant.len(),
            "mutation {mutation}: {largest} bytes for {}",
            mutant.len()
        );
        match result {
            Ok(found) => {
                read += 1;
                same += usize::from(found == model);
                assert!(sealed || found == model, "mutation {mutation}: the checksum let a damage pass");
                let again = PackedModel::read(&found.write(Coding::Archive).unwrap()).unwrap();
                assert_eq!(again, found, "mutation {mutation}");
            }
            Err(error) => *refused.entry(kind(&error)).or_insert(0) += 1,
        }
    }
    println!("{read} of {MUTATIONS} are read, {same} of them as the original; refused: {refused:?}");
    // The test would be worth nothing if all mutants died at the door.
    assert!(read > same && same > 0);
    for kind in ["Checksum", "Weight", "Archive", "Duplicate", "Overlap", "OutOfBounds", "Missing", "Tensor", "Entry"] {
        assert!(refused.contains_key(kind), "no mutant was refused as {kind}");
    }
}

/// The variant's name.
fn kind(error: &FileError) -> String {
    let text = format!("{error:?}");
    text.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_string()
}
