//! Sums over lists of weights: one for the weights of +1 and one for those of -1 of each row.
//!
//! Some pixels at a time, the elements under some of the weights are copied into a tile, a line of [`PIXELS`] floats for each
//! weight, which stays in the first cache. A nonzero weight adds its line; a zero costs nothing, and nothing is multiplied but the
//! two sums.

use alloc::vec::Vec;

use super::geometry::Window;
use crate::kernels::epilogue::Epilogue;
use crate::kernels::memory::Output;
use crate::kernels::simd::Simd;

/// Pixels of a tile.
pub(crate) const PIXELS: usize = 64;
/// Most lines of a tile: 36 KiB, and an index fits a byte.
const LINES: usize = 144;
/// Floats behind a buffer that whole vectors may touch.
pub(crate) const SLACK: usize = 16;

/// The nonzero weights of a matrix, by tiles of columns.
#[derive(Debug, Clone)]
pub(crate) struct Lists {
    rows: usize,
    columns: usize,
    /// Columns of a tile.
    lines: usize,
    /// Columns counted from the tile's first: for each tile and row those of +1, then those of -1.
    indices: Vec<u8>,
    /// Where each of these begins, and the end.
    bounds: Vec<u32>,
}

impl Lists {
    pub(crate) fn new(rows: usize, columns: usize, value: impl Fn(usize, usize) -> i8) -> Self {
        let tiles = columns.div_ceil(LINES);
        let lines = columns.div_ceil(tiles);
        let (mut indices, mut bounds) = (Vec::new(), Vec::from([0]));
        for first in (0..columns).step_by(lines) {
            for row in 0..rows {
                for sign in [1, -1] {
                    let tile = first..columns.min(first + lines);
                    indices.extend(tile.filter(|k| value(row, *k) == sign).map(|k| (k - first) as u8));
                    bounds.push(indices.len() as u32);
                }
            }
        }
        Self { rows, columns, lines, indices, bounds }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.indices.len() + 4 * self.bounds.len()
    }

    /// Floats of a tile.
    pub(crate) fn tile_len(&self) -> usize {
        self.lines * PIXELS + SLACK
    }

    fn list(&self, tile: usize, row: usize, sign: usize) -> &[u8] {
        let place = (tile * self.rows + row) * 2 + sign;
        &self.indices[self.bounds[place] as usize..self.bounds[place + 1] as usize]
    }
}

/// A strip of the output of one image and group.
pub(crate) struct SparseStrip<'a> {
    pub(crate) lists: &'a Lists,
    pub(crate) epilogue: &'a Epilogue,
    pub(crate) window: Window,
    /// From a pixel to the elements under each weight.
    pub(crate) offsets: &'a [u32],
    pub(crate) output: Output<'a>,
    /// The output's place of row 0, pixel 0, and the distance between rows.
    pub(crate) start: usize,
    pub(crate) plane: usize,
    pub(crate) pixels: usize,
}

/// Pixels that are neighbours in the window, too.
#[derive(Clone, Copy, Default)]
struct Run {
    from: usize,
    to: usize,
    len: usize,
}

