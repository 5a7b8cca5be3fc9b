//! Benchmarks of ttq: timing of candidates in alternating rounds, processes that answer requests, training steps, products with
//! packed weights on a GPU, and lossless compression of CIFAR-10 for transfer to another machine.

pub mod measure;
pub mod mosaic;
mod networks;
mod peer;
pub mod process;
mod steps;
pub mod usage;
mod worker;

#[cfg(any(feature = "cuda", feature = "wgpu"))]
mod products;
#[cfg(feature = "mpi")]
mod ranks;
#[cfg(any(feature = "cuda", feature = "wgpu"))]
mod torch;

#[cfg(any(feature = "cuda", feature = "wgpu"))]
pub use products::{ProductOptions, measure_products};
#[cfg(feature = "mpi")]
pub use ranks::{RankOptions, measure_ranks};
pub use steps::{StepOptions, measure_steps};
