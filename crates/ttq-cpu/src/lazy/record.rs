//! Recording of operations.

use std::cell::RefCell;
use std::sync::{Arc, LazyLock, Weak};

use burn_backend::Shape;
use burn_flex::{FlexTensor, Layout};

use super::evaluate::evaluate;
use super::expression::{Axis, Cost, Expression, Operand};
use super::node::Node;
use crate::kernels::tape::{Operation, Reduction};

/// Bounds of what is recorded before operands are computed.
const MAX_INSTRUCTIONS: usize = 24;
const MAX_READS: usize = 6;
const MAX_DEPTH: usize = 48;
/// Largest number of reductions that wait to be computed together with another one.
const MAX_WAITING: usize = 16;

/// Set to compute every operation at once, for tests and to find errors.
static IS_EAGER: LazyLock<bool> =
    LazyLock::new(|| std::env::var_os("TTQ_CPU_EAGER").is_some_and(|value| value != "0" && !value.is_empty()));

thread_local! {
    /// Reductions that were recorded on this thread.
    static REDUCTIONS: RefCell<Vec<Weak<Node>>> = const { RefCell::new(Vec::new()) };
}

/// Returns the pending reductions that were recorded on this thread.
pub(super) fn waiting_reductions() -> Vec<Arc<Node>> {
    REDUCTIONS.with_borrow_mut(|waiting| {
        let nodes: Vec<_> = waiting.iter().filter_map(Weak::upgrade).filter(|node| node.is_pending()).collect();
        *waiting = nodes.iter().map(Arc::downgrade).collect();
        nodes
    })
}

/// Computes the elements of a tensor, if it is pending. Functions that read tensors on several threads need this:
/// otherwise their threads would compute the elements.
pub(crate) fn ready(tensor: FlexTensor) -> FlexTensor {
    if let Some(node) = Node::pending(&tensor) {
        evaluate(&node);
    }
    tensor
}

/// Records `operation` of each element of the operands, which are broadcast to `shape`. Operands are f32, or bool for the
/// first operand of a selection. `shape` is not empty.
pub(crate) fn map(operation: Operation, operands: Vec<FlexTensor>, shape: &[usize]) -> FlexTensor {
    let mut operands: Vec<Operand> = operands.into_iter().map(|tensor| operand(tensor, shape)).collect();
    // Axes along which every operand is constant are expanded afterwards.
    let is_distinct = |axis: &usize| shape[*axis] > 1 && operands.iter().any(|operand| operand.strides[*axis] != 0);
    let mut order: Vec<usize> = (0..shape.len()).filter(is_distinct).collect();
    // The result has the memory order of the first operand that has most elements.
    let size = |operand: &Operand| -> usize {
        order.iter().filter(|axis| operand.strides[**axis] != 0).map(|axis| shape[*axis]).product()
    };
    let mut leading = 0;
    for index in 1..operands.len() {
        if size(&operands[index]) > size(&operands[leading]) {
            leading = index;
        }
    }
    order.sort_by_key(|axis| std::cmp::Reverse(order_key(operands[leading].strides[*axis])));
    let layout = result_layout(shape, &order);
    // Adjacent axes that every operand traverses with one stride are merged.
    let mut merged: Vec<(usize, usize)> = Vec::new();
    for axis in order {
        match merged.last_mut() {
            Some((size, last))
                if operands.iter().all(|o| o.strides[*last] == o.strides[axis] * shape[axis] as isize) =>
            {
                (*size, *last) = (*size * shape[axis], axis);
            }
            _ => merged.push((shape[axis], axis)),
        }
    }
    for operand in &mut operands {
        operand.strides = merged.iter().map(|(_, axis)| operand.strides[*axis]).collect();
    }
    let shape: Vec<usize> = merged.into_iter().map(|(size, _)| size).collect();
    let cost = bounded_cost(&operands, &shape);
    let cost = Cost {
        instructions: cost.instructions + 1,
        is_expensive: cost.is_expensive || operation.is_expensive(),
        depth: cost.depth + 1,
        ..cost
    };
    let (node, tensor) = Node::tensor(Expression::Map { shape, operation, operands, cost }, layout);
    if *IS_EAGER {
        evaluate(&node);
    }
    tensor
}

/// Axes of the largest strides come first; axes that are broadcast, before all others.
fn order_key(stride: isize) -> isize {
    if stride == 0 { isize::MAX } else { stride }
}

