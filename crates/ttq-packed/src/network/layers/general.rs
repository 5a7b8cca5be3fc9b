//! Operations on elements wherever they are stored: everything that is no product, pooling or map per channel.

use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

use ttq_math::exp;

use super::functions::{LANES, binary, each};
use super::strided::{Loops, Strided};
use super::{Call, Layer, Split, Task};
use crate::kernels::level::Kernel;
use crate::kernels::memory::Words;
use crate::kernels::simd::Simd;
use crate::network::layout::Image;
use crate::network::operation::{Binary, Operation, Reduction};
use crate::network::reference::{max, min};

/// Minimum number of elements per task.
const WORK: usize = 1 << 13;

/// An operand.
#[derive(Debug, Clone)]
pub(in crate::network) enum Operand {
    Value(Strided),
    Constant { values: Vec<f32>, at: Strided },
}

impl Operand {
    pub(super) fn at(&self) -> &Strided {
        match self {
            Self::Value(at) | Self::Constant { at, .. } => at,
        }
    }

    /// Returns the address to which offsets are relative, those of all items.
    pub(super) fn base(&self, memory: *const f32) -> *const f32 {
        match self {
            Self::Value(_) => memory,
            Self::Constant { values, .. } => values.as_ptr(),
        }
    }
}

/// An operation on elements.
#[derive(Debug)]
pub(in crate::network) struct General {
    name: &'static str,
    operands: Vec<Operand>,
    work: Work,
    /// The image of the output, whose border is to be cleared.
    border: Image,
}

/// Loops over the elements of the output, and over those of the operands that belong to them.
#[derive(Debug)]
enum Work {
    Binary(Binary, Loops<3>),
    /// The output, the condition, and what it chooses from.
    Where(Loops<4>),
    /// The steps along the axis are those of output and operand.
    Softmax {
        lines: Loops<2>,
        len: usize,
        steps: [usize; 2],
    },
    Reduce {
        function: Reduction,
        outputs: Loops<2>,
        inside: Loops<1>,
    },
    /// Copies from each operand to a part of the output.
    Copy(Vec<Loops<2>>),
    /// A copy between dimensions that have no common parts, element by element.
    Reorder {
        from: Strided,
        to: Strided,
    },
    /// A value for all elements, and a copy.
    Pad {
        value: f32,
        all: Loops<1>,
        inside: Loops<2>,
    },
    /// For each index: the row of the output, and the table, of some rows at a distance.
    Gather {
        indices: Loops<3>,
        row: Loops<2>,
        rows: usize,
        distance: usize,
    },
}

impl General {
    /// Returns `true` if the layer computes an operation.
    pub(in crate::network) fn supports(operation: &Operation) -> bool {
        !matches!(
            operation,
            Operation::Convolution(_)
                | Operation::TransposedConvolution { .. }
                | Operation::Linear
                | Operation::MatrixProduct
                | Operation::Unary(_)
                | Operation::MaxPool(_)
                | Operation::AveragePool { .. }
                | Operation::AdaptiveAveragePool(_)
        )
    }

