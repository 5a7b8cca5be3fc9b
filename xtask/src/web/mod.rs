//! `cargo xtask web`: builds the WebAssembly modules and the page of the MNIST network, tests the page in Chromium, and measures it.

mod bench;
mod browser;
mod check;

use std::env;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::toolchain::{Toolchain, asks};

/// The environment variable with the path of the command `ttq`.
const PROGRAM: &str = "TTQ";
const TARGET: &str = "wasm32-unknown-unknown";
const TOOLCHAIN: Toolchain = Toolchain { variable: "WEB_RUSTC", target: TARGET };
/// The network of the page.
const NETWORK: &str = "models/mnist/network.safetensors";
/// The modules, and the features of the processor that each requires.
const MODULES: [(&str, &str); 2] = [("simd", "-C target-feature=+simd128"), ("scalar", "")];

/// Kernels have vectors of their own and are always inlined; the code around them runs once per network.
const SMALL: &str = "-C no-vectorize-loops -C no-vectorize-slp -C llvm-args=-inline-threshold=25";

/// Options of `cargo xtask web`.
#[derive(Debug, Args)]
pub(crate) struct Web {
    /// Tests the page in Chromium.
    #[arg(long)]
    check: bool,
    /// Compares the kernels of packed weights with vectors and without, in Chromium.
    #[arg(long)]
    kernels: bool,
    /// Compares both modules with onnxruntime-web, whose package is in this folder (`npm install onnxruntime-web` makes
    /// node_modules/onnxruntime-web).
    #[arg(long, value_name = "DIR")]
    bench: Option<PathBuf>,
}

impl Web {
    /// Builds the modules and the page, and does what the options say.
    ///
    /// # Errors
    /// Returns an error if a required program is missing, if a build fails, or if the page does not do what it must.
    pub(crate) fn run(&self) -> Result<()> {
        let page = page()?;
        if self.kernels {
            check::kernels(&build(&["--example", "kernels"], "examples/kernels.wasm")?)?;
        }
        if self.check {
            check::run(&page)?;
        }
        if let Some(package) = &self.bench {
            bench::run(&page, package)?;
        }
        Ok(())
    }
}

/// Tests the page in Chromium with the program `ttq` that the tests of the workspace have built.
///
/// # Errors
/// The errors of [`Web::run`].
pub(crate) fn check_built() -> Result<()> {
    let status = Command::new(env::current_exe()?)
        .args(["web", "--check"])
        .env(PROGRAM, target().join("debug/ttq"))
        .status()
        .context("cannot start this program")?;
    if !status.success() {
        bail!("the test of the page failed: see the messages above; to repeat it, run `cargo xtask web --check`");
    }
    Ok(())
}

/// Removes the networks that earlier tests have written.
pub(crate) fn forget_networks() -> Result<()> {
    let folder = networks();
    match fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("{} cannot be removed", folder.display()))
        }
        _ => Ok(()),
    }
}

/// Returns the folder of the networks that the tests of ttq-packed write.
fn networks() -> PathBuf {
    target().join("tmp/networks")
}

/// Returns a sentence about the first program or library that the test of the page requires and that this machine does not have; `None`
/// if there is none.
pub(crate) fn missing() -> Option<String> {
    if !TOOLCHAIN.has_library() && !TOOLCHAIN.has_sources() {
        return Some(format!(
            "the library `core` for {TARGET} is missing: run `rustup component add rust-src` or `rustup target add {TARGET}`, or set \
             WEB_RUSTC to a compiler with sources, such as that of Debian's rustc-web and rust-web-src"
        ));
    }
    browser::missing()
}

/// Returns the folder of the modules and pages.
fn folder() -> PathBuf {
    target().join("web")
}

fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| crate::root().join("target"), PathBuf::from)
}

/// Returns rustup's linker, for a compiler of another distribution, which can lack it.
fn linker() -> Option<PathBuf> {
    let libraries = asks("rustc".into(), &["--print", "target-libdir"]);
    Some(libraries.parent()?.join("bin/rust-lld")).filter(|linker| linker.is_file())
}

/// Builds the modules and the page. Returns its path.
fn page() -> Result<PathBuf> {
    for (module, (name, _)) in build(&["--lib"], "ttq_wasm.wasm")?.iter().zip(MODULES) {
        fs::copy(module, folder().join(name).with_extension("wasm"))
            .with_context(|| format!("{} cannot be copied", module.display()))?;
    }
    let (modules, page) = (folder(), folder().join("mnist.html"));
    let arguments = ["web", NETWORK, "--modules", path(&modules)?, "--output", path(&page)?, "--force"];
    print!("{}", ttq(&arguments)?);
    Ok(page)
}

/// Builds a target of ttq-wasm with vectors and without, both at once. Returns the paths of the modules.
fn build(target: &[&str], module: &str) -> Result<[PathBuf; 2]> {
    fs::create_dir_all(folder()).with_context(|| format!("cannot create {}", folder().display()))?;
    let builds = MODULES.map(|(name, features)| {
        let directory = folder().join(name);
        let mut flags = features.to_owned();
        let mut cargo = Command::new("cargo");
        cargo.current_dir(crate::root()).args(["build", "--profile", "web", "--package", "ttq-wasm", "--locked"]);
        cargo
            .args(target)
            .args(["--target", TARGET, "--target-dir"])
            .arg(&directory)
            .env("RUSTC", TOOLCHAIN.compiler());
        if TOOLCHAIN.has_sources() {
            // The library without messages of panics, which no page shows, and for small size.
            cargo.args(["-Zbuild-std=core,alloc", "-Zbuild-std-features=optimize_for_size"]);
            cargo.env("RUSTC_BOOTSTRAP", "1");
            flags += " -Zunstable-options -C panic=immediate-abort";
        }
        flags.push(' ');
        flags += SMALL;
        if let Some(linker) = linker() {
            cargo.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker);
        }
        cargo.env("RUSTFLAGS", flags).spawn()
    });
    for cargo in builds {
        let status = cargo.and_then(|mut cargo| cargo.wait()).context("cannot start cargo")?;
        if !status.success() {
            bail!("the build for {TARGET} failed: see the messages above; to repeat it, run `cargo xtask web`");
        }
    }
    Ok(MODULES.map(|(name, _)| folder().join(name).join(TARGET).join("web").join(module)))
}

/// Runs the command `ttq` in the root directory, `$TTQ` or built by cargo, and returns its output.
fn ttq(arguments: &[&str]) -> Result<String> {
    let mut command = match env::var_os(PROGRAM) {
        Some(program) => Command::new(program),
        None => {
            let mut cargo = Command::new("cargo");
            cargo.args(["run", "--quiet", "--package", "ttq-cli", "--"]);
            cargo
        }
    };
    let output = command.current_dir(crate::root()).args(arguments).stderr(Stdio::inherit()).output();
    let output = output.context("cannot start `ttq`")?;
    if !output.status.success() {
        bail!("`ttq {}` failed: see the messages above", arguments.join(" "));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn path(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{}: is no UTF-8", path.display()))
}
