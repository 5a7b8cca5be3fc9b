//! The PyTorch port's ternary networks, where `TTQ_DATA` has them.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::{json, text};

/// A checkpoint of the port; skips, and says so, where it is missing.
fn checkpoint(name: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("TTQ_DATA").map(PathBuf::from);
    let path = folder.map(|folder| folder.join("pytorch-checkpoints").join(name));
    let found = path.filter(|path| path.is_file());
    if found.is_none() {
        eprintln!("skipped: TTQ_DATA names no folder with pytorch-checkpoints/{name}");
    }
    found
}

/// Packs in both codings into a folder.
fn pack(folder: &Path, checkpoint: &Path) {
    let checkpoint = checkpoint.to_str().unwrap();
    text(folder, &["pack", checkpoint, "-o", "plain"]);
    text(folder, &["pack", checkpoint, "-o", "archive", "--archive"]);
}

#[test]
fn the_ports_densenet_has_62_ternary_layers_with_tied_scales() {
    let Some(checkpoint) = checkpoint("ttq_densenet_small.pt") else { return };
    let folder = tempfile::tempdir().unwrap();
    pack(folder.path(), &checkpoint);
    let plain = json(folder.path(), &["inspect", "plain"]);
    let total = &plain["total"];
    assert_eq!((&total["weights"], &total["equal_scales"]), (&json!(62), &json!(62)));
    assert_eq!(plain["warnings"], json!(["equal_scales"]));
    assert_eq!((1000.0 * total["sparsity"].as_f64().unwrap()).round(), 382.0, "38.2 % zeros");
    let others: Vec<&str> =
        plain["not_ternary"].as_array().unwrap().iter().map(|t| t["name"].as_str().unwrap()).collect();
    assert_eq!(others, ["classifier.weight", "features.conv0.weight"]);
    assert!(total["bits"].as_f64().unwrap() <= 2.1);
    let archive = json(folder.path(), &["inspect", "archive"]);
    let (bits, entropy) = (archive["total"]["bits"].as_f64().unwrap(), total["entropy_bits"].as_f64().unwrap());
    assert!(bits <= 1.02 * entropy, "{bits} bits, entropy {entropy}");
    assert!(fs::metadata(folder.path().join("archive")).unwrap().len() < fs::metadata(checkpoint).unwrap().len() / 4);
    for file in ["plain", "archive"] {
        text(folder.path(), &["unpack", file, "-o", "float", "--force"]);
        assert_eq!(
            json(folder.path(), &["inspect", "float"])["weights"],
            plain["weights"],
            "the same weights come back"
        );
    }
}

#[test]
fn the_ports_squeezenet_has_24_ternary_layers_of_which_8_are_tied() {
    let Some(checkpoint) = checkpoint("ttq_squeezenet.pt") else { return };
    let folder = tempfile::tempdir().unwrap();
    pack(folder.path(), &checkpoint);
    let answer = json(folder.path(), &["inspect", "plain"]);
    assert_eq!((&answer["total"]["weights"], &answer["total"]["equal_scales"]), (&json!(24), &json!(8)));
    assert_eq!(answer["warnings"], json!([]));
    // The first convolution and the last one stay in full precision.
    assert_eq!(answer["not_ternary"].as_array().unwrap().len(), 2);
    assert!(json(folder.path(), &["verify", "archive"])["weights"] == 24);
}
