//! `cargo xtask bench`: runs benchmark suites, which are the bench targets of the package `ttq-benchmarks`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Instant, SystemTime};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

/// A benchmark suite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Suite {
    /// Forward and backward pass of the quantizer, compared with a copy of the weight.
    Quantize,
    /// Loading of packed files, compared with safetensors files of floats.
    Load,
    /// Products with packed weights, compared with dense and other quantized products.
    Packed,
    /// Whole networks without Burn, compared with ONNX Runtime and OpenVINO.
    Network,
    /// The next bytes of a GPT with packed weights, compared with dense ones and with PyTorch.
    Generate,
    /// Time and memory of training steps in full precision and with ternary weights, also in PyTorch.
    Train,
}

impl Suite {
    /// Name of the bench target and of the results.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Quantize => "quantize",
            Self::Load => "load",
            Self::Packed => "packed",
            Self::Network => "network",
            Self::Generate => "generate",
            Self::Train => "train",
        }
    }
}

/// Options of `cargo xtask bench`.
#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// Suite to run [default: all].
    suite: Option<Suite>,
    /// Write the results as JSON: to this file for one suite, into this directory for all suites.
    #[arg(long, value_name = "PATH")]
    json: Option<PathBuf>,
    /// Write the results to benchmarks/NAME-DATE, where they are committed. NAME describes the machine, e.g.
    /// `epyc-2-threads`.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["json", "quick"], value_parser = machine_name)]
    record: Option<String>,
    /// Use small sizes, to test whether the suite runs.
    #[arg(long)]
    quick: bool,
    /// Build the suites with these features instead of the default `cuda`. `--features ""` builds for CPUs only.
    #[arg(long, value_name = "LIST")]
    features: Option<String>,
    /// Leave candle, whose first build takes minutes, out of the suite `packed`. `--quick` implies it.
    #[arg(long)]
    no_candle: bool,
    /// Arguments of the suite, after `--`; `-- --help` lists them.
    #[arg(last = true, requires = "suite")]
    more: Vec<String>,
}

impl Bench {
    pub(crate) fn run(&self) -> Result<()> {
        let mut times = Vec::new();
        for suite in self.suite.map_or_else(|| Suite::value_variants().to_vec(), |suite| vec![suite]) {
            let output = self.output(suite, SystemTime::now())?;
            let candle = match suite {
                Suite::Packed if !self.quick && !self.no_candle => {
                    candle().inspect_err(|error| eprintln!("continuing without candle: {error:#}")).ok()
                }
                _ => None,
            };
            if let Some(directory) = output.as_deref().and_then(Path::parent) {
                std::fs::create_dir_all(directory)
                    .with_context(|| format!("cannot create directory {}", directory.display()))?;
            }
            let start = Instant::now();
            self.run_suite(suite, output.as_deref(), candle.as_deref())?;
            times.push((suite.name(), start.elapsed()));
        }
        println!();
        for (suite, time) in times {
            println!("{suite:10} {:>6.0} s, including the build", time.as_secs_f64());
        }
        Ok(())
    }

    /// Returns the file for the results of a suite.
    fn output(&self, suite: Suite, now: SystemTime) -> Result<Option<PathBuf>> {
        let file = format!("{}.json", suite.name());
        let path = match (&self.record, &self.json) {
            (Some(name), _) => {
                let date = humantime::format_rfc3339_seconds(now).to_string();
                crate::root().join(format!("benchmarks/{name}-{}", &date[..DATE])).join(file)
            }
            (None, Some(path)) if self.suite.is_none() || path.is_dir() => std::path::absolute(path)?.join(file),
            (None, Some(path)) => std::path::absolute(path)?,
            (None, None) => return Ok(None),
        };
        Ok(Some(path))
    }

    fn run_suite(&self, suite: Suite, json: Option<&Path>, candle: Option<&Path>) -> Result<()> {
        let mut command = Command::new("cargo");
        command.current_dir(crate::root()).args(["bench", "--package", "ttq-benchmarks", "--bench", suite.name()]);
        if let Some(features) = &self.features {
            command.args(["--no-default-features", "--features", features]);
        }
        command.arg("--");
        for (option, path) in [("--json", json), ("--candle", candle)] {
            if let Some(path) = path {
                command.arg(option).arg(path);
            }
        }
        if self.quick {
            command.arg("--quick");
        }
        let status = command.args(&self.more).status().context("cannot start cargo")?;
        if !status.success() {
            bail!("the suite `{}` failed: see its message above", suite.name());
        }
        Ok(())
    }
}

/// Number of characters of a date such as 2026-01-31.
pub(crate) const DATE: usize = 10;

/// Parses the name of a machine, which becomes part of a directory's name.
fn machine_name(text: &str) -> Result<String, String> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    match !text.is_empty() && text.chars().all(is_allowed) {
        true => Ok(text.to_owned()),
        false => Err("a name may only contain letters, digits, - and _".into()),
    }
}

/// Builds the candle benchmark for the processor of this machine: candle selects instructions at compile time. Returns
/// the path of the program.
fn candle() -> Result<PathBuf> {
    let root = crate::root();
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(root.join("target"), PathBuf::from).join("candle");
    let status = Command::new("cargo")
        .current_dir(&root)
        .args(["build", "--release", "--locked", "--manifest-path", "benchmarks/candle/Cargo.toml", "--target-dir"])
        .arg(&target)
        .env("RUSTFLAGS", "-C target-cpu=native")
        .status()
        .context("cannot start cargo")?;
    if !status.success() {
        bail!("benchmarks/candle does not build: see the message above");
    }
    Ok(target.join("release").join(format!("ttq-bench-candle{}", std::env::consts::EXE_SUFFIX)))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        bench: Bench,
    }

    fn parse(words: &str) -> Result<Bench, clap::Error> {
        Line::try_parse_from(words.split_whitespace()).map(|line| line.bench)
    }

    fn output(words: &str) -> Option<PathBuf> {
        let day = UNIX_EPOCH + Duration::from_secs(86_400);
        parse(words).unwrap().output(Suite::Packed, day).unwrap()
    }

    #[test]
    fn json_names_a_file_for_one_suite_and_a_directory_for_all() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("figures");
        let path = path.display();
        assert_eq!(output(&format!("bench packed --json {path}")), Some(path.to_string().into()));
        assert_eq!(output(&format!("bench --json {path}")), Some(format!("{path}/packed.json").into()));
        assert_eq!(output("bench packed"), None);
    }

    #[test]
    fn the_path_of_a_record_contains_machine_and_date() {
        let bench = parse("bench --record unit-test").unwrap();
        let path = bench.output(Suite::Load, UNIX_EPOCH).unwrap().unwrap();
        assert_eq!(path, crate::root().join("benchmarks/unit-test-1970-01-01/load.json"));
    }

    #[test]
    fn records_cannot_be_quick_or_in_another_directory() {
        for words in ["--record a --quick", "--record a --json b", "--record ../a", "-- --depth 8", "unknown"] {
            assert!(parse(&format!("bench {words}")).is_err(), "{words}");
        }
        assert_eq!(parse("bench train -- --depth 8").unwrap().more, ["--depth", "8"]);
    }
}
