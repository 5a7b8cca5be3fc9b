//! A block of a matrix product: as many columns and as much of `k` as fit into the second-level cache.

use super::super::simd::{MAX_LANES, Vector};
use super::pack::{Panels, pack, pack_rows};
use super::tile::{self, MAX_ROWS, MAX_WIDTH, Tile, WIDE};

/// Floats of the largest tile.
const TILE: usize = MAX_ROWS * MAX_WIDTH * MAX_LANES;
/// Rows of the left operand that are packed at once, a multiple of a tile's rows.
const ROW_BLOCK: usize = 48;
/// Largest number of rows for which the right operand is read in place.
const DIRECT_ROWS: usize = 64;
/// Distance of the elements of a row, times the number of columns, from which on rows are packed.
const PACKED_DISTANCE: usize = 1 << 14;

/// A block of rows, columns and `k` of one product.
pub(super) struct Block {
    pub(super) k: usize,
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) a: *const f32,
    pub(super) a_strides: [isize; 2],
    pub(super) b: *const f32,
    pub(super) b_strides: [isize; 2],
    /// Row that the sums start with; `None` if they start with the contents of `c`.
    pub(super) start: Option<*const f32>,
    pub(super) c: *mut f32,
    pub(super) c_pitch: usize,
}

/// The right operand as panels.
#[derive(Clone, Copy)]
struct Right {
    panels: Panels,
    /// The operand; `None` if it was packed.
    direct: Option<*const f32>,
    packed: *const f32,
}

impl Block {
    /// Returns the number of floats of scratch memory that a block needs.
    pub(super) fn scratch(k: usize, columns: usize) -> usize {
        TILE + k * (columns + ROW_BLOCK)
    }

    /// Adds the product to `start` or `c`.
    ///
    /// # Safety
    /// The operands must be valid, and `start` must be padded to whole vectors. The instruction set of `V` must be
    /// supported.
    #[inline(always)]
    pub(super) unsafe fn compute<V: Vector>(&self, scratch: &mut [f32]) {
        let is_direct = self.rows <= DIRECT_ROWS && self.b_strides[1] == 1;
        // Columns that are not whole vectors are packed.
        let direct = if is_direct { self.columns - self.columns % V::LANES } else { 0 };
        for (first, end) in [(0, direct), (direct, self.columns)] {
            if first < end {
                // SAFETY: the caller guarantees valid operands.
                unsafe {
                    let part = Self {
                        columns: end - first,
                        b: self.b.offset(first as isize * self.b_strides[1]),
                        start: self.start.map(|start| start.add(first)),
                        c: self.c.add(first),
                        ..*self
                    };
                    part.compute_columns::<V>(first < direct, scratch);
                }
            }
        }
    }

    /// Computes the block, with the right operand in place if `is_direct`, else packed.
    ///
    /// # Safety
    /// As for [`compute`](Self::compute). In place, columns must be contiguous and whole vectors.
    #[inline(always)]
    unsafe fn compute_columns<V: Vector>(&self, is_direct: bool, scratch: &mut [f32]) {
        // SAFETY: the caller guarantees valid operands.
        unsafe {
            let [tile_rows, width] = tile::size::<V>();
            let width = if is_direct && self.rows == 1 { WIDE } else { width };
            let panels = Panels::new(self.columns, V::LANES, width);
            let (edge, scratch) = scratch.split_at_mut(TILE);
            let (packed_b, packed_a) = scratch.split_at_mut(self.k * panels.vectors * V::LANES);
            if !is_direct {
                pack::<V>(self.b, self.b_strides, [self.k, self.columns], panels, packed_b);
            }
            let right = Right { panels, direct: is_direct.then_some(self.b), packed: packed_b.as_ptr() };
            let [row_stride, k_stride] = self.a_strides;
            let packs_rows = row_stride == 1 && k_stride.unsigned_abs() * self.columns >= PACKED_DISTANCE;
            for first in (0..self.rows).step_by(ROW_BLOCK) {
                let rows = ROW_BLOCK.min(self.rows - first);
                let a = self.a.offset(first as isize * row_stride);
                let (a, a_strides, panel_stride) = if packs_rows {
                    pack_rows::<V>(a, k_stride, [rows, self.k], packed_a);
                    (packed_a.as_ptr(), [1, tile_rows as isize], (tile_rows * self.k) as isize)
                } else {
                    (a, self.a_strides, tile_rows as isize * row_stride)
                };
                let mut row = 0;
                while row < rows {
                    let rest = rows - row;
                    let height = if rest >= tile_rows { tile_rows } else { 1 << rest.ilog2() };
                    let (panel, inner) = (row / tile_rows, row % tile_rows);
                    let a = a.offset(panel as isize * panel_stride + inner as isize * a_strides[0]);
                    self.compute_row::<V>(right, a, a_strides, [first + row, height], edge);
                    row += height;
                }
            }
        }
    }

    /// Computes all tiles of some rows.
    ///
    /// # Safety
    /// As for [`compute`](Self::compute).
    #[inline(always)]
    unsafe fn compute_row<V: Vector>(
        &self,
        right: Right,
        a: *const f32,
        a_strides: [isize; 2],
        [row, rows]: [usize; 2],
        edge: &mut [f32],
    ) {
        // SAFETY: the caller guarantees valid operands.
        unsafe {
            for panel in 0..right.panels.count {
                let vectors = right.panels.range(panel);
                let column = vectors.start * V::LANES;
                let (out, out_pitch) = (self.c.add(row * self.c_pitch + column), self.c_pitch);
                let (start, start_pitch) = match self.start {
                    Some(start) => (start.add(column), 0),
                    None => (out.cast_const(), out_pitch),
                };
                let (b, b_pitch) = match right.direct {
                    Some(b) => (b.add(column), self.b_strides[0]),
                    None => (right.packed.add(column * self.k), (vectors.len() * V::LANES) as isize),
                };
                let mut tile = Tile { k: self.k, a, a_strides, b, b_pitch, start, start_pitch, out, out_pitch };
                // The last tile may have columns that do not exist: it is computed in `edge`.
                let columns = self.columns - column;
                let is_edge = columns < vectors.len() * V::LANES;
                if is_edge {
                    (tile.out, tile.out_pitch) = (edge.as_mut_ptr(), vectors.len() * V::LANES);
                    if self.start.is_none() {
                        copy(rows, columns, (out, out_pitch), (tile.out, tile.out_pitch));
                        (tile.start, tile.start_pitch) = (tile.out, tile.out_pitch);
                    }
                }
                tile.compute::<V>(rows, vectors.len());
                if is_edge {
                    copy(rows, columns, (tile.out, tile.out_pitch), (out, out_pitch));
                }
            }
        }
    }
}

/// Copies a matrix from one address and pitch to another.
///
/// # Safety
/// Both matrices must be valid and must not overlap.
unsafe fn copy(rows: usize, columns: usize, from: (*const f32, usize), to: (*mut f32, usize)) {
    for row in 0..rows {
        // SAFETY: the caller guarantees valid matrices.
        unsafe { to.0.add(row * to.1).copy_from_nonoverlapping(from.0.add(row * from.1), columns) };
    }
}
