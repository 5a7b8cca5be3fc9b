//! Convolution with lists of nonzero weights: one list of the codes +1 and one of the codes -1 for each row.
//!
//! For a block of pixels, the elements under a range of weights are copied to a tile, with a line of [`PIXELS`] floats
//! per weight. The tile fits in the L1 cache. A nonzero weight adds its line to a sum, and a zero costs nothing. The
//! only multiplications are those of the two sums by the scales.

use alloc::vec;
use alloc::vec::Vec;

use super::geometry::Window;
use crate::kernels::epilogue::{Epilogue, Finish};
use crate::kernels::memory::Output;
use crate::kernels::simd::Simd;

/// Number of pixels of a tile.
pub(crate) const PIXELS: usize = 64;
/// Maximum number of lines of a tile: it then takes 36 KiB, and an index fits in a byte.
const MAX_LINES: usize = 144;
/// Number of floats after a buffer that accesses of whole vectors may touch.
pub(crate) const SLACK: usize = 16;

/// The columns of the nonzero weights of a matrix, in tiles of columns.
#[derive(Debug, Clone)]
pub(crate) struct NonzeroLists {
    rows: usize,
    columns: usize,
    /// Number of columns of a tile.
    lines: usize,
    /// Columns relative to the first one of the tile. For each tile and row: the columns of +1, then those of -1.
    indices: Vec<u8>,
    /// Start of each list in `indices`, followed by the length of `indices`.
    bounds: Vec<u32>,
}

impl NonzeroLists {
    pub(crate) fn new(rows: usize, columns: usize, value: impl Fn(usize, usize) -> i8) -> Self {
        let tiles = columns.div_ceil(MAX_LINES);
        let lines = columns.div_ceil(tiles);
        let (mut indices, mut bounds) = (Vec::new(), Vec::from([0]));
        for first in (0..columns).step_by(lines) {
            for row in 0..rows {
                let (mut neg, mut count) = ([0; MAX_LINES], 0);
                for k in first..columns.min(first + lines) {
                    match value(row, k) {
                        1 => indices.push((k - first) as u8),
                        -1 => {
                            neg[count] = (k - first) as u8;
                            count += 1;
                        }
                        _ => {}
                    }
                }
                bounds.push(indices.len() as u32);
                indices.extend_from_slice(&neg[..count]);
                bounds.push(indices.len() as u32);
            }
        }
        indices.shrink_to_fit();
        bounds.shrink_to_fit();
        Self { rows, columns, lines, indices, bounds }
    }

    /// Returns the ternary value at a row and column.
    pub(crate) fn get(&self, row: usize, column: usize) -> i8 {
        let (tile, index) = (column / self.lines, (column % self.lines) as u8);
        let contains = |sign| self.list(tile, row, sign).binary_search(&index).is_ok();
        i8::from(contains(0)) - i8::from(contains(1))
    }

    /// Returns all values, in row-major order.
    pub(crate) fn values(&self) -> Vec<i8> {
        let mut values = vec![0; self.rows * self.columns];
        for tile in 0..self.columns.div_ceil(self.lines) {
            for row in 0..self.rows {
                for (sign, value) in [1, -1].into_iter().enumerate() {
                    for index in self.list(tile, row, sign) {
                        values[row * self.columns + tile * self.lines + usize::from(*index)] = value;
                    }
                }
            }
        }
        values
    }

    pub(crate) fn bytes(&self) -> usize {
        self.indices.len() + 4 * self.bounds.len()
    }

    /// Returns the number of floats of a tile.
    pub(crate) fn tile_len(&self) -> usize {
        self.lines * PIXELS + SLACK
    }

    /// Returns the list of +1 (`sign` 0) or of -1 (`sign` 1) of a row.
    fn list(&self, tile: usize, row: usize, sign: usize) -> &[u8] {
        let list = (tile * self.rows + row) * 2 + sign;
        &self.indices[self.bounds[list] as usize..self.bounds[list + 1] as usize]
    }
}

/// A strip of output rows of one image and channel group.
pub(crate) struct SparseStrip<'a> {
    pub(crate) lists: &'a NonzeroLists,
    pub(crate) epilogue: Finish<'a>,
    pub(crate) window: Window,
    /// Offsets from the first element of a pixel to the elements under the kernel, one per weight.
    pub(crate) offsets: &'a [u32],
    pub(crate) output: Output<'a>,
    /// Index of row 0, pixel 0 in the output.
    pub(crate) start: usize,
    /// Distance between rows (channels) in the output.
    pub(crate) plane: usize,
    /// Number of pixels of the strip.
    pub(crate) pixels: usize,
}

/// Pixels that are contiguous in the window as well as in the output.
#[derive(Clone, Copy, Default)]
struct Run {
    from: usize,
    to: usize,
    len: usize,
}

impl SparseStrip<'_> {
    /// Convolves the strip.
    ///
    /// # Safety
    /// The processor must support the instructions of `V`. `x` must be the filled window with [`SLACK`] additional
    /// elements, `tile` must have the length [`tile_len`](NonzeroLists::tile_len), and no other thread may access the
    /// output of this strip.
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
                // SAFETY: guaranteed by the caller.
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

    /// Divides `count` pixels that start at `first` into runs.
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

    /// Adds the contribution of a tile to one row.
    ///
    /// `ends` tells whether the tile is the first one, which initializes `y`, and whether it is the last one, after
    /// which the affine map and the activation function are applied.
    #[inline(always)]
    unsafe fn row<V: Simd>(&self, row: usize, lists: [&[u8]; 2], tile: *const f32, ends: [bool; 2], y: &mut [f32]) {
        let mut lane = 0;
        // SAFETY: guaranteed by the caller; a line of a tile is a multiple of four vectors.
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
        let Finish { epilogue: Epilogue { w_pos, w_neg, scale, relu, .. }, shift } = self.epilogue;
        // SAFETY: guaranteed by the caller.
        unsafe {
            let (pos, neg) = (sum::<V, N>(tile, pos), sum::<V, N>(tile, neg));
            let (w_pos, minus_w_neg) = (V::splat(w_pos[row]), V::splat(-w_neg[row]));
            let (scale, shift) = (V::splat(scale[row]), V::splat(shift[row]));
            for i in 0..N {
                let Some(to) = y.get_mut(i * V::LANES..) else { break };
                // A partial vector is computed in a temporary one.
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

/// Copies the elements under each weight to the lines of a tile.
#[inline(always)]
unsafe fn copy<V: Simd>(x: *const f32, tile: *mut f32, offsets: &[u32], runs: &[Run]) {
    for (line, offset) in offsets.iter().enumerate() {
        for run in runs {
            let mut i = 0;
            while i < run.len {
                // SAFETY: whole vectors reach at most the slack after window and tile. The next run or line overwrites
                // the elements after a run.
                unsafe {
                    let value = V::load(x.add(*offset as usize + run.from + i));
                    V::store(tile.add(line * PIXELS + run.to + i), value);
                }
                i += V::LANES;
            }
        }
    }
}

/// Returns `N` vectors of the sum of some lines.
#[inline(always)]
unsafe fn sum<V: Simd, const N: usize>(tile: *const f32, lines: &[u8]) -> [V::Floats; N] {
    // SAFETY: the caller guarantees the instructions; indices are less than the number of lines of the tile.
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
