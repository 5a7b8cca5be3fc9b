//! Products with ternary weights, by the kernels for the tensors of the inner backend.

use burn_backend::Backend;
use burn_backend::ops::ConvOptions;
use burn_backend::tensor::FloatTensor;

use crate::activations::ActivationType;
use crate::weight::{Storage, TernaryTensor};

/// Computes `x · weight + bias`; `None` if there is no kernel for these tensors.
///
/// # Shapes
/// - x: `[.., in]`
/// - weight: `[1, .., in, out]`
/// - bias: `[out]`
/// - output: `[.., out]`
#[allow(unused_variables, reason = "without features there are no kernels")]
pub(crate) fn linear<B: Backend, A: ActivationType>(
    x: &FloatTensor<B>,
    weight: &TernaryTensor,
    bias: Option<&FloatTensor<B>>,
) -> Option<FloatTensor<B>> {
    match &weight.weight().storage {
        #[cfg(feature = "flex")]
        Storage::Host(host) => crate::flex::linear::<B>(x, weight, host, bias, A::INT8),
        #[cfg(feature = "cubecl")]
        Storage::Device(on_device) => {
            let on_device = crate::device::DeviceWeight::of(&**on_device);
            crate::cubecl::linear::<B>(x, weight, on_device, bias, A::INT8)
        }
        #[allow(unreachable_patterns, reason = "with all features every storage has kernels")]
        _ => None,
    }
}

/// Computes a convolution; `None` if there is no kernel for these tensors.
///
/// # Shapes
/// - x: `[n, in, h, w]`
/// - weight: `[out, in / groups, kh, kw]`
/// - bias: `[out]`
/// - output: `[n, out, h', w']`
#[allow(unused_variables, reason = "without features there are no kernels")]
pub(crate) fn conv2d<B: Backend, A: ActivationType>(
    x: &FloatTensor<B>,
    weight: &TernaryTensor,
    bias: Option<&FloatTensor<B>>,
    options: &ConvOptions<2>,
) -> Option<FloatTensor<B>> {
    match &weight.weight().storage {
        #[cfg(feature = "flex")]
        Storage::Host(host) => crate::flex::conv2d::<B>(x, weight, host, bias, options, A::INT8),
        #[cfg(feature = "cubecl")]
        Storage::Device(on_device) => {
            let on_device = crate::device::DeviceWeight::of(&**on_device);
            crate::cubecl::conv2d::<B>(x, weight, on_device, bias, options, A::INT8)
        }
        #[allow(unreachable_patterns, reason = "with all features every storage has kernels")]
        _ => None,
    }
}
