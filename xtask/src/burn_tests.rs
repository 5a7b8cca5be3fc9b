//! `cargo xtask burn-tests`: runs the backend tests of Burn's repository on Flex and on ttq-cpu, with operations recorded
//! and with every operation computed at once.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};

/// The release of Burn whose tests this command knows.
const BURN: &str = "0.21.0";
/// The test targets of the generated crate.
const SUITES: [&str; 2] = ["tensor", "autodiff"];

/// A backend that the tests run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Backend {
    /// Flex, on which ttq-cpu is built.
    Flex,
    /// ttq-cpu.
    Cpu,
    /// ttq-cpu without recording, `TTQ_CPU_EAGER=1`.
    Eager,
}

/// Options of `cargo xtask burn-tests`.
#[derive(Debug, Args)]
pub(crate) struct BurnTests {
    /// Checkout of Burn's repository at v0.21.0.
    #[arg(long, value_name = "DIR")]
    burn: PathBuf,
    /// Run the tests on this backend only [default: all].
    #[arg(long)]
    backend: Option<Backend>,
    /// Arguments of the test programs, after `--`, e.g. the beginning of a test's name.
    #[arg(last = true)]
    more: Vec<String>,
}

impl BurnTests {
    /// Generates the crate, runs the tests and prints what failed.
    ///
    /// # Errors
    /// Returns an error if the directory is not a checkout of Burn at the right version, if the tests do not compile, if
    /// a test program ends early, or if a test fails on ttq-cpu that does not fail on Flex.
    pub(crate) fn run(&self) -> Result<()> {
        let package = generate(&self.burn)?;
        let backends = self.backend.map_or_else(|| Backend::value_variants().to_vec(), |backend| vec![backend]);
        let (mut known, mut new) = (BTreeMap::new(), BTreeMap::new());
        for backend in backends {
            for suite in SUITES {
                let outcome = outcome(&self.run_suite(&package, backend, suite)?);
                println!("{backend:?}, {suite}: {}", outcome.summary);
                for (test, message) in outcome.failed {
                    let test = format!("{suite} {test}");
                    match backend {
                        Backend::Flex => known.insert(test, message),
                        _ if known.contains_key(&test) => None,
                        _ => new.insert(format!("{backend:?}, {test}"), message),
                    };
                }
            }
        }
        for (title, tests) in [("Failed on Flex", &known), ("Failed on ttq-cpu alone", &new)] {
            tests.first_key_value().inspect(|_| println!("\n{title}:"));
            tests.iter().for_each(|(test, message)| println!("  {test}: {message}"));
        }
        ensure!(new.is_empty(), "{} tests failed: the logs are in {}", new.len(), package.display());
        Ok(())
    }

    /// Runs one suite and returns the output of its tests, which is also written to a file.
    fn run_suite(&self, package: &Path, backend: Backend, suite: &str) -> Result<String> {
        let mut command = Command::new("cargo");
        command.current_dir(package).env("CARGO_TARGET_DIR", package.join("target"));
        command.args(["test", "--test", suite]);
        if backend != Backend::Flex {
            command.args(["--features", "ttq"]);
        }
        // The tests' tensors are small.
        command.env("TTQ_CPU_MIN_RECORDED", "1");
        command.env("TTQ_CPU_EAGER", if backend == Backend::Eager { "1" } else { "" });
        let output = command.arg("--").args(&self.more).stderr(std::process::Stdio::inherit()).output();
        let log = String::from_utf8_lossy(&output.context("cannot start cargo")?.stdout).into_owned();
        let path = package.join(format!("{backend:?}-{suite}.log").to_lowercase());
        fs::write(&path, &log).with_context(|| format!("cannot write {}", path.display()))?;
        ensure!(log.contains("test result: "), "the suite {suite} did not finish: see above and {}", path.display());
        Ok(log)
    }
}

