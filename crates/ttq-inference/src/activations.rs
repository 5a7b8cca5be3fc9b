//! Types that choose the precision of the activations. The choice is part of a backend's type.

use std::fmt::Debug;

use ttq_packed::kernels::Activations;

/// Precision of the activations in a product with a packed weight: [`Float32`] or [`Int8`].
pub trait ActivationType: Debug + Clone + Default + Send + Sync + 'static {
    /// Whether the activations are quantized to 8 bits.
    const INT8: bool;
}

/// Float activations: a result is that of the dense weight, up to the order of sums.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Float32;

/// Activations quantized to int8 in products that are computed on the packed form.
///
/// The quantization is symmetric: `q = round(x / f)` with `f = max |x| / 127` over each row of a matrix and each image.
/// On a CPU, scales are also rounded, to multiples up to 127 of a common unit, by at most 1/256 of their value. The error
/// of an output is at most `f` times the sum of the magnitudes of its weights, half of it from the activations. It is
/// faster, but not exact: measure the accuracy. On backends without packed kernels the activations stay float.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Int8;

impl ActivationType for Float32 {
    const INT8: bool = false;
}

impl ActivationType for Int8 {
    const INT8: bool = true;
}

/// Returns the precision as the CPU kernels name it.
pub(crate) fn precision(int8: bool) -> Activations {
    if int8 { Activations::Int8 } else { Activations::Float32 }
}
