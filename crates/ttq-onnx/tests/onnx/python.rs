//! Exported models in Python: ONNX's checker and shape inference, and outputs of ONNX Runtime.

use std::fs;
use std::path::Path;
use std::process::Command;

use fastrand::Rng;
use tempfile::TempDir;
use ttq_onnx::{ExportOptions, export};
use ttq_packed::network::{Arena, CompileOptions, Graph, Int8, Network, RangeRule};

use crate::graphs::{Named, all, encoder_layer};
use crate::resnet::{floats, resnet};

/// Number of items that each model computes, together and one by one.
const ITEMS: usize = 3;

/// Runs the checks on the models of a folder, unless no Python with the modules is installed.
fn check(folder: &Path, arguments: &[&str]) {
    let python = std::env::var("TTQ_PYTHON").unwrap_or("python3".into());
    let usable = Command::new(&python).args(["-c", "import numpy, onnx, onnxruntime"]).output();
    if !usable.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: `{python}` cannot import onnx and onnxruntime; set TTQ_PYTHON to a Python that has them");
        return;
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/onnx/check.py");
    let output = Command::new(&python).args(["-B", script]).arg(folder).args(arguments).output().unwrap();
    println!("{}", String::from_utf8_lossy(&output.stdout));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Writes a model with inputs and the outputs that are expected.
fn write(folder: &TempDir, index: usize, name: &str, model: &[u8], x: &[f32], y: &[f32]) {
    let bytes = |values: &[f32]| values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    let parts: [(&str, &[u8]); 4] =
        [("onnx", model), ("input", &bytes(x)), ("expected", &bytes(y)), ("name", name.as_bytes())];
    for (extension, contents) in parts {
        fs::write(folder.path().join(format!("{index:03}.{extension}")), contents).unwrap();
    }
}

fn input(graph: &Graph, rng: &mut Rng) -> Vec<f32> {
    floats(rng, ITEMS * graph.shape(graph.input()).dims.iter().product::<usize>())
}

fn evaluate(graph: &Graph, x: &[f32]) -> Vec<f32> {
    x.chunks(x.len() / ITEMS).flat_map(|x| graph.evaluate(x).unwrap()).map(|y| y as f32).collect()
}

#[test]
fn models_compute_what_graphs_compute() {
    let folder = tempfile::tempdir().unwrap();
    let mut rng = Rng::with_seed(1);
    let mut graphs: Vec<Named> = all();
    graphs.push(("ResNet-20".into(), resnet(&mut rng, 3, 32, 0.3)));
    for (index, (name, graph)) in graphs.iter().enumerate() {
        let x = input(graph, &mut rng);
        let model = export(graph, &ExportOptions::default()).unwrap();
        write(&folder, index, name, &model, &x, &evaluate(graph, &x));
    }
    check(folder.path(), &["--tolerance", "1e-4"]);
}

#[test]
fn models_of_bytes_are_close_to_networks_of_bytes() {
    let mut rng = Rng::with_seed(2);
    let folder = tempfile::tempdir().unwrap();
    let residual = resnet(&mut rng, 3, 32, 0.3);
    let cases = [
        ("ResNet-20 without ends", residual.clone(), RangeRule::MinMax, Int8::Inner),
        ("ResNet-20", residual.clone(), RangeRule::MinMax, Int8::All),
        ("ResNet-20 with clipped ranges", residual, RangeRule::Percentile(1e-3), Int8::Inner),
        ("an encoder layer", encoder_layer(7, 24, 3), RangeRule::MinMax, Int8::All),
    ];
    for (index, (name, mut graph, rule, int8)) in cases.into_iter().enumerate() {
        let x = input(&graph, &mut rng);
        graph.calibrate(&x, rule).unwrap();
        let model = export(&graph, &ExportOptions::default().with_int8(int8)).unwrap();
        let network = Network::compile(&graph, &CompileOptions::default().with_int8(int8)).unwrap();
        let mut y = vec![0.0; ITEMS * network.output_dims().iter().product::<usize>()];
        network.run(&mut Arena::new(), &x, &mut y).unwrap();
        write(&folder, 2 * index, &format!("{name}, compiled"), &model, &x, &y);
        if rule == RangeRule::MinMax {
            write(&folder, 2 * index + 1, &format!("{name}, defined"), &model, &x, &evaluate(&graph, &x));
        }
    }
    check(folder.path(), &["--tolerance", "0.03", "--bytes"]);
}
