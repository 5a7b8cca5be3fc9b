//! Runs [Burn](https://burn.dev) 0.21 modules on packed ternary weights, 2 bits each, without a change of the module.
//!
//! [`Packed`] is a backend decorator, like Burn's `Autodiff`: a float tensor of `Packed<B>` is one of the inner backend
//! `B`, or a ternary weight. [`load`] fills any module of this backend from a packed file, by path:
//!
//! ```no_run
//! use burn::backend::Flex;
//! use burn::nn::transformer::{TransformerEncoder, TransformerEncoderConfig};
//! use ttq_inference::{Packed, PackedModel, load};
//!
//! let file = PackedModel::load("encoder.safetensors")?;
//! let encoder: TransformerEncoder<Packed<Flex>> = TransformerEncoderConfig::new(256, 1024, 8, 4).init(&Default::default());
//! let encoder = load(encoder, &file)?; // 2 bits per ternary weight
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Operations
//!
//! With `W` a ternary weight, the following compute on its packed form:
//!
//! - `x W` and `W x` (`matmul`), and linear layers, if all other dimensions of `W` have size 1;
//! - convolutions in one and two dimensions, with every padding, stride, dilation and number of groups;
//! - the selection of rows or columns along the output axis, such as the rows of an embedding, unpacks these only.
//!
//! Scales per output channel must belong to the outputs of the product. Transposing, permuting, adding and removing
//! dimensions of size 1, casts, and moving to another device return a packed tensor again. **Every other operation unpacks
//! the weight** on its device, for this call, and computes on the dense tensor. A ternary weight never changes: an
//! operation that changes elements returns a dense tensor.
//!
//! # Kernels
//!
//! | tensors of `B` | feature | kernels |
//! |---|---|---|
//! | Burn's Flex: `Flex`, `ttq-cpu` | `flex` (default) | those of [`ttq_packed`], for float32 |
//! | CubeCL's, with Burn's fusion or without | `cuda`, `wgpu` | those of `ttq-cubecl`, for float32, float16 and bfloat16 |
//! | others, such as NdArray's | | none: the weight is unpacked for each call |
//!
//! A kernel reads the weight in a form of its own, which replaces the codes of the file at the first call. On a CPU, a
//! weight that is used in two roles, for example as it is and transposed, has a form for each.
//!
//! # Precision
//!
//! With [`Float32`] a result is that of the dense weight up to the order of sums. With [`Int8`] the activations of the
//! products above are quantized; all other operations are unchanged.
//!
//! # Training
//!
//! `Autodiff<Packed<B>>` trains parameters beside packed weights: load the module on `Packed<B>` and convert it with
//! `AutodiffModule::from_inner`. [`load`] on an autodiff backend creates dense weights, which can be trained.

mod activations;
mod convert_backend;
#[cfg(feature = "cubecl")]
mod cubecl;
mod delegate;
mod device;
mod dtype;
#[cfg(feature = "flex")]
mod flex;
mod fold;
mod host;
mod load;
mod module_path;
mod ops;
mod product;
pub mod pytorch;
mod tensor;
mod weight;

use std::any::Any;
use std::marker::PhantomData;

use burn::prelude::*;
use burn::tensor::{DType, TensorPrimitive};
use burn_backend::{BackendTypes, DTypeUsageSet, ExecutionError};
use ttq_packed::TernaryWeight;

pub use activations::{ActivationType, Float32, Int8};
pub use fold::{FoldError, fold_batch_norm};
pub use load::{LoadError, LoadOptions, LoadReport, Mismatch, load, load_with};
pub use tensor::PackedTensor;
/// A packed model in a file: that of [`ttq_packed`].
pub use ttq_packed::PackedModel;
use weight::TernaryTensor;

/// Backend decorator whose float tensors can be packed ternary weights.
///
/// `B` is the inner backend, and `A` the precision of activations in products with packed weights: [`Float32`] or
/// [`Int8`]. The [crate documentation](crate) lists the operations that compute on packed weights.
#[derive(Debug, Clone, Copy, Default)]
pub struct Packed<B, A = Float32>(PhantomData<(B, A)>);

impl<B: Backend, A: ActivationType> BackendTypes for Packed<B, A> {
    type Device = B::Device;
    type FloatTensorPrimitive = PackedTensor;
    type FloatElem = B::FloatElem;
    type IntTensorPrimitive = B::IntTensorPrimitive;
    type IntElem = B::IntElem;
    type BoolTensorPrimitive = B::BoolTensorPrimitive;
    type BoolElem = B::BoolElem;
    type QuantizedTensorPrimitive = B::QuantizedTensorPrimitive;
}

impl<B: Backend, A: ActivationType> Backend for Packed<B, A> {
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
        format!("packed<{}>", B::name(device))
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

/// Creates a tensor from a ternary weight, in float32 and in its shape: packed if `B` is [`Packed`] or a decorator with
/// its tensors, otherwise dense.
///
/// # Panics
/// Panics if `D` is not the number of dimensions of the weight.
pub fn tensor<B: Backend, const D: usize>(weight: &TernaryWeight, device: &B::Device) -> Tensor<B, D> {
    let primitive: Box<dyn Any> = Box::new(PackedTensor::from(TernaryTensor::new(weight, DType::F32)));
    match primitive.downcast::<B::FloatTensorPrimitive>() {
        // The weight is in memory until it is moved.
        Ok(primitive) => Tensor::from_primitive(TensorPrimitive::Float(B::float_to_device(*primitive, device))),
        Err(_) => {
            Tensor::from_data(TensorData::new(weight.dequantize(), weight.shape().to_vec()), (device, DType::F32))
        }
    }
}

/// Returns whether the elements of a tensor are those of a packed weight.
pub fn is_packed<B: Backend, const D: usize>(tensor: &Tensor<B, D>) -> bool {
    match tensor.clone().into_primitive() {
        TensorPrimitive::Float(tensor) => (&tensor as &dyn Any).downcast_ref().is_some_and(PackedTensor::is_packed),
        TensorPrimitive::QFloat(_) => false,
    }
}

/// Returns whether the CPU kernels compute on tensors of the backend.
fn has_host_kernels<B: Backend>() -> bool {
    #[cfg(feature = "flex")]
    return flex::has_flex_tensors::<B>();
    #[cfg(not(feature = "flex"))]
    false
}

/// Tests the code of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
