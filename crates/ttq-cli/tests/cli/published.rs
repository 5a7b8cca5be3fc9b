//! Tests on the ternary networks of the PyTorch port, if the directory `TTQ_DATA` contains them.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::{json, text};

/// Returns the path of a checkpoint of the port. If it is missing, prints a message and returns `None`.
fn checkpoint(name: &str) -> Option<PathBuf> {
    let directory = std::env::var_os("TTQ_DATA").map(PathBuf::from);
    let path = directory.map(|directory| directory.join("pytorch-checkpoints").join(name));
    let found = path.filter(|path| path.is_file());
    if found.is_none() {
        eprintln!("skipped: pytorch-checkpoints/{name} is not in the directory TTQ_DATA");
    }
    found
}

/// Packs a checkpoint with both codings, to the files `plain` and `archive` in `directory`.
fn pack(directory: &Path, checkpoint: &Path) {
    let checkpoint = checkpoint.to_str().unwrap();
    text(directory, &["pack", checkpoint, "-o", "plain"]);
    text(directory, &["pack", checkpoint, "-o", "archive", "--archive"]);
}

#[test]
fn the_densenet_of_the_port_has_62_ternary_layers_with_equal_scales() {
    let Some(checkpoint) = checkpoint("ttq_densenet_small.pt") else { return };
    let directory = tempfile::tempdir().unwrap();
    pack(directory.path(), &checkpoint);
    let plain = json(directory.path(), &["inspect", "plain"]);
    let total = &plain["total"];
    assert_eq!((&total["weights"], &total["equal_scales"]), (&json!(62), &json!(62)));
    assert_eq!(plain["warnings"], json!(["equal_scales"]));
    assert_eq!((1000.0 * total["sparsity"].as_f64().unwrap()).round(), 382.0, "38.2 % zeros");
    let others: Vec<&str> =
        plain["not_ternary"].as_array().unwrap().iter().map(|t| t["name"].as_str().unwrap()).collect();
    assert_eq!(others, ["classifier.weight", "features.conv0.weight"]);
    assert!(total["bits"].as_f64().unwrap() <= 2.1);
    let archive = json(directory.path(), &["inspect", "archive"]);
    let (bits, entropy) = (archive["total"]["bits"].as_f64().unwrap(), total["entropy_bits"].as_f64().unwrap());
    assert!(bits <= 1.02 * entropy, "{bits} bits, entropy {entropy}");
    assert!(
        fs::metadata(directory.path().join("archive")).unwrap().len() < fs::metadata(checkpoint).unwrap().len() / 4
    );
    for file in ["plain", "archive"] {
        text(directory.path(), &["unpack", file, "-o", "float", "--force"]);
        assert_eq!(
            json(directory.path(), &["inspect", "float"])["weights"],
            plain["weights"],
            "unpacked weights differ"
        );
    }
}

#[test]
fn the_squeezenet_of_the_port_has_24_ternary_layers_and_8_of_them_have_equal_scales() {
    let Some(checkpoint) = checkpoint("ttq_squeezenet.pt") else { return };
    let directory = tempfile::tempdir().unwrap();
    pack(directory.path(), &checkpoint);
    let answer = json(directory.path(), &["inspect", "plain"]);
    assert_eq!((&answer["total"]["weights"], &answer["total"]["equal_scales"]), (&json!(24), &json!(8)));
    assert_eq!(answer["warnings"], json!([]));
    // The first and the last convolution stay in full precision.
    assert_eq!(answer["not_ternary"].as_array().unwrap().len(), 2);
    assert!(json(directory.path(), &["verify", "archive"])["weights"] == 24);
}
