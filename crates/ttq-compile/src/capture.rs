//! From a module to a graph.

use std::sync::Arc;

use burn::module::{AutodiffModule, HasAutodiffModule, ModuleMapper, ModuleVisitor, Param};
use burn::prelude::*;
use burn::tensor::{Bool, Int, TensorPrimitive};
use ttq_packed::network::Graph;

use crate::tape::{Origin, Step, Tape, Tracked};
use crate::{Capture, CaptureError, build};

/// Sizes of the two batches.
pub(crate) const BATCHES: [usize; 2] = [2, 3];

/// An input of a module: a float tensor, or an int tensor such as the tokens of a text.
pub trait Example<B: Backend> {
    /// The tensor that the module gets.
    type Tensor;

    /// Returns the dimensions.
    fn shape(&self) -> Vec<usize>;

    /// Returns copies of the first item, as the input of a run.
    #[doc(hidden)]
    #[allow(private_interfaces, reason = "only this crate calls it")]
    fn batch(&self, size: usize, tape: &Tape) -> Self::Tensor;
}

impl<B: Backend, const D: usize> Example<B> for Tensor<B, D> {
    type Tensor = Tensor<Capture<B>, D>;

    fn shape(&self) -> Vec<usize> {
        self.dims().into()
    }

    #[allow(private_interfaces, reason = "only this crate calls it")]
    fn batch(&self, size: usize, tape: &Tape) -> Self::Tensor {
        let batch = self.clone().narrow(0, 0, 1).repeat_dim(0, size);
        let origin = tape.push(Step::Input, Vec::new(), batch.dims().into());
        let inner = batch.into_primitive().tensor();
        Tensor::from_primitive(TensorPrimitive::Float(Tracked { inner, origin }))
    }
}

impl<B: Backend, const D: usize> Example<B> for Tensor<B, D, Int> {
    type Tensor = Tensor<Capture<B>, D, Int>;

    fn shape(&self) -> Vec<usize> {
        self.dims().into()
    }

    #[allow(private_interfaces, reason = "only this crate calls it")]
    fn batch(&self, size: usize, tape: &Tape) -> Self::Tensor {
        let batch = self.clone().narrow(0, 0, 1).repeat_dim(0, size);
        let origin = tape.push(Step::Input, Vec::new(), batch.dims().into());
        Tensor::from_primitive(Tracked { inner: batch.into_primitive(), origin })
    }
}

/// Captures what a module computes.
///
/// The first dimension of the example is the batch, of any size. The function calls the module, as in
/// `|module, x| module.forward(x)`. The input of the graph is an item of the example; indices of an int tensor are
/// numbers in float32. The first dimension of the output is the batch too, or joins it with another one: an output
/// `[n k, ..]` becomes `[k, ..]` for each item.
///
/// # Errors
/// The [crate documentation](crate) lists what cannot be captured.
pub fn capture<B, M, X, const E: usize>(
    module: &M,
    example: X,
    forward: impl Fn(&M::TrainModule, X::Tensor) -> Tensor<Capture<B>, E>,
) -> Result<Graph, CaptureError>
where
    B: Backend,
    M: Module<B> + HasAutodiffModule<Capture<B>>,
    X: Example<B>,
{
    let dims = example.shape();
    if dims.is_empty() || dims.contains(&0) {
        return Err(CaptureError::Example { dims });
    }
    module.visit(&mut Draw);
    let module = M::TrainModule::from_inner(module.clone()).map(&mut Names::default());
    let runs = BATCHES.map(|size| {
        let tape = Tape::default();
        let output = forward(&module, example.batch(size, &tape)).into_primitive().tensor();
        (tape, output.origin)
    });
    let [(first, Origin::Value(_, output)), (second, Origin::Value(_, other))] = &runs else {
        let leak = runs.iter().find_map(|(tape, _)| tape.lock().leak.take());
        return Err(leak.map_or(CaptureError::ConstantOutput, build::read));
    };
    build::graph(&first.lock(), &second.lock(), [*output, *other])
}

/// Draws the parameters of a new module. Burn draws a parameter at its first use, and a clone would draw other numbers.
struct Draw;

impl<B: Backend> ModuleVisitor<B> for Draw {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        param.val();
    }

    fn visit_int<const D: usize>(&mut self, param: &Param<Tensor<B, D, Int>>) {
        param.val();
    }

    fn visit_bool<const D: usize>(&mut self, param: &Param<Tensor<B, D, Bool>>) {
        param.val();
    }
}

/// Gives each parameter its path.
#[derive(Default)]
struct Names(Vec<String>);

impl<B: Backend> ModuleMapper<Capture<B>> for Names {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.0.push(name.into());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.0.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<Capture<B>, D>>) -> Param<Tensor<Capture<B>, D>> {
        let path: Arc<str> = self.0.join(".").into();
        param.map(|tensor| {
            let mut primitive = tensor.into_primitive();
            if let TensorPrimitive::Float(tensor) = &mut primitive {
                tensor.origin = Origin::Constant(Some(path));
            }
            Tensor::from_primitive(primitive)
        })
    }
}
