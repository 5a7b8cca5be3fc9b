//! What the examples share: data, networks, the command line and the run that it asks for.

pub mod data;
pub mod measure;
pub mod model;

mod backend;
mod deploy;
mod environment;
mod evaluate;
mod evidence;
mod options;
mod out;
mod phase;
mod progress;
mod recipe;
mod run;
mod summary;
mod weights;

pub use backend::Backends;
pub use deploy::{Deployment, deploy};
pub use evaluate::Evaluation;
pub use options::{BackendChoice, GranularityChoice, Method, Options, ScheduleChoice};
pub use recipe::{Recipe, RunConfig};
pub use run::{Run, exit};
pub use summary::Summary;
#[cfg(feature = "cpu")]
pub use ttq_cpu::Cpu;
