//! Operations on elements wherever they are stored: everything that is no product, pooling or map per channel.

use alloc::vec::Vec;

use super::strided::{Strided, pairs, rows};
use super::{Call, Layer, Split, Task};
use crate::kernels::memory::Words;
use crate::network::layout::Image;
use crate::network::operation::{Binary, Operation, Reduction, Unary};

/// An operand.
#[derive(Debug, Clone)]
pub(in crate::network) enum Operand {
    Value(Strided),
    Constant { values: Vec<f32>, at: Strided },
}

impl Operand {
    fn at(&self) -> &Strided {
        match self {
            Self::Value(at) | Self::Constant { at, .. } => at,
        }
    }

    /// Returns the address to which the offsets of an item are relative.
    ///
    /// # Safety
    /// `memory` must be the arena, with this item.
    unsafe fn base(&self, memory: *const f32, item: usize) -> *const f32 {
        match self {
            // SAFETY: guaranteed by the caller.
            Self::Value(at) => unsafe { memory.add(item * at.item) },
            Self::Constant { values, .. } => values.as_ptr(),
        }
    }
}

/// An operation, item by item.
#[derive(Debug)]
pub(in crate::network) struct General {
    pub(in crate::network) operation: Operation,
    pub(in crate::network) operands: Vec<Operand>,
    pub(in crate::network) output: Strided,
    /// The image of the output, whose border is to be cleared.
    pub(in crate::network) border: Image,
}

impl General {
    /// Returns `true` if the layer computes an operation.
    pub(in crate::network) fn supports(operation: &Operation) -> bool {
        !matches!(
            operation,
            Operation::Convolution(_)
                | Operation::Linear
                | Operation::MaxPool(_)
                | Operation::AveragePool { .. }
                | Operation::AdaptiveAveragePool(_)
        )
    }
}

impl Layer for General {
    fn split(&self, items: usize, threads: usize) -> Split {
        Split::rows(items.min(threads))
    }

    unsafe fn run(&self, task: Task, call: &Call<'_>, _scratch: &mut Words) {
        for item in task.rows(call.items) {
            // SAFETY: guaranteed by the caller; tasks have disjoint items.
            unsafe {
                let rows = item * self.border.height..(item + 1) * self.border.height;
                self.border.clear_border(call.memory, rows);
                self.item(call.memory, item);
            }
        }
    }

    fn describe(&self) -> &'static str {
        self.operation.name()
    }
}

impl General {
    /// Computes an item.
    ///
    /// # Safety
    /// `memory` must be the arena, and no other thread may access the output of this item.
    unsafe fn item(&self, memory: *mut f32, item: usize) {
        let Self { operation, operands, output, .. } = self;
        // SAFETY: all offsets lie within the values, whose dimensions the graph has checked.
        unsafe {
            let y = memory.add(item * output.item);
            let (x, from) = (operands[0].base(memory, item), operands[0].at());
            let last = |at: &Strided| (at.dims.last().copied().unwrap_or(1), at.strides.last().copied().unwrap_or(0));
            let (inner, step) = last(output);
            match operation {
                Operation::Unary(function) => {
                    let (_, x_step) = last(from);
                    rows([output, from], |[to, at]| {
                        for i in 0..inner {
                            *y.add(to + i * step) = unary(*function, *x.add(at + i * x_step));
                        }
                    });
                }
                Operation::Binary(function) => {
                    let b = operands[1].base(memory, item);
                    let (from, other) = (from.broadcast(&output.dims), operands[1].at().broadcast(&output.dims));
                    let ((_, x_step), (_, b_step)) = (last(&from), last(&other));
                    rows([output, &from, &other], |[to, at, second]| {
                        for i in 0..inner {
                            *y.add(to + i * step) =
                                binary(*function, *x.add(at + i * x_step), *b.add(second + i * b_step));
                        }
                    });
                }
                Operation::MatrixProduct => {
                    let (b, second) = (operands[1].base(memory, item), operands[1].at());
                    matrix_product(Matrices { x, from, b, second, y, output });
                }
                Operation::Softmax(axis) => {
                    let (count, distance) = (from.dims[*axis], from.strides[*axis]);
                    let y_distance = output.strides[*axis];
                    let (lines, to) = (from.part(*axis, 0, 1, 1), output.part(*axis, 0, 1, 1));
                    pairs(&lines, &to, |at, to| {
                        let value = |i: usize| *x.add(at + i * distance);
                        let max = (0..count).map(value).fold(f32::NEG_INFINITY, f32::max);
                        let mut sum = 0.0;
                        for i in 0..count {
                            let exp = libm::expf(value(i) - max);
                            sum += exp;
                            *y.add(to + i * y_distance) = exp;
                        }
                        (0..count).for_each(|i| *y.add(to + i * y_distance) /= sum);
                    });
                }
                Operation::Reduce { function, axes } => {
                    let (mut lines, mut inside) = (from.clone(), from.clone());
                    for i in 0..from.dims.len() {
                        if axes.contains(&i) { lines.dims[i] = 1 } else { inside.dims[i] = 1 }
                    }
                    inside.offset = 0;
                    let count: usize = inside.dims.iter().product();
                    let (len, distance) = last(&inside);
                    pairs(&lines, output, |at, to| {
                        let mut result = match function {
                            Reduction::Sum | Reduction::Mean => 0.0,
                            Reduction::Max => f64::NEG_INFINITY,
                            Reduction::Min => f64::INFINITY,
                        };
                        rows([&inside], |[first]| {
                            for i in 0..len {
                                let value = f64::from(*x.add(at + first + i * distance));
                                result = match function {
                                    Reduction::Sum | Reduction::Mean => result + value,
                                    Reduction::Max => result.max(value),
                                    Reduction::Min => result.min(value),
                                };
                            }
                        });
                        let divisor = if *function == Reduction::Mean { count as f64 } else { 1.0 };
                        *y.add(to) = (result / divisor) as f32;
                    });
                }
                Operation::Permute(axes) => copy(x, &from.permuted(axes), y, output),
                Operation::Slice { axis, start, step, .. } => {
                    copy(x, &from.part(*axis, *start, output.dims[*axis], *step), y, output);
                }
                Operation::Pad { padding, value } => {
                    rows([output], |[to]| (0..inner).for_each(|i| *y.add(to + i * step) = *value));
                    let mut inside = output.clone();
                    for (axis, [before, _]) in padding.iter().enumerate() {
                        inside = inside.part(axis, *before, from.dims[axis], 1);
                    }
                    copy(x, from, y, &inside);
                }
                Operation::Concatenate(axis) => {
                    let mut start = 0;
                    for operand in operands {
                        let count = operand.at().dims[*axis];
                        copy(operand.base(memory, item), operand.at(), y, &output.part(*axis, start, count, 1));
                        start += count;
                    }
                }
                Operation::Gather => {
                    let (indices, second) = (operands[1].base(memory, item), operands[1].at());
                    // Each index of the result starts with an index of the operand `indices`.
                    let depth = second.dims.len();
                    let mut target = output.clone();
                    target.dims.truncate(depth);
                    target.strides.truncate(depth);
                    let row = |strided: &Strided, axes: usize, offset: usize| Strided {
                        offset,
                        item: 0,
                        dims: strided.dims[axes..].into(),
                        strides: strided.strides[axes..].into(),
                    };
                    pairs(second, &target, |at, to| {
                        let index = libm::roundf(*indices.add(at)).max(0.0) as usize;
                        let start = from.offset + index.min(from.dims[0] - 1) * from.strides[0];
                        copy(x, &row(from, 1, start), y, &row(output, depth, to));
                    });
                }
                _ => copy(x, from, y, output),
            }
        }
    }
}

