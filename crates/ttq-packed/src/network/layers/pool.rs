//! Pooling of images.

use alloc::vec::Vec;
use core::ops::Range;

use super::{Call, Layer, Split, Task};
use crate::kernels::level::Kernel;
use crate::kernels::memory::Words;
use crate::kernels::simd::Simd;
use crate::network::layout::Image;

/// Maximum or mean over a rectangle of pixels per output.
#[derive(Debug)]
pub(in crate::network) struct Pool {
    pub(in crate::network) input: Image,
    pub(in crate::network) output: Image,
    /// Input rows of each output row, and input columns of each output column.
    pub(in crate::network) ranges: [Vec<Range<usize>>; 2],
    pub(in crate::network) function: PoolFunction,
}

/// The function of the elements of a window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::network) enum PoolFunction {
    Max,
    /// The sum divided by the number of elements inside of the image.
    Mean,
    /// The sum divided by a number.
    Divide(usize),
}

impl Layer for Pool {
    fn split(&self, items: usize, threads: usize) -> Split {
        let work = items * self.input.item();
        Split::rows(threads.min(work >> 14).min(items * self.output.height))
    }

    unsafe fn run(&self, task: Task, call: &Call<'_>, _scratch: &mut Words) {
        let rows = task.rows(call.items * self.output.height);
        // SAFETY: the caller guarantees level, memory and exclusive access.
        unsafe { call.level.run(Rows { layer: self, memory: call.memory, rows }) }
    }

    fn describe(&self) -> &'static str {
        "pool"
    }
}

struct Rows<'a> {
    layer: &'a Pool,
    memory: *mut f32,
    rows: Range<usize>,
}

impl Kernel for Rows<'_> {
    #[inline(always)]
    unsafe fn run<V: Simd>(self) {
        let Self { layer: Pool { input, output, ranges, function }, memory, rows } = self;
        // SAFETY: guaranteed by the caller; the ranges lie within the input.
        unsafe {
            output.clear_border(memory, rows.clone(), 0);
            for row in rows {
                let (item, y) = (row / output.height, row % output.height);
                for (x, columns) in ranges[1].iter().enumerate() {
                    let to = memory.add(output.pixel(item, y, x));
                    let rows = &ranges[0][y];
                    let count = rows.len() * columns.len();
                    let divisor = match function {
                        PoolFunction::Max => 1,
                        PoolFunction::Mean => count,
                        PoolFunction::Divide(divisor) => *divisor,
                    };
                    let pixels = rows.clone().flat_map(|y| columns.clone().map(move |x| (y, x)));
                    let pixels = pixels.map(|(y, x)| memory.add(input.pixel(item, y, x)).cast_const());
                    let is_max = *function == PoolFunction::Max;
                    // Pitches are whole vectors, or the channels are few.
                    let whole = input.pitch.min(output.pitch) / V::LANES * V::LANES;
                    let factor = 1.0 / divisor as f32;
                    for c in (0..whole).step_by(V::LANES) {
                        let mut sum = V::splat(if is_max { f32::NEG_INFINITY } else { 0.0 });
                        for pixel in pixels.clone() {
                            let value = V::load(pixel.add(c));
                            sum = if is_max { V::max(sum, value) } else { V::add(sum, value) };
                        }
                        V::store(to.add(c), V::mul(sum, V::splat(factor)));
                    }
                    for c in whole..input.channels {
                        let values = pixels.clone().map(|pixel| *pixel.add(c));
                        let sum = match is_max {
                            true => values.fold(f32::NEG_INFINITY, f32::max),
                            false => values.sum(),
                        };
                        *to.add(c) = sum * factor;
                    }
                }
            }
        }
    }
}
