//! Products of packed rows with the elements under the kernel, found through a table of offsets: nothing is unrolled.
//!
//! Sixteen pixels at a time; a register holds rows (channels), so that blocks of 16 pixels and 16 channels are transposed on their
//! way to the output.

use super::geometry::Window;
use crate::kernels::epilogue::Epilogue;
use crate::kernels::memory::Output;
use crate::kernels::panels::{GROUP, Group, PANEL, Panels};
use crate::kernels::simd::Simd;
use crate::kernels::tile::{self, Codes, Decode, Own, Shared, Table, Tile, clamped, cover};

/// Pixels of a block.
const PIXELS: usize = 16;

/// A strip of the output of one image and group.
#[derive(Clone, Copy)]
pub(crate) struct DenseStrip<'a> {
    pub(crate) panels: &'a Panels,
    pub(crate) epilogue: &'a Epilogue,
    pub(crate) window: Window,
    /// From a pixel to the elements under the kernel: one for each column, or for each four.
    pub(crate) offsets: &'a [u32],
    pub(crate) output: Output<'a>,
    /// The output's place of row 0, pixel 0, and the distance between rows.
    pub(crate) start: usize,
    pub(crate) plane: usize,
    pub(crate) pixels: usize,
}

/// A group of rows times a block of pixels.
#[derive(Clone, Copy)]
struct Block<'a, T> {
    strip: DenseStrip<'a>,
    group: Group,
    pixels: [*const T; PIXELS],
    /// The rows of a panel are neighbours: `[panel][pixel][row]`.
    y: *mut f32,
}

/// A way to compute blocks.
trait Product: Copy {
    /// An element of the window.
    type Element;
    /// # Safety
    /// The instructions of `V`; the block's pointers lead to its elements.
    unsafe fn block<V: Simd>(self, block: Block<'_, Self::Element>, count: usize);
}

/// With exact activations.
#[derive(Clone, Copy)]
struct Exact<D>(D);

/// With activations of 8 bits and their factor.
#[derive(Clone, Copy)]
struct Rounded<const PLANES: usize>(f32);

struct ExactBlock<'a, D>(Block<'a, f32>, D);

struct RoundedBlock<'a, const PLANES: usize>(Block<'a, u32>, f32);

impl DenseStrip<'_> {
    /// With exact activations.
    ///
    /// # Safety
    /// The instructions of `V`; the window was filled, and nobody else writes this strip.
    #[inline(always)]
    pub(crate) unsafe fn floats<V: Simd>(&self, x: &[f32]) {
        let epilogue = self.epilogue;
        // SAFETY: the caller's vows.
        unsafe {
            match epilogue.shared {
                Some(pair) => self.blocks::<V, _>(x, Exact(Shared(pair))),
                None => self.blocks::<V, _>(x, Exact(Own([epilogue.w_pos.as_ptr(), epilogue.w_neg.as_ptr()]))),
            }
        }
    }

    /// With activations of 8 bits.
    ///
    /// # Safety
    /// As for [`floats`](Self::floats).
    #[inline(always)]
    pub(crate) unsafe fn integers<V: Simd>(&self, x: &[u32], factor: f32) {
        // SAFETY: the caller's vows.
        unsafe {
            match self.epilogue.symmetric {
                true => self.blocks::<V, _>(x, Rounded::<1>(factor)),
                false => self.blocks::<V, _>(x, Rounded::<2>(factor)),
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
                // SAFETY: the caller's vows.
                unsafe {
                    product.block::<V>(Block { strip: *self, group, pixels, y: y.as_mut_ptr() }, count);
                    self.store::<V>(group, first, count, &mut y);
                }
            }
        }
    }

    /// Transposes a block and writes the rows that there are.
    #[inline(always)]
    unsafe fn store<V: Simd>(&self, group: Group, first: usize, count: usize, y: &mut [f32; GROUP * PIXELS]) {
        let (panels, _) = y.as_chunks_mut::<{ PANEL * PIXELS }>();
        for (panel, block) in panels[..group.rows / PANEL].iter_mut().enumerate() {
            // SAFETY: the caller's vows.
            unsafe { V::transpose(block) };
            let row = group.first + panel * PANEL;
            for (r, y) in block.chunks_exact(PIXELS).take(self.panels.rows() - row).enumerate() {
                // SAFETY: the caller's vows.
                let to = unsafe { self.output.slice(self.start + (row + r) * self.plane + first, count) };
                match <&mut [f32; PIXELS]>::try_from(&mut *to) {
                    // A length known to the compiler is one instruction.
                    Ok(to) => to.copy_from_slice(y),
                    Err(_) => to.copy_from_slice(&y[..count]),
                }
            }
        }
    }
}

