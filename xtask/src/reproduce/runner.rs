//! Runs of an example: starts new runs, resumes interrupted runs and skips finished runs.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use clap::Args;

use super::Example;

/// File in the directory of a run with the arguments that determine its results.
const ARGUMENTS: &str = "arguments.json";

/// Options for the training program.
#[derive(Debug, Args)]
pub(crate) struct Program {
    /// Directory of the data [default: $TTQ_DATA, else the user's cache, else a download].
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Backend: auto, cpu or cuda; with the features of these names also flex or wgpu.
    #[arg(long)]
    pub(super) backend: Option<String>,
    /// Build the example with these features instead of the defaults, e.g. `cpu`.
    #[arg(long, value_name = "FEATURES", conflicts_with = "example_binary")]
    features: Option<String>,
    /// Use this program instead of building the example.
    #[arg(long, value_name = "FILE")]
    example_binary: Option<PathBuf>,
}

/// Starts runs of one example.
pub(crate) struct Runner<'a> {
    binary: PathBuf,
    program: &'a Program,
}

impl<'a> Runner<'a> {
    /// Creates a runner with the given program, or builds the example if none is given.
    ///
    /// # Errors
    /// Returns an error if the program does not exist or the example does not build.
    pub(crate) fn new(example: Example, program: &'a Program) -> Result<Self> {
        let binary = match &program.example_binary {
            Some(binary) if binary.is_file() => std::path::absolute(binary)?,
            Some(binary) => bail!("--example-binary {}: no such file", binary.display()),
            None => build(example.name(), program.features.as_deref())?,
        };
        Ok(Self { binary, program })
    }

    /// Executes the run in `directory`, starting from the checkpoint `init` if one is given. A finished run, which has
    /// a summary, is not repeated, and an interrupted run is resumed.
    ///
    /// # Errors
    /// Returns an error if `directory` contains a run with other arguments, or if the run fails or is stopped.
    pub(crate) fn run(&self, directory: &Path, arguments: &[String], init: Option<&Path>) -> Result<()> {
        fs::create_dir_all(directory).with_context(|| format!("cannot create directory {}", directory.display()))?;
        Self::check_arguments(directory, arguments)?;
        let summary = directory.join("summary.json");
        if summary.is_file() {
            return Ok(());
        }
        let mut command = Command::new(&self.binary);
        command.args(arguments).arg("--no-tui").arg("--out").arg(directory);
        for (option, path) in [("--init", init), ("--data", self.program.data.as_deref())] {
            if let Some(path) = path {
                command.arg(option).arg(std::path::absolute(path)?);
            }
        }
        if let Some(backend) = &self.program.backend {
            command.args(["--backend", backend]);
        }
        if directory.join("config.json").is_file() {
            command.arg("--resume");
        }
        if !watch(&mut command, &directory.join("output.txt"))? {
            bail!("the run in {} failed: see its message above", directory.display());
        }
        if !summary.is_file() {
            bail!("the run in {} was stopped: repeat the command to resume it", directory.display());
        }
        Ok(())
    }

    /// Compares the arguments with those of the run in the directory, or writes them if there is none.
    ///
    /// # Errors
    /// Returns an error if the arguments differ.
    fn check_arguments(directory: &Path, arguments: &[String]) -> Result<()> {
        let path = directory.join(ARGUMENTS);
        let Ok(text) = fs::read_to_string(&path) else {
            let text = serde_json::to_string(arguments)? + "\n";
            return fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()));
        };
        let found: Vec<String> =
            serde_json::from_str(&text).with_context(|| format!("{} is not a list of arguments", path.display()))?;
        if found != arguments {
            bail!(
                "the run in {} was started with `{}`, not with `{}`: choose another directory with --out",
                directory.display(),
                found.join(" "),
                arguments.join(" ")
            );
        }
        Ok(())
    }
}

/// Runs a command and writes its output to `log`, lines about epochs also to the terminal. Returns whether the command
/// succeeded.
fn watch(command: &mut Command, log: &Path) -> Result<bool> {
    let mut file = File::options()
        .create(true)
        .append(true)
        .open(log)
        .with_context(|| format!("cannot write {}", log.display()))?;
    let program = command.get_program().to_string_lossy().into_owned();
    let mut child = command.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot start {program}"))?;
    let output = child.stdout.take().context("the program's output is not piped")?;
    for line in BufReader::new(output).lines() {
        let line = line?;
        writeln!(file, "{line}")?;
        if line.contains(": epoch ") {
            println!("        {line}");
        }
    }
    Ok(child.wait()?.success())
}

/// Builds an example in release mode and returns the path of the program.
fn build(example: &str, features: Option<&str>) -> Result<PathBuf> {
    let mut command = Command::new("cargo");
    command.current_dir(crate::root()).args(["build", "--release", "-p", "ttq-examples", "--example", example]);
    if let Some(features) = features {
        command.args(["--no-default-features", "--features", features]);
    }
    command.args(["--message-format", "json-render-diagnostics"]).stderr(Stdio::inherit());
    let output = command.output().context("cannot start cargo")?;
    if !output.status.success() {
        bail!("the example {example} does not build: see cargo's message above");
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let binary = messages
        .filter(|message| message["target"]["name"] == example)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from));
    binary.with_context(|| format!("cargo's output does not contain the path of the example {example}"))
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// A program that logs its arguments in the directory of its run. The first start is interrupted.
    const PROGRAM: &str = r#"#!/bin/sh
while [ "$1" != --out ]; do shift; done
echo "$@" >> "$2/calls"
echo "ternary: epoch 1 is done"
if [ -f "$2/config.json" ]; then echo '{}' > "$2/summary.json"; else echo '{}' > "$2/config.json"; fi
"#;

    #[test]
    fn an_interrupted_run_is_resumed_and_a_finished_run_is_not_repeated() {
        let directory = std::env::temp_dir().join(format!("xtask-runner-{}", std::process::id()));
        let (binary, run) = (directory.join("program"), directory.join("run"));
        fs::create_dir_all(&directory).unwrap();
        fs::write(&binary, PROGRAM).unwrap();
        fs::set_permissions(&binary, fs::Permissions::from_mode(0o755)).unwrap();
        let program = Program { data: None, backend: None, features: None, example_binary: Some(binary) };
        let runner = Runner::new(Example::Mnist, &program).unwrap();
        let arguments = ["--seed".to_owned(), "1".to_owned()];
        let results: Vec<_> = (0..3).map(|_| runner.run(&run, &arguments, None)).collect();
        let other = runner.run(&run, &["--seed".to_owned(), "2".to_owned()], None);
        let calls = fs::read_to_string(run.join("calls")).unwrap();
        let output = fs::read_to_string(run.join("output.txt")).unwrap();
        fs::remove_dir_all(&directory).unwrap();

        assert!(results[0].as_ref().unwrap_err().to_string().contains("was stopped"));
        assert!(results[1].is_ok() && results[2].is_ok());
        let calls: Vec<bool> = calls.lines().map(|line| line.ends_with("--resume")).collect();
        assert_eq!(calls, [false, true]);
        assert_eq!(output.lines().count(), 2);
        assert!(other.unwrap_err().to_string().contains("was started with `--seed 1`, not with `--seed 2`"));
    }
}
