//! `cargo xtask bench`: benchmark suites, each a bench target of the examples' package.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Instant, SystemTime};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

/// A benchmark suite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Suite {
    /// The quantizer, forward and backward, against a plain copy.
    Quantize,
    /// Packed files against safetensors of floats.
    Load,
    /// Products with packed weights against dense and other quantized ones.
    Packed,
    /// Seconds per training step: full precision against ternary, PyTorch beside them.
    Train,
}

impl Suite {
    /// The bench target, and the name of its results.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Quantize => "quantize",
            Self::Load => "load",
            Self::Packed => "packed",
            Self::Train => "train",
        }
    }
}

/// What to measure.
#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// The suite; without one, all of them.
    suite: Option<Suite>,
    /// Write the figures as JSON: of one suite to this file, of all into this directory.
    #[arg(long, value_name = "PATH")]
    json: Option<PathBuf>,
    /// Write the figures to benchmarks/NAME-DATE, to be committed; NAME is the machine's, `epyc-2-threads` say.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["json", "quick"], value_parser = machine_name)]
    record: Option<String>,
    /// Small sizes: does it run?
    #[arg(long)]
    quick: bool,
    /// Build the examples with these features instead of all, such as `cpu,flex,tui` without CUDA.
    #[arg(long, value_name = "LIST")]
    features: Option<String>,
    /// Leave candle out of the suite `packed`; with `--quick` it is anyway. It takes minutes to build, once.
    #[arg(long)]
    no_candle: bool,
    /// More arguments of the suite, after `--`; `-- --help` lists them.
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
                    candle().inspect_err(|error| eprintln!("candle is left out: {error:#}")).ok()
                }
                _ => None,
            };
            if let Some(directory) = output.as_deref().and_then(Path::parent) {
                std::fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
            }
            let start = Instant::now();
            self.run_suite(suite, output.as_deref(), candle.as_deref())?;
            times.push((suite.name(), start.elapsed()));
        }
        println!();
        for (suite, time) in times {
            println!("{suite:10} {:>6.0} s, with building it", time.as_secs_f64());
        }
        Ok(())
    }

    /// The file of a suite's figures.
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
        command.current_dir(crate::root()).args(["bench", "--bench", suite.name()]);
        if let Some(features) = &self.features {
            command.args(["--package", "ttq-examples", "--no-default-features", "--features", features]);
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
            bail!("the suite `{}` failed: its message is above", suite.name());
        }
        Ok(())
    }
}

/// Characters of a date: 2026-01-31.
pub(crate) const DATE: usize = 10;

/// A part of a directory's name.
fn machine_name(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    match !text.is_empty() && text.chars().all(plain) {
        true => Ok(text.to_owned()),
        false => Err("a name is made of letters, digits, - and _".into()),
    }
}

/// Builds candle's program for this machine: candle chooses its instructions when it is compiled.
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
        bail!("benchmarks/candle does not build: the message is above");
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
    fn json_is_a_file_for_one_suite_and_a_directory_for_all() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("figures");
        let path = path.display();
        assert_eq!(output(&format!("bench packed --json {path}")), Some(path.to_string().into()));
        assert_eq!(output(&format!("bench --json {path}")), Some(format!("{path}/packed.json").into()));
        assert_eq!(output("bench packed"), None);
    }

    #[test]
    fn a_record_has_the_machine_and_the_date_in_its_path() {
        let bench = parse("bench --record unit-test").unwrap();
        let path = bench.output(Suite::Load, UNIX_EPOCH).unwrap().unwrap();
        assert_eq!(path, crate::root().join("benchmarks/unit-test-1970-01-01/load.json"));
    }

    #[test]
    fn records_are_neither_quick_nor_anywhere_else() {
        for words in ["--record a --quick", "--record a --json b", "--record ../a", "-- --depth 8", "unknown"] {
            assert!(parse(&format!("bench {words}")).is_err(), "{words}");
        }
        assert_eq!(parse("bench train -- --depth 8").unwrap().more, ["--depth", "8"]);
    }
}
