//! Whole networks without Burn: a graph as data, compiled to layers that share one arena.
//!
//! A [`Graph`] holds an input, constants and [operations](Operation). [`Network::compile`] folds constants and maps per
//! channel (such as batch normalization) into weights and biases, moves activation functions and residual sums into the
//! layer before, chooses the algorithm of each layer, and plans the memory:
//!
//! | operation | algorithm |
//! |---|---|
//! | convolution 3×3 or 5×5, stride 1 | Winograd F(4×4, 3×3) or F(2×2, 5×5); rounding errors are 1.5 to 2 times as large |
//! | other convolutions, linear layers | direct, in registers |
//! | transposed convolution | direct, without products by the zeros between elements |
//! | products in int8 | the same with bytes: exact sums of 32 bits |
//! | matrix product of two values | direct, on panels of the second operand; in float32 |
//! | permutation, reshape that splits dimensions | none: the layers after it read the elements where they are |
//!
//! Activations are stored with the channels of a pixel next to each other, and with the border of zeros that a convolution
//! reads, so that no layer rearranges its input. Ternary weights are unpacked once: in memory a weight takes 4 bytes, 16 for a
//! Winograd convolution, and 1 in int8 (and up to 16 times as much if a group has fewer than 16 output channels).
//!
//! # Int8
//!
//! [`Graph::calibrate`] measures the range of each value on typical inputs. With [`Int8::Inner`] or [`Int8::All`], a value is stored
//! as bytes `q` with `x = scale (q - zero)` if only products, sums and pooling read it, and the weights of a product become
//! integers `w` with one scale per output channel. For a ternary weight these are `+a`, `0` and `-b` with `a / b ≈ w_pos / w_neg`,
//! so that both scales cost one product. An output is
//!
//! `y = activation(scale_w scale_x Σ w (q - zero) + bias + residual)`,
//!
//! rounded once. Transposed convolutions and products of two values read floats.

mod arena;
mod calibrate;
mod compile;
mod error;
pub mod format;
mod fuse;
mod graph;
mod layers;
mod layout;
mod number;
mod operation;
mod quantize;
mod reference;
mod run;
mod shape;
mod simplify;
mod values;

pub use calibrate::RangeRule;
pub use error::NetworkError;
pub use graph::{Constant, Graph, Source, Value};
pub use layout::Quantization;
pub use operation::{Binary, Operation, Reduction, Shape, Unary, Window};
pub use quantize::{quantization, quantize_weights};
pub use run::{Arena, LayerInfo, Network};

/// Which products are computed in int8: convolutions and linear layers that read a value with a [range](Graph::range). All
/// others stay in float32.
///
/// A graph without any range is refused, as [`check`](Self::check) says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Int8 {
    /// None.
    #[default]
    Off,
    /// All but the first and the last product, which matter most for the accuracy.
    Inner,
    /// All.
    All,
}

impl Int8 {
    /// Returns the choice that a number stands for, in interfaces without enums: 0 for [`Off`](Self::Off), 1 for
    /// [`Inner`](Self::Inner), and 2 for [`All`](Self::All).
    pub fn from_number(number: u32) -> Option<Self> {
        match number {
            0 => Some(Self::Off),
            1 => Some(Self::Inner),
            2 => Some(Self::All),
            _ => None,
        }
    }

    /// Checks that a graph has what int8 needs.
    ///
    /// # Errors
    /// Unless this is [`Off`](Self::Off): [`NetworkError::NoRanges`] if no value of the graph has a range, and
    /// [`NetworkError::Constant`] if a weight or bias of a product has elements that are not finite.
    pub fn check(self, graph: &Graph) -> Result<(), NetworkError> {
        if self == Self::Off {
            return Ok(());
        }
        if !graph.is_calibrated() {
            return Err(NetworkError::NoRanges);
        }
        for value in graph.values() {
            let Source::Node { operation: Operation::Convolution(_) | Operation::Linear, operands } =
                graph.source(value)
            else {
                continue;
            };
            for operand in &operands[1..] {
                if let Source::Constant(Constant::Float { values, .. }) = graph.source(*operand)
                    && values.iter().any(|x| !x.is_finite())
                {
                    let reason =
                        "has elements that are not finite, which int8 does not have: compute in float32".into();
                    return Err(NetworkError::Constant { name: graph.name(*operand).into(), reason });
                }
            }
        }
        Ok(())
    }
}

/// Switches of the compiler. Every combination without `int8` computes the same results, up to rounding.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct CompileOptions {
    /// Fuses maps per channel, residual sums and activation functions with the product before.
    pub fuse: bool,
    /// Uses Winograd's algorithm where it is faster.
    pub winograd: bool,
    /// Lets values share memory if they are not needed at the same time.
    pub reuse_memory: bool,
    /// Products that are computed in int8.
    pub int8: Int8,
    /// Maximum number of elements of all values of an item, and of products to fold a constant: a file of a few bytes can
    /// describe a network of any size. Of the values of an item at most 2^32 - 1
    /// elements are addressed.
    pub max_elements: usize,
    /// Number of items that go through the network together, or `None` for a number that suits the cache.
    pub items: Option<usize>,
}

impl Default for CompileOptions {
    /// Returns the fastest combination in float32.
    fn default() -> Self {
        Self { fuse: true, winograd: true, reuse_memory: true, int8: Int8::Off, max_elements: 1 << 26, items: None }
    }
}

impl CompileOptions {
    /// Sets the products that are computed in int8.
    pub fn with_int8(self, int8: Int8) -> Self {
        Self { int8, ..self }
    }
}
