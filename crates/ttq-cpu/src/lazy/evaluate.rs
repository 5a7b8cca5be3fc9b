//! Evaluation of recorded operations: expressions that depend on one another become one [`Tape`].

use std::collections::HashMap;
use std::sync::Arc;

use burn_backend::DType;
use burn_flex::FlexTensor;

use super::expression::{Axis, Expression, Operand};
use super::node::Node;
use super::record::waiting_reductions;
use crate::buffer::Buffer;
use crate::kernels::SharedOutput;
use crate::kernels::tape::{Instruction, Load, Memory, Tape, Value};
use crate::kernels::tape_operation::Operation;
use crate::kernels::tape_reduce::{Reduced, Sizes};

/// An intermediate result that other expressions need is stored if it takes more instructions than this, several
/// operands in memory or an expensive function. Otherwise it is computed again.
const MAX_RECOMPUTED: usize = 6;
/// Bounds of the reductions that are computed together.
const MAX_REDUCTIONS: usize = 6;
const MAX_INSTRUCTIONS: usize = 80;

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
    unsafe { builder.tape().plan(&values, &values).store(&outputs) };
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
    // Everything that the reduction depends on is computed by this.
    let (first, _) = build(&mut axes, |builder| builder.reduced(expression));
    let mut instructions = first.instructions.len();
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
    let first = axes.iter().position(|(_, is_reduced)| *is_reduced).unwrap_or(axes.len());
    let end = axes.iter().rposition(|(_, is_reduced)| *is_reduced).map_or(axes.len(), |last| last + 1);
    let size = |axes: &[(usize, bool)]| axes.iter().map(|(size, _)| size).product();
    let sizes = Sizes { outer: size(&axes[..first]), len: size(&axes[first..end]), inner: size(&axes[end..]) };
    let values: Vec<Value> = stored.iter().map(|stored| builder.number(stored.value)).collect();
    let kept: Vec<Value> = values.iter().copied().chain(reduced.iter().map(|reduced| reduced.value)).collect();
    // SAFETY: the buffers of stored values have the length of the index space, those of results the length of the
    // reductions, and nothing else uses them.
    unsafe { builder.tape().plan(&values, &kept).reduce(&reduced, sizes, &outputs, &result_outputs) };
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

/// Row-major strides.
fn identity(sizes: &[usize]) -> Vec<isize> {
    let mut strides = vec![1; sizes.len()];
    for axis in (1..sizes.len()).rev() {
        strides[axis - 1] = strides[axis] * sizes[axis] as isize;
    }
    strides
}

/// Builds a tape over `axes`. An operand can need an axis in two parts, as `build` reports: then it is called again.
fn build<A: Copy, T>(axes: &mut Vec<(usize, A)>, build: impl Fn(&mut Builder) -> Result<T, Split>) -> (Builder, T) {
    loop {
        let mut builder = Builder::new(axes.iter().map(|(size, _)| *size).collect());
        match build(&mut builder) {
            Ok(result) => return (builder, result),
            Err(Split { axis, inner }) => {
                let (size, attribute) = axes[axis];
                axes[axis].0 = size / inner;
                axes.insert(axis + 1, (inner, attribute));
            }
        }
    }
}

/// An axis must be split, with an inner part of this size.
struct Split {
    axis: usize,
    inner: usize,
}

/// A value of a tape that is being built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Built {
    Load(usize),
    Result(usize),
}

/// An intermediate result that is written to memory.
struct Stored {
    node: Option<Arc<Node>>,
    value: Built,
    buffer: Buffer,
}

/// A pending node whose expression is part of the tape.
struct Inlined {
    node: Arc<Node>,
    tensor: FlexTensor,
    value: Built,
    /// Number of operands on the tape that are this node.
    uses: usize,
    /// Whether the tape computes the elements in the order of memory.
    is_contiguous: bool,
    is_worth_storing: bool,
}

/// Address of a tensor's memory, first offset, and strides.
type Access = (usize, isize, Vec<isize>);

struct Builder {
    sizes: Vec<usize>,
    len: usize,
    loads: Vec<Operand>,
    instructions: Vec<(Operation, [Built; 3])>,
    known_loads: HashMap<Access, usize>,
    inlined: Vec<Inlined>,
    known_nodes: HashMap<Access, usize>,
}

impl Builder {
    fn new(sizes: Vec<usize>) -> Self {
        let len = sizes.iter().product();
        Self {
            sizes,
            len,
            loads: Vec::new(),
            instructions: Vec::new(),
            known_loads: HashMap::new(),
            inlined: Vec::new(),
            known_nodes: HashMap::new(),
        }
    }

    /// Adds the operand of a reduction, whose axes can have been split since it was recorded.
    fn reduced(&mut self, expression: &Expression) -> Result<Built, Split> {
        let Expression::Reduce { axes, operand, .. } = expression else { unreachable!("a reduction") };
        let recorded: Vec<usize> = axes.iter().map(|axis| axis.size).collect();
        let strides = identity(&self.sizes);
        let through =
            self.through(&recorded, &strides)?.expect("the axes are those of the reduction, or parts of them");
        self.operand(&Operand {
            tensor: operand.tensor.clone(),
            start: operand.start,
            strides: through.iter().map(|(axis, step)| axis.map_or(0, |axis| operand.strides[axis] * step)).collect(),
        })
    }

