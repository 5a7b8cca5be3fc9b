//! Execution of kernels on tensors of a generic backend, with Burn's fusion and without.
//!
//! The type of a backend's tensor primitive selects the runtime `R`: `CubeTensor<R>` without fusion,
//! `FusionTensor<FusionCubeRuntime<R>>` with fusion. With fusion, an operation is registered as a custom operation:
//! fusion flushes the operations that it depends on and runs it unchanged.

use std::any::{Any, TypeId};
use std::fmt::Debug;

use burn::prelude::*;
use burn_cubecl::fusion::FusionCubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use burn_cubecl::{CubeBackend, CubeRuntime};
use burn_fusion::stream::{self, OperationStreams};
use burn_fusion::{FusionRuntime, FusionTensor};
use burn_ir::{CustomOpIr, HandleContainer, OperationIr, TensorIr};
use burn_std::{DType, Shape};

/// Shape and data type of a tensor.
pub(crate) type TensorSpec = (Shape, DType);

/// An operation that kernels compute.
pub(crate) trait Operation: Debug + Clone + Send + Sync + 'static {
    /// Name of the operation in Burn's intermediate representation.
    const NAME: &'static str;

    /// Returns the shapes and types of the outputs for inputs of the given shapes and types.
    fn outputs(&self, inputs: &[TensorSpec]) -> Vec<TensorSpec>;

    /// Launches the kernels.
    fn run<R: CubeRuntime>(&self, inputs: Vec<CubeTensor<R>>) -> Vec<CubeTensor<R>>;
}

/// A tensor primitive whose type is erased.
pub(crate) type ErasedTensor = Box<dyn Any>;

/// Function that runs an operation on tensors of one type.
type Runner<O> = fn(&O, Vec<ErasedTensor>) -> Vec<ErasedTensor>;

/// Returns whether the kernels are compiled for the runtime of this backend.
pub(crate) fn supports_backend<B: Backend>() -> bool {
    runner_for_backend::<B, NoOperation>().is_some()
}

/// Runs an operation on float and integer tensors. Both have the same primitive type on every supported backend.
///
/// # Panics
/// Panics if the backend is not supported.
pub(crate) fn run<B: Backend, O: Operation>(operation: &O, inputs: Vec<ErasedTensor>) -> Vec<B::FloatTensorPrimitive> {
    let run = runner_for_backend::<B, O>()
        .expect("ttq-cubecl: no kernels for this backend: enable the feature `cuda` or `wgpu`, and check `supports`");
    run(operation, inputs).into_iter().map(downcast).collect()
}

/// Returns the primitive of a float tensor.
pub(crate) fn float<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> ErasedTensor {
    Box::new(tensor.into_primitive().tensor())
}

/// Returns the primitive of an integer tensor.
pub(crate) fn int<B: Backend, const D: usize>(tensor: Tensor<B, D, Int>) -> ErasedTensor {
    Box::new(tensor.into_primitive())
}

fn downcast<T: 'static>(tensor: ErasedTensor) -> T {
    *tensor.downcast().expect("the runner is selected by the type of the tensors")
}

fn runner_for_backend<B: Backend, O: Operation>() -> Option<Runner<O>> {
    let tensor = TypeId::of::<B::FloatTensorPrimitive>();
    let runners: [Option<Runner<O>>; _] = [
        #[cfg(feature = "cuda")]
        runner_for_tensor::<cubecl::cuda::CudaRuntime, O>(tensor),
        #[cfg(feature = "wgpu")]
        runner_for_tensor::<cubecl::wgpu::WgpuRuntime, O>(tensor),
    ];
    runners.into_iter().flatten().next()
}

fn runner_for_tensor<R: CubeRuntime, O: Operation>(tensor: TypeId) -> Option<Runner<O>> {
    if tensor == TypeId::of::<CubeTensor<R>>() {
        Some(run_directly::<R, O>)
    } else if tensor == TypeId::of::<FusionTensor<FusionCubeRuntime<R>>>() {
        Some(run_with_fusion::<R, O>)
    } else {
        None
    }
}

fn run_directly<R: CubeRuntime, O: Operation>(operation: &O, inputs: Vec<ErasedTensor>) -> Vec<ErasedTensor> {
    let inputs = inputs.into_iter().map(downcast).collect();
    operation.run::<R>(inputs).into_iter().map(|output| Box::new(output) as ErasedTensor).collect()
}

fn run_with_fusion<R: CubeRuntime, O: Operation>(operation: &O, inputs: Vec<ErasedTensor>) -> Vec<ErasedTensor> {
    let inputs: Vec<FusionTensor<FusionCubeRuntime<R>>> = inputs.into_iter().map(downcast).collect();
    let specs: Vec<TensorSpec> = inputs.iter().map(|input| (input.shape.clone(), input.dtype)).collect();
    let client = inputs[0].client.clone();
    let streams = OperationStreams::with_inputs(&inputs);
    let outputs: Vec<TensorIr> = operation
        .outputs(&specs)
        .into_iter()
        .map(|(shape, dtype)| TensorIr::uninit(client.create_empty_handle(), shape, dtype))
        .collect();
    let inputs: Vec<TensorIr> = inputs.into_iter().map(FusionTensor::into_ir).collect();
    let description = CustomOpIr::new(O::NAME, &inputs, &outputs);
    let registered = Registered { description: description.clone(), operation: operation.clone() };
    let outputs = client.register(streams, OperationIr::Custom(description), registered);
    outputs.into_iter().map(|output| Box::new(output) as ErasedTensor).collect()
}

/// A custom operation that is registered with fusion.
#[derive(Debug)]
struct Registered<O> {
    description: CustomOpIr,
    operation: O,
}

impl<R: CubeRuntime, O: Operation> stream::Operation<FusionCubeRuntime<R>> for Registered<O> {
    fn execute(&self, handles: &mut HandleContainer<<FusionCubeRuntime<R> as FusionRuntime>::FusionHandle>) {
        // The element types of this backend are not used: handles carry their own.
        type Handles<R> = CubeBackend<R, f32, i32, u32>;
        let inputs = &self.description.inputs;
        let inputs = inputs.iter().map(|input| handles.get_float_tensor::<Handles<R>>(input)).collect();
        let outputs = self.operation.run::<R>(inputs);
        for (description, output) in self.description.outputs.iter().zip(outputs) {
            handles.register_float_tensor::<Handles<R>>(&description.id, output);
        }
    }
}

/// Placeholder operation for the check whether a backend is supported.
#[derive(Debug, Clone)]
struct NoOperation;

impl Operation for NoOperation {
    const NAME: &'static str = "nothing";

    fn outputs(&self, _inputs: &[TensorSpec]) -> Vec<TensorSpec> {
        Vec::new()
    }

    fn run<R: CubeRuntime>(&self, _inputs: Vec<CubeTensor<R>>) -> Vec<CubeTensor<R>> {
        Vec::new()
    }
}
