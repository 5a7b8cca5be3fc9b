//! `cargo xtask gpu bundle`: one program and the data, in pieces that are easy to carry to a machine with a GPU.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Subcommand};

/// Bytes of the largest piece.
const PIECE: u64 = 60_000_000;

/// Work on a machine with a GPU.
#[derive(Debug, Subcommand)]
pub(crate) enum Gpu {
    /// Builds the program that carries data, benchmarks and training, strips it, and puts the data beside it.
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
        let program = out.join("gpu");
        strip(&self.build()?, &program)?;
        if !self.no_data {
            let mut mosaics = Command::new(&program);
            mosaics.arg("mosaics").arg("--out").arg(out.join("cifar-10"));
            if let Some(data) = &self.data {
                mosaics.arg("--data").arg(std::path::absolute(data)?);
            }
            succeed(&mut mosaics)?;
        }
        let mut pieces = vec![program];
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
        println!("  ./gpu restore --mosaics cifar-10 --out data");
        println!("  ./gpu run steps cifar --data data --out results    # again, until it says that it is done");
        Ok(())
    }

    /// The program, with symbols.
    fn build(&self) -> Result<PathBuf> {
        let root = crate::root();
        let mut cargo = Command::new("cargo");
        // The same packages as in a plain build, so that Burn is compiled once, with one set of features.
        cargo.current_dir(&root).args(["build", "--release", "--workspace", "--example", "gpu"]);
        if let Some(version) = &self.cuda {
            cargo.env("CUDARC_CUDA_VERSION", version);
        }
        succeed(&mut cargo)?;
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
        Ok(target.join("release/examples").join(format!("gpu{}", std::env::consts::EXE_SUFFIX)))
    }
}

fn strip(from: &Path, to: &Path) -> Result<()> {
    succeed(Command::new("strip").arg("--strip-all").arg("-o").arg(to).arg(from))
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
