//! What the examples share: data, networks, the command line and the run that it asks for.

#[cfg(all(feature = "distributed", feature = "flex"))]
compile_error!(
    "Burn's distributed strategy has no Flex: build with `--no-default-features --features cpu,cuda,tui,distributed`"
);

#[cfg(all(feature = "distributed", feature = "autocast"))]
compile_error!("mixed precision has no sums over devices: build with `distributed` or with `autocast`");

pub mod data;
pub mod measure;
pub mod model;

mod backend;
mod deploy;
mod environment;
mod evaluate;
mod evidence;
mod freeze;
mod job;
mod optimizer;
mod options;
mod out;
mod phase;
#[cfg(any(feature = "cuda", feature = "wgpu"))]
mod products;
mod progress;
mod recipe;
mod run;
#[cfg(all(feature = "cpu", feature = "flex"))]
mod steps;
mod strategy;
mod summary;
#[cfg(any(feature = "cuda", feature = "wgpu"))]
mod torch;
mod weights;

pub use backend::Backends;
pub use deploy::{Deployment, compare_packed, deploy};
pub use evaluate::Evaluation;
pub use job::{CheckpointTest, Job};
pub use optimizer::OptimizerChoice;
pub use options::{
    BackendChoice, GranularityChoice, InitialScalesChoice, Method, Options, Precision, ScheduleChoice, SignChoice,
};
#[cfg(any(feature = "cuda", feature = "wgpu"))]
pub use products::{ProductOptions, measure_products};
pub use recipe::{Recipe, RunConfig};
pub use run::{Run, exit};
#[cfg(all(feature = "cpu", feature = "flex"))]
pub use steps::{StepOptions, measure_steps};
pub use strategy::{Strategy, Trains};
pub use summary::Summary;
#[cfg(feature = "autocast")]
pub use ttq_autocast::{Autocast, Bf16, F16};
#[cfg(feature = "cpu")]
pub use ttq_cpu::Cpu;
pub use weights::{is_packed, names as tensor_names};
