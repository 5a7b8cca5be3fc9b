//! The operations of a graph, and the shapes of their results.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

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
    LeakyRelu(f32),
    /// `min(max(x, low), high)` of `[low, high]`
    Clamp([f32; 2]),
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
    /// `max(a, b)`
    Maximum,
    /// `min(a, b)`
    Minimum,
    /// `a` to the power of `b`
    Power,
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
    /// Largest element
    Max,
    /// Smallest element
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
    /// `x [.., I]`, weight `[I, O]`, optional bias `[O]` → `[.., O]`
    Linear,
    /// `a [.., M, K]`, `b [.., K, N]` → `[.., M, N]`; leading dimensions broadcast.
    MatrixProduct,
    /// One operand; the shape stays.
    Unary(Unary),
    /// Two operands that broadcast.
    Binary(Binary),
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
            },
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
            Self::Convolution(_) | Self::Linear | Self::MatrixProduct => self.terms(operands),
            Self::MaxPool(window) | Self::AveragePool { window, .. } => elements(&window.size),
            Self::AdaptiveAveragePool(_) => elements(&operands[0].dims),
            Self::Concatenate(_) => Some(operands.len()),
            _ => Some(1),
        };
        let inputs = operands.iter().filter_map(|shape| elements(&shape.dims)).fold(0, usize::saturating_add);
        let count = elements(&result.dims).unwrap_or(usize::MAX);
        count.saturating_mul(per_element.unwrap_or(usize::MAX)).saturating_add(inputs)
    }

    /// Returns the number of products that an element of the result is the sum of, or `None` if the operation is no
    /// product or the number overflows.
    pub(super) fn terms(&self, operands: &[&Shape]) -> Option<usize> {
        match self {
            Self::Convolution(_) => elements(&operands[1].dims[1..]),
            Self::Linear | Self::MatrixProduct => operands[0].dims.last().copied(),
            _ => None,
        }
    }

    /// Returns the shape of the result, or a sentence that says why there is none.
    pub(super) fn shape(&self, operands: &[&Shape]) -> Result<Shape, String> {
        let batched = operands.iter().any(|shape| shape.batched);
        let dims = self.dims(operands)?;
        Ok(Shape { batched, dims })
    }

    fn dims(&self, operands: &[&Shape]) -> Result<Vec<usize>, String> {
        let (least, most) = match self {
            Self::Convolution(_) | Self::Linear => (2, 3),
            Self::MatrixProduct | Self::Binary(_) | Self::Gather => (2, 2),
            Self::Concatenate(_) => (1, usize::MAX),
            _ => (1, 1),
        };
        if !(least..=most).contains(&operands.len()) {
            return Err(format!("it has {} operands instead of {least} to {most}", operands.len()));
        }
        let x = operands[0].dims.as_slice();
        let second = operands.get(1).map_or(&[][..], |shape| &shape.dims);
        if matches!(self, Self::Convolution(_) | Self::Linear) && operands[1..].iter().any(|shape| shape.batched) {
            return Err("weight and bias must be constants".into());
        }
        let check_bias = |outputs: usize| match operands.get(2) {
            Some(bias) if bias.dims != [outputs] => {
                Err(format!("the bias has shape {:?} instead of [{outputs}]", bias.dims))
            }
            _ => Ok(()),
        };
        match self {
            Self::Convolution(options) => {
                let dims = convolution(x, second, options)?;
                check_bias(dims[0])?;
                Ok(dims)
            }
            Self::Linear => {
                let (Some((inputs, rest)), &[rows, outputs]) = (x.split_last(), second) else {
                    return Err(format!("operands {x:?} and {second:?} must be [.., in] and [in, out]"));
                };
                if *inputs != rows {
                    return Err(format!("operands {x:?} and {second:?} must be [.., in] and [in, out]"));
                }
                check_bias(outputs)?;
                Ok([rest, &[outputs]].concat())
            }
            Self::MatrixProduct => {
                let ([a @ .., m, k], [b @ .., l, n]) = (x, second) else {
                    return Err(format!("operands {x:?} and {second:?} must be [.., m, k] and [.., k, n]"));
                };
                if k != l {
                    return Err(format!("operands {x:?} and {second:?} must be [.., m, k] and [.., k, n]"));
                }
                Ok([broadcast(a, b)?.as_slice(), &[*m, *n]].concat())
            }
            Self::Unary(_) => Ok(x.into()),
            Self::Binary(_) => broadcast(x, second),
            Self::MaxPool(window) | Self::AveragePool { window, .. } => pool(x, window),
            Self::AdaptiveAveragePool(size) => match *x {
                [channels, height, width] if height > 0 && width > 0 && !size.contains(&0) => {
                    Ok([channels, size[0], size[1]].into())
                }
                _ => Err(format!(
                    "the operand {x:?} must be [channels, height, width], and the output {size:?} not empty"
                )),
            },
            Self::Softmax(axis) => check_axis(x, *axis).map(|()| x.into()),
            Self::Reduce { axes, .. } => {
                if axes.is_empty() || !axes.is_sorted_by(|a, b| a < b) {
                    return Err(format!("the axes {axes:?} must ascend"));
                }
                axes.iter().try_for_each(|axis| check_axis(x, *axis))?;
                Ok(x.iter().enumerate().map(|(i, dim)| if axes.contains(&i) { 1 } else { *dim }).collect())
            }
            Self::Reshape(dims) => {
                let [from, to] = [x, dims].map(elements);
                match from.is_some() && from == to {
                    true => Ok(dims.clone()),
                    false => Err(format!("the shapes {x:?} and {dims:?} have different numbers of elements")),
                }
            }
            Self::Permute(axes) => {
                let mut sorted = axes.clone();
                sorted.sort_unstable();
                match sorted.iter().copied().eq(0..x.len()) {
                    true => Ok(axes.iter().map(|axis| x[*axis]).collect()),
                    false => Err(format!("{axes:?} is no permutation of the axes of {x:?}")),
                }
            }
            Self::Concatenate(axis) => {
                check_axis(x, *axis)?;
                let mut dims = x.to_vec();
                dims[*axis] = 0;
                for operand in operands {
                    let other = &operand.dims;
                    if other.len() != x.len() || (0..x.len()).any(|i| i != *axis && other[i] != x[i]) {
                        return Err(format!("operands {x:?} and {other:?} must differ only in axis {axis}"));
                    }
                    dims[*axis] = dims[*axis].checked_add(other[*axis]).ok_or("the sum of the sizes overflows")?;
                }
                Ok(dims)
            }
            Self::Slice { axis, start, end, step } => {
                check_axis(x, *axis)?;
                if start >= end || *end > x[*axis] || *step == 0 {
                    return Err(format!("{start}..{end} in steps of {step} is no part of axis {axis} of {x:?}"));
                }
                let mut dims = x.to_vec();
                dims[*axis] = (end - start).div_ceil(*step);
                Ok(dims)
            }
            Self::Pad { padding, .. } => {
                if padding.len() != x.len() {
                    return Err(format!("the padding has {} pairs for the {} axes of {x:?}", padding.len(), x.len()));
                }
                let size =
                    |(dim, [before, after]): (&usize, &[usize; 2])| dim.checked_add(*before)?.checked_add(*after);
                let dims = x.iter().zip(padding).map(size).collect::<Option<_>>();
                dims.ok_or_else(|| "the padded size overflows".into())
            }
            Self::Gather => match x {
                [rows, rest @ ..] if *rows > 0 => Ok([second, rest].concat()),
                _ => Err(format!("the table {x:?} must be [rows, ..]")),
            },
        }
    }
}

