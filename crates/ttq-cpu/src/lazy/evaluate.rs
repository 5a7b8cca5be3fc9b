//! Evaluation of recorded operations: expressions that depend on one another become one [`Tape`].

use std::sync::Arc;

use super::builder::{Stored, build, identity};
use super::expression::{Axis, Expression};
use super::node::Node;
use super::record::waiting_reductions;
use crate::buffer::Buffer;
use crate::kernels::SharedOutput;
use crate::kernels::tape::{Reduced, Sizes, Value};

/// Bounds of the reductions that are computed together.
const MAX_REDUCTIONS: usize = 6;
pub(super) const MAX_INSTRUCTIONS: usize = 80;

/// Computes the elements of a node.
pub(super) fn evaluate(node: &Node) {
    let Some(expression) = node.expression() else { return };
    match &*expression {
        Expression::Map { shape, .. } => evaluate_map(node, &expression, shape),
        Expression::Reduce { axes, .. } => evaluate_reductions(node, &expression, axes),
    }
}

fn evaluate_map(node: &Node, expression: &Arc<Expression>, shape: &[usize]) {
    let mut axes: Vec<(usize, ())> = shape.iter().map(|size| (*size, ())).collect();
    let (builder, root) = build(&mut axes, |builder| builder.map(expression, &identity(&builder.sizes)));
    let mut stored = builder.stored();
    stored.push(Stored { node: None, value: root, buffer: Buffer::new(node.len()) });
    let outputs: Vec<SharedOutput> =
        stored.iter_mut().map(|stored| SharedOutput::new(stored.buffer.floats())).collect();
    let values: Vec<Value> = stored.iter().map(|stored| builder.number(stored.value)).collect();
    // SAFETY: the buffers have the length of the index space, and nothing else uses them.
    unsafe { builder.tape().store(&values, &outputs) };
    for stored in stored {
        match stored.node {
            Some(inner) => inner.set(stored.buffer),
            None => node.set(stored.buffer),
        }
    }
}

fn evaluate_reductions(node: &Node, expression: &Arc<Expression>, axes: &[Axis]) {
    let mut expressions = vec![expression.clone()];
    let mut axes: Vec<(usize, bool)> = axes.iter().map(|axis| (axis.size, axis.is_reduced)).collect();
    let row = row_of(&axes);
    // Everything that the reduction depends on is computed by this.
    let (first, _) = build(&mut axes, |builder| {
        builder.with_only_row(row);
        builder.reduced(expression)
    });
    let mut instructions = first.instructions();
    drop(first);
    let mut others = Vec::new();
    for other in waiting_reductions() {
        let Some(own) = other.expression().filter(|own| !Arc::ptr_eq(own, expression)) else { continue };
        let (Expression::Reduce { axes: own_axes, cost, .. }, Expression::Reduce { axes, .. }) = (&*own, &**expression)
        else {
            continue;
        };
        let fits = others.len() + 1 < MAX_REDUCTIONS && instructions + cost.instructions <= MAX_INSTRUCTIONS;
        if fits && own_axes == axes && !depends_on_reductions(&own) {
            instructions += cost.instructions;
            others.push(other);
            expressions.push(own);
        }
    }
    let (builder, roots) = build(&mut axes, |builder| {
        builder.with_only_row(row);
        expressions.iter().map(|expression| builder.reduced(expression)).collect::<Result<Vec<_>, _>>()
    });
    let mut stored = builder.stored();
    let outputs: Vec<SharedOutput> =
        stored.iter_mut().map(|stored| SharedOutput::new(stored.buffer.floats())).collect();
    let mut results: Vec<Buffer> = expressions.iter().map(|expression| Buffer::new(expression.len())).collect();
    let result_outputs: Vec<SharedOutput> =
        results.iter_mut().map(|buffer| SharedOutput::new(buffer.floats())).collect();
    let reduced: Vec<Reduced> = roots
        .iter()
        .zip(&expressions)
        .filter_map(|(value, expression)| match &**expression {
            Expression::Reduce { reduction, factor, .. } => {
                Some(Reduced { value: builder.number(*value), reduction: *reduction, factor: *factor })
            }
            Expression::Map { .. } => None,
        })
        .collect();
    let sizes = sizes(&axes);
    let values: Vec<Value> = stored.iter().map(|stored| builder.number(stored.value)).collect();
    // SAFETY: the buffers of stored values have the length of the index space, those of results the length of the
    // reductions, and nothing else uses them.
    unsafe { builder.tape().reduce(&reduced, sizes, (&values, &outputs), &result_outputs) };
    for Stored { node, buffer, .. } in stored {
        if let Some(node) = node {
            node.set(buffer);
        }
    }
    let mut results = results.into_iter();
    for (node, buffer) in std::iter::once(node).chain(others.iter().map(|other| &**other)).zip(&mut results) {
        node.set(buffer);
    }
}

/// Sizes of the index space of a reduction.
fn sizes(axes: &[(usize, bool)]) -> Sizes {
    let first = axes.iter().position(|(_, is_reduced)| *is_reduced).unwrap_or(axes.len());
    let end = axes.iter().rposition(|(_, is_reduced)| *is_reduced).map_or(axes.len(), |last| last + 1);
    let size = |axes: &[(usize, bool)]| axes.iter().map(|(size, _)| size).product();
    Sizes { outer: size(&axes[..first]), len: size(&axes[first..end]), inner: size(&axes[end..]) }
}

/// Number of indices of the rows that every tile of the reduction holds as a whole.
fn row_of(axes: &[(usize, bool)]) -> usize {
    let Sizes { outer, len, inner } = sizes(axes);
    match inner {
        1 if outer > 1 => len,
        _ => inner,
    }
}

/// Returns whether an expression depends on reductions that are not computed.
fn depends_on_reductions(expression: &Expression) -> bool {
    let operands = match expression {
        Expression::Map { operands, .. } => operands.as_slice(),
        Expression::Reduce { operand, .. } => std::slice::from_ref(operand),
    };
    operands.iter().filter_map(|operand| Node::pending(&operand.tensor)?.expression()).any(|operand| match &*operand {
        Expression::Map { .. } => depends_on_reductions(&operand),
        Expression::Reduce { .. } => true,
    })
}
