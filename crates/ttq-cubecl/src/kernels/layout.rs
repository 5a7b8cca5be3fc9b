//! How a weight falls into groups, and which of its members a unit works on.
//!
//! A weight is read where it lies, row-major, as `[outer, groups, inner]`; its group `g` has the members `[outer, g, inner]`, in this
//! order. A convolution by channels is `[1, out, in / groups · kh · kw]`, a linear weight by channels `[in, out, 1]`, a whole tensor
//! `[1, 1, n]`.
//!
//! A cube takes `lanes` neighbouring groups and, of each, one of `parts` equal parts of the members. Units that follow one another read
//! elements that follow one another: along the members with one lane, along the groups with many.

use cubecl::prelude::*;
use cubecl::std::FastDivmod;

/// Units of a cube; every device has as many.
pub(crate) const UNITS: u32 = 256;
/// Groups that a cube takes side by side where neighbours in memory belong to neighbouring groups.
const LANES: u32 = 32;
/// Elements from which on it pays to give them to more cubes.
const ELEMENTS_PER_CUBE: usize = 8192;
/// Parts of a group at most: every cube of the next kernel reads a number for each.
const PARTS: usize = 1024;

/// How a weight falls into groups, on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Groups {
    /// Number of groups.
    pub(crate) groups: usize,
    /// Members of a group.
    pub(crate) members: usize,
    inner: usize,
}

impl Groups {
    /// One group for each index along `channel_axis`, or one for the whole weight.
    pub(crate) fn new(dims: &[usize], channel_axis: Option<usize>) -> Self {
        let elements: usize = dims.iter().product();
        match channel_axis {
            None => Self { groups: 1, members: elements, inner: elements },
            Some(axis) => {
                Self { groups: dims[axis], members: elements / dims[axis], inner: dims[axis + 1..].iter().product() }
            }
        }
    }

    /// Groups side by side in a cube.
    pub(crate) fn lanes(self) -> u32 {
        if self.inner == 1 && self.groups > 1 { LANES } else { 1 }
    }

    /// Parts into which the members of each group are cut. It follows from the shape alone, and so does the order of every sum.
    pub(crate) fn parts(self) -> usize {
        (self.members * self.lanes() as usize).div_ceil(ELEMENTS_PER_CUBE).min(PARTS)
    }

    /// What a kernel is told.
    pub(crate) fn arguments<R: Runtime>(self) -> LayoutLaunch<R> {
        let [groups, members, inner, parts] = [self.groups, self.members, self.inner, self.parts()].map(|n| n as u32);
        LayoutLaunch::new(groups, members, inner, inner, parts)
    }

    /// One cube for each part of each lot of neighbouring groups.
    pub(crate) fn cubes<R: Runtime>(self, client: &ComputeClient<R>) -> CubeCount {
        cubes(client, self.groups.div_ceil(self.lanes() as usize) * self.parts())
    }
}

/// So many cubes, or a few more where they must be laid out in two dimensions.
pub(crate) fn cubes<R: Runtime>(client: &ComputeClient<R>, number: usize) -> CubeCount {
    cubecl::calculate_cube_count_elemwise(client, number, CubeDim::new_single())
}

/// How a weight falls into groups, on the device.
#[derive(CubeLaunch, CubeType, Clone, Copy)]
pub(crate) struct Layout {
    pub(crate) groups: u32,
    pub(crate) members: u32,
    inner: u32,
    by_inner: FastDivmod<u32>,
    pub(crate) parts: u32,
}

/// The place of a unit.
#[derive(CubeType, Clone, Copy)]
pub(crate) struct Place {
    /// Which of the units with this group.
    pub(crate) row: u32,
    pub(crate) group: u32,
    pub(crate) part: u32,
    /// Its first member, and the end of the part.
    pub(crate) first: u32,
    pub(crate) end: u32,
}

#[cube]
impl Layout {
    /// The place of this unit. Beyond the last group it has no members; a cube beyond the last part has nothing to do.
    pub(crate) fn place(&self, #[comptime] lanes: u32) -> Place {
        let lots = self.groups.div_ceil(lanes);
        let cube = CUBE_POS as u32;
        let row = UNIT_POS / lanes;
        let part = cube / lots;
        let group = cube % lots * lanes + UNIT_POS % lanes;
        let size = self.members.div_ceil(self.parts);
        let end = select(group < self.groups, min((part + 1) * size, self.members), 0);
        Place { row, group, part, first: part * size + row, end }
    }

    /// Where the weight has this member of a group.
    pub(crate) fn index(&self, group: u32, member: u32) -> usize {
        let (outer, rest) = self.by_inner.div_mod(member);
        ((outer * self.groups + group) * self.inner + rest) as usize
    }
}

/// How numbers become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Fold {
    Max,
    Sum,
}

/// The larger of two numbers, or their sum.
#[cube]
pub(crate) fn join(a: f32, b: f32, #[comptime] fold: Fold) -> f32 {
    if comptime!(fold == Fold::Max) { select(a > b, a, b) } else { a + b }
}

/// The numbers of all units with the same lane as one, for each of them, always in the same order. Every unit of a cube must call it.
#[cube]
pub(crate) fn fold_cube(value: f32, #[comptime] fold: Fold, #[comptime] lanes: u32) -> f32 {
    let mut shared = SharedMemory::<f32>::new(comptime!(UNITS as usize));
    shared[UNIT_POS as usize] = value;
    sync_cube();
    #[unroll]
    for round in 0..comptime!((UNITS / lanes).ilog2()) {
        let step = comptime!(UNITS >> (round + 1));
        if UNIT_POS < step {
            let both = join(shared[UNIT_POS as usize], shared[(UNIT_POS + step) as usize], fold);
            shared[UNIT_POS as usize] = both;
        }
        sync_cube();
    }
    shared[(UNIT_POS % lanes) as usize]
}
