//! The definition of each operation, in float64 and without regard to speed.

use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

use super::graph::{Graph, Source};
use super::operation::{Binary, Operation, Reduction, Unary, Window, elements};
use super::{NetworkError, Value};
use crate::kernels::ConvolutionOptions;

/// Elements and dimensions of an item.
pub(super) struct Tensor {
    pub(super) dims: Vec<usize>,
    pub(super) values: Vec<f64>,
}

impl Graph {
    /// Computes the output for one item in float64, by the definition of each operation.
    ///
    /// This is slow. It is what compiled networks are compared with.
    ///
    /// # Errors
    /// [`NetworkError::Length`] if the number of elements is not that of an item.
    pub fn evaluate(&self, input: &[f32]) -> Result<Vec<f64>, NetworkError> {
        let mut values = self.evaluate_all(input)?;
        Ok(values.swap_remove(self.output.0).values)
    }

    /// Computes all values for one item.
    pub(super) fn evaluate_all(&self, input: &[f32]) -> Result<Vec<Tensor>, NetworkError> {
        let expected = elements(&self.shape(Value(0)).dims).unwrap_or(usize::MAX);
        if input.len() != expected {
            return Err(NetworkError::Length { what: "input", batch: 1, expected, found: input.len() });
        }
        let mut tensors: Vec<Tensor> = Vec::with_capacity(self.len());
        for entry in &self.entries {
            let floats = |values: &[f32]| values.iter().map(|x| f64::from(*x)).collect();
            let values = match &entry.source {
                Source::Input => floats(input),
                Source::Constant(constant) => floats(&constant.values()),
                Source::Node { operation, operands } => {
                    let operands: Vec<&Tensor> = operands.iter().map(|value| &tensors[value.0]).collect();
                    evaluate(operation, &operands, &entry.shape.dims)
                }
            };
            tensors.push(Tensor { dims: entry.shape.dims.clone(), values });
        }
        Ok(tensors)
    }
}

