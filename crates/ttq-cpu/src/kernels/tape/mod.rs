//! Interpreter of recorded element-wise operations.
//!
//! A [`Tape`] is a list of instructions over an index space. It is run *tile* by tile: a tile is a range of a few
//! hundred consecutive indices, whose intermediate values stay in the first-level cache, so that each operand is read
//! from memory once and each result written once, whatever the number of operations between them.
//!
//! A row is the last part of the index space, such as the last axis. A value can also have one element per row: the
//! reduction of a row, and what is computed from it. A tile holds whole rows then, so that a value, the reductions of its
//! rows and results of both are computed in one pass.
//!
//! Every value is rounded to f32 after each operation, and no operations are contracted: results are those of the same
//! operations one by one.

mod chain;
mod load;
mod operation;
mod plan;
mod reduce;
mod tile;

pub(crate) use load::merge_axes;
pub(crate) use operation::Operation;
use plan::Plan;
pub(crate) use reduce::{Reduced, Reduction, Sizes};

/// Largest number of elements of a tile.
pub(crate) const TILE: usize = 512;

/// Memory that a value is read from.
#[derive(Clone, Copy)]
pub(crate) enum Memory<'a> {
    Floats(&'a [f32]),
    /// Read as 0 (false) or 1 (true).
    Bools(&'a [u8]),
}

/// A value that is read from memory.
#[derive(Clone)]
pub(crate) struct Load<'a> {
    pub(crate) memory: Memory<'a>,
    pub(crate) start: isize,
    /// Stride along each axis of the tape's index space. A value with one element per row has strides 0 along the axes of
    /// the row.
    pub(crate) strides: Vec<isize>,
    pub(crate) extent: Extent,
}

/// The indices that a value has elements for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Extent {
    /// All indices.
    All,
    /// One for each row.
    Rows,
}

/// Number of a value: loads come first, then the results of the instructions.
pub(crate) type Value = usize;

/// An instruction.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Instruction {
    pub(crate) step: Step,
    /// Operations with fewer than three operands ignore the others.
    pub(crate) operands: [Value; 3],
}

/// What an instruction does.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Step {
    /// An operation of each element, whose operands have the same extent.
    Apply(Operation, Extent),
    /// The reduction of each row, times a factor.
    Reduce(Reduction, f64),
    /// The element of each row at all indices of the row.
    Expand,
}

impl Step {
    fn operands(self) -> usize {
        match self {
            Self::Apply(operation, _) => operation.operands(),
            Self::Reduce(..) | Self::Expand => 1,
        }
    }
}

/// Recorded operations over an index space.
pub(crate) struct Tape<'a> {
    /// Sizes of the axes, outermost first.
    pub(crate) axes: Vec<usize>,
    /// Number of indices of a row: the product of the sizes of the last axes, at most [`TILE`].
    pub(crate) row: usize,
    pub(crate) loads: Vec<Load<'a>>,
    pub(crate) instructions: Vec<Instruction>,
}

impl Tape<'_> {
    /// Number of indices.
    pub(crate) fn len(&self) -> usize {
        self.axes.iter().product()
    }
}
