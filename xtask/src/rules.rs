//! `cargo xtask rules`: what holds for every file of the project.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// No Rust file that a person writes is longer.
const LINES: usize = 600;
/// No file is larger.
const BYTES: u64 = 512 * 1024;
/// How a file begins that a command writes: nobody reads it from top to bottom.
const GENERATED: &str = "// @generated";
/// This file names what it forbids.
const OWN: &str = "xtask/src/rules.rs";

pub(crate) fn run() -> Result<()> {
    let root = crate::root();
    let output = Command::new("git").current_dir(&root).args(["ls-files"]).output().context("cannot start git")?;
    let mut complaints = Vec::new();
    for path in String::from_utf8_lossy(&output.stdout).lines() {
        let file = root.join(path);
        let Ok(metadata) = fs::metadata(&file) else { continue };
        complaints.extend(name_rule(path));
        complaints.extend(size_rule(path, metadata.len()));
        if let Ok(text) = fs::read_to_string(&file) {
            complaints.extend(text_rules(path, &text));
        }
    }
    if !complaints.is_empty() {
        bail!("{} house rules are broken:\n{}", complaints.len(), complaints.join("\n"));
    }
    println!("house rules hold");
    Ok(())
}

/// A file is named after what it holds.
fn name_rule(path: &str) -> Option<String> {
    let vague = ["utils", "util", "common", "base", "helpers", "misc"];
    let mut parts = Path::new(path).iter().filter_map(|part| Path::new(part).file_stem()?.to_str());
    parts.any(|part| vague.contains(&part)).then(|| format!("{path}: name it after what it holds"))
}

fn size_rule(path: &str, bytes: u64) -> Option<String> {
    (bytes > BYTES).then(|| format!("{path}: {bytes} bytes are more than {BYTES}"))
}

fn text_rules(path: &str, text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    let ending = Path::new(path).extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    if path == OWN {
        return complaints;
    }
    if ending == "rs" {
        let lines = text.lines().count();
        if lines > LINES && !text.starts_with(GENERATED) {
            complaints.push(format!("{path}: {lines} lines are more than {LINES}"));
        }
        for word in ["todo!", "unimplemented!", "FIXME"] {
            if text.contains(word) {
                complaints.push(format!("{path}: `{word}` is unfinished work"));
            }
        }
    }
    if ["rs", "toml", "md"].contains(&ending) {
        for folder in ["/work/", "/root/", "/tmp/"] {
            if text.contains(folder) {
                complaints.push(format!("{path}: `{folder}` is a path of one machine"));
            }
        }
    }
    // (A package that is a workspace of its own has no lints to take.)
    if path.ends_with("/Cargo.toml") && !text.contains("[lints]\nworkspace = true") && !text.contains("[workspace]") {
        complaints.push(format!("{path}: take the workspace's lints"));
    }
    complaints
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vague_names_are_refused_and_others_are_not() {
        assert!(name_rule("crates/a/src/utils.rs").is_some());
        assert!(name_rule("crates/a/src/common/mod.rs").is_some());
        assert!(name_rule("crates/a/src/threshold.rs").is_none());
    }

    #[test]
    fn long_unfinished_or_local_text_is_refused() {
        assert_eq!(text_rules("a.rs", &"x\n".repeat(LINES + 1)).len(), 1);
        assert!(text_rules("a.rs", &format!("{GENERATED} by a command\n{}", "x\n".repeat(LINES))).is_empty());
        assert_eq!(text_rules("a.rs", "fn f() { todo!() }").len(), 1);
        assert_eq!(text_rules("a.md", "see /root/x").len(), 1);
        assert_eq!(text_rules("crates/a/Cargo.toml", "[package]").len(), 1);
        assert!(text_rules("crates/a/Cargo.toml", "[lints]\nworkspace = true\n").is_empty());
        assert!(size_rule("a.bin", BYTES + 1).is_some() && size_rule("a.bin", BYTES).is_none());
    }
}
