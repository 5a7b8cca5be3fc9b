//! Copies between the user's arrays and the arena.

use super::{Call, Layer, Split, Task};
use crate::kernels::memory::Words;
use crate::kernels::simd::round_to_byte;
use crate::network::layout::{Image, Quantization};

/// Which dimension of a value is stored as channels, and how the others become pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::network) enum Order {
    /// `[channels, height, width]`
    ChannelsFirst,
    /// `[.., channels]`: all other dimensions are one row of pixels.
    ChannelsLast,
}

impl Order {
    /// Returns the order of an input with these dimensions: three are an image.
    pub(in crate::network) fn of_input(dims: &[usize]) -> Self {
        if dims.len() == 3 { Self::ChannelsFirst } else { Self::ChannelsLast }
    }

    /// Returns the number of channels of a value with these dimensions.
    pub(in crate::network) fn channels(self, dims: &[usize]) -> usize {
        match self {
            Self::ChannelsFirst => dims[0],
            Self::ChannelsLast => dims.last().copied().unwrap_or(1),
        }
    }

    /// Returns the grid of a value with these dimensions.
    pub(in crate::network) fn image(self, dims: &[usize]) -> Image {
        match (self, dims) {
            (Self::ChannelsFirst, &[channels, height, width]) => Image::new(height, width, channels),
            _ => Image::new(1, dims[..dims.len().saturating_sub(1)].iter().product(), self.channels(dims)),
        }
    }

    /// Returns the distances between channels and between pixels.
    fn strides(self, image: &Image) -> [usize; 2] {
        match self {
            Self::ChannelsFirst => [image.height * image.width, 1],
            Self::ChannelsLast => [1, image.channels],
        }
    }
}

/// Copies the input to the arena.
#[derive(Debug)]
pub(in crate::network) struct Import {
    pub(in crate::network) order: Order,
    pub(in crate::network) to: Image,
}

impl Layer for Import {
    fn split(&self, items: usize, threads: usize) -> Split {
        Split::rows(items.min(threads))
    }

    unsafe fn run(&self, task: Task, call: &Call<'_>, _scratch: &mut Words) {
        let Self { order, to } = self;
        let [channel, pixel] = order.strides(to);
        let len = to.height * to.width * to.channels;
        let rows = task.rows(call.items * to.height);
        // SAFETY: the caller guarantees the arena and exclusive access.
        unsafe {
            to.clear_border(call.memory, rows.clone());
            for row in rows {
                let (item, y) = (row / to.height, row % to.height);
                let from = &call.input[item * len..][..len];
                let first = to.pixel(item, y, 0);
                if channel == 1 && to.quantization.is_none() {
                    for (x, from) in from[y * to.width * pixel..].chunks_exact(to.channels).take(to.width).enumerate() {
                        let to = call.memory.add(first + x * to.pitch);
                        to.copy_from_nonoverlapping(from.as_ptr(), from.len());
                    }
                    continue;
                }
                for c in 0..to.channels {
                    let from = &from[c * channel + y * to.width * pixel..];
                    match to.quantization {
                        Some(Quantization { scale, zero }) => {
                            let (factor, zero) = (1.0 / scale, f32::from(zero));
                            let row = call.memory.cast::<u8>().add(first + c);
                            for x in 0..to.width {
                                *row.add(x * to.pitch) = round_to_byte(from[x * pixel] * factor + zero);
                            }
                        }
                        None => {
                            let row = call.memory.add(first + c);
                            for x in 0..to.width {
                                *row.add(x * to.pitch) = from[x * pixel];
                            }
                        }
                    }
                }
            }
        }
    }

    fn describe(&self) -> &'static str {
        "import"
    }
}

/// Copies a value from the arena to the output.
#[derive(Debug)]
pub(in crate::network) struct Export {
    pub(in crate::network) order: Order,
    pub(in crate::network) from: Image,
}

impl Layer for Export {
    fn split(&self, items: usize, threads: usize) -> Split {
        Split::rows(items.min(threads))
    }

    unsafe fn run(&self, task: Task, call: &Call<'_>, _scratch: &mut Words) {
        let Self { order, from } = self;
        let [channel, pixel] = order.strides(from);
        let len = from.height * from.width * from.channels;
        for item in task.rows(call.items) {
            // SAFETY: the caller guarantees arena and output; tasks have disjoint items.
            unsafe {
                let to = call.output.slice(item * len, len);
                for (y, x) in (0..from.height).flat_map(|y| (0..from.width).map(move |x| (y, x))) {
                    let at = call.memory.add(from.pixel(item, y, x));
                    if channel == 1 {
                        let to = &mut to[(y * from.width + x) * pixel..][..from.channels];
                        to.as_mut_ptr().copy_from_nonoverlapping(at, to.len());
                        continue;
                    }
                    for c in 0..from.channels {
                        to[c * channel + (y * from.width + x) * pixel] = *at.add(c);
                    }
                }
            }
        }
    }

    fn describe(&self) -> &'static str {
        "export"
    }
}
