//! Tests that every checkpoint format gives the same packed weights.

use serde_json::json;

use crate::files::{self, CONV, FC};
use crate::{error, json, text};

#[test]
fn burnpack_files_are_packed_with_the_layout_of_burn() {
    let directory = tempfile::tempdir().unwrap();
    // The format is detected from the contents, not from the extension.
    files::write_burnpack(&directory.path().join("net.weights"));
    let answer = json(directory.path(), &["pack", "net.weights"]);
    assert_eq!((&answer["format"], &answer["total"]["weights"]), (&json!("burnpack"), &json!(2)));
    let model = files::packed(&directory.path().join("net.ttq.safetensors"));
    assert_eq!((model.weights["conv.weight"].scales(), model.weights["conv.weight"].output_axis()), (&[CONV][..], 0));
    // Axis 1 is tried first, but this weight is ternary along axis 0 only.
    assert_eq!((model.weights["fc.weight"].scales(), model.weights["fc.weight"].output_axis()), (&FC[..], 0));
    assert_eq!(model.tensors["norm.count"], files::network()["norm.count"]);
}

#[test]
fn pytorch_files_of_both_formats_are_packed() {
    let directory = tempfile::tempdir().unwrap();
    files::write_pytorch(&directory.path().join("old.pt"), &files::floats(), None);
    files::write_pytorch_zip(&directory.path().join("new.pt"), &files::floats());
    for version in ["old", "new"] {
        let answer = json(directory.path(), &["pack", &format!("{version}.pt")]);
        assert_eq!((&answer["format"], &answer["other"]["tensors"]), (&json!("pytorch"), &json!(3)));
        text(directory.path(), &["unpack", &format!("{version}.ttq.safetensors")]);
        let output = directory.path().join(format!("{version}.float.safetensors"));
        assert_eq!(files::read_safetensors(&output).tensors, files::floats());
    }
}

#[test]
fn convert_writes_the_tensors_of_a_checkpoint_in_float32_with_the_mark_of_their_layout() {
    let directory = tempfile::tempdir().unwrap();
    files::write_pytorch_zip(&directory.path().join("net.pt"), &files::floats());
    files::write_burnpack(&directory.path().join("burn.bpk"));
    let cases = [("net.pt", ["format", "pt"], files::floats()), ("burn.bpk", ["producer", "burn"], files::network())];
    for (file, [key, value], tensors) in cases {
        let answer = json(directory.path(), &["convert", file]);
        let output = file.split_once('.').unwrap().0.to_owned() + ".safetensors";
        assert_eq!((&answer["output"], &answer["tensors"]), (&json!(output), &json!(tensors.len())));
        let written = files::read_safetensors(&directory.path().join(&output));
        assert_eq!((written.tensors, written.metadata), (tensors, [(key.into(), value.into())].into()));
        let message = error(directory.path(), &["convert", &output, "-o", "other"]);
        assert!(message.starts_with(&format!("{output}: is a safetensors file already")), "{message}");
    }
    text(directory.path(), &["pack", "net.pt"]);
    let message = error(directory.path(), &["convert", "net.ttq.safetensors"]);
    assert!(message.starts_with("net.ttq.safetensors: is a packed file"), "{message}");
}

#[test]
fn a_key_selects_an_entry_of_a_pytorch_checkpoint() {
    let directory = tempfile::tempdir().unwrap();
    files::write_pytorch(&directory.path().join("run.pt"), &files::floats(), Some("state_dict"));
    let names = |arguments: &[&str]| {
        let answer = json(directory.path(), &[&["pack", "run.pt", "--force"], arguments].concat());
        answer["weights"].as_array().unwrap().iter().map(|weight| weight["name"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(names(&[]), ["conv.weight", "fc.weight"]);
    assert_eq!(names(&["--key", "state_dict"]), ["conv.weight", "fc.weight"]);
}

#[test]
fn the_output_axis_of_linear_weights_depends_on_the_producer_and_the_layout_option() {
    let directory = tempfile::tempdir().unwrap();
    let tensor = ttq_packed::DenseTensor::from_f32([2, 3], &[1.0, 0.0, -2.0, 1.0, 0.0, 1.0]).unwrap();
    let axis = |metadata, arguments: &[&str]| {
        files::write_safetensors(
            &directory.path().join("a.safetensors"),
            &[("w".into(), tensor.clone())].into(),
            metadata,
        );
        json(directory.path(), &[&["pack", "a.safetensors", "--force"], arguments].concat())["weights"][0]["output_axis"]
            .clone()
    };
    assert_eq!(axis(None, &[]), 0);
    assert_eq!(axis(Some(("producer", "burn")), &[]), 1);
    assert_eq!(axis(Some(("producer", "burn")), &["--layout", "pytorch"]), 0);
    assert_eq!(axis(None, &["--layout", "burn"]), 1);
}
