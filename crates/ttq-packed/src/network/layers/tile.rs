//! The inner loops of all products: sums of some vectors of output channels at some pixels, in registers.

use crate::kernels::simd::Simd;

/// Number of output channels of a panel of weights.
pub(super) const PANEL: usize = 16;

/// The elements under a kernel: runs of contiguous elements.
#[derive(Clone, Copy)]
pub(super) struct Runs<'a> {
    /// Offset of each run from the pixel.
    pub(super) offsets: &'a [u32],
    /// Number of elements of a run.
    pub(super) len: usize,
}

impl Runs<'_> {
    /// Returns the number of elements under the kernel.
    pub(super) fn elements(&self) -> usize {
        self.offsets.len() * self.len
    }
}

/// Returns the address of the weights of a vector of output channels.
///
/// The weights of a panel are `[elements, PANEL]`.
///
/// # Safety
/// The vector must be part of the weights.
#[inline(always)]
pub(super) unsafe fn vector<V: Simd>(weights: *const u32, elements: usize, channel: usize) -> *const u32 {
    // SAFETY: guaranteed by the caller.
    unsafe { weights.add(channel / PANEL * PANEL * elements + channel % PANEL) }
}

/// Computes `sums[r][c] = Σ_k w[r][k] x[c][k]` for `R` vectors of output channels and `C` pixels.
///
/// Meanwhile a cache line from `ahead` on is prefetched for every four elements: see [`ahead`].
///
/// # Safety
/// The processor must support the instructions of `V`, and weights and elements must be readable.
#[inline(always)]
pub(super) unsafe fn sums<V: Simd, const R: usize, const C: usize>(
    x: &[*const f32; C],
    runs: Runs<'_>,
    w: [*const f32; R],
    ahead: Option<*const u32>,
) -> [[V::Floats; C]; R] {
    // SAFETY: guaranteed by the caller.
    unsafe {
        let mut sums = [[V::splat(0.0); C]; R];
        let mut at = 0;
        macro_rules! element {
            ($offset:expr, $k:expr) => {{
                let mut weights = [V::splat(0.0); R];
                for r in 0..R {
                    weights[r] = V::load(w[r].add(at + PANEL * $k));
                }
                for c in 0..C {
                    let x = V::splat(*x[c].add($offset + $k));
                    for r in 0..R {
                        sums[r][c] = V::mul_add(weights[r], x, sums[r][c]);
                    }
                }
            }};
        }
        for offset in runs.offsets {
            let (mut i, end) = (*offset as usize, *offset as usize + runs.len);
            while i + 4 <= end {
                if let Some(ahead) = ahead {
                    V::prefetch(ahead.wrapping_add(at / 4));
                }
                element!(i, 0);
                element!(i, 1);
                element!(i, 2);
                element!(i, 3);
                at += 4 * PANEL;
                i += 4;
            }
            while i < end {
                element!(i, 0);
                at += PANEL;
                i += 1;
            }
        }
        sums
    }
}

/// Computes the same sums of bytes, of four elements per word: `x` is unsigned, and the bytes of the weights are signed.
///
/// # Safety
/// As for [`sums`]. Runs are multiples of four bytes.
#[inline(always)]
pub(super) unsafe fn byte_sums<V: Simd, const R: usize, const C: usize>(
    x: &[*const u8; C],
    runs: Runs<'_>,
    w: [*const u32; R],
) -> [[V::Dots; C]; R] {
    // SAFETY: guaranteed by the caller.
    unsafe {
        let mut sums = [[V::no_dots(); C]; R];
        let mut at = 0;
        macro_rules! word {
            ($offset:expr, $k:expr) => {{
                let mut weights = [V::splat_word(0); R];
                for r in 0..R {
                    weights[r] = V::load_words(w[r].add(at + PANEL * $k));
                }
                for c in 0..C {
                    let x = V::splat_word(x[c].add($offset + 4 * $k).cast::<u32>().read_unaligned());
                    for r in 0..R {
                        sums[r][c] = V::dot_signed(sums[r][c], x, weights[r]);
                    }
                }
            }};
        }
        for offset in runs.offsets {
            let (mut i, end) = (*offset as usize, *offset as usize + runs.len);
            while i + 16 <= end {
                word!(i, 0);
                word!(i, 1);
                word!(i, 2);
                word!(i, 3);
                at += 4 * PANEL;
                i += 16;
            }
            while i < end {
                word!(i, 0);
                at += PANEL;
                i += 4;
            }
        }
        sums
    }
}

/// Returns the address of the weights that a tile prefetches for the tiles of the next channels.
///
/// Weights that are not in a near cache arrive while those before are multiplied with all pixels. Eight tiles prefetch two
/// panels.
#[inline(always)]
pub(super) fn ahead(next: *const u32, elements: usize, tile: usize) -> *const u32 {
    next.wrapping_add(tile % 8 * (elements / 4) * PANEL)
}

/// Calls `$body` with constants `R` and `C` for all tiles of vectors of channels and pixels.
///
/// Vectors are taken two at a time, pixels as many as registers suffice for, then by powers of two.
macro_rules! cover {
    ($V:ident, vectors $vectors:expr, pixels $pixels:expr, |$r:ident, $c:ident| { $tile:ident($($argument:expr),*) }) => {{
        let (vectors, pixels): (usize, usize) = ($vectors, $pixels);
        let mut $r = 0;
        while $r < vectors {
            let two = $r + 1 < vectors;
            let mut $c = 0;
            while $c < pixels {
                let left = pixels - $c;
                macro_rules! tile {
                    ($C:literal) => {{
                        if two {
                            $tile::<$V, 2, $C>($($argument),*);
                        } else {
                            $tile::<$V, 1, $C>($($argument),*);
                        }
                        $c += $C;
                    }};
                }
                if $V::LANES == 16 && left >= 8 {
                    tile!(8)
                } else if $V::LANES == 8 && left >= 6 {
                    tile!(6)
                } else if left >= 4 {
                    tile!(4)
                } else if left >= 2 {
                    tile!(2)
                } else {
                    tile!(1)
                }
            }
            $r += if two { 2 } else { 1 };
        }
    }};
}
pub(super) use cover;
