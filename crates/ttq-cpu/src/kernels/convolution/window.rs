//! Blocks of positions, and the pixels that they read.

use std::ops::Range;

use super::images::Images;
use crate::kernels::simd::Level;

/// Partition of the positions of a batch: a block has several images, or several rows of one image.
pub(super) struct Blocks {
    batch: usize,
    /// Number of rows of an image.
    height: usize,
    /// Largest number of images and of rows in a block.
    pub(super) images: usize,
    pub(super) rows: usize,
    /// Number of blocks in an image, or in some images.
    splits: usize,
}

impl Blocks {
    /// Creates blocks of about `target` positions of images of `size` positions.
    pub(super) fn new(batch: usize, size: [usize; 2], target: usize) -> Self {
        let images = (target / (size[0] * size[1])).clamp(1, batch);
        let rows = if images > 1 { size[0] } else { (target / size[1]).clamp(1, size[0]) };
        let splits = size[0].div_ceil(rows);
        Self { batch, height: size[0], images, rows: size[0].div_ceil(splits), splits }
    }

    pub(super) fn len(&self) -> usize {
        self.batch.div_ceil(self.images) * self.splits
    }

    /// Images and rows of a block.
    pub(super) fn get(&self, index: usize) -> [Range<usize>; 2] {
        let (image, row) = (index / self.splits * self.images, index % self.splits * self.rows);
        let end = |start: usize, n: usize, all: usize| start.min(all)..(start + n).min(all);
        [end(image, self.images, self.batch), end(row, self.rows, self.height)]
    }
}

/// The pixels that a block of positions reads: in the images themselves where no tap reads beyond their border, else in
/// a copy with zeros beyond the border.
pub(super) struct Window<'a> {
    level: Level,
    x: Images<'a>,
    /// The lowest shift of a tap by rows and columns.
    lowest: [isize; 2],
    /// Distance between adjacent positions.
    step: [usize; 2],
    /// Number of rows and columns of an image that a block reads.
    extents: [usize; 2],
    is_copy: bool,
    /// Distances between images, rows and columns of pixels.
    pub(super) pitches: [isize; 3],
    /// Size of the copy.
    pub(super) scratch: usize,
}

impl<'a> Window<'a> {
    /// `bounds` are the lowest and highest shift of a tap along each axis, `size` is the number of rows and columns of
    /// positions, and `pitch` the distance between pixels in a copy. Channels beyond the last are zeros in a copy, so a
    /// pitch other than the number of channels asks for one.
    pub(super) fn new(
        level: Level,
        x: Images<'a>,
        bounds: [(isize, isize); 2],
        step: [usize; 2],
        size: [usize; 2],
        blocks: &Blocks,
        pitch: usize,
    ) -> Self {
        let extent = |axis: usize, n: usize| (n - 1) * step[axis] + 1 + (bounds[axis].1 - bounds[axis].0) as usize;
        let extents = [extent(0, blocks.rows), extent(1, size[1])];
        let is_inside =
            |axis: usize| bounds[axis].0 >= 0 && extent(axis, size[axis]) + bounds[axis].0 as usize <= x.size[axis];
        let is_copy = pitch != x.channels || !(x.has_adjacent_channels() && is_inside(0) && is_inside(1));
        let row = extents[1] * pitch;
        let scratch = if is_copy { blocks.images * extents[0] * row } else { 0 };
        let pitches = if is_copy { [extents[0] * row, row, pitch].map(|pitch| pitch as isize) } else { x.pitches() };
        Self { level, x, lowest: bounds.map(|bounds| bounds.0), step, extents, is_copy, pitches, scratch }
    }

    /// Returns the address of the lowest pixel of a block's first position. `scratch` may receive a copy.
    pub(super) fn read(&self, [images, rows]: &[Range<usize>; 2], scratch: &mut [f32]) -> *const f32 {
        let origin = [(rows.start * self.step[0]) as isize + self.lowest[0], self.lowest[1]];
        if self.is_copy {
            self.x.copy_window(self.level, images.clone(), origin, self.extents, self.pitches[2] as usize, scratch);
            scratch.as_ptr()
        } else {
            self.x.pixel(images.start, origin[0] as usize, origin[1] as usize)
        }
    }

    /// Distances between images, rows and columns of positions.
    pub(super) fn steps(&self) -> [isize; 3] {
        let [image, row, column] = self.pitches;
        [image, row * self.step[0] as isize, column * self.step[1] as isize]
    }

    /// Offset of a position.
    pub(super) fn position(&self, position: [usize; 3]) -> isize {
        position.iter().zip(self.steps()).map(|(index, step)| *index as isize * step).sum()
    }

    /// Offset of a shift.
    pub(super) fn shift(&self, [row, column]: [isize; 2]) -> isize {
        (row - self.lowest[0]) * self.pitches[1] + (column - self.lowest[1]) * self.pitches[2]
    }
}