impl<D: Decode> Product for Exact<D> {
    type Element = f32;

    #[inline(always)]
    unsafe fn block<V: Simd>(self, block: Block<'_, f32>, count: usize) {
        let rows = block.group.rows;
        let block = ExactBlock(block, self.0);
        // SAFETY: the caller's vows.
        unsafe {
            if const { V::LANES == 16 } {
                cover::<V, _, 2, 8, 8>(&block, rows, 0..count);
            } else {
                cover::<V, _, 2, 4, 4>(&block, rows, 0..count);
            }
        }
    }
}

impl<const PLANES: usize> Product for Rounded<PLANES> {
    type Element = u32;

    #[inline(always)]
    unsafe fn block<V: Simd>(self, block: Block<'_, u32>, count: usize) {
        let rows = block.group.rows;
        let block = RoundedBlock::<PLANES>(block, self.0);
        // SAFETY: the caller's vows.
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
        // SAFETY: the row is in the group.
        let words = unsafe { self.group.words.add(row) };
        Codes { words, step: self.group.rows, columns: self.strip.panels.columns() }
    }

    /// The place of a vector of rows of a pixel.
    #[inline(always)]
    unsafe fn place(&self, row: usize, pixel: usize) -> *mut f32 {
        // SAFETY: rows are in the group, pixels in the block.
        unsafe { self.y.add(row / PANEL * PANEL * PIXELS + pixel * PANEL + row % PANEL) }
    }
}

impl<V: Simd, D: Decode> Tile<V> for ExactBlock<'_, D> {
    #[inline(always)]
    unsafe fn tile<const R: usize, const C: usize>(&self, row: usize, column: usize, count: usize) {
        let block = &self.0;
        let x = clamped::<_, C>(count, |c| block.pixels[column + c]);
        let offsets = Table(block.strip.offsets.as_ptr());
        // SAFETY: the caller's vows.
        unsafe {
            let sums = tile::floats::<V, D, _, R, C>(block.codes(row), self.1, block.group.first + row, &x, offsets);
            for (r, sums) in sums.into_iter().enumerate() {
                let row = row + r * V::LANES;
                for (c, sum) in sums.into_iter().enumerate().take(count) {
                    let y = block.place(row, column + c);
                    V::store(y, sum);
                    let y = core::slice::from_raw_parts_mut(y, V::LANES);
                    block.strip.epilogue.floats(block.group.first + row, y);
                }
            }
        }
    }
}

impl<V: Simd, const PLANES: usize> Tile<V> for RoundedBlock<'_, PLANES> {
    #[inline(always)]
    unsafe fn tile<const R: usize, const C: usize>(&self, row: usize, column: usize, count: usize) {
        let Self(block, factor) = self;
        let x = clamped::<_, C>(count, |c| block.pixels[column + c]);
        let offsets = Table(block.strip.offsets.as_ptr());
        // SAFETY: the caller's vows.
        unsafe {
            let sums = tile::integers::<V, _, PLANES, R, C>(block.codes(row), &x, offsets);
            for (r, sums) in sums.into_iter().enumerate() {
                let row = row + r * V::LANES;
                for (c, sums) in sums.into_iter().enumerate().take(count) {
                    let mut stored = [[0; 16]; 2];
                    for p in 0..PLANES {
                        V::store_dots(stored[p].as_mut_ptr(), sums[p]);
                    }
                    let y = core::slice::from_raw_parts_mut(block.place(row, column + c), V::LANES);
                    let [first, second] = &stored;
                    block.strip.epilogue.integers(block.group.first + row, *factor, [first, second], V::NEG_SHIFT, y);
                }
            }
        }
    }
}
