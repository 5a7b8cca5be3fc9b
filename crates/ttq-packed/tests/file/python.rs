//! The recipe for Python gives the codes.

use std::process::Command;

use fastrand::Rng;
use ttq_packed::{Coding, PackedModel};

use crate::random;

/// Prints each weight as `name shape values`.
const PRINT: &str = r#"
import sys
sys.path.insert(0, sys.argv[1])
from codes import codes
for name, array in codes(sys.argv[2]):
    assert array.dtype == "int8"
    print(name, list(array.shape), array.ravel().tolist())
"#;

#[test]
fn python_reads_the_integer_codes_in_their_shape() {
    let python = std::env::var("TTQ_PYTHON").unwrap_or("python3".into());
    let usable = Command::new(&python).args(["-c", "import numpy, safetensors"]).output();
    if !usable.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: `{python}` has no safetensors and numpy; set TTQ_PYTHON to one that has");
        return;
    }
    let mut rng = Rng::with_seed(1);
    let mut model = PackedModel::default();
    for (index, shape) in [&[16, 3, 3, 3][..], &[7, 5], &[3], &[], &[0, 4]].into_iter().enumerate() {
        model.weights.insert(format!("layer{index}"), random::weight(&mut rng, shape, 0.5, true));
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    model.save(&path, Coding::Plain).unwrap();
    let recipe = concat!(env!("CARGO_MANIFEST_DIR"), "/python");
    let output = Command::new(&python).args(["-B", "-c", PRINT, recipe]).arg(&path).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let line = |(name, weight): (&String, &ttq_packed::TernaryWeight)| {
        format!("{name} {:?} {:?}\n", weight.shape(), weight.codes().unpack())
    };
    let expected: String = model.weights.iter().map(line).collect();
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
}
