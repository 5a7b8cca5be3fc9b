//! What follows the sums of a convolution: bias, residual sum, activation function.

use alloc::vec::Vec;

use super::super::layout::Image;
use crate::kernels::simd::Simd;

/// An activation function that a layer applies to its sums.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(in crate::network) enum Activation {
    #[default]
    None,
    Relu,
    /// Limits to `[low, high]`.
    Clamp([f32; 2]),
}

/// `activation(sum + bias + residual)`
#[derive(Debug, Clone)]
pub(in crate::network) struct Epilogue {
    /// One value per output channel, and zeros up to a multiple of a panel.
    pub(in crate::network) bias: Vec<f32>,
    pub(in crate::network) residual: Option<Image>,
    pub(in crate::network) activation: Activation,
}

impl Epilogue {
    /// Applies the epilogue to the sums of a vector of channels.
    ///
    /// # Safety
    /// The processor must support the instructions of `V`, and the residual must be readable where there is one.
    #[inline(always)]
    pub(super) unsafe fn apply<V: Simd>(&self, sum: V::Floats, bias: V::Floats, residual: *const f32) -> V::Floats {
        // SAFETY: guaranteed by the caller.
        unsafe {
            let mut y = V::add(sum, bias);
            if self.residual.is_some() {
                y = V::add(y, V::load(residual));
            }
            match self.activation {
                Activation::None => y,
                Activation::Relu => V::relu(y),
                Activation::Clamp([low, high]) => clamp::<V>(y, low, high),
            }
        }
    }

    /// Applies the epilogue to the sum of one channel. `residual` is the address of channel 0.
    ///
    /// # Safety
    /// The residual must be readable where there is one.
    #[inline(always)]
    pub(super) unsafe fn apply_one(&self, sum: f32, channel: usize, residual: *const f32) -> f32 {
        // SAFETY: guaranteed by the caller.
        let residual = if self.residual.is_some() { unsafe { *residual.add(channel) } } else { 0.0 };
        let y = sum + self.bias[channel] + residual;
        match self.activation {
            Activation::None => y,
            Activation::Relu => crate::kernels::epilogue::relu(y),
            Activation::Clamp([low, high]) => if y < low { low } else if y > high { high } else { y },
        }
    }
}

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

/// Stores the first `count` lanes of a vector.
///
/// # Safety
/// The processor must support the instructions of `V`, and `count` floats must be writable.
#[inline(always)]
pub(super) unsafe fn store_first<V: Simd>(to: *mut f32, value: V::Floats, count: usize) {
    // SAFETY: guaranteed by the caller.
    unsafe {
        if count >= V::LANES {
            V::store(to, value);
        } else {
            let mut lanes = [0.0; 16];
            V::store(lanes.as_mut_ptr(), value);
            to.copy_from_nonoverlapping(lanes.as_ptr(), count);
        }
    }
}
