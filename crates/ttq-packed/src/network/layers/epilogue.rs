//! What follows the sums of a convolution: bias, residual sum, activation function.

use alloc::vec::Vec;

use crate::kernels::simd::Simd;
use crate::network::layout::{Image, Quantization};

/// An activation function that a layer applies to its sums.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(in crate::network) enum Activation {
    #[default]
    None,
    Relu,
    /// Limits to `[low, high]`.
    Clamp([f32; 2]),
}

/// `activation(sum + bias + factor residual)`, in units of the output: a quantized output `scale (q - zero)` is computed
/// as `q`.
#[derive(Debug, Clone)]
pub(in crate::network) struct Epilogue {
    /// One value per output channel, and zeros so that a vector from every channel can be read.
    pub(super) bias: Vec<f32>,
    residual: Option<Image>,
    /// Factor of the residual.
    factor: f32,
    activation: Activation,
}

impl Epilogue {
    /// Creates the epilogue of an output.
    pub(in crate::network) fn new(
        shift: &[f64],
        activation: Activation,
        residual: Option<Image>,
        output: &Image,
    ) -> Self {
        let Quantization { scale, zero } = output.quantization.unwrap_or(UNIT);
        let (unit, zero) = (f64::from(scale), f64::from(zero));
        let source = residual.and_then(|image| image.quantization).unwrap_or(UNIT);
        let factor = f64::from(source.scale) / unit;
        let offset = zero - if residual.is_some() { factor * f64::from(source.zero) } else { 0.0 };
        let limit = |x: f32| (f64::from(x) / unit + zero) as f32;
        let activation = match (activation, output.quantization) {
            (Activation::Relu, Some(_)) => Activation::Clamp([limit(0.0), 255.0]),
            (Activation::Clamp(range), _) => Activation::Clamp(range.map(limit)),
            (activation, _) => activation,
        };
        let mut bias: Vec<f32> = shift.iter().map(|x| (x / unit + offset) as f32).collect();
        bias.resize(bias.len().next_multiple_of(16) + 16, 0.0);
        Self { bias, residual, factor: factor as f32, activation }
    }

    /// Subtracts numbers from the bias, in units of the output.
    pub(super) fn subtract(&mut self, channel: usize, value: f64) {
        self.bias[channel] = (f64::from(self.bias[channel]) - value) as f32;
    }

    /// Returns the index of the first channel of a pixel of the residual, or 0 if there is none.
    #[inline(always)]
    pub(super) fn residual(&self, item: usize, y: usize, x: usize) -> usize {
        self.residual.map_or(0, |image| image.pixel(item, y, x))
    }

    /// Adds the residual to a vector of sums with bias, and applies the activation function. `residual` is the index of
    /// the first channel.
    ///
    /// # Safety
    /// The processor must support the instructions of `V`, and the residual must be readable where there is one.
    #[inline(always)]
    pub(super) unsafe fn apply<V: Simd>(
        &self,
        mut y: V::Floats,
        memory: *const f32,
        residual: usize,
    ) -> V::Floats {
        // SAFETY: guaranteed by the caller.
        unsafe {
            if let Some(image) = self.residual {
                let value = match image.quantization {
                    Some(_) => V::load_bytes(memory.cast::<u8>().add(residual)),
                    None => V::load(memory.add(residual)),
                };
                y = V::mul_add(value, V::splat(self.factor), y);
            }
            match self.activation {
                Activation::None => y,
                Activation::Relu => V::relu(y),
                Activation::Clamp([low, high]) => clamp::<V>(y, low, high),
            }
        }
    }
}

/// The quantization of a float is none.
pub(super) const UNIT: Quantization = Quantization { scale: 1.0, zero: 0 };

/// Limits to `[low, high]`.
#[inline(always)]
unsafe fn clamp<V: Simd>(y: V::Floats, low: f32, high: f32) -> V::Floats {
    // SAFETY: the caller guarantees the instructions. The smaller value is the negated larger one of the negated values.
    unsafe {
        let minus = V::splat(-1.0);
        let limited = V::max(V::splat(low), y);
        V::mul(V::max(V::splat(-high), V::mul(limited, minus)), minus)
    }
}

/// Stores the first `count` lanes of a vector in an image, from an index.
///
/// # Safety
/// The processor must support the instructions of `V`, and `count` elements must be writable.
#[inline(always)]
pub(super) unsafe fn store<V: Simd>(memory: *mut f32, image: &Image, index: usize, value: V::Floats, count: usize) {
    // SAFETY: guaranteed by the caller.
    unsafe {
        let to = memory.cast::<u8>().add(index);
        match (image.quantization, count >= V::LANES) {
            (None, true) => V::store(memory.add(index), value),
            (Some(_), true) => V::store_bytes(to, value),
            (None, false) => {
                let mut lanes = [0.0; 16];
                V::store(lanes.as_mut_ptr(), value);
                memory.add(index).copy_from_nonoverlapping(lanes.as_ptr(), count);
            }
            (Some(_), false) => {
                let mut lanes = [0; 16];
                V::store_bytes(lanes.as_mut_ptr(), value);
                to.copy_from_nonoverlapping(lanes.as_ptr(), count);
            }
        }
    }
}

/// Loads the first `count` lanes of a vector from an image, in units of its elements.
///
/// # Safety
/// The processor must support the instructions of `V`, and `count` elements must be readable.
#[inline(always)]
pub(super) unsafe fn load<V: Simd>(memory: *const f32, image: &Image, index: usize, count: usize) -> V::Floats {
    // SAFETY: guaranteed by the caller.
    unsafe {
        let from = memory.cast::<u8>().add(index);
        match (image.quantization, count >= V::LANES) {
            (None, true) => V::load(memory.add(index)),
            (Some(_), true) => V::load_bytes(from),
            (None, false) => {
                let mut lanes = [0.0; 16];
                lanes.as_mut_ptr().copy_from_nonoverlapping(memory.add(index), count);
                V::load(lanes.as_ptr())
            }
            (Some(_), false) => {
                let mut lanes = [0; 16];
                lanes.as_mut_ptr().copy_from_nonoverlapping(from, count);
                V::load_bytes(lanes.as_ptr())
            }
        }
    }
}
