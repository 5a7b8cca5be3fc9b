//! The steps of a compiled network.

#![allow(clippy::needless_range_loop, reason = "an index of a channel, pixel or lane applies to several arrays")]

mod direct;
mod epilogue;
mod functions;
mod general;
mod map;
mod pool;
mod product;
mod strided;
mod tile;
mod transfer;
mod transposed;
mod winograd;

use core::fmt::Debug;
use core::ops::Range;

pub(super) use direct::Direct;
pub(super) use epilogue::{Activation, Epilogue};
pub(super) use general::{General, Operand};
pub(super) use map::Map;
pub(super) use pool::{Pool, PoolFunction};
pub(super) use product::Product;
pub(super) use strided::{Strided, View};
pub(super) use transfer::{Export, Import, Order};
pub(super) use transposed::Transposed;
pub(super) use winograd::Winograd;

use crate::kernels::Level;
use crate::kernels::memory::{Output, Words};

/// The data of one call of a network for some items.
#[derive(Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) level: Level,
    /// Number of items.
    pub(super) items: usize,
    /// The arena.
    pub(super) memory: *mut f32,
    /// The items, in the layout of the user.
    pub(super) input: &'a [f32],
    pub(super) output: Output<'a>,
}

// SAFETY: threads access the arena at disjoint positions, by the contract of `Layer::run`.
unsafe impl Send for Call<'_> {}
// SAFETY: as for `Send`.
unsafe impl Sync for Call<'_> {}

/// A step of a compiled network, which reads and writes values in the arena.
pub(super) trait Layer: Debug + Send + Sync {
    /// Returns the tasks into which a call is divided for a number of threads.
    fn split(&self, items: usize, threads: usize) -> Split;

    /// Runs a task.
    ///
    /// # Safety
    /// The level of the call must be available. The arena, input and output must have the size that the network requires
    /// for the number of items. The layers before must be finished, and no other thread may run the same task or another
    /// layer that shares memory with this one.
    unsafe fn run(&self, task: Task, call: &Call<'_>, scratch: &mut Words);

    /// Returns a short description of the algorithm.
    fn describe(&self) -> &'static str;
}

/// Numbers of parts into which the rows and the output channels of a layer are divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Split {
    pub(super) rows: usize,
    pub(super) channels: usize,
}

impl Split {
    /// Divides the rows alone.
    pub(super) fn rows(parts: usize) -> Self {
        Self { rows: parts.max(1), channels: 1 }
    }

    /// Returns the number of tasks.
    pub(super) fn tasks(self) -> usize {
        self.rows * self.channels
    }

    /// Returns a task.
    pub(super) fn task(self, index: usize) -> Task {
        Task { row: index / self.channels, channel: index % self.channels, split: self }
    }
}

/// A part of the rows and a part of the output channels of a layer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Task {
    row: usize,
    channel: usize,
    split: Split,
}

impl Task {
    /// Returns the rows of the task. All items together have `len` rows.
    #[inline(always)]
    pub(super) fn rows(self, len: usize) -> Range<usize> {
        len * self.row / self.split.rows..len * (self.row + 1) / self.split.rows
    }

    /// Returns the groups of channels of the task, of `len`.
    #[inline(always)]
    pub(super) fn channels(self, len: usize) -> Range<usize> {
        len * self.channel / self.split.channels..len * (self.channel + 1) / self.split.channels
    }

    /// Returns `true` for one of the tasks with the same rows.
    #[inline(always)]
    pub(super) fn is_first(self) -> bool {
        self.channel == 0
    }
}