    /// Creates the layer, for an operation that it supports. `border` is the image of the output.
    pub(in crate::network) fn new(
        operation: &Operation,
        operands: Vec<Operand>,
        output: &Strided,
        border: Image,
    ) -> Self {
        let from = operands[0].at();
        let work = match operation {
            Operation::Binary(function) => {
                let [a, b] = [from, operands[1].at()].map(|operand| operand.broadcast(&output.dims));
                Work::Binary(*function, Loops::new([output, &a, &b]))
            }
            Operation::Where => {
                let [condition, a, b] = [0, 1, 2].map(|i| operands[i].at().broadcast(&output.dims));
                Work::Where(Loops::new([output, &condition, &a, &b]))
            }
            Operation::Softmax(axis) => {
                let [to, at] = [output, from].map(|value| value.part(*axis, 0, 1, 1));
                let steps = [output.strides[*axis], from.strides[*axis]];
                Work::Softmax { lines: Loops::lines([&to, &at]), len: from.dims[*axis], steps }
            }
            Operation::Reduce { function, axes } => {
                let (mut outputs, mut inside) = (from.clone(), from.clone());
                for i in 0..from.dims.len() {
                    if axes.contains(&i) { outputs.dims[i] = 1 } else { inside.dims[i] = 1 }
                }
                inside.offset = 0;
                let inside = Loops::new([&inside]);
                // Lanes are neighbours along a reduced axis, or outputs.
                let outputs = match inside.steps {
                    [1] => Loops::lines([output, &outputs]),
                    _ => Loops::new([output, &outputs]),
                };
                Work::Reduce { function: *function, outputs, inside }
            }
            Operation::Permute(axes) => Work::Copy(vec![Loops::new([output, &from.permuted(axes)])]),
            Operation::Slice { axis, start, step, .. } => {
                Work::Copy(vec![Loops::new([output, &from.part(*axis, *start, output.dims[*axis], *step)])])
            }
            Operation::Pad { padding, value } => {
                let mut inside = output.clone();
                for (axis, [before, _]) in padding.iter().enumerate() {
                    inside = inside.part(axis, *before, from.dims[axis], 1);
                }
                Work::Pad { value: *value, all: Loops::new([output]), inside: Loops::new([&inside, from]) }
            }
            Operation::Concatenate(axis) => {
                let mut start = 0;
                let copy = |operand: &Operand| {
                    let count = operand.at().dims[*axis];
                    start += count;
                    Loops::new([&output.part(*axis, start - count, count, 1), operand.at()])
                };
                Work::Copy(operands.iter().map(copy).collect())
            }
            Operation::Gather => {
                let second = operands[1].at();
                let [to, mut row] = output.split_at(second.dims.len());
                row.offset = 0;
                let zeros = vec![0; second.dims.len()];
                let table = Strided { strides: zeros, dims: second.dims.clone(), ..*from };
                let [_, mut elements] = from.split_at(1);
                elements.offset = 0;
                Work::Gather {
                    indices: Loops::lines([&to, second, &table]),
                    row: Loops::new([&row, &elements]),
                    rows: from.dims[0],
                    distance: from.strides[0],
                }
            }
            _ => match output.aligned(from) {
                Some([to, from]) => Work::Copy(vec![Loops::new([&to, &from])]),
                None => Work::Reorder { from: from.clone(), to: output.clone() },
            },
        };
        Self { name: operation.name(), operands, work, border }
    }
}

impl Layer for General {
    fn split(&self, items: usize, threads: usize) -> Split {
        let (rows, work) = match &self.work {
            Work::Binary(_, loops) => (loops.rows, 1),
            Work::Where(loops) => (loops.rows, 1),
            Work::Softmax { lines, .. } => (lines.rows, 4),
            Work::Reduce { outputs, .. } => (outputs.rows, 1),
            Work::Copy(parts) => (parts.iter().map(|part| part.rows).max().unwrap_or(1), 1),
            Work::Gather { indices, .. } => (indices.rows, 1),
            // The work of an item is not divided.
            Work::Reorder { .. } | Work::Pad { .. } => (1, 1),
        };
        let elements: usize = self.operands.iter().map(|operand| operand.at().dims.iter().product::<usize>()).sum();
        let tasks = items.saturating_mul(elements).saturating_mul(work) / WORK;
        Split::rows(if threads == 1 { 1 } else { (2 * threads).min(tasks).min(items.saturating_mul(rows)) })
    }

    unsafe fn run(&self, task: Task, call: &Call<'_>, _scratch: &mut Words) {
        // SAFETY: the caller guarantees level, memory and exclusive access; tasks have disjoint rows.
        unsafe { call.level.run(Part { layer: self, memory: call.memory, items: call.items, task }) }
    }

    fn describe(&self) -> &'static str {
        self.name
    }
}

/// A task of a layer.
struct Part<'a> {
    layer: &'a General,
    memory: *mut f32,
    items: usize,
    task: Task,
}

