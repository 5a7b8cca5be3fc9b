//! The memory of the tiles of a task, and the computation of a tile.

use super::operation::apply;
use super::plan::{Group, Place, Plan};
use super::{Extent, Instruction, Memory, Step, TILE, Value};
use crate::kernels::SharedOutput;
use crate::kernels::simd::Vector;

/// Number of floats of a slot: a cache line more than a tile, so that equal indices of different slots are not in the
/// same set of the cache.
const SLOT: usize = TILE + 16;

/// Memory for a value of a tile, aligned to a cache line.
#[derive(Clone)]
#[repr(align(64))]
struct Slot([f32; SLOT]);

/// The memory of the tiles of a task.
pub(super) struct Tiles<'a> {
    plan: &'a Plan<'a>,
    /// Start and number of indices of the tile that was computed last.
    last: (usize, usize),
    /// The position within the period, and the length, of the values that a slot of a load holds.
    filled: Vec<(usize, usize)>,
    /// For each value, the address of its element at index 0, and 1 if other tiles have other addresses, else 0.
    addresses: Vec<(*mut f32, usize)>,
    /// The addresses of slots refer to this memory.
    _slots: Vec<Slot>,
    /// Sums over the tiles, lane by lane, of the values that the plan sums.
    sums: Vec<Slot>,
}

impl<'a> Tiles<'a> {
    /// Creates the memory for tiles whose stored values are written to `outputs`.
    pub(super) fn new(plan: &'a Plan<'a>, outputs: &'a [SharedOutput]) -> Self {
        let mut slots = vec![Slot([0.0; SLOT]); plan.slots];
        for (constant, slot) in &plan.constants {
            slots[*slot].0.fill(*constant);
        }
        let start: *mut Slot = slots.as_mut_ptr();
        let address = |(value, place): (usize, &Place)| match *place {
            // SAFETY: the plan has this number of slots.
            Place::Slot(slot) => (unsafe { start.add(slot) }.cast::<f32>(), 0),
            Place::Output(output) => (outputs[output].pointer(), 1),
            Place::Register => (std::ptr::null_mut(), 0),
            Place::Direct => {
                let load = &plan.loads[value];
                let Memory::Floats(memory) = load.memory else { unreachable!("only floats are read in place") };
                (memory[load.start as usize..][..plan.len].as_ptr().cast_mut(), 1)
            }
        };
        let addresses = plan.places.iter().enumerate().map(address).collect();
        Self {
            plan,
            last: (0, 0),
            filled: vec![(0, 0); plan.loads.len()],
            addresses,
            _slots: slots,
            sums: vec![Slot([0.0; SLOT]); plan.summed.len()],
        }
    }

    /// Computes all values of the `len` indices from `first` on.
    #[inline(always)]
    pub(super) fn compute<V: Vector>(&mut self, first: usize, len: usize) {
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
        let sums = self.sums.as_mut_ptr();
        for group in &plan.groups {
            // SAFETY: each address is valid for the tile's floats: of a slot, of an operand or of an output. An output
            // belongs to these indices alone, a slot is not shared by a result and its operands, and a sum has the
            // floats of a tile.
            unsafe {
                match group {
                    Group::Chain(chain) => {
                        chain.run::<V>(len, |value| self.address(value, first), |sum| sums.add(sum).cast());
                    }
                    Group::Single(instruction, value) => self.single(instruction, *value, first, len),
                }
            }
        }
    }

    /// Computes an instruction that is not part of a chain.
    ///
    /// # Safety
    /// The addresses of the operands and the result must be valid for the tile's floats.
    #[inline(always)]
    unsafe fn single(&self, instruction: &Instruction, value: Value, first: usize, len: usize) {
        let row = self.plan.row;
        let [a, b, c] = instruction.operands.map(|operand| self.address(operand, first).cast_const());
        let to = self.address(value, first);
        // SAFETY: the caller guarantees that the addresses are valid, and no result overlaps its operands.
        unsafe {
            let operand = |from: *const f32, len: usize| core::slice::from_raw_parts(from, len);
            let result = |len: usize| core::slice::from_raw_parts_mut(to, len);
            match instruction.step {
                Step::Apply(operation, extent) => {
                    let len = if extent == Extent::All { len } else { len / row };
                    apply(operation, operand(a, len), operand(b, len), operand(c, len), result(len));
                }
                Step::Reduce(reduction, factor) => {
                    for (to, row) in result(len / row).iter_mut().zip(operand(a, len).chunks_exact(row)) {
                        *to = (reduction.reduce(row) * factor) as f32;
                    }
                }
                Step::Expand => {
                    for (to, value) in result(len).chunks_exact_mut(row).zip(operand(a, len / row)) {
                        to.fill(*value);
                    }
                }
            }
        }
    }

    /// Returns the sums, lane by lane, of a value that the plan sums.
    pub(super) fn sum(&self, index: usize) -> &[f32] {
        &self.sums[index].0
    }

    /// Returns a value of the tile that was computed last.
    #[inline(always)]
    pub(super) fn value(&self, value: Value, first: usize, len: usize) -> &[f32] {
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
