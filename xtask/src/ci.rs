//! `cargo xtask ci`: all checks, for people and for machines.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// One call of cargo.
struct Step {
    name: &'static str,
    arguments: &'static [&'static str],
    /// Features that are added where an MPI library is installed.
    with_mpi: Option<&'static str>,
    rustdocflags: Option<&'static str>,
}

/// Features that clippy and rustdoc add to the defaults: the same, so that both use the same dependencies.
const FEATURES: &str =
    "ttq-examples/autocast,ttq-examples/flex,ttq-examples/tiny-imagenet,ttq-benchmarks/cuda,ttq-benchmarks/autocast";

/// The steps, quickest first.
const STEPS: [Step; 6] = [
    Step { name: "format", arguments: &["fmt", "--all", "--check"], with_mpi: None, rustdocflags: None },
    Step {
        name: "packages",
        // Metadata and contents of the published crates. (To build them from the packages takes too long here.)
        arguments: &[
            "package",
            "--workspace",
            "--exclude=ttq-benchmarks",
            "--exclude=ttq-examples",
            "--exclude=ttq-examples-cpu",
            "--exclude=ttq-examples-gpu",
            "--exclude=ttq-testing",
            "--exclude=xtask",
            "--no-verify",
            "--allow-dirty",
            "--quiet",
        ],
        with_mpi: None,
        rustdocflags: None,
    },
    Step {
        name: "clippy",
        arguments: &["clippy", "--workspace", "--all-targets", "--features", FEATURES, "--", "-D", "warnings"],
        with_mpi: Some("ttq-examples/mpi,ttq-benchmarks/mpi"),
        rustdocflags: None,
    },
    Step {
        name: "documentation",
        arguments: &["doc", "--workspace", "--no-deps", "--features", FEATURES],
        with_mpi: Some("ttq-examples/mpi,ttq-benchmarks/mpi"),
        rustdocflags: Some("-D warnings"),
    },
    Step {
        name: "tests",
        arguments: &["test", "--workspace", "--features", "ttq-examples/tiny-imagenet"],
        with_mpi: Some("ttq-mpi/mpi"),
        rustdocflags: None,
    },
    Step {
        name: "several devices",
        // Burn's distributed strategy excludes Flex, which is compiled only as a dependency of ttq-cpu. The kernels of
        // packed weights are not called.
        arguments: &[
            "test",
            "--package",
            "ttq-train",
            "--package",
            "ttq-cpu",
            "--features",
            "ttq-train/distributed,ttq-cpu/distributed",
            "--test",
            "distributed",
            "--config",
            "profile.dev.package.burn-flex.opt-level=0",
            "--config",
            "profile.dev.package.ttq-packed.opt-level=0",
        ],
        with_mpi: None,
        rustdocflags: None,
    },
];

/// Adds to the list of features of a call.
fn add_features(arguments: &mut [String], features: &str) {
    let list = arguments.iter().position(|argument| argument == "--features").and_then(|at| arguments.get_mut(at + 1));
    if let Some(list) = list {
        *list = format!("{list},{features}");
    }
}

/// Commands for other machines: the command, its name, what it lacks, and what it does.
type Emulated = (&'static str, &'static str, fn() -> Option<String>, fn() -> Result<()>);
const EMULATED: [Emulated; 3] = [
    ("arm", "tests for ARM", crate::arm::missing, crate::arm::run),
    ("mcu", "microcontroller", crate::mcu::missing, crate::mcu::run),
    ("web --check", "browser", crate::web::missing, crate::web::check_built),
];

pub(crate) fn run() -> Result<()> {
    let mut times: Vec<(&str, Duration)> = Vec::new();
    let start = Instant::now();
    crate::rules::run()?;
    crate::delegate::check()?;
    crate::tables::check()?;
    times.push(("house rules", start.elapsed()));
    let without_mpi = crate::mpi::missing();
    for Step { name, arguments, with_mpi, rustdocflags } in STEPS {
        let start = Instant::now();
        if name == "tests" {
            crate::web::forget_networks()?;
        }
        let mut arguments: Vec<String> = arguments.iter().map(|argument| (*argument).into()).collect();
        if let Some(features) = with_mpi {
            match without_mpi {
                Some(missing) => println!("\n{name}: ttq-mpi is skipped: {missing} is missing"),
                None => add_features(&mut arguments, features),
            }
        }
        let prefix = rustdocflags.map_or_else(String::new, |flags| format!("RUSTDOCFLAGS=\"{flags}\" "));
        let text = format!("{prefix}cargo {}", arguments.join(" "));
        println!("\n$ {text}");
        let status = Command::new("cargo")
            .current_dir(crate::root())
            .args(&arguments)
            .envs(rustdocflags.map(|flags| ("RUSTDOCFLAGS", flags)))
            .status()
            .context("cannot start cargo")?;
        if !status.success() {
            bail!("{name} failed: fix the errors above, then run `{text}` again");
        }
        times.push((name, start.elapsed()));
    }
    for (command, name, missing, run) in EMULATED {
        let start = Instant::now();
        println!("\n$ cargo xtask {command}");
        match missing() {
            Some(missing) => println!("skipped: {missing}"),
            None => run()?,
        }
        times.push((name, start.elapsed()));
    }
    println!();
    for (name, time) in times {
        println!("{name:15} {:>6.0} s", time.as_secs_f64());
    }
    Ok(())
}
