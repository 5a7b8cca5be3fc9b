//! Pooling of images.

use alloc::vec::Vec;
use core::ops::Range;

use super::epilogue::{UNIT, load, store};
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
            output.clear_border(memory, rows.clone());
            for row in rows {
                let (item, y) = (row / output.height, row % output.height);
                for (x, columns) in ranges[1].iter().enumerate() {
                    let to = output.pixel(item, y, x);
                    let rows = &ranges[0][y];
                    let count = rows.len() * columns.len();
                    let divisor = match function {
                        PoolFunction::Max => 1,
                        PoolFunction::Mean => count,
                        PoolFunction::Divide(divisor) => *divisor,
                    };
                    let first = input.pixel(item, rows.start, columns.start);
                    let is_max = *function == PoolFunction::Max;
                    let (from, unit) = (input.quantization.unwrap_or(UNIT), output.quantization.unwrap_or(UNIT));
                    // A mean of bytes is one of numbers `scale (q - zero)`, except for padding that counts as 0.
                    let factor = from.scale / (unit.scale * divisor as f32);
                    let zeros = if is_max { 1 } else { count };
                    let shift = f32::from(unit.zero) - factor * f32::from(from.zero) * zeros as f32;
                    for c in (0..input.channels).step_by(V::LANES) {
                        let left = input.pitch.min(output.pitch) - c;
                        let mut sum = V::splat(if is_max { f32::NEG_INFINITY } else { 0.0 });
                        for line in 0..rows.len() {
                            let mut at = first + line * input.row() + c;
                            for _ in 0..columns.len() {
                                let value = load::<V>(memory, input, at, left);
                                sum = if is_max { V::max(sum, value) } else { V::add(sum, value) };
                                at += input.pitch;
                            }
                        }
                        let value = V::mul_add(sum, V::splat(factor), V::splat(shift));
                        store::<V>(memory, output, to + c, value, left);
                    }
                }
            }
        }
    }
}
