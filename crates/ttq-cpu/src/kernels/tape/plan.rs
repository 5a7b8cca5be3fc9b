//! Planning of a tape: which instructions run as chains, and where values are kept.

use rayon::prelude::*;

use super::chain::{Chain, Link};
use super::load::{PlannedLoad, tile};
use super::tile::Tiles;
use super::{Extent, Instruction, Step, Tape, Value};
use crate::kernels::SharedOutput;
use crate::kernels::simd::{Kernel, Level, Vector};

/// Elements per task.
const TASK: usize = 1 << 15;

/// Where the value of a tile is while the tile is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// In registers only, within a chain.
    Register,
    /// In the memory of a contiguous operand.
    Direct,
    /// In a slot of the tile's memory.
    Slot(usize),
    /// In the memory of a result.
    Output(usize),
}

/// What a tile computes at once.
pub(super) enum Group {
    Chain(Chain),
    /// An instruction that is not part of a chain, and the value of its result.
    Single(Instruction, Value),
}

/// A tape with its chains and the places of its values.
pub(super) struct Plan<'a> {
    pub(super) loads: Vec<PlannedLoad<'a>>,
    pub(super) groups: Vec<Group>,
    /// Places of loads, of results, and of constants.
    pub(super) places: Vec<Place>,
    /// Constants and their slots.
    pub(super) constants: Vec<(f32, usize)>,
    pub(super) slots: usize,
    /// The values whose lanes are summed within chains, of those that [`Tape::plan`] was asked to sum.
    pub(super) summed: Vec<bool>,
    /// Number of elements of a tile: whole rows.
    pub(super) tile: usize,
    pub(super) row: usize,
    pub(super) len: usize,
}

impl<'a> Tape<'a> {
    /// Plans the tape. `stored` are the values that are written to results, `kept` those that are read after the last
    /// instruction, and `summed` those whose lanes are added up over the tiles.
    pub(super) fn plan(self, stored: &[Value], kept: &[Value], summed: &[Option<Value>]) -> Plan<'a> {
        let (len, row) = (self.len(), self.row);
        let mut loads: Vec<_> = self.loads.into_iter().map(|load| PlannedLoad::new(load, &self.axes, row)).collect();
        let tile = tile(&mut loads, row);
        let mut chains = Chains {
            first: loads.len(),
            count: loads.len() + self.instructions.len(),
            constants: Vec::new(),
            groups: Vec::new(),
        };
        for (index, instruction) in self.instructions.iter().enumerate() {
            chains.add(*instruction, loads.len() + index);
        }
        let Chains { constants, mut groups, .. } = chains;
        // A value in a chain is kept in memory if anything but the next link needs it.
        let mut uses = vec![0; loads.len() + self.instructions.len() + constants.len()];
        for instruction in &self.instructions {
            instruction.operands().iter().for_each(|operand| uses[*operand] += 1);
        }
        let mut is_summed = vec![false; summed.len()];
        for group in &mut groups {
            let Group::Chain(chain) = group else { continue };
            for index in 0..chain.links.len() {
                let value = chain.links[index].value;
                let next = chain.links.get(index + 1).map_or(0, |next| next.uses_of_previous());
                let sum = summed.iter().position(|summed| *summed == Some(value));
                if let Some(sum) = sum {
                    is_summed[sum] = true;
                }
                let others = summed.iter().filter(|other| **other == Some(value)).count();
                let is_needed = uses[value] > next || stored.contains(&value) || kept.contains(&value) || others > 1;
                (chain.links[index].is_kept, chain.links[index].sum) = (is_needed, sum);
            }
        }
        let kept: Vec<Value> = kept
            .iter()
            .chain(
                summed
                    .iter()
                    .zip(&is_summed)
                    .filter(|(_, is_summed)| !**is_summed)
                    .filter_map(|(value, _)| value.as_ref()),
            )
            .copied()
            .collect();
        let mut places = vec![Place::Register; uses.len()];
        let mut slots = 0;
        let mut new_slot = || {
            slots += 1;
            slots - 1
        };
        for (load, place) in loads.iter().zip(&mut places) {
            *place = if load.is_direct() { Place::Direct } else { Place::Slot(new_slot()) };
        }
        let first_constant = loads.len() + self.instructions.len();
        let constants: Vec<(f32, usize)> = constants.into_iter().map(|value| (value, new_slot())).collect();
        for (place, (_, slot)) in places[first_constant..].iter_mut().zip(&constants) {
            *place = Place::Slot(*slot);
        }
        // The group after which a value is not needed.
        let mut last_use = vec![0; places.len()];
        for (index, group) in groups.iter().enumerate() {
            group.reads().into_iter().for_each(|value| last_use[value] = index);
        }
        kept.iter().for_each(|value| last_use[*value] = usize::MAX);
        let mut free = Vec::new();
        for (index, group) in groups.iter().enumerate() {
            let results = group.results();
            for value in &results {
                places[*value] = match stored.iter().position(|stored| stored == value) {
                    Some(output) => Place::Output(output),
                    None => Place::Slot(free.pop().unwrap_or_else(&mut new_slot)),
                };
                last_use[*value] = last_use[*value].max(index);
            }
            // Slots are released after those of the results are chosen: a result never overwrites an operand.
            for value in loads.len()..first_constant {
                if let Place::Slot(slot) = places[value]
                    && last_use[value] == index
                {
                    free.push(slot);
                }
            }
        }
        Plan { loads, groups, places, constants, slots, summed: is_summed, tile, row, len }
    }
}

