//! Division of a weight into groups, and assignment of their members to units (threads).
//!
//! A weight is read in place, in row-major order, as `[outer, groups, inner]`. The members of group `g` are the
//! elements `[outer, g, inner]`, in this order. With one group for each output channel, a convolution's weight is `[1,
//! out, in / groups · kh · kw]` and a linear weight `[in, out, 1]`. With a single group, a weight of `n` elements is
//! `[1, 1, n]`.
//!
//! A cube (thread block) processes one of `parts` equal parts of the members of `lanes` neighbouring groups.
//! Consecutive units read consecutive elements: along the members with one lane, along the groups with several.

use cubecl::prelude::*;
use cubecl::std::FastDivmod;

/// Units per cube. Every device supports this number.
pub(crate) const UNITS: u32 = 256;
/// Groups per cube where neighbouring elements belong to neighbouring groups.
const LANES: u32 = 32;
/// Maximum number of elements per cube, unless a group would have more than [`MAX_PARTS`] parts.
const ELEMENTS_PER_CUBE: usize = 8192;
/// Maximum number of parts of a group. It is limited because each cube of the next kernel reads one number for each
/// part.
const MAX_PARTS: usize = 1024;

/// Division of a weight into groups, on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Groups {
    /// Number of groups.
    pub(crate) groups: usize,
    /// Number of members of a group.
    pub(crate) members: usize,
    inner: usize,
}

impl Groups {
    /// Creates one group for each index along `channel_axis`, or one for the whole weight.
    pub(crate) fn new(dims: &[usize], channel_axis: Option<usize>) -> Self {
        let elements: usize = dims.iter().product();
        match channel_axis {
            None => Self { groups: 1, members: elements, inner: elements },
            Some(axis) => {
                Self { groups: dims[axis], members: elements / dims[axis], inner: dims[axis + 1..].iter().product() }
            }
        }
    }

    /// Number of groups per cube.
    pub(crate) fn lanes(self) -> u32 {
        if self.inner == 1 && self.groups > 1 { LANES } else { 1 }
    }

    /// Number of parts of each group. It depends on the shape alone, and so does the order of every sum.
    pub(crate) fn parts(self) -> usize {
        (self.members * self.lanes() as usize).div_ceil(ELEMENTS_PER_CUBE).min(MAX_PARTS)
    }

    /// Kernel arguments.
    pub(crate) fn arguments<R: Runtime>(self) -> LayoutLaunch<R> {
        let [groups, members, inner, parts] = [self.groups, self.members, self.inner, self.parts()].map(|n| n as u32);
        LayoutLaunch::new(groups, members, inner, inner, parts)
    }

    /// One cube for each part of each block of neighbouring groups.
    pub(crate) fn cubes<R: Runtime>(self, client: &ComputeClient<R>) -> CubeCount {
        cubes(client, self.groups.div_ceil(self.lanes() as usize) * self.parts())
    }
}

/// Cube count of at least `number` cubes; it is larger if the cubes must be arranged in two dimensions.
pub(crate) fn cubes<R: Runtime>(client: &ComputeClient<R>, number: usize) -> CubeCount {
    cubecl::calculate_cube_count_elemwise(client, number, CubeDim::new_single())
}

/// Division of a weight into groups, on the device.
#[derive(CubeLaunch, CubeType, Clone, Copy)]
pub(crate) struct Layout {
    pub(crate) groups: u32,
    pub(crate) members: u32,
    inner: u32,
    by_inner: FastDivmod<u32>,
    pub(crate) parts: u32,
}

/// The members that a unit processes: every `UNITS / lanes`-th member of `group` from `first` to `end`.
#[derive(CubeType, Clone, Copy)]
pub(crate) struct UnitRange {
    /// Index of the unit among the units of its cube with the same group.
    pub(crate) row: u32,
    pub(crate) group: u32,
    pub(crate) part: u32,
    /// First member of the unit.
    pub(crate) first: u32,
    /// End of the part.
    pub(crate) end: u32,
}

#[cube]
impl Layout {
    /// Returns the range of this unit. It is empty beyond the last group. Cubes with `part >= parts` must terminate.
    pub(crate) fn unit_range(&self, #[comptime] lanes: u32) -> UnitRange {
        let blocks = self.groups.div_ceil(lanes);
        let cube = CUBE_POS as u32;
        let row = UNIT_POS / lanes;
        let part = cube / blocks;
        let group = cube % blocks * lanes + UNIT_POS % lanes;
        let size = self.members.div_ceil(self.parts);
        let end = select(group < self.groups, min((part + 1) * size, self.members), 0);
        UnitRange { row, group, part, first: part * size + row, end }
    }

    /// Index in the weight of a member of a group.
    pub(crate) fn index(&self, group: u32, member: u32) -> usize {
        let (outer, rest) = self.by_inner.div_mod(member);
        ((outer * self.groups + group) * self.inner + rest) as usize
    }
}

/// Reduction of several numbers to one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Fold {
    Max,
    Sum,
}

/// Returns the sum of two numbers, or the larger of two that are not negative. If one is NaN, so is the result.
#[cube]
pub(crate) fn fold_pair(a: f32, b: f32, #[comptime] fold: Fold) -> f32 {
    if comptime!(fold == Fold::Max) {
        // Numbers that are not negative have the order of their bits, with NaN above infinity.
        f32::reinterpret(max(u32::reinterpret(a), u32::reinterpret(b)))
    } else {
        a + b
    }
}

/// Reduces the values of all units of the same lane, in a fixed order, and returns the result to each of them. All
/// units of a cube must call this function, since it synchronizes them.
#[cube]
pub(crate) fn fold_cube(value: f32, #[comptime] fold: Fold, #[comptime] lanes: u32) -> f32 {
    let mut shared = SharedMemory::<f32>::new(comptime!(UNITS as usize));
    shared[UNIT_POS as usize] = value;
    sync_cube();
    #[unroll]
    for round in 0..comptime!((UNITS / lanes).ilog2()) {
        let step = comptime!(UNITS >> (round + 1));
        if UNIT_POS < step {
            let both = fold_pair(shared[UNIT_POS as usize], shared[(UNIT_POS + step) as usize], fold);
            shared[UNIT_POS as usize] = both;
        }
        sync_cube();
    }
    shared[(UNIT_POS % lanes) as usize]
}
