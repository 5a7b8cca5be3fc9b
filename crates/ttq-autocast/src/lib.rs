//! Mixed precision for any [Burn](https://burn.dev) 0.21 backend: matrix products and convolutions are computed in bfloat16
//! or float16, everything else in float32.
//!
//! [`Autocast`] is a backend around another, as Burn's `Autodiff` is, and stands inside of it: write
//! `Autodiff<Autocast<Cuda, Bf16>>` where `Autodiff<Cuda>` stood. Models do not change.
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
//! **What is cast.** `matmul`, `linear`, and convolutions in one, two and three dimensions, transposed ones too, with both
//! gradients of each: where both factors are float32 they are cast to the narrow type, multiplied there, and the product is
//! cast back. In which type the device adds up is the device's choice (tensor cores add up in float32). Biases are added, and
//! their gradients summed, in float32. All other operations are the inner backend's, bit for bit: normalization, losses,
//! optimizers, deformable convolution, and whatever is not float32 already. (What Burn's autodiff makes of products, such as
//! attention and unfolding with padding, is cast with these; without autodiff they are the inner backend's.)
//!
//! **Precision.** Factors and product are rounded, each by 2⁻⁹ at most in bfloat16 and by 2⁻¹² in float16. So a product's error is
//! at most three times that, relative to the sum of the magnitudes of its terms, where the device adds up in float32 (Flex
//! adds up float16 in float16). Parameters, gradients and everything that is kept are float32.
//!
//! **Range.** bfloat16 has float32's. [`F16`] has not: gradients would vanish below 6e-8, sums overflow above 65504. So
//! each factor is divided by its largest magnitude before the cast, and by more where a sum of so many terms might not fit,
//! and the product is multiplied by the same afterwards. That takes the place of a loss scale, costs one more pass over each
//! factor and never waits for the device.
//!
//! **Memory.** Tensors that wait for the backward pass are float32 ones: this makes products faster, not training smaller.
//!
//! Tensors, device and element types are the inner backend's, so records and models of one load on the other, and kernels
//! that look at a tensor's type see the one they know.

mod across;
mod delegate;
mod half;
mod ops;
mod product;

use core::marker::PhantomData;

use burn_backend::{Backend, BackendTypes, DType, DTypeUsageSet, ExecutionError, TensorData};

pub use half::{Bf16, F16, Half};

/// The backend `B` with products in the type `P`; see the [crate's documentation](crate).
#[derive(Debug, Clone, Copy, Default)]
pub struct Autocast<B, P>(PhantomData<(B, P)>);

impl<B: Backend, P: Half> Autocast<B, P> {
    /// Does the device compute in this type? Not all do: wgpu has no bfloat16, older GPUs neither.
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
