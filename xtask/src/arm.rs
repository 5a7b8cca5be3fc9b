//! `cargo xtask arm`: runs the tests of ttq-packed, which has NEON kernels, for AArch64 under QEMU.

use std::env;
use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

const TARGET: &str = "aarch64-unknown-linux-gnu";
const LINKER: &str = "aarch64-linux-gnu-gcc";
const EMULATOR: &str = "qemu-aarch64";

/// Runs the tests.
///
/// # Errors
/// Returns an error if a required program is missing, see [`missing`], or if a test fails.
pub(crate) fn run() -> Result<()> {
    if let Some(missing) = missing() {
        bail!("{missing}");
    }
    let status = Command::new("cargo")
        .current_dir(crate::root())
        .args(["test", "--release", "--package", "ttq-packed", "--tests", "--target", TARGET])
        // Damaged files are read on the host: nothing there depends on the processor.
        .args(["--", "--skip", "mutations"])
        .env("RUSTC", compiler())
        .env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", LINKER)
        .env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER", EMULATOR)
        // Static linking, because QEMU's user mode cannot start threads with some dynamic loaders.
        .env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS", "-C target-feature=+crt-static")
        .status()
        .context("cannot start cargo")?;
    if !status.success() {
        bail!("tests for AArch64 failed: see the messages above; to repeat them, run `cargo xtask arm`");
    }
    Ok(())
}

/// Returns a sentence about the first program or library that the tests require and that this machine does not have;
/// `None` if there is none.
pub(crate) fn missing() -> Option<String> {
    for program in [LINKER, EMULATOR] {
        if !starts(Command::new(program).arg("--version")) {
            return Some(format!("{program} is missing: install Debian's gcc-aarch64-linux-gnu and qemu-user"));
        }
    }
    let output = Command::new(compiler()).args(["--print", "target-libdir", "--target", TARGET]).output();
    let library = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
    (!Path::new(&library).is_dir()).then(|| {
        format!(
            "the standard library for {TARGET} is missing: run `rustup target add {TARGET}`, or set ARM_RUSTC to a \
             compiler that has it"
        )
    })
}

/// Returns the compiler: `$ARM_RUSTC`, else `$RUSTC`, else `rustc`.
fn compiler() -> OsString {
    env::var_os("ARM_RUSTC").or_else(|| env::var_os("RUSTC")).unwrap_or_else(|| "rustc".into())
}

/// Returns whether a command can be started and succeeds.
fn starts(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}