/// Returns the number of elements, or `None` if it overflows.
pub(super) fn elements(dims: &[usize]) -> Option<usize> {
    dims.iter().try_fold(1_usize, |product, dim| product.checked_mul(*dim))
}

fn check_axis(dims: &[usize], axis: usize) -> Result<(), String> {
    if axis < dims.len() { Ok(()) } else { Err(format!("the operand {dims:?} has no axis {axis}")) }
}

fn broadcast(a: &[usize], b: &[usize]) -> Result<Vec<usize>, String> {
    let rank = a.len().max(b.len());
    let at = |dims: &[usize], i: usize| (i + dims.len()).checked_sub(rank).map_or(1, |i| dims[i]);
    let dim = |i| match (at(a, i), at(b, i)) {
        (a, b) if a == b => Ok(a),
        (1, b) => Ok(b),
        (a, 1) => Ok(a),
        _ => Err(format!("operands {a:?} and {b:?} do not broadcast")),
    };
    (0..rank).map(dim).collect()
}

/// Returns the number of positions of a window, or `None` if there is none.
fn positions(input: usize, [before, after]: [usize; 2], window: usize, stride: usize) -> Option<usize> {
    let free = input.checked_add(before)?.checked_add(after)?.checked_sub(window)?;
    free.checked_div(stride).map(|n| n + 1)
}

fn pool(x: &[usize], window: &Window) -> Result<Vec<usize>, String> {
    let &[channels, height, width] = x else {
        return Err(format!("the operand {x:?} must be [channels, height, width]"));
    };
    let mut dims = [channels, height, width];
    for i in 0..2 {
        let (size, padding) = (window.size[i], window.padding[i]);
        // Every window then has an element inside of the image.
        let inside = padding.iter().all(|padding| *padding < size);
        let count = positions(dims[i + 1], padding, size, window.stride[i]).filter(|_| inside && dims[i + 1] > 0);
        dims[i + 1] = count.ok_or_else(|| format!("no window {window:?} fits on the operand {x:?}"))?;
    }
    Ok(dims.into())
}

fn convolution(x: &[usize], weight: &[usize], options: &ConvolutionOptions) -> Result<Vec<usize>, String> {
    let (&[channels, height, width], &[outputs, inputs, kh, kw]) = (x, weight) else {
        return Err(format!("operands {x:?} and {weight:?} must be [C, H, W] and [O, C / groups, kh, kw]"));
    };
    let ConvolutionOptions { stride, padding, dilation, groups } = options;
    if [kh, kw, stride[0], stride[1], dilation[0], dilation[1], *groups].contains(&0) {
        return Err("kernel, stride, dilation and groups must be at least 1".into());
    }
    if inputs.checked_mul(*groups) != Some(channels) || outputs % groups != 0 {
        return Err(format!(
            "operands {x:?} and {weight:?} do not fit {groups} groups: the weight is [O, C / groups, kh, kw]"
        ));
    }
    let mut dims = [outputs, height, width];
    for (i, kernel) in [kh, kw].into_iter().enumerate() {
        let dilated = dilation[i].checked_mul(kernel - 1).and_then(|size| size.checked_add(1));
        let count = dilated.and_then(|size| positions(dims[i + 1], padding[i], size, stride[i]));
        dims[i + 1] = count.ok_or_else(|| format!("the kernel of {weight:?} exceeds the padded operand {x:?}"))?;
    }
    Ok(dims.into())
}
