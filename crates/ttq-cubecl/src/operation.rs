//! From tensors of any backend to those of a device, with Burn's fusion and without.
//!
//! A backend's primitive says what its tensors are: `CubeTensor<R>` on runtime `R`, or `FusionTensor<FusionCubeRuntime<R>>` where
//! fusion collects operations before it runs them. There an operation is registered as a custom one: fusion flushes what it depends on,
//! and runs it as it is.

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

/// Shape and type of a tensor.
pub(crate) type Form = (Shape, DType);

/// Something that kernels compute.
pub(crate) trait Operation: Debug + Clone + Send + Sync + 'static {
    /// Its name.
    const NAME: &'static str;

    /// What comes out for inputs of these forms.
    fn outputs(&self, inputs: &[Form]) -> Vec<Form>;

    /// Computes it.
    fn run<R: CubeRuntime>(&self, inputs: Vec<CubeTensor<R>>) -> Vec<CubeTensor<R>>;
}

/// A tensor whose type is not known here.
pub(crate) type Erased = Box<dyn Any>;

/// How an operation runs on one kind of tensor.
type Run<O> = fn(&O, Vec<Erased>) -> Vec<Erased>;

/// Are tensors of this backend those of a device that the kernels were compiled for?
pub(crate) fn takes<B: Backend>() -> bool {
    route::<B, Nothing>().is_some()
}

/// Runs an operation on float tensors and integer ones, whose primitives are the same on every backend that the kernels take.
///
/// # Panics
/// Where the kernels do not take the backend's tensors.
pub(crate) fn run<B: Backend, O: Operation>(operation: &O, inputs: Vec<Erased>) -> Vec<B::FloatTensorPrimitive> {
    let run = route::<B, O>().expect("kernels run on tensors that they take");
    run(operation, inputs).into_iter().map(unerase).collect()
}

/// A float tensor's primitive.
pub(crate) fn float<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Erased {
    Box::new(tensor.into_primitive().tensor())
}

/// An integer tensor's primitive.
pub(crate) fn int<B: Backend, const D: usize>(tensor: Tensor<B, D, Int>) -> Erased {
    Box::new(tensor.into_primitive())
}

fn unerase<T: 'static>(erased: Erased) -> T {
    *erased.downcast().expect("the route was chosen by the type of the tensors")
}

fn route<B: Backend, O: Operation>() -> Option<Run<O>> {
    let tensor = TypeId::of::<B::FloatTensorPrimitive>();
    let routes: [Option<Run<O>>; _] = [
        #[cfg(feature = "cuda")]
        on_runtime::<cubecl::cuda::CudaRuntime, O>(tensor),
        #[cfg(feature = "wgpu")]
        on_runtime::<cubecl::wgpu::WgpuRuntime, O>(tensor),
    ];
    routes.into_iter().flatten().next()
}

fn on_runtime<R: CubeRuntime, O: Operation>(tensor: TypeId) -> Option<Run<O>> {
    if tensor == TypeId::of::<CubeTensor<R>>() {
        Some(at_once::<R, O>)
    } else if tensor == TypeId::of::<FusionTensor<FusionCubeRuntime<R>>>() {
        Some(through_fusion::<R, O>)
    } else {
        None
    }
}

fn at_once<R: CubeRuntime, O: Operation>(operation: &O, inputs: Vec<Erased>) -> Vec<Erased> {
    let inputs = inputs.into_iter().map(unerase).collect();
    operation.run::<R>(inputs).into_iter().map(|output| Box::new(output) as Erased).collect()
}

fn through_fusion<R: CubeRuntime, O: Operation>(operation: &O, inputs: Vec<Erased>) -> Vec<Erased> {
    let inputs: Vec<FusionTensor<FusionCubeRuntime<R>>> = inputs.into_iter().map(unerase).collect();
    let forms: Vec<Form> = inputs.iter().map(|input| (input.shape.clone(), input.dtype)).collect();
    let client = inputs[0].client.clone();
    let streams = OperationStreams::with_inputs(&inputs);
    let outputs: Vec<TensorIr> = operation
        .outputs(&forms)
        .into_iter()
        .map(|(shape, dtype)| TensorIr::uninit(client.create_empty_handle(), shape, dtype))
        .collect();
    let inputs: Vec<TensorIr> = inputs.into_iter().map(FusionTensor::into_ir).collect();
    let description = CustomOpIr::new(O::NAME, &inputs, &outputs);
    let registered = Registered { description: description.clone(), operation: operation.clone() };
    let outputs = client.register(streams, OperationIr::Custom(description), registered);
    outputs.into_iter().map(|output| Box::new(output) as Erased).collect()
}

/// An operation that fusion runs when its turn has come.
#[derive(Debug)]
struct Registered<O> {
    description: CustomOpIr,
    operation: O,
}

impl<R: CubeRuntime, O: Operation> stream::Operation<FusionCubeRuntime<R>> for Registered<O> {
    fn execute(&self, handles: &mut HandleContainer<<FusionCubeRuntime<R> as FusionRuntime>::FusionHandle>) {
        // (Element types are those of the handles, not of this backend.)
        type Handles<R> = CubeBackend<R, f32, i32, u32>;
        let inputs = &self.description.inputs;
        let inputs = inputs.iter().map(|input| handles.get_float_tensor::<Handles<R>>(input)).collect();
        let outputs = self.operation.run::<R>(inputs);
        for (description, output) in self.description.outputs.iter().zip(outputs) {
            handles.register_float_tensor::<Handles<R>>(&description.id, output);
        }
    }
}

/// No operation: what is asked of a route where only its existence matters.
#[derive(Debug, Clone)]
struct Nothing;

impl Operation for Nothing {
    const NAME: &'static str = "nothing";

    fn outputs(&self, _inputs: &[Form]) -> Vec<Form> {
        Vec::new()
    }

    fn run<R: CubeRuntime>(&self, _inputs: Vec<CubeTensor<R>>) -> Vec<CubeTensor<R>> {
        Vec::new()
    }
}
