//! What the examples share: data, networks, the command line and the run that it asks for.

pub mod data;
pub mod model;

mod backend;
mod evaluate;
mod options;
mod out;
mod phase;
mod progress;
mod recipe;
mod run;
mod summary;
mod weights;

pub use options::{BackendChoice, Method, Options, ScheduleChoice};
pub use recipe::{Recipe, RunConfig};
pub use run::main;
pub use summary::Summary;