/// The operand with its strides along the axes of `shape`, 0 where it is broadcast.
fn operand(tensor: FlexTensor, shape: &[usize]) -> Operand {
    let layout = tensor.layout();
    let own = layout.shape().iter().zip(layout.strides());
    let strides = own.zip(shape).map(|((size, stride), target)| if *size == 1 || *target == 1 { 0 } else { *stride });
    Operand { start: layout.start_offset() as isize, strides: strides.collect(), tensor }
}

/// Layout of a tensor of `shape` whose memory has the axes `order`, outermost first, and which is constant along the
/// others.
fn result_layout(shape: &[usize], order: &[usize]) -> Layout {
    let mut strides = vec![0; shape.len()];
    let mut stride = 1;
    for axis in order.iter().rev() {
        strides[*axis] = stride;
        stride *= shape[*axis] as isize;
    }
    // Axes of size 1 have the strides of a contiguous tensor, so that Burn recognizes one.
    for axis in (0..shape.len()).rev() {
        if shape[axis] == 1 {
            strides[axis] = strides.get(axis + 1).map_or(1, |stride| stride * shape[axis + 1] as isize);
        }
    }
    Layout::new(Shape::from(shape.to_vec()), strides, 0)
}

/// Returns the cost of the operands. Operands that exceed the bounds are computed.
fn bounded_cost(operands: &[Operand], shape: &[usize]) -> Cost {
    let cost = |operands: &[Operand]| operands.iter().map(|o| Cost::of(o, shape)).fold(Cost::default(), Cost::add);
    let total = cost(operands);
    if total.instructions < MAX_INSTRUCTIONS && total.reads <= MAX_READS && total.depth < MAX_DEPTH {
        return total;
    }
    for operand in operands {
        if let Some(node) = Node::pending(&operand.tensor) {
            evaluate(&node);
        }
    }
    cost(operands)
}

/// Records a reduction of one axis or of all axes of a tensor of f32, which is not empty. The axes `reduced` of the result
/// have size 1.
pub(crate) fn reduce(tensor: FlexTensor, reduced: &[usize], reduction: Reduction, factor: f64) -> FlexTensor {
    let shape = tensor.layout().shape().to_vec();
    let mut order: Vec<usize> = (0..shape.len()).filter(|axis| shape[*axis] > 1).collect();
    let strides = tensor.layout().strides().to_vec();
    let mut factor = factor;
    // Equal elements are counted, not added.
    order.retain(|axis| {
        if strides[*axis] == 0 && reduction == Reduction::Sum && reduced.contains(axis) {
            factor *= shape[*axis] as f64;
        }
        strides[*axis] != 0
    });
    order.sort_by_key(|axis| std::cmp::Reverse(strides[*axis]));
    if !order.iter().any(|axis| reduced.contains(axis)) {
        return scaled(tensor, reduced, factor as f32);
    }
    let start = tensor.layout().start_offset() as isize;
    let mut axes: Vec<(Axis, isize)> = Vec::new();
    for axis in &order {
        let (size, is_reduced, stride) = (shape[*axis], reduced.contains(axis), strides[*axis]);
        match axes.last_mut() {
            Some((before, outer)) if before.is_reduced == is_reduced && *outer == stride * size as isize => {
                (before.size, *outer) = (before.size * size, stride);
            }
            _ => axes.push((Axis { size, is_reduced }, stride)),
        }
    }
    let kept: Vec<usize> = order.into_iter().filter(|axis| !reduced.contains(axis)).collect();
    let mut result = shape;
    reduced.iter().for_each(|axis| result[*axis] = 1);
    let layout = result_layout(&result, &kept);
    let (axes, strides): (Vec<Axis>, Vec<isize>) = axes.into_iter().unzip();
    let operand = Operand { tensor, start, strides };
    let (axes, operand, factor) = continued(axes, operand, reduction, factor);
    let sizes: Vec<usize> = axes.iter().map(|axis| axis.size).collect();
    let cost = bounded_cost(std::slice::from_ref(&operand), &sizes);
    let cost = Cost { depth: cost.depth + 1, ..cost };
    let (node, tensor) = Node::tensor(Expression::Reduce { axes, operand, reduction, factor, cost }, layout);
    let waiting = waiting_reductions();
    if *IS_EAGER {
        evaluate(&node);
        return tensor;
    }
    if waiting.len() >= MAX_WAITING {
        evaluate(&waiting[0]);
    }
    REDUCTIONS.with_borrow_mut(|waiting| waiting.push(Arc::downgrade(&node)));
    tensor
}

