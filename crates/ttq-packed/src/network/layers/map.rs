//! Functions of single elements that no product could take over, and conversions between floats and bytes.

use alloc::vec::Vec;

use super::direct::Position;
use super::epilogue::{UNIT, load};
use super::functions::unary;
use super::{Call, Epilogue, Layer, Split, Task};
use crate::kernels::level::Kernel;
use crate::kernels::memory::Words;
use crate::kernels::simd::Simd;
use crate::network::layout::{Image, Quantization};
use crate::network::operation::{Operation, Unary};

/// `activation(scale f(x) + shift + residual)` with an optional function `f`
#[derive(Debug)]
pub(in crate::network) struct Map {
    input: Image,
    output: Image,
    function: Option<Unary>,
    /// Factor of the function or of the elements of the input, one per channel and zeros so that a vector from every channel can be read.
    scale: Vec<f32>,
    epilogue: Epilogue,
}

impl Map {
    /// Creates the layer. `scale` has one value per channel.
    pub(in crate::network) fn new(
        [input, output]: [Image; 2],
        function: Option<Unary>,
        scale: &[f64],
        mut epilogue: Epilogue,
    ) -> Self {
        let from = if function.is_some() { UNIT } else { input.quantization.unwrap_or(UNIT) };
        let to = output.quantization.unwrap_or(UNIT);
        let factor = f64::from(from.scale) / f64::from(to.scale);
        for (c, scale) in scale.iter().enumerate() {
            epilogue.subtract(c, f64::from(from.zero) * factor * scale);
        }
        let mut scale: Vec<f32> = scale.iter().map(|scale| (scale * factor) as f32).collect();
        scale.resize(scale.len().next_multiple_of(16) + 16, 0.0);
        Self { input, output, function, scale, epilogue }
    }
}

impl Layer for Map {
    fn split(&self, items: usize, threads: usize) -> Split {
        let work = items * self.input.item() * if self.function.is_some() { 4 } else { 1 };
        Split::rows(threads.min(work >> 14).min(items * self.output.height * self.output.width))
    }

    unsafe fn run(&self, task: Task, call: &Call<'_>, _scratch: &mut Words) {
        // SAFETY: the caller guarantees level, memory and exclusive access.
        unsafe { call.level.run(Part { layer: self, memory: call.memory, items: call.items, task }) }
    }

    fn describe(&self) -> &'static str {
        self.function.map_or("map", |function| Operation::Unary(function).name())
    }
}

/// A task of a layer.
struct Part<'a> {
    layer: &'a Map,
    memory: *mut f32,
    items: usize,
    task: Task,
}

impl Kernel for Part<'_> {
    #[inline(always)]
    unsafe fn run<V: Simd>(self) {
        let Self { layer: Map { input, output, function, scale, epilogue }, memory, items, task } = self;
        let pixels = task.rows(items * output.height * output.width);
        let Quantization { scale: unit, zero } = input.quantization.unwrap_or(UNIT);
        let pitch = output.pitch.min(input.pitch);
        // SAFETY: guaranteed by the caller.
        unsafe {
            output.clear_border(memory, task.rows(items * output.height));
            let mut position = Position::new(output, pixels.start);
            for pixel in pixels {
                let Position { item, y, x, .. } = position.advanced_to(output, pixel);
                let from = input.pixel(item, y, x);
                let at = [output.pixel(item, y, x), epilogue.residual(item, y, x)];
                for c in (0..output.channels).step_by(V::LANES) {
                    let mut value = load::<V>(memory, input, from + c, pitch - c);
                    if let Some(function) = function {
                        value = V::mul_add(value, V::splat(unit), V::splat(-unit * f32::from(zero)));
                        value = unary::<V>(*function, value);
                    }
                    let bias = V::load(epilogue.bias.as_ptr().add(c));
                    let value = V::mul_add(value, V::load(scale.as_ptr().add(c)), bias);
                    epilogue.finish::<V, 1>([value], &[at], c, memory, output, pitch - c);
                }
            }
        }
    }
}
