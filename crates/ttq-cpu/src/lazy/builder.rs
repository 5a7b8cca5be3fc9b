//! Construction of a [`Tape`] from expressions that depend on one another.

use std::collections::HashMap;
use std::sync::Arc;

use burn_backend::DType;
use burn_flex::FlexTensor;

use super::evaluate::{MAX_INSTRUCTIONS, evaluate};
use super::expression::{Expression, Operand, Through};
use super::node::Node;
use crate::buffer::Buffer;
use crate::kernels::tape::Operation;
use crate::kernels::tape::{Extent, Instruction, Load, Memory, Step, TILE, Tape, Value};

/// An intermediate result that other expressions need is stored if it takes more instructions than this, several
/// operands in memory or an expensive function. Otherwise it is computed again.
const MAX_RECOMPUTED: usize = 6;
/// Smallest number of indices of a row that is reduced within a tape.
const MIN_ROW: usize = 4;

/// Row-major strides.
pub(super) fn identity(sizes: &[usize]) -> Vec<isize> {
    let mut strides = vec![1; sizes.len()];
    for axis in (1..sizes.len()).rev() {
        strides[axis - 1] = strides[axis] * sizes[axis] as isize;
    }
    strides
}

/// Builds a tape over `axes`. An operand can need an axis in two parts, as `build` reports: then it is called again.
pub(super) fn build<A: Copy, T>(
    axes: &mut Vec<(usize, A)>,
    build: impl Fn(&mut Builder) -> Result<T, Split>,
) -> (Builder, T) {
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
pub(super) struct Split {
    axis: usize,
    inner: usize,
}

/// A value of a tape that is being built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Built {
    Load(usize),
    Result(usize),
}

/// An intermediate result that is written to memory.
pub(super) struct Stored {
    pub(super) node: Option<Arc<Node>>,
    pub(super) value: Built,
    pub(super) buffer: Buffer,
}

/// A pending node whose expression is part of the tape.
struct Inlined {
    node: Arc<Node>,
    tensor: FlexTensor,
    value: Built,
    /// Number of operands on the tape that are this node.
    uses: usize,
    /// Whether the elements are written to memory if others need them. They are computed in the order of memory then.
    is_stored_if_needed: bool,
}

/// Address of a tensor's memory, first offset, strides and extent of the value.
type Access = (usize, isize, Vec<isize>, Extent);

fn access(operand: &Operand, extent: Extent) -> Access {
    (operand.tensor.data_arc().as_ref() as *const _ as usize, operand.start, operand.strides.clone(), extent)
}

