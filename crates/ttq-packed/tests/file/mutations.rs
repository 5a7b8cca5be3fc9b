//! Randomly damaged files: reading never panics, allocates in proportion to the file, and returns an error or a valid
//! model.

use std::collections::BTreeMap;

use fastrand::Rng;
use ttq_packed::archive::VALUES_PER_BYTE_LIMIT;
use ttq_packed::{Coding, DenseTensor, FileError, PackedModel};

use crate::allocations::allocated;
use crate::damage::damage;
use crate::forge::{assemble, repair_checksum};
use crate::random;

const MUTATIONS: usize = 120_000;
/// Maximum number of allocated bytes per byte of a file, reached by the codes of an archive.
const BYTES_PER_BYTE: usize = VALUES_PER_BYTE_LIMIT / 4;
/// Number of bytes that any file may allocate, such as for an error message.
const ALLOWANCE: usize = 1024;

/// Reads a file and returns the result and the maximum number of bytes allocated at one time.
fn read(file: &[u8]) -> (Result<PackedModel, FileError>, usize) {
    allocated(|| PackedModel::read(file))
}

/// Returns a model that uses every feature of the format, and its file of a few kilobytes.
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

#[test]
fn damaged_files_are_rejected_or_are_valid_models() {
    let (model, file) = original();
    println!("the file has {} bytes", file.len());
    let mut rng = Rng::with_seed(2);
    let (mut models, mut same, mut rejected) = (0, 0, BTreeMap::new());
    for mutation in 0..MUTATIONS {
        let mut mutant = file.clone();
        for _ in 0..rng.usize(1..3) {
            mutant = damage(&mut rng, mutant);
        }
        // Half of the mutants get a correct checksum, so that the later checks are tested too.
        let repaired = mutation % 2 == 0;
        if repaired {
            mutant = repair_checksum(mutant);
        }
        let (result, most) = read(&mutant);
        assert!(
            most <= ALLOWANCE + BYTES_PER_BYTE * mutant.len(),
            "mutation {mutation}: {most} bytes for {}",
            mutant.len()
        );
        match result {
            Ok(found) => {
                models += 1;
                same += usize::from(found == model);
                assert!(repaired || found == model, "mutation {mutation}: the checksum did not detect the damage");
                let again = PackedModel::read(&found.write(Coding::Archive).unwrap()).unwrap();
                assert_eq!(again, found, "mutation {mutation}");
            }
            Err(error) => *rejected.entry(kind(&error)).or_insert(0) += 1,
        }
    }
    println!("{models} of {MUTATIONS} are valid, {same} of them equal the original; rejected: {rejected:?}");
    // The mutants must reach all checks.
    assert!(models > same && same > 0);
    for kind in ["Checksum", "Weight", "Archive", "Duplicate", "Overlap", "OutOfBounds", "Missing", "Tensor", "Entry"] {
        assert!(rejected.contains_key(kind), "no mutant was rejected as {kind}");
    }
}

/// Returns the name of the variant.
fn kind(error: &FileError) -> String {
    let text = format!("{error:?}");
    text.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_string()
}

#[test]
fn a_header_with_many_small_entries_allocates_in_proportion() {
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
        println!("{name}: {:.1} bytes per byte, {}", most as f64 / file.len() as f64, result.as_ref().unwrap_err());
        assert!(most <= ALLOWANCE + BYTES_PER_BYTE * file.len(), "{name}: {most} bytes for {}", file.len());
    }
}
