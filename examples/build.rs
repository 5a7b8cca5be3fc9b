//! Versions that a run's record names: the compiler's, Burn's and the commit's.

use std::path::Path;
use std::process::Command;

fn main() {
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    let compiler = output(&rustc, &["--version"]).unwrap_or_default();
    println!("cargo::rustc-env=TTQ_RUSTC_VERSION={}", compiler.trim_start_matches("rustc "));
    println!("cargo::rustc-env=TTQ_BURN_VERSION={}", burn_version(Path::new("../Cargo.lock")).unwrap_or_default());
    let commit = output("git", &["rev-parse", "--short=12", "HEAD"]).unwrap_or_default();
    println!("cargo::rustc-env=TTQ_COMMIT={commit}");
    println!("cargo::rerun-if-changed=../Cargo.lock");
    // Git appends to this file with every commit.
    if let Some(log) = output("git", &["rev-parse", "--git-path", "logs/HEAD"]) {
        println!("cargo::rerun-if-changed={log}");
    }
}

/// What a program prints; nothing where it fails or is absent.
fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Burn's version in a lock file.
fn burn_version(lock: &Path) -> Option<String> {
    let text = std::fs::read_to_string(lock).ok()?;
    let (_, after) = text.split_once("name = \"burn\"\nversion = \"")?;
    Some(after.split('"').next()?.to_owned())
}
