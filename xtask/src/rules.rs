//! `cargo xtask rules`: rules that every file of the repository must follow.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Maximum number of lines of a Rust file that is not generated.
const MAX_LINES: usize = 600;
/// Maximum size of a file in bytes.
const MAX_BYTES: u64 = 512 * 1024;
/// First characters of a generated file.
const GENERATED: &str = "// @generated";
/// The only file that may look beside the repository; it passes what it finds on in environment variables.
const CI: &str = ".ci/run";
/// This file, which contains the words that it forbids.
const THIS_FILE: &str = "xtask/src/rules.rs";

pub(crate) fn run() -> Result<()> {
    let root = crate::root();
    let output = Command::new("git").current_dir(&root).args(["ls-files"]).output().context("cannot start git")?;
    let mut violations = Vec::new();
    for path in String::from_utf8_lossy(&output.stdout).lines() {
        let file = root.join(path);
        let Ok(metadata) = fs::metadata(&file) else { continue };
        violations.extend(name_rule(path));
        violations.extend(size_rule(path, metadata.len()));
        if let Ok(text) = fs::read_to_string(&file) {
            violations.extend(text_rules(path, &text));
        }
    }
    violations.extend(crate::snippets::violations(&root)?);
    if !violations.is_empty() {
        bail!("{} violations of the house rules:\n{}", violations.len(), violations.join("\n"));
    }
    println!("all house rules are followed");
    Ok(())
}

/// Files and directories must have specific names.
fn name_rule(path: &str) -> Option<String> {
    let vague = ["utils", "util", "common", "base", "helpers", "misc"];
    let mut parts = Path::new(path).iter().filter_map(|part| Path::new(part).file_stem()?.to_str());
    parts
        .any(|part| vague.contains(&part))
        .then(|| format!("{path}: the name is too general: name it after its content"))
}

fn size_rule(path: &str, bytes: u64) -> Option<String> {
    (bytes > MAX_BYTES).then(|| format!("{path}: {bytes} bytes, the maximum is {MAX_BYTES}"))
}

fn text_rules(path: &str, text: &str) -> Vec<String> {
    let mut violations = Vec::new();
    let extension = Path::new(path).extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    if path == THIS_FILE {
        return violations;
    }
    if extension == "rs" {
        let lines = text.lines().count();
        if lines > MAX_LINES && !text.starts_with(GENERATED) {
            violations.push(format!("{path}: {lines} lines, the maximum is {MAX_LINES}: split the file"));
        }
        for word in ["todo!", "unimplemented!", "FIXME"] {
            if text.contains(word) {
                violations.push(format!("{path}: `{word}` marks unfinished code"));
            }
        }
    }
    if ["rs", "toml", "md"].contains(&extension) {
        for folder in ["/home/", "/root/", "/tmp/"] {
            if text.contains(folder) {
                violations.push(format!("{path}: `{folder}` is a machine-specific path"));
            }
        }
    }
    if path != CI && text.contains("../shared") {
        violations.push(format!("{path}: `../shared` is above the repository: read an environment variable"));
    }
    // A package that is its own workspace cannot inherit lints.
    if path.ends_with("/Cargo.toml") && !text.contains("[lints]\nworkspace = true") && !text.contains("[workspace]") {
        violations.push(format!("{path}: inherit the lints of the workspace: `[lints]` with `workspace = true`"));
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn general_names_are_rejected_and_specific_names_are_accepted() {
        assert!(name_rule("crates/a/src/utils.rs").is_some());
        assert!(name_rule("crates/a/src/common/mod.rs").is_some());
        assert!(name_rule("crates/a/src/threshold.rs").is_none());
    }

    #[test]
    fn paths_above_the_repository_are_rejected_except_in_the_script_of_ci() {
        let text = r#"join("../../../shared/cases")"#;
        assert_eq!(text_rules("crates/a/tests/a.rs", text).len(), 1);
        assert_eq!(text_rules("tools/a.py", text).len(), 1);
        assert!(text_rules(CI, text).is_empty());
    }

    #[test]
    fn long_unfinished_and_machine_specific_files_are_rejected() {
        assert_eq!(text_rules("a.rs", &"x\n".repeat(MAX_LINES + 1)).len(), 1);
        assert!(text_rules("a.rs", &format!("{GENERATED} by a command\n{}", "x\n".repeat(MAX_LINES))).is_empty());
        assert_eq!(text_rules("a.rs", "fn f() { todo!() }").len(), 1);
        assert_eq!(text_rules("a.md", "see /root/x").len(), 1);
        assert_eq!(text_rules("crates/a/Cargo.toml", "[package]").len(), 1);
        assert!(text_rules("crates/a/Cargo.toml", "[lints]\nworkspace = true\n").is_empty());
        assert!(size_rule("a.bin", MAX_BYTES + 1).is_some() && size_rule("a.bin", MAX_BYTES).is_none());
    }
}
