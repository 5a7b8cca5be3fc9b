//! Tests of `ttq export`.

use std::fs;
use std::path::Path;

use serde_json::json;
use ttq_packed::network::{Constant, Graph, Operation, RangeRule, Unary};
use ttq_packed::{Codes, Coding, TernaryWeight};

use crate::commands::assert_documented;
use crate::{error, files, json, text};

/// Writes two linear layers, with or without ranges of values.
fn write(path: &Path, calibrated: bool) {
    let mut graph = Graph::new([3]).unwrap();
    let mut x = graph.input();
    for name in ["first", "second"] {
        let codes = Codes::pack(&[1, 0, -1, 0, 1, 1, -1, -1, 0]).unwrap();
        let weight = TernaryWeight::new(codes, [[0.5, 0.25]], [3, 3], 1).unwrap();
        let weight = graph.constant(format!("{name}.weight"), Constant::Ternary(weight)).unwrap();
        x = graph.apply(name, Operation::Linear, &[x, weight]).unwrap();
        x = graph.apply(format!("{name}.relu"), Operation::Unary(Unary::Relu), &[x]).unwrap();
    }
    graph.set_output(x).unwrap();
    if calibrated {
        graph.calibrate(&[1.0, -1.0, 0.5, 0.25, 0.5, -0.5], RangeRule::MinMax).unwrap();
    }
    graph.save(path, Coding::Plain, None).unwrap();
}

#[test]
fn export_writes_float32_and_int8() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    write(&path.join("net.safetensors"), true);
    let answer = json(path, &["export", "net.safetensors", "--onnx", "net.onnx"]);
    let bytes = fs::read(path.join("net.onnx")).unwrap();
    let expected = json!({
        "file": "net.safetensors", "output": "net.onnx", "int8": false, "input_shape": [3], "output_shape": [3],
        "output_bytes": bytes.len(),
    });
    assert_eq!(answer, expected);
    assert_documented(&answer.as_object().unwrap().keys().cloned().collect());
    let contains = |bytes: &[u8], text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(contains(&bytes, "second.weight") && !contains(&bytes, "QuantizeLinear"));
    let message = text(path, &["export", "net.safetensors", "--onnx", "int8.onnx", "--int8=all"]);
    assert!(message.contains("ONNX in int8, input [batch, 3], output [batch, 3]"), "{message}");
    assert!(contains(&fs::read(path.join("int8.onnx")).unwrap(), "QuantizeLinear"));
}

#[test]
fn what_cannot_be_exported_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    write(&path.join("net.safetensors"), false);
    let message = error(path, &["export", "net.safetensors", "--onnx", "net.onnx", "--int8"]);
    assert!(message.starts_with("net.safetensors: the graph has no ranges of values"), "{message}");
    assert!(!path.join("net.onnx").exists());
    files::write_safetensors(&path.join("float.safetensors"), &files::network(), None);
    text(path, &["pack", "float.safetensors"]);
    for file in ["float.safetensors", "float.ttq.safetensors"] {
        let message = error(path, &["export", file, "--onnx", "net.onnx"]);
        assert!(message.contains("without a graph"), "{message}");
    }
    fs::write(path.join("net.onnx"), "").unwrap();
    let message = error(path, &["export", "net.safetensors", "--onnx", "net.onnx"]);
    assert!(message.contains("already exists"), "{message}");
}
