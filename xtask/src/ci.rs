//! `cargo xtask ci`: the one gate, for people and for machines.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// One call of cargo.
struct Step {
    name: &'static str,
    arguments: &'static [&'static str],
    rustdocflags: Option<&'static str>,
}

/// Cheapest first.
const STEPS: [Step; 5] = [
    Step { name: "format", arguments: &["fmt", "--all", "--check"], rustdocflags: None },
    Step {
        name: "clippy",
        arguments: &[
            "clippy",
            "--workspace",
            "--all-targets",
            "--features",
            "ttq-examples/autocast",
            "--",
            "-D",
            "warnings",
        ],
        rustdocflags: None,
    },
    Step { name: "tests", arguments: &["test", "--workspace"], rustdocflags: None },
    Step {
        name: "several devices",
        // Burn's distributed strategy excludes Flex.
        arguments: &[
            "test",
            "--package",
            "ttq-examples",
            "--no-default-features",
            "--features",
            "cpu,distributed",
            "--test",
            "distributed",
        ],
        rustdocflags: None,
    },
    Step { name: "documentation", arguments: &["doc", "--workspace", "--no-deps"], rustdocflags: Some("-D warnings") },
];

pub(crate) fn run() -> Result<()> {
    let mut times: Vec<(&str, Duration)> = Vec::new();
    let start = Instant::now();
    crate::rules::run()?;
    crate::delegate::check()?;
    crate::tables::check()?;
    times.push(("house rules", start.elapsed()));
    for Step { name, arguments, rustdocflags } in STEPS {
        let start = Instant::now();
        let prefix = rustdocflags.map_or_else(String::new, |flags| format!("RUSTDOCFLAGS=\"{flags}\" "));
        let text = format!("{prefix}cargo {}", arguments.join(" "));
        println!("\n$ {text}");
        let status = Command::new("cargo")
            .current_dir(crate::root())
            .args(arguments)
            .envs(rustdocflags.map(|flags| ("RUSTDOCFLAGS", flags)))
            .status()
            .context("cannot start cargo")?;
        if !status.success() {
            bail!("{name} failed: mend what is above, then run `{text}` again");
        }
        times.push((name, start.elapsed()));
    }
    let start = Instant::now();
    println!("\n$ cargo xtask arm");
    match crate::arm::missing() {
        None => crate::arm::run()?,
        Some(missing) => println!("skipped: {missing}"),
    }
    times.push(("tests for ARM", start.elapsed()));
    println!();
    for (name, time) in times {
        println!("{name:15} {:>6.0} s", time.as_secs_f64());
    }
    Ok(())
}
