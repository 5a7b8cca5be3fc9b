//! Convolution with decoded weights. A table of offsets locates the input elements under the kernel, so the input is
//! not unrolled (no im2col).
//!
//! A block is 16 pixels. Vector lanes hold rows (output channels), so blocks of 16 pixels and 16 channels are
//! transposed before they are written to the output.

use super::geometry::Window;
use crate::kernels::epilogue::{Finish, Sums};
use crate::kernels::memory::Output;
use crate::kernels::panels::{GROUP, Group, PANEL, Panels};
use crate::kernels::simd::Simd;
use crate::kernels::tile::{self, Codes, Decode, OffsetTable, PerRowScales, SharedScales, Tile, clamped, cover};

/// Number of pixels of a block.
const PIXELS: usize = 16;

/// A strip of output rows of one image and channel group.
#[derive(Clone, Copy)]
pub(crate) struct DenseStrip<'a> {
    pub(crate) panels: &'a Panels,
    pub(crate) epilogue: Finish<'a>,
    pub(crate) window: Window,
    /// Offsets from the first element of a pixel to the elements under the kernel, one per column (float32) or per four
    /// columns (int8).
    pub(crate) offsets: &'a [u32],
    pub(crate) output: Output<'a>,
    /// Index of row 0, pixel 0 in the output.
    pub(crate) start: usize,
    /// Distance between rows (channels) in the output.
    pub(crate) plane: usize,
    /// Number of pixels of the strip.
    pub(crate) pixels: usize,
}

/// The product of a group of rows and a block of pixels.
#[derive(Clone, Copy)]
struct Block<'a, T> {
    strip: DenseStrip<'a>,
    group: Group,
    /// Pointers to the first element of each pixel.
    pixels: [*const T; PIXELS],
    /// Outputs in the layout `[panel][pixel][row]`.
    y: *mut f32,
}

/// Computes blocks for one precision of activations.
trait Product: Copy {
    /// Type of the elements of the window.
    type Element;
    /// Computes the first `count` pixels of a block.
    ///
    /// # Safety
    /// The processor must support the instructions of `V`, and the pointers of the block must be valid.
    unsafe fn block<V: Simd>(self, block: Block<'_, Self::Element>, count: usize);
}

/// Float32 activations and the decoder of weights.
#[derive(Clone, Copy)]
struct Float32<D>(D);

/// Int8 activations and their quantization factor.
#[derive(Clone, Copy)]
struct Int8<const PLANES: usize>(f32);

struct Float32Block<'a, D>(Block<'a, f32>, D);

struct Int8Block<'a, const PLANES: usize>(Block<'a, u32>, f32);

impl DenseStrip<'_> {
    /// Convolves the strip with float32 activations.
    ///
    /// # Safety
    /// The processor must support the instructions of `V`, `x` must be the filled window, and no other thread may
    /// access the output of this strip.
    #[inline(always)]
    pub(crate) unsafe fn floats<V: Simd>(&self, x: &[f32]) {
        let epilogue = self.epilogue;
        // SAFETY: guaranteed by the caller.
        unsafe {
            match epilogue.shared {
                Some(pair) => self.blocks::<V, _>(x, Float32(SharedScales(pair))),
                None => {
                    let scales = PerRowScales([epilogue.w_pos.as_ptr(), epilogue.w_neg.as_ptr()]);
                    self.blocks::<V, _>(x, Float32(scales));
                }
            }
        }
    }

    /// Convolves the strip with int8 activations.
    ///
    /// # Safety
    /// As for [`floats`](Self::floats).
    #[inline(always)]
    pub(crate) unsafe fn integers<V: Simd>(&self, x: &[u32], factor: f32) {
        // SAFETY: guaranteed by the caller.
        unsafe {
            match self.epilogue.bytes.sums(V::ANY_BYTES) {
                1 => self.blocks::<V, _>(x, Int8::<1>(factor)),
                _ => self.blocks::<V, _>(x, Int8::<2>(factor)),
            }
        }
    }

    #[inline(always)]
    unsafe fn blocks<V: Simd, P: Product>(&self, x: &[P::Element], product: P) {
        let width = self.window.geometry.output[1];
        let (mut row, mut column) = (0, 0);
        let mut y = [0.0; GROUP * PIXELS];
        for first in (0..self.pixels).step_by(PIXELS) {
            let count = PIXELS.min(self.pixels - first);
            let mut pixels = [x.as_ptr(); PIXELS];
            for pixel in &mut pixels[..count] {
                *pixel = x[self.window.pixel(row, column)..].as_ptr();
                column += 1;
                if column == width {
                    (row, column) = (row + 1, 0);
                }
            }
            for group in 0..self.panels.groups() {
                let group = self.panels.group(group);
                // SAFETY: guaranteed by the caller.
                unsafe {
                    product.block::<V>(Block { strip: *self, group, pixels, y: y.as_mut_ptr() }, count);
                    self.store::<V>(group, first, count, &mut y);
                }
            }
        }
    }

    /// Transposes a block and writes its rows, without padding, to the output.
    #[inline(always)]
    unsafe fn store<V: Simd>(&self, group: Group, first: usize, count: usize, y: &mut [f32; GROUP * PIXELS]) {
        let (panels, _) = y.as_chunks_mut::<{ PANEL * PIXELS }>();
        for (panel, block) in panels[..group.rows / PANEL].iter_mut().enumerate() {
            // SAFETY: guaranteed by the caller.
            unsafe { V::transpose(block) };
            let row = group.first + panel * PANEL;
            for (r, y) in block.chunks_exact(PIXELS).take(self.panels.rows() - row).enumerate() {
                // SAFETY: guaranteed by the caller.
                let to = unsafe { self.output.slice(self.start + (row + r) * self.plane + first, count) };
                match <&mut [f32; PIXELS]>::try_from(&mut *to) {
                    // A copy of constant length compiles to a single instruction.
                    Ok(to) => to.copy_from_slice(y),
                    Err(_) => to.copy_from_slice(&y[..count]),
                }
            }
        }
    }
}

