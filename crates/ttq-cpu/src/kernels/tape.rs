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

use super::SharedOutput;
use super::simd::{Kernel, Level, Vector};
use super::tape_operation::{Operation, apply};
use super::tape_reduce::Reduction;

/// Largest number of elements of a tile.
pub(crate) const TILE: usize = 512;
/// Elements per task.
const TASK: usize = 1 << 15;

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

/// Where the value of a tile is while the tile is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In the memory of a contiguous operand.
    Direct,
    /// In a slot of the tile's memory.
    Slot(usize),
    /// In the memory of a result.
    Output(usize),
}

/// A tape with the places of its values.
pub(crate) struct Plan<'a> {
    loads: Vec<PlannedLoad<'a>>,
    instructions: Vec<Instruction>,
    places: Vec<Place>,
    slots: usize,
    /// Number of elements of a tile: whole rows.
    pub(crate) tile: usize,
    row: usize,
    len: usize,
}

/// A load, with the axes along which its strides merge.
struct PlannedLoad<'a> {
    memory: Memory<'a>,
    start: isize,
    axes: Vec<(usize, isize)>,
    /// Number of indices after which the values repeat, if that is not the whole space.
    period: Option<usize>,
    /// Whether consecutive tiles have the same values.
    repeats: bool,
    extent: Extent,
}

impl<'a> Tape<'a> {
    /// Number of indices.
    pub(crate) fn len(&self) -> usize {
        self.axes.iter().product()
    }

    /// Plans the memory of the tape. `stored` are the values that are written to results, `kept` those that are read
    /// after the last instruction.
    pub(crate) fn plan(self, stored: &[Value], kept: &[Value]) -> Plan<'a> {
        let len = self.len();
        let mut loads: Vec<_> =
            self.loads.into_iter().map(|load| PlannedLoad::new(load, &self.axes, self.row)).collect();
        let periods = loads.iter().filter_map(|load| load.period).filter(|period| *period <= TILE);
        // A tile is a multiple of the periods, so that repeated values are loaded once.
        let unit = periods.fold(self.row, |unit, period| {
            let multiple = least_common_multiple(unit, period);
            if multiple <= TILE { multiple } else { unit }
        });
        let tile = TILE / unit * unit;
        for load in &mut loads {
            let own = if load.extent == Extent::All { tile } else { tile / self.row };
            load.repeats = load.period.is_some_and(|period| own % period == 0);
        }
        let mut last_use = vec![0; loads.len() + self.instructions.len()];
        for (index, instruction) in self.instructions.iter().enumerate() {
            for operand in &instruction.operands[..instruction.step.operands()] {
                last_use[*operand] = index;
            }
        }
        for value in kept {
            last_use[*value] = usize::MAX;
        }
        let mut slots = 0;
        let mut places: Vec<Place> = loads
            .iter()
            .map(|load| match load.is_direct() {
                true => Place::Direct,
                false => {
                    slots += 1;
                    Place::Slot(slots - 1)
                }
            })
            .collect();
        let mut free = Vec::new();
        for index in 0..self.instructions.len() {
            let value = loads.len() + index;
            let place = match stored.iter().position(|stored| *stored == value) {
                Some(output) => Place::Output(output),
                None => Place::Slot(free.pop().unwrap_or_else(|| {
                    slots += 1;
                    slots - 1
                })),
            };
            places.push(place);
            // Slots are released after the place of the result is chosen: a result never overwrites its operands.
            for earlier in loads.len()..=value {
                if let Place::Slot(slot) = places[earlier]
                    && last_use[earlier].max(earlier - loads.len()) == index
                {
                    free.push(slot);
                }
            }
        }
        Plan { loads, instructions: self.instructions, places, slots, tile, row: self.row, len }
    }
}

fn least_common_multiple(a: usize, b: usize) -> usize {
    let (mut x, mut y) = (a, b);
    while y != 0 {
        (x, y) = (y, x % y);
    }
    a / x * b
}

impl<'a> PlannedLoad<'a> {
    fn new(load: Load<'a>, sizes: &[usize], row: usize) -> Self {
        let outer = match load.extent {
            Extent::All => sizes.len(),
            // The axes of the row are the last ones whose sizes have this product.
            Extent::Rows => {
                let mut inner = 1;
                sizes
                    .iter()
                    .rposition(|size| {
                        let is_outer = inner == row && *size > 1;
                        inner *= size;
                        is_outer
                    })
                    .map_or(0, |last| last + 1)
            }
        };
        let axes = merge_axes(sizes[..outer].iter().copied().zip(load.strides.iter().copied()));
        let constant = axes.iter().take_while(|(_, stride)| *stride == 0).count();
        let period = (constant > 0).then(|| axes[constant..].iter().map(|(size, _)| size).product());
        Self { memory: load.memory, start: load.start, axes, period, repeats: false, extent: load.extent }
    }