/// Copies the elements of a value in row-major order.
unsafe fn copy(x: *const f32, from: &Strided, y: *mut f32, to: &Strided) {
    // SAFETY: guaranteed by the caller of `item`.
    pairs(from, to, |from, to| unsafe { *y.add(to) = *x.add(from) });
}

struct Matrices<'a> {
    x: *const f32,
    from: &'a Strided,
    b: *const f32,
    second: &'a Strided,
    y: *mut f32,
    output: &'a Strided,
}

unsafe fn matrix_product(Matrices { x, from, b, second, y, output }: Matrices<'_>) {
    let outer = output.dims.len() - 2;
    let split = |at: &Strided| -> (Strided, [usize; 2], [usize; 2]) {
        let n = at.dims.len() - 2;
        // One element per matrix, with a last axis of size 1 for the row of `rows`.
        let mut matrices = at.clone();
        matrices.dims.truncate(n);
        matrices.strides.truncate(n);
        let mut matrices = matrices.broadcast(&output.dims[..outer]);
        matrices.dims.push(1);
        matrices.strides.push(0);
        (matrices, [at.dims[n], at.dims[n + 1]], [at.strides[n], at.strides[n + 1]])
    };
    let ((a, [m, k], [a_row, a_column]), (c, [_, n], [b_row, b_column])) = (split(from), split(second));
    let (to, _, [y_row, y_column]) = split(output);
    rows([&to, &a, &c], |[to, at, second]| {
        for i in 0..m {
            // SAFETY: guaranteed by the caller of `item`.
            unsafe {
                let row = y.add(to + i * y_row);
                (0..n).for_each(|j| *row.add(j * y_column) = 0.0);
                for l in 0..k {
                    let factor = *x.add(at + i * a_row + l * a_column);
                    let from = b.add(second + l * b_row);
                    if y_column == 1 && b_column == 1 {
                        (0..n).for_each(|j| *row.add(j) += factor * *from.add(j));
                    } else {
                        (0..n).for_each(|j| *row.add(j * y_column) += factor * *from.add(j * b_column));
                    }
                }
            }
        }
    });
}

fn unary(function: Unary, x: f32) -> f32 {
    match function {
        Unary::Relu => crate::kernels::epilogue::relu(x),
        Unary::LeakyRelu(slope) => {
            if x < 0.0 {
                slope * x
            } else {
                x
            }
        }
        Unary::Clamp([low, high]) => {
            if x < low {
                low
            } else if x > high {
                high
            } else {
                x
            }
        }
        Unary::Sigmoid => 1.0 / (1.0 + libm::expf(-x)),
        Unary::Tanh => libm::tanhf(x),
        Unary::Gelu => 0.5 * x * (1.0 + libm::erff(x * core::f32::consts::FRAC_1_SQRT_2)),
        Unary::Erf => libm::erff(x),
        Unary::Exp => libm::expf(x),
        Unary::Log => libm::logf(x),
        Unary::Sqrt => libm::sqrtf(x),
        Unary::Abs => libm::fabsf(x),
        Unary::Negate => -x,
        Unary::Reciprocal => 1.0 / x,
    }
}

fn binary(function: Binary, a: f32, b: f32) -> f32 {
    match function {
        Binary::Add => a + b,
        Binary::Subtract => a - b,
        Binary::Multiply => a * b,
        Binary::Divide => a / b,
        Binary::Maximum => a.max(b),
        Binary::Minimum => a.min(b),
        Binary::Power => libm::powf(a, b),
    }
}