/// Writes the crate that includes the tests and returns its directory.
fn generate(burn: &Path) -> Result<PathBuf> {
    let manifest = fs::read_to_string(burn.join("Cargo.toml")).unwrap_or_default();
    let tests = burn.join("crates/burn-backend-tests/tests");
    if !manifest.contains(&format!("version = \"{BURN}\"")) || !tests.is_dir() {
        bail!(
            "{} is not a checkout of Burn {BURN}: `git clone --branch v{BURN} https://github.com/tracel-ai/burn`",
            burn.display()
        );
    }
    let root = crate::root();
    let package = std::env::var_os("CARGO_TARGET_DIR").map_or(root.join("target"), PathBuf::from).join("burn-tests");
    let package = std::path::absolute(package)?;
    let cpu = root.join("crates/ttq-cpu").display().to_string();
    write(&package.join("Cargo.toml"), &include_str!("burn_tests/manifest.toml").replace("TTQ_CPU", &cpu))?;
    write(&package.join("src/lib.rs"), include_str!("burn_tests/lib.rs"))?;
    write(&package.join("tests/tensor.rs"), include_str!("burn_tests/tensor.rs"))?;
    write(&package.join("tests/autodiff.rs"), include_str!("burn_tests/autodiff.rs"))?;
    if !package.join("Cargo.lock").exists() {
        // The versions of all dependencies that the workspace has too.
        fs::copy(root.join("Cargo.lock"), package.join("Cargo.lock"))?;
    }
    SUITES.iter().try_for_each(|suite| copy(&tests.join(suite), &package.join("tests/burn").join(suite)))?;
    Ok(package)
}

/// Copies the tests in a directory and replaces what only Burn's dispatching backend has.
fn copy(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from).with_context(|| format!("cannot open {}", from.display()))? {
        let entry = entry?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy(&from, &to)?;
        } else {
            let text = fs::read_to_string(&from).with_context(|| format!("cannot read {}", from.display()))?;
            let scheme = "burn_backend_tests::default_quant_scheme()";
            write(&to, &text.replace("TestBackend::default_quant_scheme(&device)", scheme))?;
        }
    }
    Ok(())
}

/// Writes a file, unless it has this text already: a file that is written again is compiled again.
fn write(path: &Path, text: &str) -> Result<()> {
    if fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    let directory = path.parent().context("the path has a directory")?;
    fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// The result of a test program.
struct Outcome {
    /// The number of tests passed, failed and ignored, in libtest's words.
    summary: String,
    /// The first line of the message of each failed test.
    failed: BTreeMap<String, String>,
}

/// Reads the output of a test program.
fn outcome(log: &str) -> Outcome {
    let summary = log.lines().rev().find_map(|line| line.strip_prefix("test result: ")).unwrap_or_default().to_owned();
    let mut failed = BTreeMap::new();
    for line in log.lines() {
        if let Some(test) = line.strip_prefix("test ").and_then(|line| line.strip_suffix(" ... FAILED")) {
            let test = test.trim_end_matches(" - should panic");
            failed.insert(test.to_owned(), message(log, test).unwrap_or_default().to_owned());
        }
    }
    Outcome { summary, failed }
}

/// Returns the line after the position of a test's panic.
fn message<'a>(log: &'a str, test: &str) -> Option<&'a str> {
    let (_, report) = log.split_once(&format!("---- {test} stdout ----"))?;
    let mut lines = report.lines().skip(1).take_while(|line| !line.starts_with("---- "));
    lines.by_ref().find(|line| line.contains("panicked at")).and_then(|_| lines.next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_tests_have_the_first_line_of_their_message() {
        let log = "\
running 3 tests
test tensor::add ... ok
test tensor::empty - should panic ... FAILED
test tensor::sub ... FAILED

failures:

---- tensor::empty stdout ----
note: test did not panic as expected

---- tensor::sub stdout ----

thread 'tensor::sub' (7) panicked at tests/sub.rs:3:5:
1 is not 2
details
note: run with `RUST_BACKTRACE=1`

test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s
";
        let outcome = outcome(log);
        let failed: Vec<_> = outcome.failed.iter().map(|(test, message)| (test.as_str(), message.as_str())).collect();
        assert_eq!(failed, [("tensor::empty", ""), ("tensor::sub", "1 is not 2")]);
        assert!(outcome.summary.starts_with("FAILED. 1 passed; 2 failed"));
    }
}
