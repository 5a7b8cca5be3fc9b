//! Reading files in Python: with the code of the documentation, and with a reader written from the specification.

use std::path::Path;
use std::process::{Command, Output};

use fastrand::Rng;
use ttq_packed::{Coding, PackedModel, TernaryWeight};

use crate::random;

/// Python program that prints each weight as `name shape values`.
const PRINT: &str = r#"
import sys
sys.path.insert(0, sys.argv[1])
from codes import codes
for name, array in codes(sys.argv[2]):
    assert array.dtype == "int8"
    print(name, list(array.shape), array.ravel().tolist())
"#;

/// Runs Python and returns its output, or `None` if no Python with the modules is installed.
fn python(modules: &str, arguments: &[&str], file: &Path) -> Option<Output> {
    let python = std::env::var("TTQ_PYTHON").unwrap_or("python3".into());
    let usable = Command::new(&python).args(["-c", &format!("import {modules}")]).output();
    if !usable.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: `{python}` cannot import {modules}; set TTQ_PYTHON to a Python that has them");
        return None;
    }
    Some(Command::new(&python).arg("-B").args(arguments).arg(file).output().expect("Python was started before"))
}

/// Returns a random model with weights of several shapes and sparsities.
fn model() -> PackedModel {
    let mut rng = Rng::with_seed(1);
    let mut model = random::model(&mut rng);
    model.weights.clear();
    for (index, shape) in [&[16, 3, 3, 3][..], &[7, 5], &[3], &[], &[0, 4], &[80, 90]].into_iter().enumerate() {
        model.weights.insert(format!("layer{index}"), random::weight(&mut rng, shape, 0.15 * index as f64, index != 0));
    }
    model
}

#[track_caller]
fn assert_printed(output: &Output, model: &PackedModel, line: impl Fn(&str, &TernaryWeight) -> String) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let expected: String = model.weights.iter().map(|(name, weight)| line(name, weight) + "\n").collect();
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
}

#[test]
fn the_documented_python_code_returns_codes_in_the_shape_of_the_weight() {
    let folder = tempfile::tempdir().unwrap();
    let (model, path) = (model(), folder.path().join("model.safetensors"));
    model.save(&path, Coding::Plain).unwrap();
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/python");
    let Some(output) = python("numpy, safetensors", &["-c", PRINT, directory], &path) else { return };
    assert_printed(&output, &model, |name, weight| {
        format!("{name} {:?} {:?}", weight.shape(), weight.codes().unpack())
    });
}

#[test]
fn a_reader_from_the_specification_returns_the_same_codes_scales_and_checksum() {
    let folder = tempfile::tempdir().unwrap();
    let (mut model, path) = (model(), folder.path().join("model.safetensors"));
    let reader = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/file/reader.py");
    for (coding, config) in [(Coding::Plain, None), (Coding::Archive, Some("{\"grüße\": 1}".to_string()))] {
        model.config = config;
        model.save(&path, coding).unwrap();
        let Some(output) = python("json, struct, zlib", &[reader], &path) else { return };
        assert_printed(&output, &model, |name, weight| {
            let scales: Vec<u32> = weight.scales().as_flattened().iter().map(|scale| scale.to_bits()).collect();
            format!("{name} {:?} {} {scales:?} {:?}", weight.shape(), weight.output_axis(), weight.codes().unpack())
        });
    }
}
