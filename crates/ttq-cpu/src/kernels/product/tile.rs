//! The register tile of a matrix product.

use super::super::simd::{MAX_LANES, Vector};

/// The largest number of rows of a tile.
pub(super) const MAX_ROWS: usize = 8;
/// Vectors in a row of the widest tile of several rows.
pub(super) const MAX_WIDTH: usize = 3;
/// Vectors in a row of the widest tile of one row.
pub(super) const WIDE: usize = 8;

/// Returns the largest number of rows, and of vectors in a row, of a tile: 24 sums for the 32 registers of AVX-512, 12
/// for the 16 of AVX2 and SSE2.
#[inline(always)]
pub(super) const fn size<V: Vector>() -> [usize; 2] {
    if V::LANES == MAX_LANES { [MAX_ROWS, MAX_WIDTH] } else { [6, 2] }
}

/// Operands of a tile. The result is `start + a · b`.
#[derive(Clone, Copy)]
pub(super) struct Tile {
    pub(super) k: usize,
    /// `[rows, k]` with the strides `a_strides`.
    pub(super) a: *const f32,
    pub(super) a_strides: [isize; 2],
    /// `[k, width * LANES]`, with contiguous rows at a distance of `b_pitch`.
    pub(super) b: *const f32,
    pub(super) b_pitch: isize,
    /// `[rows, width * LANES]`, with contiguous rows at a distance of `start_pitch`.
    pub(super) start: *const f32,
    pub(super) start_pitch: usize,
    /// As `start`, which it may alias.
    pub(super) out: *mut f32,
    pub(super) out_pitch: usize,
}

impl Tile {
    /// Computes the tile. `rows` is 1, 2, 4 or the largest number of [`size`]. `width` is at least 1 and at most that
    /// of [`size`], or [`WIDE`] for one row.
    ///
    /// # Safety
    /// The operands must be valid for the tile's size. The instruction set of `V` must be supported.
    #[inline(always)]
    pub(super) unsafe fn compute<V: Vector>(self, rows: usize, width: usize) {
        // SAFETY: the caller guarantees valid operands.
        unsafe {
            match width {
                8 => self.compute_sized::<V, 8, 1>(),
                7 => self.compute_sized::<V, 7, 1>(),
                6 => self.compute_sized::<V, 6, 1>(),
                5 => self.compute_sized::<V, 5, 1>(),
                4 => self.compute_sized::<V, 4, 1>(),
                3 if size::<V>()[1] == 3 => self.compute_width::<V, 3>(rows),
                3 => self.compute_sized::<V, 3, 1>(),
                2 => self.compute_width::<V, 2>(rows),
                _ => self.compute_width::<V, 1>(rows),
            }
        }
    }

    #[inline(always)]
    unsafe fn compute_width<V: Vector, const WIDTH: usize>(self, height: usize) {
        // SAFETY: as in `compute`.
        unsafe {
            match height {
                8 if size::<V>()[0] == 8 => self.compute_sized::<V, WIDTH, 8>(),
                6 if size::<V>()[0] == 6 => self.compute_sized::<V, WIDTH, 6>(),
                4 => self.compute_sized::<V, WIDTH, 4>(),
                2 => self.compute_sized::<V, WIDTH, 2>(),
                _ => self.compute_sized::<V, WIDTH, 1>(),
            }
        }
    }

    #[inline(always)]
    unsafe fn compute_sized<V: Vector, const WIDTH: usize, const ROWS: usize>(self) {
        // SAFETY: as in `compute`.
        unsafe {
            let [row_stride, k_stride] = self.a_strides;
            let mut sums = [[V::splat(0.0); WIDTH]; ROWS];
            for (row, sums) in sums.iter_mut().enumerate() {
                for (column, sum) in sums.iter_mut().enumerate() {
                    *sum = V::load(self.start.add(row * self.start_pitch + column * V::LANES));
                }
            }
            let mut rows: [*const f32; ROWS] =
                core::array::from_fn(|row| self.a.wrapping_offset(row as isize * row_stride));
            let mut b = self.b;
            for _ in 0..self.k {
                let columns: [V; WIDTH] = core::array::from_fn(|column| V::load(b.add(column * V::LANES)));
                for (a, sums) in rows.iter_mut().zip(&mut sums) {
                    let factor = V::splat(**a);
                    for (sum, column) in sums.iter_mut().zip(columns) {
                        *sum = sum.add_product(factor, column);
                    }
                    *a = a.wrapping_offset(k_stride);
                }
                b = b.wrapping_offset(self.b_pitch);
            }
            for (row, sums) in sums.iter().enumerate() {
                for (column, sum) in sums.iter().enumerate() {
                    sum.store(self.out.add(row * self.out_pitch + column * V::LANES));
                }
            }
        }
    }
}
