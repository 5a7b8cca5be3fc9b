//! Copies blocks of the right operand to panels of a register tile's width.

use std::ops::Range;

use super::super::simd::Vector;
use super::tile;

/// Columns of a matrix, split into panels of a maximum width, as evenly as possible.
#[derive(Clone, Copy)]
pub(super) struct Panels {
    /// Number of vectors that hold the columns.
    pub(super) vectors: usize,
    /// Number of panels.
    pub(super) count: usize,
}

impl Panels {
    pub(super) fn new(columns: usize, lanes: usize, width: usize) -> Self {
        let vectors = columns.div_ceil(lanes);
        Self { vectors, count: vectors.div_ceil(width) }
    }

    /// Vectors of a panel.
    pub(super) fn range(&self, panel: usize) -> Range<usize> {
        panel * self.vectors / self.count..(panel + 1) * self.vectors / self.count
    }
}

/// Copies `b` of shape `[k, columns]` with the given strides to panels, each `[k, width * LANES]`. The last vector is
/// padded with zeros.
///
/// # Safety
/// `b` must be valid for reads at all indices. The instruction set of `V` must be supported.
#[inline(always)]
pub(super) unsafe fn pack<V: Vector>(
    b: *const f32,
    [row_stride, column_stride]: [isize; 2],
    [k, columns]: [usize; 2],
    panels: Panels,
    to: &mut [f32],
) {
    assert!(to.len() >= k * panels.vectors * V::LANES);
    let to = to.as_mut_ptr();
    // SAFETY: the caller guarantees valid memory; full vectors are read only where all columns and rows exist.
    unsafe {
        let full = columns / V::LANES;
        for panel in 0..panels.count {
            let vectors = panels.range(panel);
            let to = to.add(vectors.start * V::LANES * k);
            let pitch = vectors.len() * V::LANES;
            let vectors_full = vectors.start..vectors.end.min(full);
            let at = |row: usize, column: usize| b.offset(row as isize * row_stride + column as isize * column_stride);
            // Rows and vectors that are copied as whole vectors or blocks.
            let blocked = if column_stride == 1 {
                match vectors_full.len() {
                    3 => copy_rows::<V, 3>(at(0, vectors.start * V::LANES), row_stride, k, to, pitch),
                    2 => copy_rows::<V, 2>(at(0, vectors.start * V::LANES), row_stride, k, to, pitch),
                    1 => copy_rows::<V, 1>(at(0, vectors.start * V::LANES), row_stride, k, to, pitch),
                    _ => {}
                }
                k
            } else if row_stride == 1 {
                let blocked = k - k % V::LANES;
                for vector in vectors_full.clone() {
                    for row in (0..blocked).step_by(V::LANES) {
                        let to = to.add(row * pitch + (vector - vectors.start) * V::LANES);
                        V::transpose(at(row, vector * V::LANES), column_stride, to, pitch);
                    }
                }
                blocked
            } else {
                0
            };
            // The rest one by one.
            for vector in vectors.clone() {
                let first = if vector < full { blocked } else { 0 };
                let valid = V::LANES.min(columns - vector * V::LANES);
                for row in first..k {
                    let to = to.add(row * pitch + (vector - vectors.start) * V::LANES);
                    for lane in 0..valid {
                        *to.add(lane) = *at(row, vector * V::LANES + lane);
                    }
                    for lane in valid..V::LANES {
                        *to.add(lane) = 0.0;
                    }
                }
            }
        }
    }
}

/// # Safety
/// As for [`pack`].
#[inline(always)]
unsafe fn copy_rows<V: Vector, const WIDTH: usize>(
    from: *const f32,
    row_stride: isize,
    k: usize,
    to: *mut f32,
    pitch: usize,
) {
    // SAFETY: the caller guarantees valid memory.
    unsafe {
        for row in 0..k {
            let from = from.offset(row as isize * row_stride);
            let to = to.add(row * pitch);
            for vector in 0..WIDTH {
                V::load(from.add(vector * V::LANES)).store(to.add(vector * V::LANES));
            }
        }
    }
}

/// Copies `a` of shape `[rows, k]`, whose rows are adjacent in memory, to panels of a tile's rows, `[k, rows]`.
///
/// # Safety
/// `a` must be valid for reads at all indices.
#[inline(always)]
pub(super) unsafe fn pack_rows<V: Vector>(a: *const f32, k_stride: isize, [rows, k]: [usize; 2], to: &mut [f32]) {
    let [height, _] = tile::size::<V>();
    assert!(to.len() >= rows.next_multiple_of(height) * k);
    // SAFETY: the caller guarantees a valid operand, and `to` is long enough.
    unsafe {
        let to = to.as_mut_ptr();
        for index in 0..k {
            let from = a.offset(index as isize * k_stride);
            for panel in 0..rows / height {
                let to = to.add((panel * k + index) * height);
                to.copy_from_nonoverlapping(from.add(panel * height), height);
            }
            let done = rows - rows % height;
            for row in done..rows {
                *to.add((done * k) + index * height + row - done) = *from.add(row);
            }
        }
    }
}
