//! Tests that run `ttq` on small generated files and, with the environment variables `TTQ_DATA` and `TTQ_CASES`, on
//! published checkpoints and on files of other tools.

mod bad_input;
mod cases;
mod chain;
mod commands;
mod export;
mod files;
mod formats;
mod networks;
mod published;
mod web;

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

/// Runs `ttq` in a directory and returns its output.
fn ttq(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ttq")).current_dir(directory).args(arguments).output().expect("ttq was built")
}

/// Runs `ttq`, asserts that it succeeds, and returns its standard output.
#[track_caller]
fn text(directory: &Path, arguments: &[&str]) -> String {
    let output = ttq(directory, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty());
    String::from_utf8(output.stdout).expect("text")
}

/// Runs `ttq --json`, asserts that it succeeds, and returns the parsed output.
#[track_caller]
fn json(directory: &Path, arguments: &[&str]) -> Value {
    serde_json::from_str(&text(directory, &[arguments, &["--json"]].concat())).expect("JSON")
}

/// Runs `ttq`, asserts that it fails with exit code 1 and the same one-line message in text and JSON, and returns the
/// message.
#[track_caller]
fn error(directory: &Path, arguments: &[&str]) -> String {
    let output = ttq(directory, arguments);
    let stderr = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {stderr}");
    assert!(output.stdout.is_empty());
    let message = stderr.strip_prefix("error: ").and_then(|rest| rest.strip_suffix('\n')).expect("error: message");
    assert!(!message.contains('\n'), "{message}");
    let again = ttq(directory, &[arguments, &["--json"]].concat());
    assert_eq!(again.status.code(), Some(1));
    let answer: Value = serde_json::from_slice(&again.stdout).expect("JSON");
    assert_eq!(answer, serde_json::json!({ "error": message }));
    message.to_owned()
}
