//! Images in memory of any strides, and copies of their windows in channels-last layout.

use super::correlate::Lanes;
use crate::kernels::simd::{Kernel, Level, Vector};

/// A batch of images in memory of any strides.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Images<'a> {
    data: &'a [f32],
    start: usize,
    pub(super) channels: usize,
    /// Height and width.
    pub(super) size: [usize; 2],
    strides: [isize; 4],
}

impl<'a> Images<'a> {
    /// Creates a view of `data` with `shape` and `strides` `[images, channels, rows, columns]`.
    ///
    /// # Panics
    /// Panics if an element lies outside of `data`.
    pub(crate) fn new(data: &'a [f32], start: usize, shape: [usize; 4], strides: [isize; 4]) -> Self {
        let extent = |axis: usize| (shape[axis] as isize - 1) * strides[axis];
        let lowest: isize = (0..4).map(|axis| extent(axis).min(0)).sum();
        let highest: isize = (0..4).map(|axis| extent(axis).max(0)).sum();
        assert!(start as isize + lowest >= 0 && start as isize + highest < data.len() as isize);
        Self { data, start, channels: shape[1], size: [shape[2], shape[3]], strides }
    }

    /// Whether the channels of a pixel are adjacent in memory.
    pub(super) fn has_adjacent_channels(&self) -> bool {
        self.channels == 1 || self.strides[1] == 1
    }

    /// Distances between images, rows and columns.
    pub(super) fn pitches(&self) -> [isize; 3] {
        [self.strides[0], self.strides[2], self.strides[3]]
    }

    /// Address of the first channel of a pixel.
    pub(super) fn pixel(&self, image: usize, row: usize, column: usize) -> *const f32 {
        let [images, rows, columns] = self.pitches();
        let offset = image as isize * images + row as isize * rows + column as isize * columns;
        let offset = (self.start as isize + offset) as usize;
        assert!(offset < self.data.len());
        // SAFETY: the offset is in the memory.
        unsafe { self.data.as_ptr().add(offset) }
    }

    /// Copies the pixels of some images from `first`, the first row and column, to `window`
    /// `[images, rows, columns, pitch]`. Pixels beyond the border and channels beyond the last are zeros.
    pub(super) fn copy_window(
        &self,
        level: Level,
        images: core::ops::Range<usize>,
        first: [isize; 2],
        [rows, columns]: [usize; 2],
        pitch: usize,
        window: &mut [f32],
    ) {
        let [h, w] = self.size;
        let left = (-first[1]).clamp(0, columns as isize) as usize;
        let right = (w as isize - first[1]).clamp(left as isize, columns as isize) as usize;
        let mut to = window.chunks_exact_mut(columns * pitch);
        for image in images {
            for (row, to) in (first[0]..).zip(to.by_ref().take(rows)) {
                if row < 0 || row >= h as isize || left == right {
                    to.fill(0.0);
                    continue;
                }
                to[..left * pitch].fill(0.0);
                to[right * pitch..].fill(0.0);
                let to = &mut to[left * pitch..right * pitch];
                let from = self.pixel(image, row as usize, (first[1] + left as isize) as usize);
                // SAFETY: the row and the columns from `left` to `right` are in the image.
                unsafe { self.copy_row(level, from, right - left, pitch, to) };
            }
        }
    }

    /// Copies `n` pixels from the address `from` on.
    ///
    /// # Safety
    /// The pixels must be in a row of an image.
    unsafe fn copy_row(&self, level: Level, from: *const f32, n: usize, pitch: usize, to: &mut [f32]) {
        let (channels, [_, step, _, column]) = (self.channels, self.strides);
        assert!(to.len() == n * pitch && pitch >= channels);
        // SAFETY: by `new`, all pixels of the images are in the memory, and by the assertion, those of the copy.
        unsafe {
            if self.has_adjacent_channels() && pitch == channels && column == channels as isize {
                to.copy_from_slice(core::slice::from_raw_parts(from, n * channels));
            } else if self.has_adjacent_channels() {
                for (pixel, to) in to.chunks_exact_mut(pitch).enumerate() {
                    let from = core::slice::from_raw_parts(from.offset(pixel as isize * column), channels);
                    to[..channels].copy_from_slice(from);
                    to[channels..].fill(0.0);
                }
            } else {
                let done = match Level::available().find(|own| *own <= level && own.run(Lanes) <= n.min(channels)) {
                    Some(level) if column == 1 => level.run(Transpose { from, step, n, channels, to, pitch }),
                    _ => [0, 0],
                };
                let to = to.as_mut_ptr();
                for channel in 0..channels {
                    let first = if channel < done[1] { done[0] } else { 0 };
                    let from = from.offset(channel as isize * step);
                    for pixel in first..n {
                        *to.add(pixel * pitch + channel) = *from.offset(pixel as isize * column);
                    }
                }
                for pixel in 0..n {
                    (channels..pitch).for_each(|channel| *to.add(pixel * pitch + channel) = 0.0);
                }
            }
        }
    }
}

/// Copies pixels whose columns are adjacent, in blocks of a vector of pixels by a vector of channels. Returns how many
/// pixels and channels the blocks have.
struct Transpose<'a> {
    from: *const f32,
    /// Distance between channels.
    step: isize,
    /// Number of pixels.
    n: usize,
    channels: usize,
    to: &'a mut [f32],
    /// Distance between pixels.
    pitch: usize,
}

impl Kernel for Transpose<'_> {
    type Output = [usize; 2];

    #[inline(always)]
    fn run<V: Vector>(self) -> [usize; 2] {
        let Self { from, step, n, channels, to, pitch } = self;
        assert!(to.len() >= n * pitch && pitch >= channels);
        let [pixels, channels] = [n, channels].map(|n| n / V::LANES * V::LANES);
        for channel in (0..channels).step_by(V::LANES) {
            for pixel in (0..pixels).step_by(V::LANES) {
                // SAFETY: the pixels are in a row of an image, by the contract of `copy_row`, and in `to` by the assertion.
                unsafe {
                    let from = from.offset(channel as isize * step).add(pixel);
                    V::transpose(from, step, to.as_mut_ptr().add(pixel * pitch + channel), pitch);
                }
            }
        }
        [pixels, channels]
    }
}