impl<D: Decode> Product for Float32<D> {
    type Element = f32;

    #[inline(always)]
    unsafe fn block<V: Simd>(self, block: Block<'_, f32>, count: usize) {
        let rows = block.group.rows;
        let block = Float32Block(block, self.0);
        // SAFETY: guaranteed by the caller.
        unsafe {
            if const { V::LANES == 16 } {
                cover::<V, _, 2, 8, 8>(&block, rows, 0..count);
            } else {
                cover::<V, _, 2, 4, 4>(&block, rows, 0..count);
            }
        }
    }
}

impl<const PLANES: usize> Product for Int8<PLANES> {
    type Element = u32;

    #[inline(always)]
    unsafe fn block<V: Simd>(self, block: Block<'_, u32>, count: usize) {
        let rows = block.group.rows;
        let block = Int8Block::<PLANES>(block, self.0);
        // SAFETY: guaranteed by the caller.
        unsafe {
            if const { V::LANES == 16 && PLANES == 1 } {
                cover::<V, _, 2, 8, 8>(&block, rows, 0..count);
            } else if const { V::LANES == 16 } {
                cover::<V, _, 1, 8, 8>(&block, rows, 0..count);
            } else if const { V::LANES == 8 } {
                cover::<V, _, 2, 1, 1>(&block, rows, 0..count);
            } else {
                cover::<V, _, 1, 4, 4>(&block, rows, 0..count);
            }
        }
    }
}

impl<T> Block<'_, T> {
    fn codes(&self, row: usize) -> Codes {
        // SAFETY: the row belongs to the group.
        let words = unsafe { self.group.words.add(row) };
        Codes { words, step: self.group.rows, columns: self.strip.panels.columns() }
    }

    /// Returns a pointer to a vector of rows of a pixel in `y`.
    #[inline(always)]
    unsafe fn output(&self, row: usize, pixel: usize) -> *mut f32 {
        // SAFETY: the caller guarantees that the rows belong to the group and the pixel to the block.
        unsafe { self.y.add(row / PANEL * PANEL * PIXELS + pixel * PANEL + row % PANEL) }
    }
}

impl<V: Simd, D: Decode> Tile<V> for Float32Block<'_, D> {
    #[inline(always)]
    unsafe fn tile<const R: usize, const C: usize>(&self, row: usize, column: usize, count: usize) {
        let block = &self.0;
        let x = clamped::<_, C>(count, |c| block.pixels[column + c]);
        let offsets = OffsetTable(block.strip.offsets.as_ptr());
        // SAFETY: guaranteed by the caller.
        unsafe {
            let sums = tile::floats::<V, D, _, R, C>(block.codes(row), self.1, block.group.first + row, &x, offsets);
            for (r, sums) in sums.into_iter().enumerate() {
                let row = row + r * V::LANES;
                for (c, sum) in sums.into_iter().enumerate().take(count) {
                    let y = block.output(row, column + c);
                    V::store(y, sum);
                    let y = core::slice::from_raw_parts_mut(y, V::LANES);
                    block.strip.epilogue.floats(block.group.first + row, y);
                }
            }
        }
    }
}

impl<V: Simd, const PLANES: usize> Tile<V> for Int8Block<'_, PLANES> {
    #[inline(always)]
    unsafe fn tile<const R: usize, const C: usize>(&self, row: usize, column: usize, count: usize) {
        let Self(block, factor) = self;
        let x = clamped::<_, C>(count, |c| block.pixels[column + c]);
        let offsets = OffsetTable(block.strip.offsets.as_ptr());
        // SAFETY: guaranteed by the caller.
        unsafe {
            let tables = block.strip.epilogue.bytes.tables().wrapping_add(block.group.first + row);
            let sums = tile::integers::<V, _, PLANES, R, C>(block.codes(row), tables, &x, offsets);
            for (r, sums) in sums.into_iter().enumerate() {
                let row = row + r * V::LANES;
                for (c, sums) in sums.into_iter().enumerate().take(count) {
                    let mut stored = [[0; 16]; 2];
                    for p in 0..PLANES {
                        V::store_dots(stored[p].as_mut_ptr(), sums[p]);
                    }
                    let y = core::slice::from_raw_parts_mut(block.output(row, column + c), V::LANES);
                    let [first, second] = &stored;
                    let sums = Sums::new(PLANES, [first, second], V::NEG_SHIFT);
                    block.strip.epilogue.integers(block.group.first + row, *factor, sums, y);
                }
            }
        }
    }
}
