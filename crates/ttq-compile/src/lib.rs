//! Captures [Burn](https://burn.dev) 0.21 modules as graphs, which run without Burn.
//!
//! [`capture`] runs a module, unchanged, and records its operations as a [`Graph`] of [`ttq_packed::network`]:
//!
//! ```
//! use burn::backend::Flex;
//! use burn::nn::LinearConfig;
//! use burn::prelude::*;
//! use ttq_compile::{CompileOptions, Network, capture};
//! use ttq_packed::network::Arena;
//!
//! let device = Default::default();
//! let linear = LinearConfig::new(3, 2).init::<Flex>(&device);
//! let example = Tensor::<Flex, 2>::zeros([1, 3], &device);
//! let graph = capture(&linear, example, |linear, x| linear.forward(x))?;
//! let network = Network::compile(&graph, &CompileOptions::default())?;
//! let mut output = [0.0; 2];
//! network.run(&mut Arena::new(), &[1.0, 2.0, 4.0], &mut output)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Method
//!
//! [`Capture`] is a backend around the backend of the module, whose tensors know whether they depend on the input. An
//! operation on such tensors is computed and recorded; all others are only computed, so that the graph contains their
//! results as constants. A constant has the path of the parameter that it comes from, and stays ternary if the module is
//! one of [`Packed`](ttq_inference::Packed).
//!
//! A graph describes one item. The module runs on a batch of 2 items and on one of 3: the dimension that grows by half
//! is the batch. A constant must be the same in both runs, except for equal copies along the batch.
//!
//! # What cannot be captured
//!
//! Each of these is a [`CaptureError`] that names the operation and the module:
//!
//! - operations that a graph does not have, if the output depends on them;
//! - elements that leave the backend (`into_data`, `into_scalar`): what the module does with them stays unknown;
//! - operations across items, such as the mean of a batch, and operations that depend on the size of the batch.
//!
//! A module that chooses between operations by the shape of its input is captured for the shape of the example.

mod build;
mod call;
mod capture;
mod constant;
mod delegate;
mod error;
mod ops;
mod tape;

use std::marker::PhantomData;

use burn::prelude::*;
use burn::tensor::DType;
use burn::tensor::backend::AutodiffBackend;
use burn_backend::tensor::{BoolTensor, FloatTensor, IntTensor, QuantizedTensor};
use burn_backend::{BackendTypes, DTypeUsageSet, ExecutionError};

pub use capture::{Example, capture};
pub use error::CaptureError;
pub use tape::Tracked;
pub use ttq_packed::network::{CompileOptions, Graph, Network};

/// Backend decorator that records the operations on tensors that depend on the input.
///
/// `B` is the inner backend. [`capture`] moves a module to it and back, by `AutodiffBackend`, the only trait by which Burn
/// does so for every module: there are no gradients.
#[derive(Debug, Clone, Copy, Default)]
pub struct Capture<B>(PhantomData<B>);

impl<B: Backend> BackendTypes for Capture<B> {
    type Device = B::Device;
    type FloatTensorPrimitive = Tracked<B::FloatTensorPrimitive>;
    type FloatElem = B::FloatElem;
    type IntTensorPrimitive = Tracked<B::IntTensorPrimitive>;
    type IntElem = B::IntElem;
    type BoolTensorPrimitive = Tracked<B::BoolTensorPrimitive>;
    type BoolElem = B::BoolElem;
    type QuantizedTensorPrimitive = Tracked<B::QuantizedTensorPrimitive>;
}

impl<B: Backend> Backend for Capture<B> {
    /// Returns `false`: modules behave as in inference.
    fn ad_enabled(_device: &Self::Device) -> bool {
        false
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
        format!("capture<{}>", B::name(device))
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

impl<B: Backend> AutodiffBackend for Capture<B> {
    type InnerBackend = B;
    type Gradients = ();

    fn backward(_tensor: FloatTensor<Self>) {}

    fn grad(_tensor: &FloatTensor<Self>, _grads: &()) -> Option<FloatTensor<B>> {
        None
    }

    fn grad_remove(_tensor: &FloatTensor<Self>, _grads: &mut ()) -> Option<FloatTensor<B>> {
        None
    }

    fn grad_replace(_tensor: &FloatTensor<Self>, _grads: &mut (), _grad: FloatTensor<B>) {}

    fn inner(tensor: FloatTensor<Self>) -> FloatTensor<B> {
        call::Call::new("inner").taken(tensor)
    }

    fn int_inner(tensor: IntTensor<Self>) -> IntTensor<B> {
        call::Call::new("inner").taken(tensor)
    }

    fn bool_inner(tensor: BoolTensor<Self>) -> BoolTensor<B> {
        call::Call::new("inner").taken(tensor)
    }

    fn q_inner(tensor: QuantizedTensor<Self>) -> QuantizedTensor<B> {
        call::Call::new("inner").taken(tensor)
    }

    fn from_inner(tensor: FloatTensor<B>) -> FloatTensor<Self> {
        Tracked::constant(tensor)
    }

    fn int_from_inner(tensor: IntTensor<B>) -> IntTensor<Self> {
        Tracked::constant(tensor)
    }

    fn bool_from_inner(tensor: BoolTensor<B>) -> BoolTensor<Self> {
        Tracked::constant(tensor)
    }

    fn q_from_inner(tensor: QuantizedTensor<B>) -> QuantizedTensor<Self> {
        Tracked::constant(tensor)
    }
}

/// Tests the code of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
