//! The operations of a graph.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::number;
use crate::kernels::ConvolutionOptions;

/// The shape of a value.
///
/// Operations act on each item of a batch alone, so that the batch dimension is no part of the shape: `dims` is the
/// shape of an item, and every axis of an operation counts the dimensions of an item. A constant has no batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// `true` if the value exists once per item, `false` if all items share it.
    pub batched: bool,
    /// Dimensions of an item.
    pub dims: Vec<usize>,
}

/// Window of a pooling operation. Pairs are `[vertical, horizontal]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// Height and width of the window.
    pub size: [usize; 2],
    /// Distance between neighbouring windows.
    pub stride: [usize; 2],
    /// Elements added at the sides of the input: `[[top, bottom], [left, right]]`, less than the size of the window.
    pub padding: [[usize; 2]; 2],
}

/// Functions of one number.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Unary {
    /// `max(x, 0)`
    Relu,
    /// `x` if positive, and otherwise the slope times `x`
    LeakyRelu(#[serde(with = "number::one")] f32),
    /// `min(max(x, low), high)` of `[low, high]`
    Clamp(#[serde(with = "number::pair")] [f32; 2]),
    /// `1 / (1 + exp(-x))`
    Sigmoid,
    /// Hyperbolic tangent
    Tanh,
    /// `x (1 + erf(x / √2)) / 2`
    Gelu,
    /// Error function
    Erf,
    /// Exponential function
    Exp,
    /// Natural logarithm
    Log,
    /// Square root
    Sqrt,
    /// Absolute value
    Abs,
    /// `-x`
    Negate,
    /// `1 / x`
    Reciprocal,
}

/// Functions of two numbers. The dimensions of their operands broadcast: aligned at the last axis, they are equal or 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Binary {
    /// `a + b`
    Add,
    /// `a - b`
    Subtract,
    /// `a b`
    Multiply,
    /// `a / b`
    Divide,
    /// `max(a, b)`; NaN if one is NaN
    Maximum,
    /// `min(a, b)`; NaN if one is NaN
    Minimum,
    /// `a` to the power of `b`
    Power,
    /// 1 if `a = b`, and otherwise 0
    Equal,
    /// 1 if `a < b`, and otherwise 0
    Less,
    /// 1 if `a ≤ b`, and otherwise 0
    LessOrEqual,
}

/// Functions of all elements along some axes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Reduction {
    /// Sum
    Sum,
    /// Arithmetic mean
    Mean,
    /// Largest element; NaN if one is NaN
    Max,
    /// Smallest element; NaN if one is NaN
    Min,
}

/// An operation of a graph.
///
/// Shapes are those of an item: `[C, H, W]` are the channels, height and width of an image. A one-dimensional
/// convolution or pooling is one with the height 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Operation {
    /// `x [C, H, W]`, weight `[O, C / groups, kh, kw]`, optional bias `[O]` → `[O, H', W']`
    Convolution(ConvolutionOptions),
    /// `x [C, H, W]`, weight `[C, O / groups, kh, kw]`, optional bias `[O]` → `[O, H', W']`.
    ///
    /// Each element adds its product with the kernel to the result, at `stride` times its index: the gradient of a convolution
    /// with the same weight with respect to its operand. The result has the size
    /// `(H - 1) stride + dilation (kh - 1) + 1 + output_padding - padding`.
    TransposedConvolution {
        /// Distances in the result, and the elements that are removed at its sides as `padding`.
        options: ConvolutionOptions,
        /// Elements that the result has in addition after the last row and column, before others are removed.
        output_padding: [usize; 2],
    },
    /// `x [.., I]`, weight `[I, O]`, optional bias `[O]` → `[.., O]`
    Linear,
    /// `a [.., M, K]`, `b [.., K, N]` → `[.., M, N]`; leading dimensions broadcast.
    MatrixProduct,
    /// One operand; the shape stays.
    Unary(Unary),
    /// Two operands that broadcast.
    Binary(Binary),
    /// A condition and two others, which broadcast: an element of the second where the condition is not 0, and of the third
    /// elsewhere.
    Where,
    /// `[C, H, W]` → `[C, H', W']`; padding is never the maximum.
    MaxPool(Window),
    /// `[C, H, W]` → `[C, H', W']`. The sum of a window is divided by its size, or by the number of its elements inside of
    /// the image if `count_padding` is `false`.
    AveragePool {
        /// The window.
        window: Window,
        /// `true` if padding counts as elements of value 0.
        count_padding: bool,
    },
    /// `[C, H, W]` → `[C, h, w]` with the given `[h, w]`: output `i` of `n` is the mean of the elements from `⌊i H / n⌋` to
    /// `⌈(i + 1) H / n⌉`.
    AdaptiveAveragePool([usize; 2]),
    /// `exp(x) / Σ exp(x)` along an axis.
    Softmax(usize),
    /// A reduction along axes, which keep the size 1.
    Reduce {
        /// The function.
        function: Reduction,
        /// The axes, in ascending order.
        axes: Vec<usize>,
    },
    /// The same elements in row-major order with other dimensions.
    Reshape(Vec<usize>),
    /// Axis `i` of the result is axis `axes[i]` of the operand.
    Permute(Vec<usize>),
    /// Any number of operands, joined along an axis.
    Concatenate(usize),
    /// Elements `start, start + step, ..` before `end` along an axis.
    Slice {
        /// The axis.
        axis: usize,
        /// Index of the first element.
        start: usize,
        /// First index that is not part of the result.
        end: usize,
        /// Distance between elements, at least 1.
        step: usize,
    },
    /// Elements added before and after each axis.
    Pad {
        /// `[before, after]` of each axis.
        padding: Vec<[usize; 2]>,
        /// Their value.
        #[serde(with = "number::one")]
        value: f32,
    },
    /// Table `[V, ..D]`, indices `[..I]` → `[..I, ..D]`: row `round(i)` of the table for each index `i`, which is limited
    /// to the table.
    Gather,
}

