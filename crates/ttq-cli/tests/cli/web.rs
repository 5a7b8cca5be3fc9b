//! Tests of `ttq web` without a browser: `cargo xtask web --check` opens the page.

use std::fs;
use std::path::Path;

use crate::commands::assert_documented;
use crate::{error, json};

/// Writes the MNIST network under a name that must be escaped, and two modules without contents.
fn write(path: &Path) {
    let network = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/mnist/network.safetensors");
    fs::copy(network, path.join("a&b.safetensors")).unwrap();
    fs::create_dir(path.join("modules")).unwrap();
    for name in ["simd.wasm", "scalar.wasm"] {
        fs::write(path.join("modules").join(name), b"\0asm\x01\0\0\0").unwrap();
    }
}

#[test]
fn web_writes_one_file_that_refers_to_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    write(path);
    let answer = json(path, &["web", "a&b.safetensors", "--modules", "modules"]);
    assert_documented(&answer.as_object().unwrap().keys().cloned().collect());
    let page = fs::read_to_string(path.join("a&b.html")).unwrap();
    assert_eq!(answer["output_bytes"], page.len());
    assert_eq!(answer["module_bytes"], serde_json::json!([8, 8]));
    assert!(page.contains("data-name=\"a&amp;b.safetensors\""));
    for reference in ["src=", "http:", "https:", "import ", "fetch("] {
        assert!(!page.contains(reference), "{reference}");
    }
    assert_eq!(page.matches("</script>").count(), 4);
}

#[test]
fn web_without_modules_says_how_to_build_them() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    write(path);
    let message = error(path, &["web", "a&b.safetensors"]);
    assert!(message.starts_with("target/web/simd.wasm: ") && message.contains("`cargo xtask web`"), "{message}");
    fs::write(path.join("modules/scalar.wasm"), "text").unwrap();
    let message = error(path, &["web", "a&b.safetensors", "--modules", "modules"]);
    assert!(message.starts_with("modules/scalar.wasm: is no WebAssembly module"), "{message}");
}
