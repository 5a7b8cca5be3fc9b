//! Lazy tensors: element-wise operations and reductions are recorded, and computed when the elements are read.
//!
//! A lazy tensor is a [`FlexTensor`](burn_flex::FlexTensor) whose memory is a [`Node`](node::Node). Whatever reads the
//! memory, in this crate, in Flex or in another program, finds the elements. Views (transposes, slices, expansions,
//! reshapes) of a lazy tensor are views of its memory, which need not exist yet.
//!
//! When a node is read, the operations that it depends on become one tape, which reads each operand in memory once.
//! Reductions that wait for the same kind of pass run together. An intermediate result that others need is stored if
//! computing it again would read several operands or call an expensive function.

mod builder;
mod evaluate;
mod expression;
mod mask;
mod node;
mod record;

pub(crate) use mask::{mask, numbers};
pub(crate) use node::Node;
pub(crate) use record::{map, ready, reduce};