/// Computes an operation. `dims` is the shape of the result.
pub(super) fn evaluate(operation: &Operation, operands: &[&Tensor], dims: &[usize]) -> Vec<f64> {
    let x = operands[0];
    let count: usize = dims.iter().product();
    let bias = |i: usize| operands.get(2).map_or(0.0, |bias| bias.values[i]);
    match operation {
        Operation::Convolution(options) => convolution(x, operands[1], options, dims, bias),
        Operation::TransposedConvolution { options, .. } => transposed_convolution(x, operands[1], options, dims, bias),
        Operation::Linear => {
            let (w, outputs) = (operands[1], dims[dims.len() - 1]);
            let inputs = w.dims[0];
            let dot = |row: usize, o: usize| -> f64 {
                (0..inputs).map(|i| x.values[row * inputs + i] * w.values[i * outputs + o]).sum()
            };
            (0..count).map(|i| dot(i / outputs, i % outputs) + bias(i % outputs)).collect()
        }
        Operation::MatrixProduct => {
            let (b, rank) = (operands[1], dims.len());
            let (m, n) = (dims[rank - 2], dims[rank - 1]);
            let k = x.dims[x.dims.len() - 1];
            let batch = &dims[..rank - 2];
            let mut y = Vec::with_capacity(count);
            for (matrix, index) in (0..count / (m * n).max(1)).map(|i| (i, unravel(i, batch))) {
                let _ = matrix;
                let a = ravel(&index, &x.dims[..x.dims.len() - 2]) * m * k;
                let c = ravel(&index, &b.dims[..b.dims.len() - 2]) * k * n;
                for i in 0..m * n {
                    let (row, column) = (i / n, i % n);
                    y.push((0..k).map(|l| x.values[a + row * k + l] * b.values[c + l * n + column]).sum());
                }
            }
            y
        }
        Operation::Unary(function) => x.values.iter().map(|x| unary(*function, *x)).collect(),
        Operation::Binary(function) => {
            let at = |tensor: &Tensor, index: &[usize]| tensor.values[ravel(index, &tensor.dims)];
            let value = |i| {
                let index = unravel(i, dims);
                binary(*function, at(x, &index), at(operands[1], &index))
            };
            (0..count).map(value).collect()
        }
        Operation::Where => {
            let [condition, first, second] = [0, 1, 2].map(|i| operands[i]);
            let at = |tensor: &Tensor, index: &[usize]| tensor.values[ravel(index, &tensor.dims)];
            let value = |i| {
                let index = unravel(i, dims);
                at(if at(condition, &index) != 0.0 { first } else { second }, &index)
            };
            (0..count).map(value).collect()
        }
        Operation::MaxPool(window) => {
            pool(x, window, dims, |inside, _| inside.iter().copied().fold(f64::NEG_INFINITY, max))
        }
        Operation::AveragePool { window, count_padding } => pool(x, window, dims, |inside, size| {
            inside.iter().sum::<f64>() / if *count_padding { size } else { inside.len() } as f64
        }),
        Operation::AdaptiveAveragePool(size) => {
            let [height, width] = [x.dims[1], x.dims[2]];
            let mean = |i: usize| {
                let (c, row, column) = (i / (size[0] * size[1]), i / size[1] % size[0], i % size[1]);
                let (rows, columns) = (adaptive_range(row, size[0], height), adaptive_range(column, size[1], width));
                let n = rows.len() * columns.len();
                let sum: f64 = rows
                    .flat_map(|y| columns.clone().map(move |column| (y, column)))
                    .map(|(y, column)| x.values[(c * height + y) * width + column])
                    .sum();
                sum / n as f64
            };
            (0..count).map(mean).collect()
        }
        Operation::Softmax(axis) => {
            let max = reduce(x, &[*axis], f64::NEG_INFINITY, max);
            let mut keep = x.dims.clone();
            keep[*axis] = 1;
            let row = |i| ravel(&unravel(i, dims), &keep);
            let values = (0..count).map(|i| libm::exp(x.values[i] - max[row(i)])).collect();
            let exps = Tensor { dims: x.dims.clone(), values };
            let sums = reduce(&exps, &[*axis], 0.0, |a, b| a + b);
            (0..count).map(|i| exps.values[i] / sums[row(i)]).collect()
        }
        Operation::Reduce { function, axes } => {
            let n: usize = axes.iter().map(|axis| x.dims[*axis]).product();
            match function {
                Reduction::Sum => reduce(x, axes, 0.0, |a, b| a + b),
                Reduction::Mean => reduce(x, axes, 0.0, |a, b| a + b).into_iter().map(|sum| sum / n as f64).collect(),
                Reduction::Max => reduce(x, axes, f64::NEG_INFINITY, max),
                Reduction::Min => reduce(x, axes, f64::INFINITY, min),
            }
        }
        Operation::Reshape(_) => x.values.clone(),
        Operation::Permute(axes) => {
            let source = |i| {
                let index = unravel(i, dims);
                let mut from = vec![0; axes.len()];
                axes.iter().zip(&index).for_each(|(axis, i)| from[*axis] = *i);
                x.values[ravel(&from, &x.dims)]
            };
            (0..count).map(source).collect()
        }
        Operation::Concatenate(axis) => {
            let value = |i| {
                let mut index = unravel(i, dims);
                for operand in operands {
                    match index[*axis].checked_sub(operand.dims[*axis]) {
                        Some(rest) => index[*axis] = rest,
                        None => return operand.values[ravel(&index, &operand.dims)],
                    }
                }
                unreachable!("the operands cover the axis")
            };
            (0..count).map(value).collect()
        }
        Operation::Slice { axis, start, step, .. } => {
            let value = |i| {
                let mut index = unravel(i, dims);
                index[*axis] = start + index[*axis] * step;
                x.values[ravel(&index, &x.dims)]
            };
            (0..count).map(value).collect()
        }
        Operation::Pad { padding, value } => {
            let element = |i| {
                let index = unravel(i, dims);
                let inner = index.iter().zip(padding).zip(&x.dims);
                let from: Option<Vec<usize>> =
                    inner.map(|((i, [before, _]), dim)| i.checked_sub(*before).filter(|i| i < dim)).collect();
                from.map_or(f64::from(*value), |index| x.values[ravel(&index, &x.dims)])
            };
            (0..count).map(element).collect()
        }
        Operation::Gather => {
            let (row, rows) = (x.values.len() / x.dims[0], x.dims[0]);
            let gather = |index: &f64| {
                let index = (libm::round(*index).max(0.0) as usize).min(rows - 1);
                x.values[index * row..][..row].iter().copied()
            };
            operands[1].values.iter().flat_map(gather).collect()
        }
    }
}

