//! Layout of images as strips, which [`direct`](super::direct) convolves.
//!
//! A strip holds, for one channel, the rows of several images one after another, with zeros after each row and each
//! image wherever the kernel reaches beyond the border. Each position of the kernel (*tap*) is then a constant offset
//! into the strip, independent of the row and the image. With a stride `s`, the strip of a channel holds its `s · s`
//! *phases*: every s-th row and column, from each starting row and column. A tap reads one phase with unit stride.

use super::Geometry;
use super::simd::COLUMNS;

/// Approximate length of a strip: short enough for the caches, long enough to amortize the work at its ends.
const STRIP_POSITIONS: usize = 1100;
/// Approximate number of floats in the strips of all channels, half of a second-level cache.
const STRIP_FLOATS: usize = 1 << 17;
/// Floats beyond the end of a channel that the widest instruction set may load.
pub(super) const OVERRUN: usize = 16 * COLUMNS;

/// The phase of the input that a tap reads along one axis, and its index in the phase relative to the output's index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tap {
    pub(super) phase: usize,
    pub(super) shift: isize,
}

impl Geometry {
    fn tap(&self, axis: usize, index: usize) -> Tap {
        let stride = self.stride[axis] as isize;
        let from = (index * self.dilation[axis]) as isize - self.padding[axis] as isize;
        Tap { phase: from.rem_euclid(stride) as usize, shift: from.div_euclid(stride) }
    }

    /// All taps in row-major order.
    pub(super) fn all_taps(&self) -> Vec<[Tap; 2]> {
        let [kh, kw] = self.kernel;
        (0..kh).flat_map(|i| (0..kw).map(move |j| [self.tap(0, i), self.tap(1, j)])).collect()
    }

    /// All phases, as starting row and column.
    pub(super) fn phases(&self) -> Vec<[usize; 2]> {
        let [sh, sw] = self.stride;
        (0..sh).flat_map(|i| (0..sw).map(move |j| [i, j])).collect()
    }

    /// Number of rows or columns of the input in a phase.
    pub(super) fn phase_len(&self, axis: usize, phase: usize) -> usize {
        self.input[axis].saturating_sub(phase).div_ceil(self.stride[axis])
    }
}

/// Layout of images in a strip along one axis, counted in rows (axis 0) or columns (axis 1).
#[derive(Debug, Clone, Copy)]
pub(super) struct Axis {
    /// Zeros before the first image (or row). The zeros before the others are the zeros after their predecessors.
    before: usize,
    /// Distance from one image (or row) to the next.
    cells: usize,
    /// The largest shift of a tap, or 0.
    reach: isize,
}

impl Axis {
    /// Creates the layout for `data` rows of input in the largest phase, `output` rows of output, and the taps'
    /// `shifts`.
    fn new(data: usize, output: usize, shifts: impl Iterator<Item = isize> + Clone) -> Self {
        let lowest = shifts.clone().min().unwrap_or(0).min(0);
        let reach = shifts.max().unwrap_or(0).max(0);
        let before = lowest.unsigned_abs();
        Self { before, cells: (data + before).max(output + reach as usize), reach }
    }
}

/// Layout of a strip.
pub(super) struct Strip {
    /// Height and width of an image.
    pub(super) size: [usize; 2],
    /// Stride between the rows and columns of a phase.
    pub(super) stride: [usize; 2],
    pub(super) phases: Vec<[usize; 2]>,
    pub(super) axes: [Axis; 2],
    /// Maximum number of images in a strip.
    pub(super) images: usize,
}

impl Strip {
    fn new(
        geometry: &Geometry,
        size: [usize; 2],
        stride: [usize; 2],
        phases: Vec<[usize; 2]>,
        axes: [Axis; 2],
    ) -> Self {
        let channels = (geometry.channels_in * phases.len()).max(geometry.channels_out);
        let positions = STRIP_POSITIONS.min(STRIP_FLOATS / channels);
        let images = (positions / (axes[0].cells * axes[1].cells)).clamp(1, geometry.batch);
        Self { size, stride, phases, axes, images }
    }