    /// Returns whether the values of a tile are contiguous floats.
    fn is_direct(&self) -> bool {
        let contiguous = match self.axes.as_slice() {
            [] => true,
            [(_, stride)] => *stride == 1,
            _ => false,
        };
        contiguous && self.extent == Extent::All && matches!(self.memory, Memory::Floats(_))
    }

    /// Writes the values of the indices from `first` on to `to`.
    #[inline(always)]
    fn fill(&self, first: usize, to: &mut [f32]) {
        match self.memory {
            Memory::Floats(memory) => self.fill_from(memory, |x: f32| x, first, to),
            Memory::Bools(memory) => self.fill_from(memory, |x: u8| f32::from(u8::from(x != 0)), first, to),
        }
    }

    #[inline(always)]
    fn fill_from<T: Copy>(&self, memory: &[T], read: impl Fn(T) -> f32, first: usize, to: &mut [f32]) {
        let Some(((run, step), outer)) = self.axes.split_last() else {
            to.fill(read(memory[self.start as usize]));
            return;
        };
        // The index along each outer axis, and the offset of the current run.
        let mut counters = [0; 16];
        let mut offset = self.start;
        let mut rest = first / run;
        for (axis, (size, stride)) in outer.iter().enumerate().rev() {
            counters[axis] = rest % size;
            rest /= size;
            offset += counters[axis] as isize * stride;
        }
        let mut within = first % run;
        let mut to = to;
        while !to.is_empty() {
            let n = (run - within).min(to.len());
            let (own, others) = to.split_at_mut(n);
            let at = offset + within as isize * step;
            match *step {
                0 => own.fill(read(memory[at as usize])),
                1 => {
                    let from = &memory[at as usize..at as usize + n];
                    own.iter_mut().zip(from).for_each(|(to, from)| *to = read(*from));
                }
                step => {
                    for (index, to) in own.iter_mut().enumerate() {
                        *to = read(memory[(at + index as isize * step) as usize]);
                    }
                }
            }
            (to, within) = (others, 0);
            for (axis, (size, stride)) in outer.iter().enumerate().rev() {
                counters[axis] += 1;
                offset += stride;
                if counters[axis] < *size {
                    break;
                }
                counters[axis] = 0;
                offset -= *size as isize * stride;
            }
        }
    }
}

/// Merges adjacent axes that are traversed with one stride, and removes axes of size 1.
pub(crate) fn merge_axes(axes: impl Iterator<Item = (usize, isize)>) -> Vec<(usize, isize)> {
    let mut merged: Vec<(usize, isize)> = Vec::new();
    for (size, stride) in axes.filter(|(size, _)| *size != 1) {
        match merged.last_mut() {
            Some((before, outer)) if *outer == stride * size as isize => (*before, *outer) = (*before * size, stride),
            _ => merged.push((size, stride)),
        }
    }
    merged
}

impl Plan<'_> {
    /// Number of indices.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Number of indices of a task: a multiple of the tile.
    pub(crate) fn task(&self) -> usize {
        TASK / self.tile * self.tile
    }

    /// Computes the stored values.
    ///
    /// # Safety
    /// There must be one output for each stored value, with as many floats as the tape has indices, none of which is in
    /// use elsewhere.
    pub(crate) unsafe fn store(&self, outputs: &[SharedOutput]) {
        let task = self.task();
        let run = |index: usize| {
            let indices = index * task..self.len.min((index + 1) * task);
            Level::best().run(Store { plan: self, outputs, indices });
        };
        if self.len <= task {
            return run(0);
        }
        use rayon::prelude::*;
        (0..self.len.div_ceil(task)).into_par_iter().for_each(run);
    }
}

/// Computes the stored values of a range of indices.
struct Store<'a> {
    plan: &'a Plan<'a>,
    outputs: &'a [SharedOutput],
    indices: std::ops::Range<usize>,
}

impl Kernel for Store<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let mut tiles = Tiles::new(self.plan, self.outputs);
        for first in self.indices.clone().step_by(self.plan.tile) {
            tiles.compute(first, self.plan.tile.min(self.indices.end - first));
        }
    }
}

/// Number of floats of a slot: a cache line more than a tile, so that equal indices of different slots are not in the
/// same set of the cache.
const SLOT: usize = TILE + 16;

/// Memory for a value of a tile, aligned to a cache line.
#[derive(Clone)]
#[repr(align(64))]
struct Slot([f32; SLOT]);

