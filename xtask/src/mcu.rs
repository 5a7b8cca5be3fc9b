//! `cargo xtask mcu`: builds the example for a microcontroller, runs it in QEMU, and checks results and memory.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::toolchain::Toolchain;

const TARGET: &str = "thumbv7em-none-eabihf";
const TOOLCHAIN: Toolchain = Toolchain { variable: "MCU_RUSTC", target: TARGET };
const EMULATOR: &str = "qemu-system-arm";
/// Start of the RAM.
const RAM: u32 = 0x2000_0000;
/// Maximum bytes of flash, with the network, and of RAM, with 8 KiB for the stack.
const LIMITS: [u32; 2] = [150 << 10, 64 << 10];
/// Maximum difference from the logits that the host computes, relative to the largest of the digit.
const TOLERANCE: f64 = 1e-5;

/// Builds and runs the example in float32 and in int8.
///
/// # Errors
/// Returns an error if a required program is missing, see [`missing`], if the build fails, if a digit is wrong or a logit differs from
/// the host's, or if a limit is exceeded.
pub(crate) fn run() -> Result<()> {
    if let Some(missing) = missing() {
        bail!("{missing}");
    }
    for arithmetic in ["float32", "int8"] {
        let program = build(arithmetic)?;
        let [flash, ram] = memory(&fs::read(&program)?).context("the program is no ELF file for 32-bit Arm")?;
        // One instruction per nanosecond of the emulated time.
        let output = Command::new(EMULATOR)
            .args(["-M", "mps2-an386", "-nographic", "-monitor", "none", "-serial", "none", "-icount", "shift=0"])
            .args(["-semihosting-config", "enable=on,target=native", "-kernel"])
            .arg(&program)
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot start {EMULATOR}"))?;
        // The output over semihosting.
        let text = String::from_utf8_lossy(&output.stderr);
        let (instructions, difference) = match check(&text) {
            Ok(found) if output.status.success() => found,
            Ok(_) => bail!("{arithmetic}: the program failed:\n{text}"),
            Err(error) => bail!("{arithmetic}: {error}:\n{text}"),
        };
        println!(
            "{arithmetic:7}: ten of ten digits, logits within {difference:.1e} of the host's, {:.2} million instructions per image, \
             {flash} bytes of flash, {ram} of RAM",
            instructions / 1e6
        );
        for ((what, found), limit) in [("flash", flash), ("RAM", ram)].into_iter().zip(LIMITS) {
            if found > limit {
                bail!("{arithmetic}: {found} bytes of {what}, the limit is {limit}");
            }
        }
    }
    Ok(())
}

/// Returns a sentence about the first program or library that is required and that this machine does not have; `None` if there is
/// none.
pub(crate) fn missing() -> Option<String> {
    let starts =
        Command::new(EMULATOR).arg("--version").stdout(Stdio::null()).status().is_ok_and(|status| status.success());
    if !starts {
        return Some(format!("{EMULATOR} is missing: install Debian's qemu-system-arm"));
    }
    (!TOOLCHAIN.has_library() && !TOOLCHAIN.has_sources()).then(|| {
        format!(
            "the library `core` for {TARGET} is missing: run `rustup target add {TARGET}`, or set MCU_RUSTC to a compiler that has it, \
             or to one with its sources, such as that of Debian's rustc-web, rust-web-src and lld"
        )
    })
}

