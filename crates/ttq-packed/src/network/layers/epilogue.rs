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
        let activation = match activation {
            // The conversion to bytes does that.
            Activation::Clamp([low, high]) if output.quantization.is_some() && low <= 0.0 && high >= 255.0 => {
                Activation::None
            }
            activation => activation,
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

    /// Returns the distance between pixels of the residual.
    #[inline(always)]
    pub(super) fn residual_pitch(&self) -> usize {
        self.residual.map_or(0, |image| image.pitch)
    }

    /// Adds the residuals to the sums of a vector of channels at some pixels, applies the activation function, and stores
    /// `count` channels.
    ///
    /// `at` has the indices of the first channel of each pixel in the output and in the residual. Each decision is taken
    /// once for all pixels.
    ///
    /// # Safety
    /// The processor must support the instructions of `V`, and the pixels must be writable, and readable in the residual.
    #[inline(always)]
    pub(super) unsafe fn finish<V: Simd, const C: usize>(
        &self,
        mut y: [V::Floats; C],
        at: &[[usize; 2]; C],
        channel: usize,
        memory: *mut f32,
        output: &Image,
        count: usize,
    ) {
        // SAFETY: guaranteed by the caller.
        unsafe {
            let bytes = memory.cast::<u8>();
            match self.residual.map(|image| image.quantization.is_some()) {
                Some(true) => {
                    let factor = V::splat(self.factor);
                    for c in 0..C {
                        y[c] = V::mul_add(V::load_bytes(bytes.add(at[c][1] + channel)), factor, y[c]);
                    }
                }
                Some(false) if self.factor == 1.0 => {
                    for c in 0..C {
                        y[c] = V::add(V::load(memory.add(at[c][1] + channel)), y[c]);
                    }
                }
                Some(false) => {
                    let factor = V::splat(self.factor);
                    for c in 0..C {
                        y[c] = V::mul_add(V::load(memory.add(at[c][1] + channel)), factor, y[c]);
                    }
                }
                None => {}
            }
            match self.activation {
                Activation::None => {}
                Activation::Relu => {
                    for c in 0..C {
                        y[c] = V::relu(y[c]);
                    }
                }
                Activation::Clamp([low, high]) => {
                    let (low, high) = (V::splat(low), V::splat(high));
                    for c in 0..C {
                        y[c] = V::min(V::max(y[c], low), high);
                    }
                }
            }
            match (output.quantization.is_some(), count >= V::LANES) {
                (false, true) => {
                    for c in 0..C {
                        V::store(memory.add(at[c][0] + channel), y[c]);
                    }
                }
                (true, true) => {
                    for c in 0..C {
                        V::store_bytes(bytes.add(at[c][0] + channel), y[c]);
                    }
                }
                _ => {
                    for c in 0..C {
                        store::<V>(memory, output, at[c][0] + channel, y[c], count);
                    }
                }
            }
        }
    }
}

/// The quantization of a float is none.
pub(super) const UNIT: Quantization = Quantization { scale: 1.0, zero: 0 };

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
