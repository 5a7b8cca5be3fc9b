//! Trained ternary quantization (TTQ) for the [Burn](https://burn.dev) deep-learning framework.
//!
//! Every weight of a chosen layer becomes one of three values, `-W_n`, `0` or `+W_p`. The two scales are learned, one
//! pair per layer (or per output channel), and a full-precision *latent* copy of the weights stands behind them while
//! the network trains (Zhu, Han, Mao, Dally, "Trained Ternary Quantization", ICLR 2017, arXiv 1612.01064).
//!
//! - [`TernaryQuantizer`] is the arithmetic: threshold, codes, scales, forward and backward, made of ordinary tensor
//!   operations and therefore at home on every Burn backend. With the features `cuda` and `wgpu` it is kernels that compute
//!   forward and backward where tensors lie on such a device.
//! - [`Ternary`] wraps any Burn module without changing it, chooses which weights become ternary and holds the scales.
//! - [`TernaryStats`] says what came out: sparsity, scales, entropy and bytes of each layer.
//!
//! ```
//! use burn::backend::Flex;
//! use burn::nn::{Linear, LinearConfig};
//! use burn::prelude::*;
//! use ttq_core::{Ternary, TernaryConfig};
//!
//! #[derive(Module, Debug)]
//! struct Mlp<B: Backend> {
//!     hidden: Linear<B>,
//!     classes: Linear<B>,
//! }
//!
//! let device = Default::default();
//! let model = Mlp::<Flex> {
//!     hidden: LinearConfig::new(64, 32).init(&device),
//!     classes: LinearConfig::new(32, 10).init(&device),
//! };
//! let ternary = Ternary::new(model, &TernaryConfig::default()).unwrap();
//! println!("{}", ternary.selection()); // `hidden.weight` is ternary, `classes.weight` stays in full precision
//! let plain: Mlp<Flex> = ternary.materialize(); // the same type, its chosen weights take three values
//! assert_eq!(plain.hidden.weight.dims(), [64, 32]);
//! ```

#[cfg(feature = "cubecl")]
mod device;
mod error;
mod granularity;
mod leaf;
pub mod packed;
mod quantizer;
mod scales;
mod selection;
mod stats;
mod ternary;
mod threshold;

pub use error::{ConfigError, SelectionError};
pub use granularity::Granularity;
pub use quantizer::{LatentGradient, NegativeScaleGradient, QuantizerConfig, TernaryGradients, TernaryQuantizer};
pub use scales::{InitialScales, SCALE_FLOOR, ScaleRule};
pub use selection::{Choice, KeepReason, LayerKind, Selection, SelectionConfig};
pub use stats::{LayerStats, LayerValues, TernaryStats, Warning};
pub use ternary::{Ternary, TernaryConfig, TernaryError};
pub use threshold::Threshold;
