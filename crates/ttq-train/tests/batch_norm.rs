//! Re-estimation of batch normalization: the definition, and that nothing else changes.

use burn::backend::{Autodiff, Flex};
use burn::module::AutodiffModule;
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig};
use burn::prelude::*;
use burn::tensor::backend::AutodiffBackend;
use burn_ndarray::NdArray;
use ttq_core::{SelectionConfig, Ternary, TernaryConfig};
use ttq_cpu::Cpu;
use ttq_testing::{normal, parameters, reproducible, tensor};
use ttq_train::reestimate_batch_norm;

/// Two batch normalizations in a row behind ternary weights, and one that the forward pass does not use.
#[derive(Module, Debug)]
struct Net<B: Backend> {
    first: Linear<B>,
    norms: Vec<BatchNorm<B>>,
    second: Linear<B>,
    unused: BatchNorm<B>,
}

impl<B: Backend> Net<B> {
    fn new(momentum: f64) -> Self {
        let device = Default::default();
        let norm = |channels| BatchNormConfig::new(channels).with_momentum(momentum).init(&device);
        let net = Self {
            first: LinearConfig::new(5, 8).init(&device),
            norms: vec![norm(8), norm(6)],
            second: LinearConfig::new(8, 6).init(&device),
            unused: norm(3),
        };
        reproducible(net, 1)
    }

    fn forward(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        let x = self.norms[0].forward(self.first.forward(x)).tanh();
        self.norms[1].forward(self.second.forward(x))
    }
}

fn batches<B: Backend>() -> Vec<Tensor<B, 2>> {
    (0..7).map(|seed| tensor::<B, 2>(&normal(&[16, 5], seed)) * (1.0 + seed as f32) + 0.5 * seed as f32).collect()
}

/// The definition: a layer of momentum 1 has the statistics of the last batch; their mean, in float64.
fn means_of_batches<A: AutodiffBackend>(net: impl Fn(f64) -> Net<A>) -> Vec<Vec<f64>> {
    let mut sums: Vec<Vec<f64>> = Vec::new();
    for batch in batches::<A>() {
        let net = net(1.0);
        net.forward(batch);
        let net = net.valid();
        for (index, state) in
            [&net.norms[0], &net.norms[1]].iter().flat_map(|n| [&n.running_mean, &n.running_var]).enumerate()
        {
            let values: Vec<f64> = state.value().into_data().iter().collect();
            match sums.get_mut(index) {
                Some(sums) => sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value),
                None => sums.push(values),
            }
        }
    }
    sums.into_iter().map(|sums| sums.into_iter().map(|sum| sum / batches::<A>().len() as f64).collect()).collect()
}

fn assert_statistics<B: Backend>(net: &Net<B>, expected: &[Vec<f64>]) {
    let states = net.norms.iter().flat_map(|norm| [&norm.running_mean, &norm.running_var]);
    for (state, expected) in states.zip(expected) {
        for (found, expected) in state.value().into_data().iter::<f64>().zip(expected) {
            assert!((found - expected).abs() <= 1e-4 * expected.abs().max(0.1), "{found} instead of {expected}");
        }
    }
}

fn assert_means<B: Backend>() {
    type A<B> = Autodiff<B>;
    for momentum in [0.1, 0.5, 1.0] {
        let net = Net::<A<B>>::new(momentum);
        // Statistics of a training before.
        net.forward(tensor::<A<B>, 2>(&normal(&[16, 5], 99)) * 10.0);
        let before = parameters(&net.valid());
        reestimate_batch_norm(&net, batches::<A<B>>(), |net, batch| drop(net.forward(batch.clone())));
        assert_statistics(&net.valid(), &means_of_batches(Net::<A<B>>::new));
        for ((name, before), (_, after)) in before.into_iter().zip(parameters(&net.valid())) {
            let changes = name.starts_with("norms") && name.contains("running");
            assert_eq!(before != after, changes, "{name}");
        }
    }
}

#[test]
fn running_statistics_become_the_means_of_the_batches_whatever_the_momentum_and_nothing_else_changes() {
    assert_means::<Flex>();
    assert_means::<Cpu>();
    assert_means::<NdArray>();
}

#[test]
fn the_statistics_of_a_wrapper_become_those_of_its_ternary_weights() {
    type A = Autodiff<Flex>;
    let config = TernaryConfig::new().with_selection(SelectionConfig::new().with_keep_last_layer(false));
    let wrapped = |momentum| Ternary::new(Net::<A>::new(momentum), &config).unwrap();
    let ternary = wrapped(0.1);
    let latent = ternary.latent().first.weight.val().into_data();
    reestimate_batch_norm(&ternary.materialize(), batches::<A>(), |net, batch| drop(net.forward(batch.clone())));
    assert_statistics(&ternary.valid().materialize(), &means_of_batches(|momentum| wrapped(momentum).materialize()));
    assert_eq!(ternary.latent().first.weight.val().into_data(), latent);
}

#[test]
fn the_forward_passes_record_no_gradients() {
    type A = Autodiff<Flex>;
    let ternary = Ternary::new(Net::<A>::new(0.1), &TernaryConfig::new()).unwrap();
    // Trained weights, ternary copies of them, and weights that are functions of trained ones.
    for net in [Net::<A>::new(0.1), ternary.materialize(), ternary.view()] {
        let mut calls = 0;
        reestimate_batch_norm(&net, batches::<A>(), |net, batch| {
            let gradients = net.forward(batch.clone()).sum().backward();
            assert!(net.second.bias.as_ref().unwrap().grad(&gradients).is_none());
            assert!(net.first.weight.grad(&gradients).is_none());
            calls += 1;
        });
        assert_eq!(calls, batches::<A>().len() + 1);
    }
}

#[test]
fn without_batches_or_batch_normalization_nothing_happens() {
    type A = Autodiff<Flex>;
    let net = Net::<A>::new(0.1);
    let before = parameters(&net.valid());
    reestimate_batch_norm(&net, Vec::<Tensor<A, 2>>::new(), |_, _| panic!("there is no batch"));
    assert_eq!(parameters(&net.valid()), before);
    let layer = LinearConfig::new(5, 8).init::<A>(&Default::default());
    reestimate_batch_norm(&layer, batches::<A>(), |_, _| panic!("there is no batch normalization"));
}
