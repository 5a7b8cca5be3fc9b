//! The networks of the tests as files, for other machines: `cargo xtask web --check` runs them in a browser.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::thread;

use serde_json::json;
use ttq_packed::Coding;
use ttq_packed::network::{Graph, Int8};

/// Number of networks of each test.
static NETWORKS: Mutex<BTreeMap<String, usize>> = Mutex::new(BTreeMap::new());

/// Writes a network, an item, and the outputs that it must have within a tolerance, to `networks` in cargo's folder for tests.
pub fn write(graph: &Graph, x: &[f32], expected: &[f64], tolerance: f64, int8: Int8) {
    let test = thread::current().name().unwrap_or("test").replace("::", "-");
    let number = {
        let mut networks = NETWORKS.lock().unwrap();
        let number = networks.entry(test.clone()).or_default();
        *number += 1;
        *number
    };
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("networks");
    fs::create_dir_all(&directory).unwrap();
    let path = directory.join(format!("{test}-{number}"));
    fs::write(path.with_extension("safetensors"), graph.write(Coding::Plain, None).unwrap()).unwrap();
    // As `Int8::from_number` reads it.
    let int8 = [Int8::Off, Int8::Inner, Int8::All].iter().position(|choice| *choice == int8);
    let case = json!({ "input": x, "expected": expected, "tolerance": tolerance, "int8": int8 });
    fs::write(path.with_extension("json"), case.to_string()).unwrap();
}