    /// Adds the operation of a map whose result is read with `strides`.
    fn map(&mut self, expression: &Expression, strides: &[isize]) -> Result<Built, Split> {
        let Expression::Map { shape, operation, operands, .. } = expression else { unreachable!("a map") };
        let through = self.through(shape, strides)?.expect("the strides are those of the map's own index space");
        self.map_through(*operation, operands, &through)
    }

    fn map_through(
        &mut self,
        operation: Operation,
        operands: &[Operand],
        through: &[(Option<usize>, isize)],
    ) -> Result<Built, Split> {
        let mut values = [None; 3];
        for (value, operand) in values.iter_mut().zip(operands) {
            let strides =
                through.iter().map(|(axis, step)| axis.map_or(0, |axis| operand.strides[axis] * step)).collect();
            *value = Some(self.operand(&Operand { tensor: operand.tensor.clone(), start: operand.start, strides })?);
        }
        let first = values[0].expect("an operation has an operand");
        self.instructions.push((operation, values.map(|value| value.unwrap_or(first))));
        Ok(Built::Result(self.instructions.len() - 1))
    }

    /// Adds an operand: the value of an inlined expression, or of memory.
    fn operand(&mut self, operand: &Operand) -> Result<Built, Split> {
        let access = (operand.tensor.data_arc().as_ref() as *const _ as usize, operand.start, operand.strides.clone());
        if let Some(index) = self.known_nodes.get(&access) {
            self.inlined[*index].uses += 1;
            return Ok(self.inlined[*index].value);
        }
        if let Some(node) = Node::pending(&operand.tensor) {
            let expression = node.expression().filter(|_| node.len() == self.len && operand.start == 0);
            if let Some(expression) = expression
                && let Expression::Map { shape, operation, operands, cost } = &*expression
                && let Some(through) = self.through(shape, &operand.strides)?
            {
                let value = self.map_through(*operation, operands, &through)?;
                self.known_nodes.insert(access, self.inlined.len());
                self.inlined.push(Inlined {
                    node,
                    tensor: operand.tensor.clone(),
                    value,
                    uses: 1,
                    is_contiguous: operand.is_contiguous(&self.sizes),
                    is_worth_storing: cost.reads > 1 || cost.is_expensive || cost.instructions > MAX_RECOMPUTED,
                });
                return Ok(value);
            }
            evaluate(&node);
        }
        let next = self.loads.len();
        let index = *self.known_loads.entry(access).or_insert(next);
        if index == next {
            self.loads.push(operand.clone());
        }
        Ok(Built::Load(index))
    }

    /// Returns, for each axis of the tape, the axis of a row-major index space `shape` that it moves along, and by how
    /// many steps, if the space is read with `strides`. `None` if that is not possible.
    #[allow(clippy::type_complexity)]
    fn through(&self, shape: &[usize], strides: &[isize]) -> Result<Option<Vec<(Option<usize>, isize)>>, Split> {
        let own = identity(shape);
        let mut result = Vec::with_capacity(strides.len());
        let mut reach = vec![0; shape.len()];
        for (axis, (size, stride)) in self.sizes.iter().zip(strides).enumerate() {
            if *size == 1 {
                result.push((None, 0));
                continue;
            }
            if *stride <= 0 {
                return Ok(None);
            }
            // The outermost axis whose step is at most the stride.
            let Some(to) = (0..shape.len()).find(|to| shape[*to] > 1 && own[*to] <= *stride) else { return Ok(None) };
            if stride % own[to] != 0 {
                return Ok(None);
            }
            let step = stride / own[to];
            // Number of steps within the axis.
            let within = (shape[to] as isize).div_euclid(step);
            if *size as isize > within {
                let divides = shape[to] as isize % step == 0 && *size as isize % within == 0 && within > 1;
                return if divides { Err(Split { axis, inner: within as usize }) } else { Ok(None) };
            }
            reach[to] += (*size as isize - 1) * step;
            result.push((Some(to), step));
        }
        // Overlapping views can reach beyond the end of an axis.
        let is_within = reach.iter().zip(shape).all(|(reach, size)| *reach < *size as isize);
        Ok(is_within.then_some(result))
    }

    /// Returns the intermediate results that are written to memory, because others need them.
    fn stored(&self) -> Vec<Stored> {
        let is_needed = |inlined: &&Inlined| {
            // Handles outside of the tape: all but the uses, the one in `inlined`, and the one taken here.
            let handles = Arc::strong_count(&inlined.tensor.data_arc()).saturating_sub(inlined.uses + 2);
            handles > 0 && inlined.is_contiguous && inlined.is_worth_storing
        };
        let needed = self.inlined.iter().filter(is_needed);
        needed
            .map(|inlined| Stored {
                node: Some(inlined.node.clone()),
                value: inlined.value,
                buffer: Buffer::new(inlined.node.len()),
            })
            .collect()
    }

    fn number(&self, value: Built) -> Value {
        match value {
            Built::Load(index) => index,
            Built::Result(index) => self.loads.len() + index,
        }
    }

    fn tape(&self) -> Tape<'_> {
        let instructions = self.instructions.iter().map(|(operation, operands)| Instruction {
            operation: *operation,
            operands: operands.map(|operand| self.number(operand)),
        });
        let loads = self.loads.iter().map(|operand| Load {
            memory: match operand.tensor.dtype() {
                DType::F32 => Memory::Floats(operand.tensor.storage()),
                _ => Memory::Bools(operand.tensor.bytes()),
            },
            start: operand.start,
            strides: operand.strides.clone(),
        });
        Tape { axes: self.sizes.clone(), loads: loads.collect(), instructions: instructions.collect() }
    }
}