pub(super) struct Builder {
    pub(super) sizes: Vec<usize>,
    len: usize,
    /// Number of indices of a row; 1 as long as no row is reduced.
    row: usize,
    /// The only number that `row` can have; 0 if there is no restriction.
    only_row: usize,
    loads: Vec<(Operand, Extent)>,
    instructions: Vec<(Step, [Built; 3])>,
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
            row: 1,
            only_row: 0,
            loads: Vec::new(),
            instructions: Vec::new(),
            known_loads: HashMap::new(),
            inlined: Vec::new(),
            known_nodes: HashMap::new(),
        }
    }

    /// Restricts the rows that may be reduced within the tape to rows of `row` indices.
    pub(super) fn with_only_row(&mut self, row: usize) {
        self.only_row = row;
    }

    /// Adds the operand of a reduction, whose axes can have been split since it was recorded.
    pub(super) fn reduced(&mut self, expression: &Expression) -> Result<Built, Split> {
        let Expression::Reduce { axes, operand, .. } = expression else { unreachable!("a reduction") };
        let recorded: Vec<usize> = axes.iter().map(|axis| axis.size).collect();
        let strides = identity(&self.sizes);
        let through = self.through(&recorded, &strides, Extent::All)?;
        let through = through.expect("the axes are those of the reduction, or parts of them");
        self.operand(&operand.through(&through))
    }

    /// Adds the operation of a map whose result is read with `strides`.
    pub(super) fn map(&mut self, expression: &Expression, strides: &[isize]) -> Result<Built, Split> {
        let Expression::Map { shape, operation, operands, .. } = expression else { unreachable!("a map") };
        let through = self.through(shape, strides, Extent::All)?;
        let through = through.expect("the strides are those of the map's own index space");
        self.apply(*operation, operands, &through, Extent::All)
    }

    fn apply(
        &mut self,
        operation: Operation,
        operands: &[Operand],
        through: &Through,
        extent: Extent,
    ) -> Result<Built, Split> {
        let mut values = [None; 3];
        for (value, operand) in values.iter_mut().zip(operands) {
            let operand = operand.through(through);
            *value = Some(match extent {
                Extent::All => self.operand(&operand)?,
                Extent::Rows => self.operand_of_rows(&operand)?,
            });
        }
        let first = values[0].expect("an operation has an operand");
        Ok(self.push(Step::Apply(operation, extent), values.map(|value| value.unwrap_or(first))))
    }

    fn push(&mut self, step: Step, operands: [Built; 3]) -> Built {
        self.instructions.push((step, operands));
        Built::Result(self.instructions.len() - 1)
    }

    /// Adds an operand: the value of an inlined expression, or of memory.
    fn operand(&mut self, operand: &Operand) -> Result<Built, Split> {
        if let Some(value) = self.known(operand, Extent::All) {
            return Ok(value);
        }
        if let Some(node) = Node::pending(&operand.tensor) {
            if let Some(expression) = self.inlinable(&node, operand, self.len)
                && let Expression::Map { shape, operation, operands, cost } = &*expression
                && let Some(through) = self.through(shape, &operand.strides, Extent::All)?
            {
                let value = self.apply(*operation, operands, &through, Extent::All)?;
                let is_worth_storing = cost.reads > 1 || cost.is_expensive || cost.instructions > MAX_RECOMPUTED;
                self.inlined(node, operand, value, Extent::All, is_worth_storing);
                return Ok(value);
            }
            if let Some(row) = self.row_of(operand).filter(|row| node.len() * row == self.len) {
                let before = std::mem::replace(&mut self.row, row);
                let value = self.operand_of_rows(operand)?;
                if let Built::Result(_) = value {
                    let value = self.push(Step::Expand, [value; 3]);
                    self.inlined(node, operand, value, Extent::All, false);
                    return Ok(value);
                }
                self.row = before;
            }
            evaluate(&node);
        }
        Ok(self.load(operand, Extent::All))
    }

    /// Adds an operand that is constant along each row: a value with one element per row.
    fn operand_of_rows(&mut self, operand: &Operand) -> Result<Built, Split> {
        if let Some(value) = self.known(operand, Extent::Rows) {
            return Ok(value);
        }
        if let Some(node) = Node::pending(&operand.tensor) {
            let rows = self.len / self.row;
            let value = match self.inlinable(&node, operand, rows).as_deref() {
                Some(Expression::Map { shape, operation, operands, .. }) => {
                    match self.through(shape, &operand.strides, Extent::Rows)? {
                        Some(through) => Some(self.apply(*operation, operands, &through, Extent::Rows)?),
                        None => None,
                    }
                }
                Some(expression @ Expression::Reduce { .. }) => self.row_reduction(expression, &operand.strides)?,
                None => None,
            };
            if let Some(value) = value {
                self.inlined(node, operand, value, Extent::Rows, false);
                return Ok(value);
            }
            evaluate(&node);
        }
        Ok(self.load(operand, Extent::Rows))
    }

    /// Adds a reduction of the elements of each row, whose result is read with `strides`.
    fn row_reduction(&mut self, expression: &Expression, strides: &[isize]) -> Result<Option<Built>, Split> {
        let Expression::Reduce { axes, operand, reduction, factor, .. } = expression else { return Ok(None) };
        let kept = axes.iter().take_while(|axis| !axis.is_reduced).count();
        let reduced: usize = axes[kept..].iter().map(|axis| axis.size).product();
        if reduced != self.row || axes[kept..].iter().any(|axis| !axis.is_reduced) {
            return Ok(None);
        }
        // The elements of a row are the innermost ones of the reduction's index space.
        let outer = self.outer_axes();
        let mut all = identity(&self.sizes);
        for (own, stride) in all.iter_mut().zip(strides).take(outer) {
            *own = stride * self.row as isize;
        }
        let sizes: Vec<usize> = axes.iter().map(|axis| axis.size).collect();
        let Some(through) = self.through(&sizes, &all, Extent::All)? else { return Ok(None) };
        let value = self.operand(&operand.through(&through))?;
        Ok(Some(self.push(Step::Reduce(*reduction, *factor), [value; 3])))
    }

    /// Returns the row along which an operand is constant, if rows of this length can be reduced within the tape.
    fn row_of(&self, operand: &Operand) -> Option<usize> {
        let last = self.sizes.iter().zip(&operand.strides).rposition(|(size, stride)| *size > 1 && *stride != 0);
        let row: usize = self.sizes[last.map_or(0, |last| last + 1)..].iter().product();
        let is_possible = (self.row == 1 || self.row == row) && (self.only_row == 0 || self.only_row == row);
        (is_possible && (MIN_ROW..=TILE).contains(&row)).then_some(row)
    }

    /// Number of axes before those of the row.
    fn outer_axes(&self) -> usize {
        let mut inner = 1;
        let outer = self.sizes.iter().rposition(|size| {
            let is_outer = inner == self.row && *size > 1;
            inner *= size;
            is_outer
        });
        outer.map_or(0, |last| last + 1)
    }

    /// Returns the expression of a node with `len` elements, if it can become part of the tape.
    fn inlinable(&self, node: &Node, operand: &Operand, len: usize) -> Option<Arc<Expression>> {
        let is_possible = node.len() == len && operand.start == 0 && self.instructions.len() < MAX_INSTRUCTIONS;
        node.expression().filter(|_| is_possible)
    }

    fn known(&mut self, operand: &Operand, extent: Extent) -> Option<Built> {
        let inlined = &mut self.inlined[*self.known_nodes.get(&access(operand, extent))?];
        inlined.uses += 1;
        Some(inlined.value)
    }

    fn inlined(&mut self, node: Arc<Node>, operand: &Operand, value: Built, extent: Extent, is_worth_storing: bool) {
        self.known_nodes.insert(access(operand, extent), self.inlined.len());
        self.inlined.push(Inlined {
            node,
            tensor: operand.tensor.clone(),
            value,
            uses: 1,
            is_stored_if_needed: is_worth_storing && operand.is_contiguous(&self.sizes),
        });
    }

    fn load(&mut self, operand: &Operand, extent: Extent) -> Built {
        let next = self.loads.len();
        let index = *self.known_loads.entry(access(operand, extent)).or_insert(next);
        if index == next {
            self.loads.push((operand.clone(), extent));
        }
        Built::Load(index)
    }

    /// Returns, for each axis of the tape, the axis of a row-major index space `shape` that it moves along, and by how
    /// many steps, if the space is read with `strides`. `None` if that is not possible.
    fn through(&self, shape: &[usize], strides: &[isize], extent: Extent) -> Result<Option<Through>, Split> {
        let outer = if extent == Extent::All { self.sizes.len() } else { self.outer_axes() };
        let own = identity(shape);
        let mut result = Vec::with_capacity(strides.len());
        let mut reach = vec![0; shape.len()];
        for (axis, (size, stride)) in self.sizes.iter().zip(strides).enumerate() {
            if *size == 1 || axis >= outer {
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
    pub(super) fn stored(&self) -> Vec<Stored> {
        let is_needed = |inlined: &&Inlined| {
            // Handles outside of the tape: all but the uses, the one in `inlined`, and the one taken here.
            let handles = Arc::strong_count(&inlined.tensor.data_arc()).saturating_sub(inlined.uses + 2);
            handles > 0 && inlined.is_stored_if_needed
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

    /// Number of instructions.
    pub(super) fn instructions(&self) -> usize {
        self.instructions.len()
    }

    pub(super) fn number(&self, value: Built) -> Value {
        match value {
            Built::Load(index) => index,
            Built::Result(index) => self.loads.len() + index,
        }
    }

    pub(super) fn tape(&self) -> Tape<'_> {
        let instructions = self.instructions.iter().map(|(step, operands)| Instruction {
            step: *step,
            operands: operands.map(|operand| self.number(operand)),
        });
        let loads = self.loads.iter().map(|(operand, extent)| Load {
            memory: match operand.tensor.dtype() {
                DType::F32 => Memory::Floats(operand.tensor.storage()),
                _ => Memory::Bools(operand.tensor.bytes()),
            },
            start: operand.start,
            strides: operand.strides.clone(),
            extent: *extent,
        });
        Tape { axes: self.sizes.clone(), row: self.row, loads: loads.collect(), instructions: instructions.collect() }
    }
}