impl Operation {
    /// Returns the name of the operation in messages.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Convolution(_) => "convolution",
            Self::TransposedConvolution { .. } => "transposed convolution",
            Self::Linear => "linear",
            Self::MatrixProduct => "matrix product",
            Self::Unary(unary) => match unary {
                Unary::Relu => "relu",
                Unary::LeakyRelu(_) => "leaky relu",
                Unary::Clamp(_) => "clamp",
                Unary::Sigmoid => "sigmoid",
                Unary::Tanh => "tanh",
                Unary::Gelu => "gelu",
                Unary::Erf => "erf",
                Unary::Exp => "exp",
                Unary::Log => "log",
                Unary::Sqrt => "sqrt",
                Unary::Abs => "abs",
                Unary::Negate => "negate",
                Unary::Reciprocal => "reciprocal",
            },
            Self::Binary(binary) => match binary {
                Binary::Add => "add",
                Binary::Subtract => "subtract",
                Binary::Multiply => "multiply",
                Binary::Divide => "divide",
                Binary::Maximum => "maximum",
                Binary::Minimum => "minimum",
                Binary::Power => "power",
                Binary::Equal => "equal",
                Binary::Less => "less",
                Binary::LessOrEqual => "less or equal",
            },
            Self::Where => "where",
            Self::MaxPool(_) => "max pool",
            Self::AveragePool { .. } => "average pool",
            Self::AdaptiveAveragePool(_) => "adaptive average pool",
            Self::Softmax(_) => "softmax",
            Self::Reduce { .. } => "reduce",
            Self::Reshape(_) => "reshape",
            Self::Permute(_) => "permute",
            Self::Concatenate(_) => "concatenate",
            Self::Slice { .. } => "slice",
            Self::Pad { .. } => "pad",
            Self::Gather => "gather",
        }
    }

    /// Returns the number of elements that the definition of the operation reads, or `usize::MAX` if it overflows.
    pub(super) fn products(&self, operands: &[&Shape], result: &Shape) -> usize {
        let per_element = match self {
            Self::MaxPool(window) | Self::AveragePool { window, .. } => elements(&window.size),
            Self::AdaptiveAveragePool(_) => elements(&operands[0].dims),
            Self::Concatenate(_) => Some(operands.len()),
            _ => Some(1),
        };
        let inputs = operands.iter().filter_map(|shape| elements(&shape.dims)).fold(0, usize::saturating_add);
        let count = elements(&result.dims).unwrap_or(usize::MAX).saturating_mul(per_element.unwrap_or(usize::MAX));
        count.saturating_add(self.multiply_adds(operands, result)).saturating_add(inputs)
    }

    /// Returns the number of products of a convolution, linear layer or matrix product, `usize::MAX` if it overflows, and
    /// 0 for other operations.
    pub(super) fn multiply_adds(&self, operands: &[&Shape], result: &Shape) -> usize {
        let (sums, terms) = match self {
            Self::Convolution(_) => (result, elements(&operands[1].dims[1..])),
            Self::TransposedConvolution { .. } => (operands[0], elements(&operands[1].dims[1..])),
            Self::Linear | Self::MatrixProduct => (result, operands[0].dims.last().copied()),
            _ => return 0,
        };
        let sums = elements(&sums.dims);
        sums.zip(terms).map_or(usize::MAX, |(sums, terms)| sums.saturating_mul(terms))
    }
}

/// Returns the number of elements, or `None` if it overflows.
pub(super) fn elements(dims: &[usize]) -> Option<usize> {
    dims.iter().try_fold(1_usize, |product, dim| product.checked_mul(*dim))
}