impl SparseStrip<'_> {
    /// # Safety
    /// The instructions of `V`; the window has [`SLACK`] elements more than its planes, the tile is as long as the lists say, and
    /// nobody else writes this strip.
    #[inline(always)]
    pub(crate) unsafe fn run<V: Simd>(&self, x: &[f32], tile: &mut [f32]) {
        for first in (0..self.pixels).step_by(PIXELS) {
            let count = PIXELS.min(self.pixels - first);
            let mut runs = [Run::default(); PIXELS];
            let runs = self.runs(first, count, &mut runs);
            let tiles = self.lists.columns.div_ceil(self.lists.lines);
            for index in 0..tiles {
                let columns = index * self.lists.lines;
                let offsets = &self.offsets[columns..self.lists.columns.min(columns + self.lists.lines)];
                // SAFETY: the caller's vows.
                unsafe {
                    copy::<V>(x.as_ptr(), tile.as_mut_ptr(), offsets, runs);
                    for row in 0..self.lists.rows {
                        let lists = [self.lists.list(index, row, 0), self.lists.list(index, row, 1)];
                        let y = self.output.slice(self.start + row * self.plane + first, count);
                        self.row::<V>(row, lists, tile.as_ptr(), [index == 0, index + 1 == tiles], y);
                    }
                }
            }
        }
    }

    fn runs<'a>(&self, first: usize, count: usize, runs: &'a mut [Run; PIXELS]) -> &'a [Run] {
        let width = self.window.geometry.output[1];
        let (mut n, mut to) = (0, 0);
        while to < count {
            let (row, column) = ((first + to) / width, (first + to) % width);
            let len = (width - column).min(count - to);
            runs[n] = Run { from: self.window.pixel(row, column), to, len };
            (n, to) = (n + 1, to + len);
        }
        &runs[..n]
    }

    /// One row's share of a tile: `y` is begun with the first, added to, and finished with the last.
    #[inline(always)]
    unsafe fn row<V: Simd>(&self, row: usize, lists: [&[u8]; 2], tile: *const f32, ends: [bool; 2], y: &mut [f32]) {
        let mut lane = 0;
        // SAFETY: the caller's vows; a tile's line is a multiple of four vectors.
        unsafe {
            while y.len() - lane > 2 * V::LANES {
                self.vectors::<V, 4>(row, lists, tile.add(lane), ends, &mut y[lane..]);
                lane = y.len().min(lane + 4 * V::LANES);
            }
            while lane < y.len() {
                self.vectors::<V, 1>(row, lists, tile.add(lane), ends, &mut y[lane..]);
                lane = y.len().min(lane + V::LANES);
            }
        }
    }

    #[inline(always)]
    unsafe fn vectors<V: Simd, const N: usize>(
        &self,
        row: usize,
        [pos, neg]: [&[u8]; 2],
        tile: *const f32,
        [begin, end]: [bool; 2],
        y: &mut [f32],
    ) {
        let Epilogue { w_pos, w_neg, scale, shift, relu, .. } = self.epilogue;
        // SAFETY: the caller's vows.
        unsafe {
            let (pos, neg) = (sum::<V, N>(tile, pos), sum::<V, N>(tile, neg));
            let (w_pos, minus_w_neg) = (V::splat(w_pos[row]), V::splat(-w_neg[row]));
            let (scale, shift) = (V::splat(scale[row]), V::splat(shift[row]));
            for i in 0..N {
                let Some(to) = y.get_mut(i * V::LANES..) else { break };
                // What is not a whole vector goes through one.
                let mut part = [0.0; 16];
                let whole = to.len() >= V::LANES;
                let count = to.len().min(V::LANES);
                let at = if whole { to.as_mut_ptr() } else { part.as_mut_ptr() };
                let mut sum = V::mul_add(minus_w_neg, neg[i], V::mul(w_pos, pos[i]));
                if !begin {
                    if !whole {
                        part[..count].copy_from_slice(&to[..count]);
                    }
                    sum = V::add(sum, V::load(at));
                }
                if end {
                    sum = V::mul_add(scale, sum, shift);
                    if *relu {
                        sum = V::relu(sum);
                    }
                }
                V::store(at, sum);
                if !whole {
                    to[..count].copy_from_slice(&part[..count]);
                }
            }
        }
    }
}

/// Copies the elements under each weight, a line for each.
#[inline(always)]
unsafe fn copy<V: Simd>(x: *const f32, tile: *mut f32, offsets: &[u32], runs: &[Run]) {
    for (line, offset) in offsets.iter().enumerate() {
        for run in runs {
            let mut i = 0;
            while i < run.len {
                // SAFETY: whole vectors touch the slack behind window and tile at most; what they write beyond a run is written
                // again by the next run or line.
                unsafe {
                    let value = V::load(x.add(*offset as usize + run.from + i));
                    V::store(tile.add(line * PIXELS + run.to + i), value);
                }
                i += V::LANES;
            }
        }
    }
}

/// The sum of some lines, `N` vectors of them.
#[inline(always)]
unsafe fn sum<V: Simd, const N: usize>(tile: *const f32, lines: &[u8]) -> [V::Floats; N] {
    // SAFETY: the caller vouches for the instructions; indices are less than the lines of the tile.
    unsafe {
        let (mut even, mut odd) = ([V::splat(0.0); N], [V::splat(0.0); N]);
        let pairs = lines.chunks_exact(2);
        let rest = pairs.remainder();
        for pair in pairs {
            let (first, second) = (tile.add(pair[0] as usize * PIXELS), tile.add(pair[1] as usize * PIXELS));
            for i in 0..N {
                even[i] = V::add(even[i], V::load(first.add(i * V::LANES)));
                odd[i] = V::add(odd[i], V::load(second.add(i * V::LANES)));
            }
        }
        for line in rest {
            for i in 0..N {
                even[i] = V::add(even[i], V::load(tile.add(*line as usize * PIXELS + i * V::LANES)));
            }
        }
        for i in 0..N {
            even[i] = V::add(even[i], odd[i]);
        }
        even
    }
}
