//! A CPU backend for [Burn](https://burn.dev) 0.21 on which convolutional networks train several times faster than on Flex.
//!
//! [`Cpu`] shares Flex's tensors and device: a model, a record, a tensor of one is one of the other, and all that this crate
//! does not do itself is done by Flex. Its own are convolution in two dimensions with both gradients, arithmetic with
//! broadcasting, sums, copies of views, and the memory of results. Write `Autodiff<Cpu>` where `Autodiff<Flex>` stood:
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
//! Kernels are compiled for AVX-512, for AVX2 with FMA and for whatever the target is compiled for, and chosen at run time.
//! Threads are rayon's (`RAYON_NUM_THREADS` sets their number); results do not depend on how many there are. Other types than
//! f32, groups, and shapes that make no output are Flex's work, so results and errors are the same.

mod across;
mod buffer;
mod delegate;
#[cfg(feature = "distributed")]
mod distributed;
mod kernels;
mod ops;

use burn_backend::{Backend, BackendTypes, DType, DTypeUsageSet};
use burn_flex::{Flex, FlexDevice, FlexQTensor, FlexTensor};

/// The backend; see the [crate's documentation](crate).
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
        buffer::clean_up();
        Flex::memory_cleanup(device);
    }
}
