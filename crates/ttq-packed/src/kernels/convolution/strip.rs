//! The task of a convolution: fills the window of one strip of the output and convolves it.

use super::dense::DenseStrip;
use super::geometry::Window;
use super::sparse::{self, SparseStrip};
use super::{ChannelGroup, PackedConvolution, Weights};
use crate::kernels::epilogue::Finish;
use crate::kernels::level::Kernel;
use crate::kernels::memory::{Output, Words};
use crate::kernels::simd::Simd;
use crate::kernels::{Activations, quantize};

/// Computes the quantization factor of each image, and its inverse.
pub(super) struct Factors<'a> {
    pub(super) x: &'a [f32],
    pub(super) images: usize,
    pub(super) to: &'a mut [f32],
}

impl Kernel for Factors<'_> {
    #[inline(always)]
    unsafe fn run<V: Simd>(self) {
        for (x, to) in self.x.chunks_exact(self.x.len() / self.images).zip(self.to.chunks_exact_mut(2)) {
            to.copy_from_slice(&quantize::factor(x));
        }
    }
}

/// Arguments that all strips of a call share.
#[derive(Clone, Copy)]
pub(super) struct CallContext<'a> {
    pub(super) convolution: &'a PackedConvolution,
    pub(super) x: &'a [f32],
    pub(super) window: Window,
    pub(super) offsets: &'a [u32],
    pub(super) factors: &'a [f32],
    /// Shifts with the bias of the call, for the rows of all channel groups with their padding; empty without a bias.
    pub(super) shifts: &'a [f32],
    pub(super) output: Output<'a>,
}

/// Image, channel group and number of a strip.
#[derive(Clone, Copy)]
pub(super) struct StripIndex {
    pub(super) image: usize,
    pub(super) group: usize,
    pub(super) strip: usize,
}

/// Fills the window of a strip and convolves it.
pub(super) struct Strip<'a> {
    pub(super) context: CallContext<'a>,
    pub(super) index: StripIndex,
    pub(super) buffer: &'a mut Words,
}

impl Kernel for Strip<'_> {
    const DOTS: bool = true;

    #[inline(always)]
    unsafe fn run<V: Simd>(self) {
        let Self { context, index, buffer } = self;
        let CallContext { convolution, window, offsets, output, factors, shifts, .. } = context;
        let ChannelGroup { weights, epilogue } = &convolution.groups[index.group];
        let rows = epilogue.shift.len();
        let shift = if shifts.is_empty() { &epilogue.shift } else { &shifts[index.group * rows..][..rows] };
        let epilogue = Finish { epilogue, shift };
        let [height, width] = window.geometry.output;
        let first = index.strip * window.strip;
        let plane = height * width;
        let start = (index.image * convolution.shape[0] + index.group * convolution.rows()) * plane + first * width;
        let pixels = (height - first).min(window.strip) * width;
        let len = convolution.planes() * window.plane();
        let x = context.channels(index);
        let dense = |panels| DenseStrip { panels, epilogue, window, offsets, output, start, plane, pixels };
        // SAFETY: guaranteed by the contract of the trait; tasks write disjoint strips.
        unsafe {
            match (convolution.activations, weights) {
                (Activations::Int8, Weights::Panels(panels)) => {
                    let elements = buffer.reserve(len);
                    fill_bytes(&window, first, x, factors[2 * index.image + 1], elements);
                    dense(panels).integers::<V>(elements, factors[2 * index.image]);
                }
                (Activations::Float32, Weights::Panels(panels)) => {
                    let elements = buffer.reserve(len);
                    fill_floats(&window, first, x, elements);
                    dense(panels).floats::<V>(elements);
                }
                (_, Weights::Lists(lists)) => {
                    let padded = (len + sparse::SLACK).next_multiple_of(16);
                    let (elements, tile) = buffer.reserve(padded + lists.tile_len()).split_at_mut(padded);
                    fill_floats(&window, first, x, elements);
                    let sparse = SparseStrip { lists, epilogue, window, offsets, output, start, plane, pixels };
                    sparse.run::<V>(elements, tile);
                }
            }
        }
    }
}

impl<'a> CallContext<'a> {
    /// Returns the input channels of the group and image of a strip, and the number of elements of a channel.
    fn channels(&self, index: StripIndex) -> (&'a [f32], usize) {
        let [height, width] = self.window.geometry.input;
        let (channels, area) = (self.convolution.shape[1], height * width);
        let first = (index.image * self.convolution.options.groups + index.group) * channels * area;
        (&self.x[first..][..channels * area], area)
    }
}

#[inline(always)]
fn fill_floats(window: &Window, first: usize, (x, area): (&[f32], usize), to: &mut [f32]) {
    for (x, plane) in x.chunks_exact(area).zip(to.chunks_exact_mut(window.plane())) {
        // SAFETY: `fill` only uses indices of elements of a channel.
        window.fill(first, plane, 0.0, |i| unsafe { *x.get_unchecked(i) });
    }
}

#[inline(always)]
fn fill_bytes(window: &Window, first: usize, (x, area): (&[f32], usize), inverse: f32, to: &mut [u32]) {
    for (x, plane) in x.chunks(4 * area).zip(to.chunks_exact_mut(window.plane())) {
        match x.len() / area {
            1 => fill_quad::<1>(window, first, (x, area), inverse, plane),
            2 => fill_quad::<2>(window, first, (x, area), inverse, plane),
            3 => fill_quad::<3>(window, first, (x, area), inverse, plane),
            _ => fill_quad::<4>(window, first, (x, area), inverse, plane),
        }
    }
}

/// Fills a plane with `N` channels. The bytes of missing channels represent zero.
#[inline(always)]
fn fill_quad<const N: usize>(
    window: &Window,
    first: usize,
    (x, area): (&[f32], usize),
    inverse: f32,
    plane: &mut [u32],
) {
    window.fill(first, plane, quantize::ZEROS, |i| {
        let mut word = quantize::ZEROS;
        for channel in 0..N {
            // SAFETY: `fill` only uses indices of elements of a channel, and `x` has `N` channels.
            let x = unsafe { *x.get_unchecked(channel * area + i) };
            word ^= (u32::from(quantize::byte(x, inverse)) ^ 0x80) << (8 * channel);
        }
        word
    });
}