impl Instruction {
    fn operands(&self) -> &[Value] {
        &self.operands[..self.step.operands()]
    }
}

impl Group {
    fn reads(&self) -> Vec<Value> {
        match self {
            Self::Chain(chain) => {
                std::iter::once(chain.start).chain(chain.links.iter().filter_map(|link| link.operand)).collect()
            }
            Self::Single(instruction, _) => instruction.operands().to_vec(),
        }
    }

    /// The results that are kept in memory.
    fn results(&self) -> Vec<Value> {
        match self {
            Self::Chain(chain) => chain.links.iter().filter(|link| link.is_kept).map(|link| link.value).collect(),
            Self::Single(_, value) => vec![*value],
        }
    }
}

/// The instructions of a tape while they are joined to chains.
struct Chains {
    /// Value of the first instruction.
    first: Value,
    /// Number of values before the constants.
    count: usize,
    constants: Vec<f32>,
    groups: Vec<Group>,
}

impl Chains {
    /// Adds an instruction with the result `value`: to the last chain if it continues it.
    fn add(&mut self, instruction: Instruction, value: Value) {
        let Step::Apply(operation, Extent::All) = instruction.step else {
            return self.groups.push(Group::Single(instruction, value));
        };
        let operands = &instruction.operands[..operation.operands()];
        let previous = match self.groups.last() {
            Some(Group::Chain(chain)) => chain.links.last().map(|link| link.value),
            _ => None,
        };
        debug_assert!(value >= self.first);
        let mut constant = |number: f32| {
            let known = self.constants.iter().position(|known| known.to_bits() == number.to_bits());
            let index = known.unwrap_or_else(|| {
                self.constants.push(number);
                self.constants.len() - 1
            });
            self.count + index
        };
        if let Some(previous) = previous.filter(|previous| operands.contains(previous))
            && let Some(link) = Link::new(operation, operands, previous, value, &mut constant)
        {
            if let Some(Group::Chain(chain)) = self.groups.last_mut() {
                chain.links.push(link);
            }
            return;
        }
        match Link::new(operation, operands, operands[0], value, &mut constant) {
            Some(link) => self.groups.push(Group::Chain(Chain { start: operands[0], links: vec![link] })),
            None => self.groups.push(Group::Single(instruction, value)),
        }
    }
}

impl Tape<'_> {
    /// Writes the values `stored` to `outputs`.
    ///
    /// # Safety
    /// There must be one output for each stored value, with as many floats as the tape has indices, none of which is in
    /// use elsewhere.
    pub(crate) unsafe fn store(self, stored: &[Value], outputs: &[SharedOutput]) {
        let plan = &self.plan(stored, &[], &[]);
        let task = TASK / plan.tile * plan.tile;
        let run = |index: usize| {
            let indices = index * task..plan.len.min((index + 1) * task);
            Level::best().run(Store { plan, outputs, indices });
        };
        match plan.len.div_ceil(task) {
            1 => run(0),
            tasks => (0..tasks).into_par_iter().for_each(run),
        }
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
            tiles.compute::<V>(first, self.plan.tile.min(self.indices.end - first));
        }
    }
}
