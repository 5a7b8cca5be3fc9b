//! Maps per channel that no product could take over.

use alloc::vec::Vec;
use core::ops::Range;

use super::{Call, Epilogue, Layer, Split, Task};
use crate::kernels::level::Kernel;
use crate::kernels::memory::Words;
use crate::kernels::simd::Simd;
use crate::network::layout::Image;

/// `activation(scale x + bias + residual)`
#[derive(Debug)]
pub(in crate::network) struct Map {
    pub(in crate::network) input: Image,
    pub(in crate::network) output: Image,
    /// One value per channel.
    pub(in crate::network) scale: Vec<f32>,
    pub(in crate::network) epilogue: Epilogue,
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
            output.clear_border(memory, rows.clone(), 0);
            for (row, x) in rows.flat_map(|row| (0..output.width).map(move |x| (row, x))) {
                let (item, y) = (row / output.height, row % output.height);
                let from = memory.add(input.pixel(item, y, x));
                let to = memory.add(output.pixel(item, y, x));
                let residual = epilogue.residual.map_or(memory, |image| memory.add(image.pixel(item, y, x)));
                let whole = output.channels / V::LANES * V::LANES;
                for c in (0..whole).step_by(V::LANES) {
                    let value = V::mul(V::load(from.add(c)), V::load(scale.as_ptr().add(c)));
                    let bias = V::load(epilogue.bias.as_ptr().add(c));
                    V::store(to.add(c), epilogue.apply::<V>(value, bias, residual.add(c)));
                }
                for c in whole..output.channels {
                    *to.add(c) = epilogue.apply_one(*from.add(c) * scale[c], c, residual);
                }
            }
        }
    }
}
