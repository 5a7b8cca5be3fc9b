//! The programs behind the examples `mnist`, `cifar`, `text`, `deploy` and `tiny_imagenet`: data, networks, the command line
//! and a run from start to end, generic over the backend. The packages in `cpu/` and `gpu/` compile it for theirs.
//!
//! To learn how to use ttq in a program of your own, read the examples of the crates `ttq-core` and `ttq-train` instead: each
//! is one page.

#[cfg(all(feature = "distributed", feature = "flex"))]
compile_error!(
    "Burn's distributed strategy does not support Flex: build with `--no-default-features --features cpu,cuda,tui,distributed`"
);

#[cfg(all(feature = "distributed", feature = "autocast"))]
compile_error!("mixed precision does not support sums over devices: build with `distributed` or with `autocast`");

pub mod data;
pub mod model;

mod backend;
mod clock;
mod evaluate;
mod evidence;
mod job;
mod method_options;
mod optimizer;
mod options;
mod out;
mod processes;
mod recipe;
mod resume;
mod run;
mod strategy;
mod summary;
mod task;
mod training;
mod weights;

pub use backend::{RunBackend, select};
pub use data::batch;
pub use evaluate::{Evaluation, evaluate, rank};
pub use job::{CheckpointTest, Job};
pub use method_options::{check_evaluation, check_only};
pub use optimizer::OptimizerChoice;
pub use options::{BackendChoice, Method, Options, Precision, ScheduleChoice};
pub use out::{Out, write_json};
pub use processes::{first_device, is_first};
pub use recipe::{PhaseRecipe, Rates, Recipe, RunConfig};
pub use run::{Run, exit};
pub use strategy::{Strategy, Trains};
pub use summary::Summary;
pub use task::{Loader, Score, Task};
#[cfg(feature = "cpu")]
pub use ttq_cpu::Cpu;
pub use weights::{is_packed, load, names as tensor_names, save, to_bytes};

/// Prints a line, in the first of several processes. A closed standard output, as after `| head`, does not end a run: errors are ignored.
pub fn print_line(line: impl std::fmt::Display) {
    use std::io::Write;
    if !processes::is_first() {
        return;
    }
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).ok();
}

/// Describes this process: machine, command line and versions.
pub fn environment() -> ttq_report::record::Environment {
    ttq_report::environment(&[
        ("ttq", env!("CARGO_PKG_VERSION")),
        ("Burn", env!("TTQ_BURN_VERSION")),
        ("rustc", env!("TTQ_RUSTC_VERSION")),
        ("commit", env!("TTQ_COMMIT")),
    ])
}
