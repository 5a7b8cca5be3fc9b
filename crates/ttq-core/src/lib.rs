//! Trained ternary quantization (TTQ) for the [Burn](https://burn.dev) deep-learning framework.
//!
//! Every weight of a selected layer takes one of three values, `-W_n`, `0` or `+W_p`. The two scales are learned, one
//! pair per layer or per output channel. During training the optimizer updates full-precision *latent* weights, from
//! which the ternary weights are computed (Zhu, Han, Mao, Dally, "Trained Ternary Quantization", ICLR 2017,
//! arXiv 1612.01064).
//!
//! - [`TernaryQuantizer`] computes threshold, codes, scales, the forward function and its gradients. It uses ordinary
//!   tensor operations, so it runs on every Burn backend. With the features `cuda` and `wgpu` it uses GPU kernels for
//!   tensors on such devices.
//! - [`Ternary`] wraps any Burn module without changing its code, selects the weights that become ternary and holds
//!   their scales.
//! - [`TernaryStats`] reports sparsity, scales, entropy and size of each layer.
//! - [`packed`] stores ternary weights with 2 bits each in a file, which the crate `ttq-inference` loads and runs.
//!
//! [`prelude`] imports the items that most programs use.
//!
//! ```
//! use burn::backend::Flex;
//! use burn::nn::{Linear, LinearConfig};
//! use burn::prelude::*;
//! use ttq_core::prelude::*;
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
//! let plain: Mlp<Flex> = ternary.materialize(); // the same type; its selected weights take three values
//! assert_eq!(plain.hidden.weight.dims(), [64, 32]);
//! ```
//!
//! # Features
//!
//! | feature | effect |
//! |---|---|
//! | `cuda`, `wgpu` | the quantizer uses GPU kernels for tensors of Burn's CUDA or wgpu backend |
//! | `distributed` | ternary weights take part in Burn's distributed strategy; requires a CubeCL backend or `ttq-cpu` |

#[cfg(feature = "cubecl")]
mod device;
mod error;
mod first_step;
mod granularity;
mod layer_kind;
mod leaf;
mod leaf_view;
mod learned_scales;
mod module_path;
mod module_types;
mod order_of_use;
pub mod packed;
mod plan;
mod quantizer;
mod quantizer_config;
mod scales;
mod selected;
mod selection;
mod snapshot;
mod stats;
mod ternary;
mod threshold;
mod views;
mod weights;

pub use error::{ConfigError, RecordError, SelectionError};
pub use granularity::Granularity;
pub use layer_kind::LayerKind;
pub use leaf_view::LeafView;
pub use module_path::ModulePath;
pub use quantizer::{TernaryGradients, TernaryQuantizer};
pub use quantizer_config::{LatentGradient, NegativeScaleGradient, QuantizerConfig};
pub use scales::{InitialScales, SCALE_FLOOR, ScaleParameter, ScaleRule};
pub use selection::{ChannelAxis, Choice, KeepReason, LayerOrder, Selection, SelectionConfig};
pub use snapshot::TernarySnapshot;
pub use stats::{LayerStats, LayerValues, TernaryStats, Warning};
pub use ternary::{Ternary, TernaryConfig, TernaryError};
pub use threshold::Threshold;

/// The items that most programs use: `use ttq_core::prelude::*;`.
///
/// They are the wrapper, the quantizer and their configurations. No name is in Burn's prelude, so both can be imported.
pub mod prelude {
    pub use crate::{
        Granularity, InitialScales, QuantizerConfig, ScaleRule, Selection, SelectionConfig, Ternary, TernaryConfig,
        TernaryQuantizer, TernaryStats, Threshold,
    };
}

/// Tests the code of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