impl Kernel for Part<'_> {
    #[inline(always)]
    unsafe fn run<V: Simd>(self) {
        let Self { layer: General { operands, work, border, .. }, memory: y, items, task } = self;
        let x = operands[0].base(y);
        let share = |rows: usize| task.rows(items * rows);
        // SAFETY: all indices lie within the values, whose dimensions the graph has checked.
        unsafe {
            border.clear_border(y, share(border.height));
            match work {
                Work::Binary(function, loops) => {
                    let (b, [step, x_step, b_step]) = (operands[1].base(y), loops.steps);
                    for [to, at, second] in loops.iter(share(loops.rows)) {
                        for (i, count) in vectors::<V>(loops.len) {
                            let value = load::<V>(x.add(at + i * x_step), x_step, count, 0.0);
                            let other = load::<V>(b.add(second + i * b_step), b_step, count, 0.0);
                            store::<V>(y.add(to + i * step), step, count, binary::<V>(*function, value, other));
                        }
                    }
                }
                Work::Where(loops) => {
                    let from = [0, 1, 2].map(|i| operands[i].base(y));
                    let [step, steps @ ..] = loops.steps;
                    for [to, at @ ..] in loops.iter(share(loops.rows)) {
                        for i in 0..loops.len {
                            let value = |operand: usize| *from[operand].add(at[operand] + i * steps[operand]);
                            *y.add(to + i * step) = if value(0) != 0.0 { value(1) } else { value(2) };
                        }
                    }
                }
                Work::Softmax { lines, len, steps } => {
                    for [to, at] in lines.iter(share(lines.rows)) {
                        softmax::<V>(x.add(at), y.add(to), *len, *steps);
                    }
                }
                Work::Reduce { function, outputs, inside } => {
                    for [to, at] in outputs.iter(share(outputs.rows)) {
                        let reduction = Reduce { function: *function, inside, x: x.add(at), y: y.add(to) };
                        reduction.row::<V>(outputs.len, outputs.steps);
                    }
                }
                Work::Copy(parts) => {
                    for (operand, loops) in operands.iter().zip(parts) {
                        copy(loops, share(loops.rows), y, operand.base(y));
                    }
                }
                Work::Reorder { from, to } => {
                    let count = from.dims.iter().product();
                    for item in share(1) {
                        for i in 0..count {
                            *y.add(item * to.item + to.at(i)) = *x.add(item * from.item + from.at(i));
                        }
                    }
                }
                Work::Pad { value, all, inside } => {
                    let items = share(1);
                    let rows = |rows: usize| items.start * rows..items.end * rows;
                    for [to] in all.iter(rows(all.rows)) {
                        for (i, count) in vectors::<V>(all.len) {
                            store::<V>(y.add(to + i * all.steps[0]), all.steps[0], count, V::splat(*value));
                        }
                    }
                    copy(inside, rows(inside.rows), y, x);
                }
                Work::Gather { indices, row, rows, distance } => {
                    let i = operands[1].base(y);
                    for [to, at, table] in indices.iter(share(indices.rows)) {
                        let index = libm::roundf(*i.add(at)).max(0.0) as usize;
                        let from = x.add(table + index.min(rows - 1) * distance);
                        copy(row, 0..row.rows, y.add(to), from);
                    }
                }
            }
        }
    }
}

/// Returns the index of the first element and the number of elements of each vector of a row.
#[inline(always)]
fn vectors<V: Simd>(len: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..len.div_ceil(V::LANES)).map(move |i| (i * V::LANES, (len - i * V::LANES).min(V::LANES)))
}

/// Loads elements at a distance. Those after the first `count` are `rest`.
#[inline(always)]
unsafe fn load<V: Simd>(from: *const f32, step: usize, count: usize, rest: f32) -> V::Floats {
    // SAFETY: guaranteed by the caller.
    unsafe {
        match (step, count == V::LANES) {
            (1, true) => V::load(from),
            (0, true) => V::splat(*from),
            _ => {
                let mut lanes = [rest; LANES];
                for i in 0..count {
                    lanes[i] = *from.add(i * step);
                }
                V::load(lanes.as_ptr())
            }
        }
    }
}

/// Stores the first `count` elements at a distance.
#[inline(always)]
unsafe fn store<V: Simd>(to: *mut f32, step: usize, count: usize, value: V::Floats) {
    // SAFETY: guaranteed by the caller.
    unsafe {
        if step == 1 && count == V::LANES {
            return V::store(to, value);
        }
        let lanes = lanes::<V>(value);
        for i in 0..count {
            *to.add(i * step) = lanes[i];
        }
    }
}

#[inline(always)]
unsafe fn lanes<V: Simd>(value: V::Floats) -> [f32; LANES] {
    let mut lanes = [0.0; LANES];
    // SAFETY: guaranteed by the caller.
    unsafe { V::store(lanes.as_mut_ptr(), value) };
    lanes
}

/// Copies some rows.
#[inline(always)]
unsafe fn copy(loops: &Loops<2>, rows: Range<usize>, y: *mut f32, x: *const f32) {
    let [step, x_step] = loops.steps;
    // SAFETY: guaranteed by the caller. Values that are alive at the same time do not overlap.
    unsafe {
        for [to, at] in loops.iter(rows) {
            if [step, x_step] == [1, 1] {
                y.add(to).copy_from_nonoverlapping(x.add(at), loops.len);
            } else {
                for i in 0..loops.len {
                    *y.add(to + i * step) = *x.add(at + i * x_step);
                }
            }
        }
    }
}

/// Combines the lanes of a vector, always the two halves of what is left.
macro_rules! fold {
    ($V:ident, $lanes:expr, |$a:ident, $b:ident| $value:expr) => {{
        let (mut lanes, mut count) = ($lanes, $V::LANES);
        while count > 1 {
            count /= 2;
            for lane in 0..count {
                let ($a, $b) = (lanes[lane], lanes[lane + count]);
                lanes[lane] = $value;
            }
        }
        lanes[0]
    }};
}

