//! The command, run on small files made here and, with `TTQ_DATA`, on published ones.

mod bad_input;
mod commands;
mod files;
mod formats;
mod published;

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

/// Runs `ttq` in a folder.
fn ttq(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ttq")).current_dir(folder).args(arguments).output().expect("ttq was built")
}

/// Runs it and takes what it prints; it must succeed.
#[track_caller]
fn text(folder: &Path, arguments: &[&str]) -> String {
    let output = ttq(folder, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty());
    String::from_utf8(output.stdout).expect("text")
}

/// The same with `--json`.
#[track_caller]
fn json(folder: &Path, arguments: &[&str]) -> Value {
    serde_json::from_str(&text(folder, &[arguments, &["--json"]].concat())).expect("JSON")
}

/// Runs it and takes its sentence; it must fail with exit code 1, say the same in JSON, and print nothing else.
#[track_caller]
fn error(folder: &Path, arguments: &[&str]) -> String {
    let output = ttq(folder, arguments);
    let stderr = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {stderr}");
    assert!(output.stdout.is_empty());
    let sentence = stderr.strip_prefix("error: ").and_then(|rest| rest.strip_suffix('\n')).expect("error: sentence");
    assert!(!sentence.contains('\n'), "{sentence}");
    let again = ttq(folder, &[arguments, &["--json"]].concat());
    assert_eq!(again.status.code(), Some(1));
    let answer: Value = serde_json::from_slice(&again.stdout).expect("JSON");
    assert_eq!(answer, serde_json::json!({ "error": sentence }));
    sentence.to_owned()
}
