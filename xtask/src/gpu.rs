//! `cargo xtask gpu bundle`: builds the program `gpu` and the tests of the kernels, and collects them with the data in
//! files of limited size, for transfer to a machine with a GPU.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Subcommand};

/// Maximum size of a file of the bundle in bytes.
const MAX_BYTES: u64 = 60_000_000;

/// Commands for machines with a GPU.
#[derive(Debug, Subcommand)]
pub(crate) enum Gpu {
    /// Builds the program with data tools, benchmarks and training, and the tests of the kernels, strips and compresses
    /// both, and adds the data.
    Bundle(Bundle),
}

#[derive(Debug, Args)]
pub(crate) struct Bundle {
    /// Directory of the bundle.
    #[arg(long, value_name = "DIR", default_value = "target/gpu-bundle")]
    out: PathBuf,
    /// CUDA version of the other machine in the notation of cudarc, e.g. 12080 or 13000 [default: the newest one that
    /// cudarc supports].
    #[arg(long, value_name = "VERSION")]
    cuda: Option<String>,
    /// Directory with CIFAR-10 [default: $TTQ_DATA, else the user's cache].
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Do not add the data.
    #[arg(long)]
    no_data: bool,
}

impl Gpu {
    pub(crate) fn run(&self) -> Result<()> {
        match self {
            Self::Bundle(bundle) => bundle.run(),
        }
    }
}

impl Bundle {
    fn run(&self) -> Result<()> {
        let out = std::path::absolute(&self.out)?;
        fs::create_dir_all(&out).with_context(|| format!("cannot create directory {}", out.display()))?;
        let (program, kernels) = (out.join("gpu"), out.join("kernels"));
        let arguments = ["build", "--package", "ttq-benchmarks", "--bin", "gpu", "--features", "autocast"];
        strip(&self.build(&arguments, "gpu")?, &program)?;
        let tests = ["test", "--package", "ttq-cubecl", "--features", "cuda", "--test", "kernels", "--no-run"];
        strip(&self.build(&tests, "kernels")?, &kernels)?;
        if !self.no_data {
            let mut mosaics = Command::new(&program);
            mosaics.arg("mosaics").arg("--out").arg(out.join("cifar-10"));
            if let Some(data) = &self.data {
                mosaics.arg("--data").arg(std::path::absolute(data)?);
            }
            run(&mut mosaics)?;
        }
        let mut bundle = vec![compress(&program)?, compress(&kernels)?];
        if !self.no_data {
            bundle.extend(files(&out.join("cifar-10"))?);
        }
        for file in &bundle {
            let bytes = fs::metadata(file).with_context(|| format!("cannot read {}", file.display()))?.len();
            println!("{:>12} bytes  {}", bytes, file.display());
            ensure!(bytes <= MAX_BYTES, "{} is larger than {MAX_BYTES} bytes", file.display());
        }
        println!();
        println!("on the other machine:");
        println!("  gunzip gpu.gz kernels.gz && chmod +x gpu kernels");
        println!("  ./kernels --include-ignored                               # the tests");
        println!("  ./gpu restore --mosaics cifar-10 --out data");
        println!("  ./gpu run packed steps cifar --data data --out results    # repeat until all tasks are finished");
        Ok(())
    }

    /// Builds a target and returns its executable, which contains symbols.
    fn build(&self, arguments: &[&str], target: &str) -> Result<PathBuf> {
        let mut cargo = Command::new("cargo");
        cargo.current_dir(crate::root()).args(arguments);
        cargo.args(["--profile", "training", "--message-format=json-render-diagnostics"]).stdout(Stdio::piped());
        if let Some(version) = &self.cuda {
            cargo.env("CUDARC_CUDA_VERSION", version);
        }
        let output = cargo.stderr(Stdio::inherit()).output().context("cannot start cargo")?;
        if !output.status.success() {
            bail!("cargo failed: see its message above");
        }
        let messages = String::from_utf8_lossy(&output.stdout);
        executable(&messages, target)
            .with_context(|| format!("cargo's output does not contain the executable of `{target}`"))
    }
}

/// Returns the executable of a target in the messages of cargo.
fn executable(messages: &str, target: &str) -> Option<PathBuf> {
    messages.lines().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        (message["target"]["name"] == target).then(|| message["executable"].as_str().map(PathBuf::from))?
    })
}

/// Copies a program without its symbols.
fn strip(from: &Path, to: &Path) -> Result<()> {
    run(Command::new("strip").arg("--strip-all").arg("-o").arg(to).arg(from))
}

/// Compresses a program with gzip and returns the path of the result.
fn compress(program: &Path) -> Result<PathBuf> {
    run(Command::new("gzip").args(["--best", "--force"]).arg(program))?;
    Ok(program.with_extension("gz"))
}

/// Runs a command; returns an error if it fails.
fn run(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command.status().with_context(|| format!("cannot start {name}"))?;
    if !status.success() {
        bail!("{name} failed: see its message above");
    }
    Ok(())
}

/// Returns the files of a directory in the order of their names.
fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_executable_of_a_target_is_found_in_the_messages_of_cargo() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"gpu"},"executable":null}
not json
{"reason":"compiler-artifact","target":{"name":"kernels"},"executable":"/t/kernels"}
{"reason":"compiler-artifact","target":{"name":"gpu"},"executable":"/t/gpu"}"#;
        assert_eq!(executable(messages, "gpu"), Some("/t/gpu".into()));
        assert_eq!(executable(messages, "absent"), None);
    }
}