/// The memory of the tiles of a task.
pub(crate) struct Tiles<'a> {
    plan: &'a Plan<'a>,
    /// Start and number of indices of the tile that was computed last.
    last: (usize, usize),
    /// The position within the period, and the length, of the values that a slot of a load holds.
    filled: Vec<(usize, usize)>,
    /// For each value, the address of its element at index 0, and 1 if other tiles have other addresses, else 0.
    addresses: Vec<(*mut f32, usize)>,
    /// The addresses of slots refer to this memory.
    _slots: Vec<Slot>,
}

impl<'a> Tiles<'a> {
    /// Creates the memory for tiles whose stored values are written to `outputs`.
    pub(crate) fn new(plan: &'a Plan<'a>, outputs: &'a [SharedOutput]) -> Self {
        let mut slots = vec![Slot([0.0; SLOT]); plan.slots];
        let start: *mut Slot = slots.as_mut_ptr();
        let address = |(value, place): (usize, &Place)| match *place {
            // SAFETY: the plan has this number of slots.
            Place::Slot(slot) => (unsafe { start.add(slot) }.cast::<f32>(), 0),
            Place::Output(output) => (outputs[output].pointer(), 1),
            Place::Direct => {
                let load = &plan.loads[value];
                let Memory::Floats(memory) = load.memory else { unreachable!("only floats are read in place") };
                (memory[load.start as usize..][..plan.len].as_ptr().cast_mut(), 1)
            }
        };
        let addresses = plan.places.iter().enumerate().map(address).collect();
        Self { plan, last: (0, 0), filled: vec![(0, 0); plan.loads.len()], addresses, _slots: slots }
    }

    /// Computes all values of the `len` indices from `first` on.
    #[inline(always)]
    pub(crate) fn compute(&mut self, first: usize, len: usize) {
        let plan = self.plan;
        let rows = len / plan.row;
        let follows = self.last == (first.wrapping_sub(plan.tile), plan.tile);
        self.last = (first, len);
        for (load, (address, filled)) in plan.loads.iter().zip(self.addresses.iter().zip(&mut self.filled)) {
            if address.1 == 1 {
                continue;
            }
            let (first, len) = match load.extent {
                Extent::All => (first, len),
                Extent::Rows => (first / plan.row, rows),
            };
            if let Some(period) = load.period {
                let repeats = follows && load.repeats || filled.0 == first % period;
                if repeats && filled.1 >= len {
                    continue;
                }
                *filled = (first % period, len);
            }
            // SAFETY: a slot has the floats of a tile, and no other reference to it exists.
            load.fill(first, unsafe { core::slice::from_raw_parts_mut(address.0, len) });
        }
        for (index, instruction) in plan.instructions.iter().enumerate() {
            let [a, b, c] = instruction.operands.map(|operand| self.address(operand, first).cast_const());
            let to = self.address(plan.loads.len() + index, first);
            // SAFETY: each pointer is valid for the tile's floats: of a slot, of an operand or of an output. An output
            // belongs to these indices alone, and a slot is not shared by a result and its operands.
            unsafe {
                let operand = |from: *const f32, len: usize| core::slice::from_raw_parts(from, len);
                let result = |len: usize| core::slice::from_raw_parts_mut(to, len);
                match instruction.step {
                    Step::Apply(operation, extent) => {
                        let len = if extent == Extent::All { len } else { rows };
                        apply(operation, operand(a, len), operand(b, len), operand(c, len), result(len));
                    }
                    Step::Reduce(reduction, factor) => {
                        let from = operand(a, len).chunks_exact(plan.row);
                        for (to, row) in result(rows).iter_mut().zip(from) {
                            *to = (reduction.reduce(row) * factor) as f32;
                        }
                    }
                    Step::Expand => {
                        let to = result(len).chunks_exact_mut(plan.row);
                        for (to, value) in to.zip(operand(a, rows)) {
                            to.fill(*value);
                        }
                    }
                }
            }
        }
    }

    /// Returns a value of the tile that was computed last.
    #[inline(always)]
    pub(crate) fn value(&self, value: Value, first: usize, len: usize) -> &[f32] {
        // SAFETY: as in `compute`.
        unsafe { core::slice::from_raw_parts(self.address(value, first), len) }
    }

    /// Address of a value's element at index `first`, the start of the current tile.
    #[inline(always)]
    fn address(&self, value: Value, first: usize) -> *mut f32 {
        let (address, step) = self.addresses[value];
        // SAFETY: operands and outputs have an element for every index.
        unsafe { address.add(first * step) }
    }
}
