//! `cargo xtask gpu bundle`: a program, the tests of the kernels and the data, in pieces that are easy to carry to a machine with a GPU.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Subcommand};

/// Bytes of the largest piece.
const PIECE: u64 = 60_000_000;

/// Work on a machine with a GPU.
#[derive(Debug, Subcommand)]
pub(crate) enum Gpu {
    /// Builds the program that carries data, benchmarks and training, and the tests of the kernels, strips both, and puts the data beside
    /// them.
    Bundle(Bundle),
}

#[derive(Debug, Args)]
pub(crate) struct Bundle {
    /// Where to write.
    #[arg(long, value_name = "DIR", default_value = "target/gpu")]
    out: PathBuf,
    /// The CUDA version of the other machine, as cudarc writes it: 12080, 13000, …; without it, the newest that cudarc knows.
    #[arg(long, value_name = "VERSION")]
    cuda: Option<String>,
    /// Directory with CIFAR-10 [default: $TTQ_DATA, else the user's cache].
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Leave the data out.
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
        fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
        let (program, kernels) = (out.join("gpu"), out.join("kernels"));
        strip(&self.build(&["build", "--example", "gpu", "--features", "ttq-examples/autocast"], "gpu")?, &program)?;
        let tests = ["test", "--package", "ttq-cubecl", "--features", "cuda", "--test", "kernels", "--no-run"];
        strip(&self.build(&tests, "kernels")?, &kernels)?;
        if !self.no_data {
            let mut mosaics = Command::new(&program);
            mosaics.arg("mosaics").arg("--out").arg(out.join("cifar-10"));
            if let Some(data) = &self.data {
                mosaics.arg("--data").arg(std::path::absolute(data)?);
            }
            succeed(&mut mosaics)?;
        }
        let mut pieces = vec![packed(&program)?, packed(&kernels)?];
        if !self.no_data {
            pieces.extend(files(&out.join("cifar-10"))?);
        }
        for piece in &pieces {
            let bytes = fs::metadata(piece).with_context(|| format!("cannot read {}", piece.display()))?.len();
            println!("{:>12} bytes  {}", bytes, piece.display());
            ensure!(bytes <= PIECE, "{} is larger than {PIECE} bytes", piece.display());
        }
        println!();
        println!("on the other machine:");
        println!("  gunzip gpu.gz kernels.gz && chmod +x gpu kernels");
        println!("  ./kernels                                                 # the tests");
        println!("  ./gpu restore --mosaics cifar-10 --out data");
        println!(
            "  ./gpu run packed steps cifar --data data --out results    # again, until there is nothing left to do"
        );
        Ok(())
    }

    /// The executable of a target, with symbols.
    fn build(&self, arguments: &[&str], target: &str) -> Result<PathBuf> {
        let mut cargo = Command::new("cargo");
        cargo.current_dir(crate::root()).args(arguments);
        cargo.args(["--release", "--message-format=json-render-diagnostics"]).stdout(Stdio::piped());
        if let Some(version) = &self.cuda {
            cargo.env("CUDARC_CUDA_VERSION", version);
        }
        let output = cargo.stderr(Stdio::inherit()).output().context("cannot start cargo")?;
        if !output.status.success() {
            bail!("cargo failed: its message is above");
        }
        let messages = String::from_utf8_lossy(&output.stdout);
        executable(&messages, target).with_context(|| format!("cargo names no executable of `{target}`"))
    }
}

/// The executable of a target in cargo's messages.
fn executable(messages: &str, target: &str) -> Option<PathBuf> {
    messages.lines().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        (message["target"]["name"] == target).then(|| message["executable"].as_str().map(PathBuf::from))?
    })
}

fn strip(from: &Path, to: &Path) -> Result<()> {
    succeed(Command::new("strip").arg("--strip-all").arg("-o").arg(to).arg(from))
}

/// A program in a third of its size or less.
fn packed(program: &Path) -> Result<PathBuf> {
    succeed(Command::new("gzip").args(["--best", "--force"]).arg(program))?;
    Ok(program.with_extension("gz"))
}

fn succeed(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command.status().with_context(|| format!("cannot start {name}"))?;
    if !status.success() {
        bail!("{name} failed: its message is above");
    }
    Ok(())
}

/// The files of a directory, by name.
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
    fn an_executable_is_found_among_the_messages_of_cargo() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"gpu"},"executable":null}
no json
{"reason":"compiler-artifact","target":{"name":"kernels"},"executable":"/t/kernels"}
{"reason":"compiler-artifact","target":{"name":"gpu"},"executable":"/t/gpu"}"#;
        assert_eq!(executable(messages, "gpu"), Some("/t/gpu".into()));
        assert_eq!(executable(messages, "absent"), None);
    }
}
