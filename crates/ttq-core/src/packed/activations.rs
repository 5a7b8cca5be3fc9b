//! Types that choose the precision of a packed layer's activations. The choice is part of a network's type.

use std::fmt::Debug;

/// Precision of the activations of a packed layer: [`Float32`] or [`Int8`].
pub trait ActivationType: Debug + Clone + Default + Send + Sync + 'static {
    /// Whether the activations are quantized to 8 bits.
    const INT8: bool;
}

/// Float32 activations: the result is that of the dense layer, up to the order of sums.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Float32;

/// Activations quantized to int8 if the layer computes on the packed form.
///
/// The quantization is symmetric, by the largest magnitude of each row of a matrix and of each image. It is faster, but
/// not exact: measure the accuracy. On backends without packed kernels the activations stay float32.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Int8;

impl ActivationType for Float32 {
    const INT8: bool = false;
}

impl ActivationType for Int8 {
    const INT8: bool = true;
}