/// `exp(x - max) / Σ exp(x - max)`
#[inline(always)]
unsafe fn softmax<V: Simd>(x: *const f32, y: *mut f32, len: usize, [step, x_step]: [usize; 2]) {
    // SAFETY: guaranteed by the caller.
    unsafe {
        let mut max = V::splat(f32::NEG_INFINITY);
        for (i, count) in vectors::<V>(len) {
            max = V::max(max, load::<V>(x.add(i * x_step), x_step, count, f32::NEG_INFINITY));
        }
        let max = fold!(V, lanes::<V>(max), |a, b| if b > a { b } else { a });
        let mut sums = V::splat(0.0);
        for (i, count) in vectors::<V>(len) {
            // The exponential functions after the last one are 0.
            let value = load::<V>(x.add(i * x_step), x_step, count, f32::NEG_INFINITY);
            let value = each!(V, x in value => exp(x - max));
            sums = V::add(sums, value);
            store::<V>(y.add(i * step), step, count, value);
        }
        let factor = V::splat(1.0 / fold!(V, lanes::<V>(sums), |a, b| a + b));
        for (i, count) in vectors::<V>(len) {
            let value = load::<V>(y.add(i * step), step, count, 0.0);
            store::<V>(y.add(i * step), step, count, V::mul(value, factor));
        }
    }
}

/// Reductions of the elements around a row of outputs.
struct Reduce<'a> {
    function: Reduction,
    inside: &'a Loops<1>,
    x: *const f32,
    y: *mut f32,
}

impl Reduce<'_> {
    #[inline(always)]
    unsafe fn row<V: Simd>(&self, len: usize, [step, x_step]: [usize; 2]) {
        let Self { function, inside, x, y } = *self;
        let rows = 0..inside.rows;
        let first = match function {
            Reduction::Sum | Reduction::Mean => 0.0,
            Reduction::Max => f32::NEG_INFINITY,
            Reduction::Min => f32::INFINITY,
        };
        let divisor = if function == Reduction::Mean { (inside.rows * inside.len) as f64 } else { 1.0 };
        // SAFETY: guaranteed by the caller.
        unsafe {
            if inside.steps[0] == 1 {
                for i in 0..len {
                    let mut total = Total::new(function, first);
                    for [at] in inside.iter(rows.clone()) {
                        for (k, count) in vectors::<V>(inside.len) {
                            total.add::<V>(load::<V>(x.add(i * x_step + at + k), 1, count, first));
                        }
                    }
                    *y.add(i * step) = (total.total::<V>() / divisor) as f32;
                }
                return;
            }
            for (i, count) in vectors::<V>(len) {
                let mut total = Total::new(function, first);
                for [at] in inside.iter(rows.clone()) {
                    for k in 0..inside.len {
                        let from = x.add(i * x_step + at + k * inside.steps[0]);
                        total.add::<V>(load::<V>(from, x_step, count, first));
                    }
                }
                for lane in 0..count {
                    *y.add((i + lane) * step) = (total.lanes[lane] / divisor) as f32;
                }
            }
        }
    }
}

/// Reductions in progress, in float64.
struct Total {
    function: Reduction,
    lanes: [f64; LANES],
}

impl Total {
    #[inline(always)]
    fn new(function: Reduction, first: f32) -> Self {
        Self { function, lanes: [f64::from(first); LANES] }
    }

    #[inline(always)]
    unsafe fn add<V: Simd>(&mut self, value: V::Floats) {
        // SAFETY: guaranteed by the caller.
        let values = unsafe { lanes::<V>(value) };
        macro_rules! each_lane {
            (|$total:ident, $value:ident| $result:expr) => {
                for lane in 0..V::LANES {
                    let ($total, $value) = (self.lanes[lane], f64::from(values[lane]));
                    self.lanes[lane] = $result;
                }
            };
        }
        match self.function {
            Reduction::Sum | Reduction::Mean => each_lane!(|total, value| total + value),
            Reduction::Max => each_lane!(|total, value| max(total, value)),
            Reduction::Min => each_lane!(|total, value| min(total, value)),
        }
    }

    /// Returns the reduction of all lanes.
    #[inline(always)]
    fn total<V: Simd>(&self) -> f64 {
        match self.function {
            Reduction::Sum | Reduction::Mean => fold!(V, self.lanes, |a, b| a + b),
            Reduction::Max => fold!(V, self.lanes, |a, b| max(a, b)),
            Reduction::Min => fold!(V, self.lanes, |a, b| min(a, b)),
        }
    }
}