/// Converts a row-major index to one index per axis.
fn unravel(mut i: usize, dims: &[usize]) -> Vec<usize> {
    let mut index = vec![0; dims.len()];
    for (at, dim) in index.iter_mut().zip(dims).rev() {
        *at = i % dim;
        i /= dim;
    }
    index
}

/// Returns the row-major index in a tensor that is aligned at the last axis and broadcast along axes of size 1.
fn ravel(index: &[usize], dims: &[usize]) -> usize {
    let index = &index[index.len() - dims.len()..];
    index.iter().zip(dims).fold(0, |sum, (i, dim)| sum * dim + if *dim == 1 { 0 } else { *i })
}

fn reduce(x: &Tensor, axes: &[usize], start: f64, f: impl Fn(f64, f64) -> f64) -> Vec<f64> {
    let dims: Vec<usize> = x.dims.iter().enumerate().map(|(i, dim)| if axes.contains(&i) { 1 } else { *dim }).collect();
    let mut y = vec![start; dims.iter().product()];
    for (i, value) in x.values.iter().enumerate() {
        let to = &mut y[ravel(&unravel(i, &x.dims), &dims)];
        *to = f(*to, *value);
    }
    y
}

fn convolution(
    x: &Tensor,
    weight: &Tensor,
    options: &ConvolutionOptions,
    dims: &[usize],
    bias: impl Fn(usize) -> f64,
) -> Vec<f64> {
    let ConvolutionOptions { stride, padding, dilation, groups } = options;
    let (height, width) = (x.dims[1], x.dims[2]);
    let [inputs, kh, kw] = [weight.dims[1], weight.dims[2], weight.dims[3]];
    let mut y = Vec::with_capacity(dims.iter().product());
    for o in 0..dims[0] {
        let group = o / (dims[0] / groups);
        for (row, column) in (0..dims[1]).flat_map(|row| (0..dims[2]).map(move |column| (row, column))) {
            let mut sum = bias(o);
            for k in 0..inputs * kh * kw {
                let (c, ky, kx) = (k / (kh * kw), k / kw % kh, k % kw);
                let from_y = (row * stride[0] + ky * dilation[0]).checked_sub(padding[0][0]).filter(|y| *y < height);
                let from_x = (column * stride[1] + kx * dilation[1]).checked_sub(padding[1][0]).filter(|x| *x < width);
                if let (Some(from_y), Some(from_x)) = (from_y, from_x) {
                    let channel = group * inputs + c;
                    sum += weight.values[o * inputs * kh * kw + k]
                        * x.values[(channel * height + from_y) * width + from_x];
                }
            }
            y.push(sum);
        }
    }
    y
}

fn transposed_convolution(
    x: &Tensor,
    weight: &Tensor,
    options: &ConvolutionOptions,
    dims: &[usize],
    bias: impl Fn(usize) -> f64,
) -> Vec<f64> {
    let ConvolutionOptions { stride, padding, dilation, groups } = options;
    let [height, width, outputs] = [dims[1], dims[2], dims[0] / groups];
    let [kh, kw] = [weight.dims[2], weight.dims[3]];
    let mut y: Vec<f64> = (0..dims.iter().product()).map(|i| bias(i / (height * width))).collect();
    for (i, value) in x.values.iter().enumerate() {
        let (c, row, column) = (i / (x.dims[1] * x.dims[2]), i / x.dims[2] % x.dims[1], i % x.dims[2]);
        let first = c / (x.dims[0] / groups) * outputs;
        for k in 0..outputs * kh * kw {
            let (o, ky, kx) = (first + k / (kh * kw), k / kw % kh, k % kw);
            let to_y = (row * stride[0] + ky * dilation[0]).checked_sub(padding[0][0]).filter(|y| *y < height);
            let to_x = (column * stride[1] + kx * dilation[1]).checked_sub(padding[1][0]).filter(|x| *x < width);
            if let (Some(to_y), Some(to_x)) = (to_y, to_x) {
                y[(o * height + to_y) * width + to_x] += weight.values[c * outputs * kh * kw + k] * value;
            }
        }
    }
    y
}

