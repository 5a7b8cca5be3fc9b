//! Mixed precision for any [Burn](https://burn.dev) 0.21 backend: matrix products and convolutions are computed in
//! bfloat16 or float16, everything else in float32.
//!
//! [`Autocast`] is a backend decorator, like Burn's `Autodiff`, and is placed inside of it: replace `Autodiff<Cuda>`
//! with `Autodiff<Autocast<Cuda, Bf16>>`. Models do not change.
//!
//! ```
//! use burn::backend::{Autodiff, Flex};
//! use burn::tensor::{DType, Distribution, Tensor};
//! use ttq_autocast::{Autocast, Bf16};
//!
//! type B = Autodiff<Autocast<Flex, Bf16>>;
//! let device = Default::default();
//! let x = Tensor::<B, 2>::random([4, 8], Distribution::Default, &device);
//! let weight = Tensor::<B, 2>::random([8, 3], Distribution::Default, &device).require_grad();
//! let y = x.matmul(weight.clone());
//! let gradient = weight.grad(&y.clone().sum().backward()).unwrap();
//! assert_eq!([y.dtype(), gradient.dtype()], [DType::F32; 2]);
//! ```
//!
//! **Operations.** `matmul`, `linear`, and one-, two- and three-dimensional convolutions and transposed convolutions,
//! with both gradients of each, are computed in 16 bits: if both factors are float32, they are cast to the 16-bit type
//! and multiplied in it, and the product is cast back to float32. The device chooses the type of the accumulator
//! (tensor cores accumulate in float32). Biases are added, and their gradients are summed, in float32. All other
//! operations run on the inner backend unchanged and give bit-identical results: normalization, losses, optimizers,
//! deformable convolution, and all operations on tensors that are not float32. Operations that Burn's autodiff
//! decomposes into products, such as attention and unfolding with padding, are computed in 16 bits with autodiff and
//! run on the inner backend without.
//!
//! **Precision.** Both factors and the product are rounded, each with a relative error of at most 2⁻⁸ in bfloat16 and
//! 2⁻¹¹ in float16. If the device accumulates in float32, the error of a product is at most three times that, relative
//! to the sum of the magnitudes of its terms. (Flex accumulates float16 in float16.) Parameters, gradients and all
//! stored tensors are float32.
//!
//! **Range.** bfloat16 has the range of float32. In [`F16`], gradients below 6e-8 would underflow and sums above 65504
//! would overflow. Therefore each factor is divided by its largest magnitude before the cast, and by an additional
//! factor if the sum of its terms could overflow; the product is multiplied by the same numbers afterwards. This
//! replaces a loss scale. It takes one additional pass over each factor and does not synchronize with the device. Small
//! elements beside large ones still underflow: with the numbers s_l and s_r by which the factors are divided, each element of
//! a factor has an additional error of at most 2⁻²⁵ s, and each product one of 2⁻²⁵ s_l s_r. Where that matters, use [`Bf16`].
//!
//! **Memory.** Tensors that are stored for the backward pass are float32: products are faster, but training needs no
//! less memory.
//!
//! Tensor primitives, device and element types are those of the inner backend. Models and records of either backend
//! load on the other, and kernels that are selected by the type of a tensor primitive keep working.

mod convert_backend;
mod delegate;
mod half;
mod ops;
mod product;

use core::marker::PhantomData;

use burn_backend::{Backend, BackendTypes, DType, DTypeUsageSet, ExecutionError, TensorData};

pub use half::{Bf16, F16, Half};

/// Backend decorator that computes matrix products and convolutions of the backend `B` in the 16-bit type `P`.
///
/// `B` is the inner backend, e.g. `Cuda`, and `P` is [`Bf16`] or [`F16`]. The [crate documentation](crate) lists the
/// operations that are cast, their errors and their range.
#[derive(Debug, Clone, Copy, Default)]
pub struct Autocast<B, P>(PhantomData<(B, P)>);

impl<B: Backend, P: Half> Autocast<B, P> {
    /// Returns whether the device supports the type `P`. wgpu and older GPUs do not support bfloat16.
    pub fn is_supported(device: &B::Device) -> bool {
        B::supports_dtype(device, P::DTYPE.into())
    }
}

impl<B: Backend, P: Half> BackendTypes for Autocast<B, P> {
    type Device = B::Device;
    type FloatTensorPrimitive = B::FloatTensorPrimitive;
    type FloatElem = B::FloatElem;
    type IntTensorPrimitive = B::IntTensorPrimitive;
    type IntElem = B::IntElem;
    type BoolTensorPrimitive = B::BoolTensorPrimitive;
    type BoolElem = B::BoolElem;
    type QuantizedTensorPrimitive = B::QuantizedTensorPrimitive;
}

impl<B: Backend, P: Half> Backend for Autocast<B, P> {
    fn ad_enabled(device: &Self::Device) -> bool {
        B::ad_enabled(device)
    }

    fn memory_persistent_allocations<Output, Input, Func>(device: &Self::Device, input: Input, func: Func) -> Output
    where
        Output: Send,
        Input: Send,
        Func: Fn(Input) -> Output + Send,
    {
        B::memory_persistent_allocations(device, input, func)
    }

    fn memory_cleanup(device: &Self::Device) {
        B::memory_cleanup(device);
    }

    fn name(device: &Self::Device) -> String {
        format!("autocast<{}, {}>", B::name(device), P::NAME)
    }

    fn seed(device: &Self::Device, seed: u64) {
        B::seed(device, seed);
    }

    fn sync(device: &Self::Device) -> Result<(), ExecutionError> {
        B::sync(device)
    }

    fn staging<'a, Iter>(data: Iter, device: &Self::Device)
    where
        Iter: Iterator<Item = &'a mut TensorData>,
    {
        B::staging(data, device);
    }

    fn supports_dtype(device: &Self::Device, dtype: DType) -> bool {
        B::supports_dtype(device, dtype)
    }

    fn dtype_usage(device: &Self::Device, dtype: DType) -> DTypeUsageSet {
        B::dtype_usage(device, dtype)
    }

    fn device_count(type_id: u16) -> usize {
        B::device_count(type_id)
    }
}

/// Tests the code of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