/// The first element along each of the axes `reduced`, along which the tensor is constant, times `factor`.
fn scaled(tensor: FlexTensor, reduced: &[usize], factor: f32) -> FlexTensor {
    let mut shape = tensor.layout().shape().to_vec();
    reduced.iter().for_each(|axis| shape[*axis] = 1);
    let layout =
        Layout::new(Shape::from(shape.clone()), tensor.layout().strides().to_vec(), tensor.layout().start_offset());
    let view = tensor.with_layout(layout);
    if factor == 1.0 { view } else { map(Operation::MulScalar(factor), vec![view], &shape) }
}

/// If the operand is itself a pending reduction, returns one reduction in place of the two, where its axes stay adjacent.
fn continued(axes: Vec<Axis>, operand: Operand, reduction: Reduction, factor: f64) -> (Vec<Axis>, Operand, f64) {
    let Some(expression) = Node::pending(&operand.tensor).and_then(|node| node.expression()) else {
        return (axes, operand, factor);
    };
    let Expression::Reduce { axes: inner, operand: source, reduction: first, factor: scale, .. } = &*expression else {
        return (axes, operand, factor);
    };
    // The outer reduction's axes, split or merged to those that the inner one keeps.
    let kept: Vec<usize> = inner.iter().filter(|axis| !axis.is_reduced).map(|axis| axis.size).collect();
    let sizes: Vec<usize> = axes.iter().map(|axis| axis.size).collect();
    if *first != reduction || operand.start != 0 || !operand.is_contiguous(&sizes) {
        return (axes, operand, factor);
    }
    let Some((kept, own)) = common_refinement(&kept, &axes) else { return (axes, operand, factor) };
    let mut own = own.into_iter();
    let (mut refined, mut strides) = (Vec::new(), Vec::new());
    let mut kept = kept.into_iter();
    for (axis, stride) in inner.iter().zip(&source.strides) {
        let parts = if axis.is_reduced { vec![axis.size] } else { kept.next().unwrap_or_default() };
        let mut rest = axis.size as isize;
        for size in parts {
            rest /= size as isize;
            let is_reduced = axis.is_reduced || own.next().is_some_and(|axis| axis.is_reduced);
            refined.push(Axis { size, is_reduced });
            strides.push(stride * rest);
        }
    }
    let groups = refined.windows(2).filter(|pair| pair[0].is_reduced != pair[1].is_reduced).count();
    let is_adjacent = match (refined.first(), groups) {
        (Some(first), 2) => !first.is_reduced,
        (_, groups) => groups < 2,
    };
    if !is_adjacent {
        return (axes, operand, factor);
    }
    let mut merged: Vec<(Axis, isize)> = Vec::new();
    for (axis, stride) in refined.into_iter().zip(strides) {
        match merged.last_mut() {
            Some((before, outer)) if before.is_reduced == axis.is_reduced && *outer == stride * axis.size as isize => {
                (before.size, *outer) = (before.size * axis.size, stride);
            }
            _ => merged.push((axis, stride)),
        }
    }
    let (axes, strides) = merged.into_iter().unzip();
    (axes, Operand { tensor: source.tensor.clone(), start: source.start, strides }, factor * scale)
}

/// Splits two lists of axes with the same number of elements so that they agree. Returns the parts of each axis of
/// `sizes`, and the parts of `axes` in order.
fn common_refinement(sizes: &[usize], axes: &[Axis]) -> Option<(Vec<Vec<usize>>, Vec<Axis>)> {
    let mut parts = vec![Vec::new(); sizes.len()];
    let mut result = Vec::new();
    let (mut a, mut b) = (sizes.len(), axes.len());
    let (mut left, mut right) = (1, 1);
    // From the innermost axis: the smaller rest is split off the larger one.
    loop {
        if left == 1 && a > 0 {
            a -= 1;
            left = sizes[a];
        }
        if right == 1 && b > 0 {
            b -= 1;
            right = axes[b].size;
        }
        let size = left.min(right);
        if size == 1 {
            break;
        }
        if left % size != 0 || right % size != 0 {
            return None;
        }
        parts[a].insert(0, size);
        result.insert(0, Axis { size, is_reduced: axes[b].is_reduced });
        (left, right) = (left / size, right / size);
    }
    (a == 0 && b == 0 && left == 1 && right == 1).then_some((parts, result))
}