/// Builds the example and returns the program.
fn build(arithmetic: &str) -> Result<PathBuf> {
    let directory = crate::root().join("examples/mcu");
    let target =
        env::var_os("CARGO_TARGET_DIR").map_or_else(|| crate::root().join("target"), PathBuf::from).join("mcu");
    let mut cargo = Command::new("cargo");
    cargo
        .current_dir(&directory)
        .args(["build", "--release", "--locked", "--target", TARGET, "--target-dir"])
        .arg(&target);
    if arithmetic == "int8" {
        cargo.args(["--features", "int8"]);
    }
    if !TOOLCHAIN.has_library() {
        cargo.arg("-Zbuild-std=core").env("RUSTC_BOOTSTRAP", "1");
        cargo.env("CARGO_TARGET_THUMBV7EM_NONE_EABIHF_LINKER", "ld.lld");
    }
    let status = cargo.env("RUSTC", TOOLCHAIN.compiler()).status().context("cannot start cargo")?;
    if !status.success() {
        bail!("the build for {TARGET} failed: see the messages above; to repeat it, run `cargo xtask mcu`");
    }
    Ok(target.join(Path::new(TARGET).join("release/ttq-mcu")))
}

/// Checks the output of the program. Returns the instructions per digit, and the largest difference from the host's logits.
fn check(text: &str) -> Result<(f64, f64)> {
    let (mut instructions, mut largest) = (0.0, 0.0);
    for digit in 0..10 {
        let start = format!("digit {digit}: class {digit}, ");
        let line = text.lines().find_map(|line| line.strip_prefix(&start));
        let Some(line) = line else { bail!("digit {digit} is not recognized") };
        let number = |before: &str, after: &str| {
            let (_, rest) = line.split_once(before)?;
            rest.split_once(after)?.0.parse::<f64>().ok()
        };
        let numbers = number("", " instructions").zip(number("difference ", ","));
        let Some((count, difference)) = numbers else { bail!("digit {digit} has no figures") };
        // A difference that is not a number is not within the tolerance.
        if difference.is_nan() || difference > TOLERANCE {
            bail!("digit {digit} has logits that differ from the host's by {difference:e}, the limit is {TOLERANCE:e}");
        }
        instructions += count / 10.0;
        largest = f64::max(largest, difference);
    }
    Ok((instructions, largest))
}

/// Returns the bytes of flash and of RAM that the sections of an ELF file take.
fn memory(elf: &[u8]) -> Option<[u32; 2]> {
    let word = |at: usize| elf.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes));
    let half = |at: usize| elf.get(at..)?.first_chunk().map(|bytes| usize::from(u16::from_le_bytes(*bytes)));
    if !elf.starts_with(b"\x7fELF\x01\x01") {
        return None;
    }
    let [mut flash, mut ram] = [0, 0];
    for section in 0..half(48)? {
        let header = word(32)? as usize + section * half(46)?;
        let [kind, flags, address, size] = [4, 8, 12, 20].map(|at| word(header + at));
        let (kind, flags, address, size) = (kind?, flags?, address?, size?);
        // Sections that are in memory, and of these the ones with contents: type 8 is NOBITS.
        if flags & 2 != 0 {
            flash += if kind == 8 { 0 } else { size };
            ram += if address >= RAM { size } else { 0 };
        }
    }
    Some([flash, ram])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_with_a_wrong_class_or_logit_or_without_a_digit_is_refused() {
        let line = |digit: u32, class: u32, difference: &str| {
            format!("digit {digit}: class {class}, 4000 instructions, difference {difference}, logits [1.0]\n")
        };
        let all = |change: fn(u32) -> (u32, &'static str), count: u32| -> String {
            (0..count).map(change).zip(0..).map(|((class, difference), digit)| line(digit, class, difference)).collect()
        };
        assert_eq!(check(&all(|digit| (digit, "2e-7"), 10)).unwrap(), (4000.0, 2e-7));
        assert!(check(&all(|digit| (digit.min(8), "2e-7"), 10)).is_err());
        assert!(check(&all(|digit| (digit, "2e-5"), 10)).is_err());
        assert!(check(&all(|digit| (digit, "NaN"), 10)).is_err());
        assert!(check(&all(|digit| (digit, "0e0"), 9)).is_err());
    }

    #[test]
    fn other_files_have_no_sections() {
        assert_eq!(memory(b"\x7fELF\x02\x01"), None);
        assert_eq!(memory(b"\x7fELF\x01\x01"), None);
        assert_eq!(memory(b""), None);
    }
}
