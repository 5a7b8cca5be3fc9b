//! Maps per channel that no product could take over, and conversions between floats and bytes.

use alloc::vec::Vec;
use core::ops::Range;

use super::epilogue::{UNIT, load};
use super::{Call, Epilogue, Layer, Split, Task};
use crate::kernels::level::Kernel;
use crate::kernels::memory::Words;
use crate::kernels::simd::Simd;
use crate::network::layout::Image;

/// `activation(scale x + shift + residual)`
#[derive(Debug)]
pub(in crate::network) struct Map {
    input: Image,
    output: Image,
    /// Factor of the elements of the input, one per channel and zeros so that a vector from every channel can be read.
    scale: Vec<f32>,
    epilogue: Epilogue,
}

impl Map {
    /// Creates the layer. `scale` has one value per channel.
    pub(in crate::network) fn new([input, output]: [Image; 2], scale: &[f64], mut epilogue: Epilogue) -> Self {
        let (from, to) = (input.quantization.unwrap_or(UNIT), output.quantization.unwrap_or(UNIT));
        let factor = f64::from(from.scale) / f64::from(to.scale);
        for (c, scale) in scale.iter().enumerate() {
            epilogue.subtract(c, f64::from(from.zero) * factor * scale);
        }
        let mut scale: Vec<f32> = scale.iter().map(|scale| (scale * factor) as f32).collect();
        scale.resize(scale.len().next_multiple_of(16) + 16, 0.0);
        Self { input, output, scale, epilogue }
    }
}

impl Layer for Map {
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
        "map"
    }
}

struct Rows<'a> {
    layer: &'a Map,
    memory: *mut f32,
    rows: Range<usize>,
}

impl Kernel for Rows<'_> {
    #[inline(always)]
    unsafe fn run<V: Simd>(self) {
        let Self { layer: Map { input, output, scale, epilogue }, memory, rows } = self;
        // SAFETY: guaranteed by the caller.
        unsafe {
            output.clear_border(memory, rows.clone());
            for (row, x) in rows.flat_map(|row| (0..output.width).map(move |x| (row, x))) {
                let (item, y) = (row / output.height, row % output.height);
                let from = input.pixel(item, y, x);
                let at = [output.pixel(item, y, x), epilogue.residual(item, y, x)];
                for c in (0..output.channels).step_by(V::LANES) {
                    let count = output.pitch.min(input.pitch) - c;
                    let value = load::<V>(memory, input, from + c, count);
                    let bias = V::load(epilogue.bias.as_ptr().add(c));
                    let value = V::mul_add(value, V::load(scale.as_ptr().add(c)), bias);
                    epilogue.finish::<V, 1>([value], &[at], c, memory, output, count);
                }
            }
        }
    }
}