fn pool(x: &Tensor, window: &Window, dims: &[usize], f: impl Fn(&[f64], usize) -> f64) -> Vec<f64> {
    let Window { size, stride, padding } = window;
    let (height, width) = (x.dims[1], x.dims[2]);
    let (area, count): (usize, usize) = (dims[1] * dims[2], dims.iter().product());
    let value = |i: usize| {
        let (c, row, column) = (i / area, i / dims[2] % dims[1], i % dims[2]);
        let mut inside = Vec::new();
        for k in 0..size[0] * size[1] {
            let y = (row * stride[0] + k / size[1]).checked_sub(padding[0][0]).filter(|y| *y < height);
            let column = (column * stride[1] + k % size[1]).checked_sub(padding[1][0]).filter(|x| *x < width);
            if let (Some(y), Some(column)) = (y, column) {
                inside.push(x.values[(c * height + y) * width + column]);
            }
        }
        f(&inside, size[0] * size[1])
    };
    (0..count).map(value).collect()
}

/// Returns the larger number, and NaN if either one is NaN.
pub(super) fn max(a: f64, b: f64) -> f64 {
    if a > b || a.is_nan() { a } else { b }
}

/// Returns the smaller number, and NaN if either one is NaN.
pub(super) fn min(a: f64, b: f64) -> f64 {
    if a < b || a.is_nan() { a } else { b }
}

/// Returns the rows or columns, of `len`, that the output at `i` of `n` averages. The products need more than 32 bits.
pub(super) fn adaptive_range(i: usize, n: usize, len: usize) -> Range<usize> {
    let [i, n, len] = [i, n, len].map(|number| number as u64);
    (i * len / n) as usize..((i + 1) * len).div_ceil(n) as usize
}

/// Computes a function of one number.
pub(super) fn unary(function: Unary, x: f64) -> f64 {
    match function {
        Unary::Relu => {
            if x < 0.0 {
                0.0
            } else {
                x
            }
        }
        Unary::LeakyRelu(slope) => {
            if x < 0.0 {
                f64::from(slope) * x
            } else {
                x
            }
        }
        Unary::Clamp([low, high]) => {
            if x < f64::from(low) {
                f64::from(low)
            } else if x > f64::from(high) {
                f64::from(high)
            } else {
                x
            }
        }
        Unary::Sigmoid => 1.0 / (1.0 + libm::exp(-x)),
        Unary::Tanh => libm::tanh(x),
        Unary::Gelu => 0.5 * x * (1.0 + libm::erf(x * core::f64::consts::FRAC_1_SQRT_2)),
        Unary::Erf => libm::erf(x),
        Unary::Exp => libm::exp(x),
        Unary::Log => libm::log(x),
        Unary::Sqrt => libm::sqrt(x),
        Unary::Abs => libm::fabs(x),
        Unary::Negate => -x,
        Unary::Reciprocal => 1.0 / x,
    }
}

/// Computes a function of two numbers.
pub(super) fn binary(function: Binary, a: f64, b: f64) -> f64 {
    match function {
        Binary::Add => a + b,
        Binary::Subtract => a - b,
        Binary::Multiply => a * b,
        Binary::Divide => a / b,
        Binary::Maximum => max(a, b),
        Binary::Minimum => min(a, b),
        Binary::Power => libm::pow(a, b),
        Binary::Equal => f64::from(a == b),
        Binary::Less => f64::from(a < b),
        Binary::LessOrEqual => f64::from(a <= b),
    }
}
