//! Recorded operations.

use burn_flex::FlexTensor;

use super::node::Node;
use crate::kernels::tape::Operation;
use crate::kernels::tape::Reduction;
use crate::kernels::tape::merge_axes;

/// An operand and how an index space reads it.
#[derive(Clone)]
pub(crate) struct Operand {
    pub(crate) tensor: FlexTensor,
    /// Offset of the first element.
    pub(crate) start: isize,
    /// Stride along each axis of the index space.
    pub(crate) strides: Vec<isize>,
}

/// An axis of a reduction's index space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Axis {
    pub(crate) size: usize,
    pub(crate) is_reduced: bool,
}

/// What a node computes. Its elements are in row-major order of the index space.
pub(crate) enum Expression {
    /// An operation of each element.
    Map { shape: Vec<usize>, operation: Operation, operands: Vec<Operand>, cost: Cost },
    /// A reduction over some axes, which are adjacent. The elements are in row-major order of the other axes.
    Reduce { axes: Vec<Axis>, operand: Operand, reduction: Reduction, factor: f64, cost: Cost },
}

/// Bounds of an expression with everything that is recorded behind it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cost {
    /// Instructions of a tape.
    pub(crate) instructions: usize,
    /// Operands in memory that are as large as the result.
    pub(crate) reads: usize,
    pub(crate) is_expensive: bool,
    /// Length of the longest chain of nodes.
    pub(crate) depth: usize,
}

impl Cost {
    /// Cost of an operand of an index space with `len` indices.
    pub(crate) fn of(operand: &Operand, shape: &[usize]) -> Self {
        let len: usize = shape.iter().product();
        let distinct = shape.iter().zip(&operand.strides).filter(|(_, stride)| **stride != 0);
        let is_full = distinct.map(|(size, _)| size).product::<usize>() == len;
        let memory = Self { reads: usize::from(is_full), ..Self::default() };
        let Some((node, expression)) =
            Node::pending(&operand.tensor).and_then(|node| Some((node.len(), node.expression()?)))
        else {
            return memory;
        };
        match &*expression {
            Expression::Map { cost, .. } if node == len && is_full => *cost,
            Expression::Map { cost, .. } | Expression::Reduce { cost, .. } => Self { depth: cost.depth, ..memory },
        }
    }

    pub(crate) fn add(self, other: Self) -> Self {
        Self {
            instructions: self.instructions + other.instructions,
            reads: self.reads + other.reads,
            is_expensive: self.is_expensive || other.is_expensive,
            depth: self.depth.max(other.depth),
        }
    }
}

impl Expression {
    /// Number of elements of the result.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Map { shape, .. } => shape.iter().product(),
            Self::Reduce { axes, .. } => axes.iter().filter(|axis| !axis.is_reduced).map(|axis| axis.size).product(),
        }
    }
}

/// For each axis of a tape, the axis of an expression's index space that it moves along, and by how many steps.
pub(crate) type Through = Vec<(Option<usize>, isize)>;

impl Operand {
    /// The operand as a tape reads it.
    pub(crate) fn through(&self, through: &Through) -> Self {
        let stride = |(axis, step): &(Option<usize>, isize)| axis.map_or(0, |axis| self.strides[axis] * step);
        Self { tensor: self.tensor.clone(), start: self.start, strides: through.iter().map(stride).collect() }
    }

    /// Returns whether the elements are read in the order of memory, each once.
    pub(crate) fn is_contiguous(&self, axes: &[usize]) -> bool {
        let merged = merge_axes(axes.iter().copied().zip(self.strides.iter().copied()));
        matches!(merged.as_slice(), [] | [(_, 1)])
    }
}
