//! `cargo xtask ci`: the one gate, for people and for machines.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Cheapest first.
const STEPS: [(&str, &[&str], &[(&str, &str)]); 4] = [
    ("format", &["fmt", "--all", "--check"], &[]),
    ("clippy", &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"], &[]),
    ("tests", &["test", "--workspace"], &[]),
    ("documentation", &["doc", "--workspace", "--no-deps"], &[("RUSTDOCFLAGS", "-D warnings")]),
];

pub(crate) fn run() -> Result<()> {
    let mut times: Vec<(&str, Duration)> = Vec::new();
    let start = Instant::now();
    crate::rules::run()?;
    times.push(("house rules", start.elapsed()));
    for (name, arguments, variables) in STEPS {
        let start = Instant::now();
        let prefix: String = variables.iter().map(|(name, value)| format!("{name}=\"{value}\" ")).collect();
        let text = format!("{prefix}cargo {}", arguments.join(" "));
        println!("\n$ {text}");
        let status = Command::new("cargo")
            .current_dir(crate::root())
            .args(arguments)
            .envs(variables.iter().copied())
            .status()
            .context("cannot start cargo")?;
        if !status.success() {
            bail!("{name} failed: mend what is above, then run `{text}` again");
        }
        times.push((name, start.elapsed()));
    }
    println!();
    for (name, time) in times {
        println!("{name:15} {:>6.0} s", time.as_secs_f64());
    }
    Ok(())
}
