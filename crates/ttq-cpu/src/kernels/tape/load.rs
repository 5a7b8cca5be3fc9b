//! Operands in memory: how a tile reads them.

use super::{Extent, Load, Memory, TILE};

/// A load, with the axes along which its strides merge.
pub(super) struct PlannedLoad<'a> {
    pub(super) memory: Memory<'a>,
    pub(super) start: isize,
    axes: Vec<(usize, isize)>,
    /// Number of indices after which the values repeat, if that is not the whole space.
    pub(super) period: Option<usize>,
    /// Whether consecutive tiles have the same values.
    pub(super) repeats: bool,
    pub(super) extent: Extent,
}

impl<'a> PlannedLoad<'a> {
    pub(super) fn new(load: Load<'a>, sizes: &[usize], row: usize) -> Self {
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
    pub(super) fn is_direct(&self) -> bool {
        let contiguous = match self.axes.as_slice() {
            [] => true,
            [(_, stride)] => *stride == 1,
            _ => false,
        };
        contiguous && self.extent == Extent::All && matches!(self.memory, Memory::Floats(_))
    }

    /// Writes the values of the indices from `first` on to `to`.
    #[inline(always)]
    pub(super) fn fill(&self, first: usize, to: &mut [f32]) {
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

/// Returns the number of indices of a tile: whole rows, and a multiple of the periods of the loads where that is possible,
/// so that repeated values are read once.
pub(super) fn tile(loads: &mut [PlannedLoad<'_>], row: usize) -> usize {
    let periods = loads.iter().filter_map(|load| load.period).filter(|period| *period <= TILE);
    let unit = periods.fold(row, |unit, period| {
        let multiple = least_common_multiple(unit, period);
        if multiple <= TILE { multiple } else { unit }
    });
    let tile = TILE / unit * unit;
    for load in loads {
        let own = if load.extent == Extent::All { tile } else { tile / row };
        load.repeats = load.period.is_some_and(|period| own % period == 0);
    }
    tile
}

fn least_common_multiple(a: usize, b: usize) -> usize {
    let (mut x, mut y) = (a, b);
    while y != 0 {
        (x, y) = (y, x % y);
    }
    a / x * b
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