    /// Layout of the input.
    pub(super) fn of_input(geometry: &Geometry, output: [usize; 2]) -> Self {
        let taps = geometry.all_taps();
        let axes = [0, 1].map(|axis| {
            let shifts = taps.iter().map(|tap| tap[axis].shift);
            Axis::new(geometry.phase_len(axis, 0), output[axis], shifts)
        });
        // Phases that no tap reads are left out.
        let is_read = |phase: &[usize; 2]| taps.iter().any(|tap| tap.map(|tap| tap.phase) == *phase);
        let phases = geometry.phases().into_iter().filter(is_read).collect();
        Self::new(geometry, geometry.input, geometry.stride, phases, axes)
    }

    /// Layout of the output's gradient, from which the input's gradient is computed. Shifts have the opposite sign.
    pub(super) fn of_gradient(geometry: &Geometry, output: [usize; 2]) -> Self {
        let taps = geometry.all_taps();
        let axes = [0, 1].map(|axis| {
            let shifts = taps.iter().map(|tap| -tap[axis].shift);
            Axis::new(output[axis], geometry.phase_len(axis, 0), shifts)
        });
        Self::new(geometry, output, [1, 1], vec![[0, 0]], axes)
    }

    /// Number of strips for a batch.
    pub(super) fn strips(&self, batch: usize) -> usize {
        batch.div_ceil(self.images)
    }

    /// Distance from one row to the next.
    pub(super) fn pitch(&self) -> usize {
        self.axes[1].cells
    }

    /// Distance from one image to the next.
    pub(super) fn image(&self) -> usize {
        self.axes[0].cells * self.pitch()
    }

    /// Number of zeros before the first image.
    pub(super) fn margin(&self) -> usize {
        self.axes[0].before * self.pitch() + self.axes[1].before
    }

    /// Number of positions from the start of the first image to the end of the last one.
    pub(super) fn positions(&self) -> usize {
        self.images * self.image()
    }

    /// Distance from one phase to the next: the margin, the positions, and the reach of taps and vectors after them.
    pub(super) fn phase(&self) -> usize {
        let reach = (self.axes[0].reach * self.pitch() as isize + self.axes[1].reach) as usize;
        (self.margin() + self.positions() + reach + 2 * OVERRUN).next_multiple_of(16)
    }

    /// Distance from one channel to the next.
    pub(super) fn channel(&self) -> usize {
        self.phases.len() * self.phase()
    }

    /// Offset of a shift by rows and columns.
    pub(super) fn offset(&self, shifts: [isize; 2]) -> isize {
        shifts[0] * self.pitch() as isize + shifts[1]
    }

    /// Copies images `[images, channels, height, width]` to a strip and writes zeros to the rest of it.
    pub(super) fn pack(&self, images: &[f32], channels: usize, strip: &mut [f32]) {
        let [h, w] = self.size;
        let count = images.len() / (channels * h * w);
        for (index, strip) in strip.chunks_exact_mut(self.phase()).enumerate() {
            let (c, [row, column]) = (index / self.phases.len(), self.phases[index % self.phases.len()]);
            strip[..self.margin()].fill(0.0);
            let mut at = self.margin();
            for image in 0..count {
                let end = at + self.image();
                let from = &images[(image * channels + c) * h * w..][..h * w];
                for from in from.chunks_exact(w).skip(row).step_by(self.stride[0]) {
                    let next = at + self.pitch();
                    at += gather(&from[column.min(w)..], self.stride[1], &mut strip[at..next]);
                    strip[at..next].fill(0.0);
                    at = next;
                }
                strip[at..end].fill(0.0);
                at = end;
            }
            strip[at..].fill(0.0);
        }
    }
}

/// Copies every `stride`-th float to the start of `to`. Returns the number of copied floats.
fn gather(from: &[f32], stride: usize, to: &mut [f32]) -> usize {
    let n = from.len().div_ceil(stride);
    let to = &mut to[..n];
    if stride == 1 {
        copy_row(from, to);
    } else {
        to.iter_mut().zip(from.iter().step_by(stride)).for_each(|(to, from)| *to = *from);
    }
    n
}

/// Copies a row of an image. Rows are short, so an inline loop is faster than a call of `memcpy`.
fn copy_row(from: &[f32], to: &mut [f32]) {
    let (from_eights, from_rest) = from.as_chunks::<8>();
    let (to_eights, to_rest) = to.as_chunks_mut::<8>();
    for (to, from) in to_eights.iter_mut().zip(from_eights) {
        *to = *from;
    }
    for (to, from) in to_rest.iter_mut().zip(from_rest) {
        *to = *from;
    }
}
