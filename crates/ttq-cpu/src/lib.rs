//! A CPU backend for [Burn](https://burn.dev) 0.21 on which networks train several times faster than on Flex.
//!
//! [`Cpu`] has the tensor primitives and the device of [`Flex`], so tensors, models and records of
//! either backend can be used on the other without a conversion.
//!
//! **Element-wise operations and reductions are recorded** and computed when their result is read: a chain of them
//! reads each operand from memory once and writes the result once. Batch and layer normalization, activation functions,
//! softmax, residual sums and optimizers are such chains. Reductions over the same axes, such as the gradients of
//! a normalization's parameters, share a pass. An intermediate result that the backward pass needs is stored only if it
//! cannot be computed again from one operand in a few operations, which also saves memory. Results are those of the
//! single operations: each is rounded to f32. The environment variable `TTQ_CPU_EAGER=1` computes every operation at
//! once.
//!
//! **Convolutions and matrix products** have kernels of this crate, with both gradients. Images are stored with their
//! channels last (strides of `[batch, height, width, channels]` for the shape `[batch, channels, height, width]`)
//! between layers. Kernels of 3 by 3 with stride 1 and at least 8 channels use Winograd's minimal filtering: a third of
//! the products, with about twice the rounding error of direct sums (root mean square). The error is relative to the
//! largest values of a tile of 2 by 4 outputs, and a value that is not finite affects its whole tile. Every other
//! operation is delegated to Flex.
//!
//! To switch, replace `Autodiff<Flex>` with `Autodiff<Cpu>`:
//!
//! ```
//! use burn::backend::Autodiff;
//! use burn::tensor::{Distribution, Tensor, module::conv2d, ops::ConvOptions};
//! use ttq_cpu::Cpu;
//!
//! let device = Default::default();
//! let x = Tensor::<Autodiff<Cpu>, 4>::random([2, 3, 8, 8], Distribution::Default, &device);
//! let weight = Tensor::random([4, 3, 3, 3], Distribution::Default, &device).require_grad();
//! let y = conv2d(x, weight.clone(), None, ConvOptions::new([1, 1], [1, 1], [1, 1], 1));
//! let gradient = weight.grad(&y.sum().backward()).unwrap();
//! assert_eq!(gradient.dims(), [4, 3, 3, 3]);
//! ```
//!
//! **Instruction sets.** The kernels are compiled for AVX-512, for AVX2 with FMA, and for the instructions
//! of the compilation target. The best one that the processor supports is chosen at run time.
//!
//! **Threads.** Kernels run on rayon's global thread pool; `RAYON_NUM_THREADS` sets its size. Results do not depend on
//! the number of threads.
//!
//! **Other inputs.** Tensors of other types than f32, grouped convolutions, and shapes without a valid output are
//! passed to Flex, so their results and error messages are those of Flex.
//!
//! # Features
//! `distributed` implements Burn's distributed strategy for threads: each worker thread trains a copy of the model, and
//! gradients are summed or averaged over the workers.

mod arena;
mod buffer;
mod convert_backend;
mod delegate;
#[cfg(feature = "distributed")]
mod distributed;
mod kernels;
mod lazy;
mod ops;

use burn_backend::{Backend, BackendTypes, DType, DTypeUsageSet};
use burn_flex::{Flex, FlexDevice, FlexQTensor, FlexTensor};

/// CPU backend with Flex's tensors and device, its own kernels for convolutions and matrix products, and recorded
/// element-wise operations and reductions.
///
/// Tensor primitives are [`FlexTensor`] (float elements f32, int elements i32, bool elements `bool`), the device is
/// [`FlexDevice`]. The [crate documentation](crate) lists the operations that do not run on Flex.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cpu;

impl BackendTypes for Cpu {
    type Device = FlexDevice;
    type FloatTensorPrimitive = FlexTensor;
    type FloatElem = f32;
    type IntTensorPrimitive = FlexTensor;
    type IntElem = i32;
    type BoolTensorPrimitive = FlexTensor;
    type BoolElem = bool;
    type QuantizedTensorPrimitive = FlexQTensor;
}

impl Backend for Cpu {
    fn name(_device: &Self::Device) -> String {
        "ttq-cpu".into()
    }

    fn seed(device: &Self::Device, seed: u64) {
        Flex::seed(device, seed);
    }

    fn device_count(type_id: u16) -> usize {
        Flex::device_count(type_id)
    }

    fn dtype_usage(device: &Self::Device, dtype: DType) -> DTypeUsageSet {
        Flex::dtype_usage(device, dtype)
    }

    /// Frees the memory that is kept for later results.
    fn memory_cleanup(device: &Self::Device) {
        arena::shrink();
        Flex::memory_cleanup(device);
    }
}

/// Tests the code of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
