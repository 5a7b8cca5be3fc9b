//! Comparison of a module with its compiled graph.

use burn::backend::Flex;
use burn::module::{AutodiffModule, HasAutodiffModule, Module};
use burn::prelude::*;
use ttq_compile::{Capture, CompileOptions, Graph, Network, capture};
use ttq_packed::network::Arena;
use ttq_testing::{reproducible, tensor, uniform};

pub(crate) type B = Flex;

/// Captures a module with an example of one item, and compares results for batches of 1, 2 and 5 items, to 1e-5 of the
/// largest. Returns the graph.
pub(crate) fn agrees<M, const D: usize, const E: usize>(
    module: M,
    item: [usize; D],
    forward: impl Fn(&M::TrainModule, Tensor<Capture<B>, D>) -> Tensor<Capture<B>, E>,
) -> Graph
where
    M: Module<B> + HasAutodiffModule<Capture<B>>,
{
    let module = reproducible(module, 1);
    let dims = |batch: usize| {
        let mut dims = item;
        dims[0] = batch;
        dims
    };
    let graph = capture(&module, tensor::<B, D>(&uniform(&dims(1), 2)), &forward).unwrap();
    let network = Network::compile(&graph, &CompileOptions::default()).unwrap();
    let module = M::TrainModule::from_inner(module);
    for batch in [1, 2, 5] {
        let data = uniform(&dims(batch), 3 + batch as u64);
        let expected = forward(&module, tensor::<Capture<B>, D>(&data)).into_data().to_vec::<f32>().unwrap();
        let mut found = vec![0.0; expected.len()];
        network.run(&mut Arena::new(), &data.to_vec::<f32>().unwrap(), &mut found).unwrap();
        assert_close(&found, &expected);
    }
    graph
}

pub(crate) fn assert_close(found: &[f32], expected: &[f32]) {
    let largest = expected.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    assert!(largest.is_finite() && largest > 0.0);
    let error = found.iter().zip(expected).fold(0.0_f32, |error, (a, b)| error.max((a - b).abs()));
    assert!(error <= 1e-5 * largest, "error {error:e} of {largest:e}");
}

/// A module without parameters that applies a function.
#[derive(Module, Debug)]
pub(crate) struct Nothing<B: Backend> {
    none: Option<burn::nn::Linear<B>>,
}

pub(crate) fn nothing() -> Nothing<B> {
    Nothing { none: None }
}
