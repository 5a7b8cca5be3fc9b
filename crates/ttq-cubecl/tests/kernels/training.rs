//! Gradients of a whole module: by kernels behind the leaf view, through autodiff behind the other, and on a CPU.

use burn::backend::{Autodiff, Flex};
use burn::module::{AutodiffModule, Module, Param};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{Linear, LinearConfig};
use burn::optim::GradientsParams;
use burn::prelude::*;
use burn::tensor::TensorData;
use burn::tensor::backend::AutodiffBackend;
use ttq_core::{Granularity, QuantizerConfig, SelectionConfig, Ternary, TernaryConfig, Threshold};

use super::{Fused, Plain, device};
use crate::numbers::random;

#[derive(Module, Debug)]
struct Net<B: Backend> {
    first: Conv2d<B>,
    second: Conv2d<B>,
    hidden: Linear<B>,
    classes: Linear<B>,
}

impl<B: Backend> Net<B> {
    fn new(device: &B::Device) -> Self {
        let conv = |input, output| Conv2dConfig::new([input, output], [3, 3]).with_bias(false).init(device);
        Self {
            first: filled(conv(2, 4), [4, 2, 3, 3], 1, |conv| &mut conv.weight),
            second: filled(conv(4, 6), [6, 4, 3, 3], 2, |conv| &mut conv.weight),
            hidden: filled(LinearConfig::new(96, 11).with_bias(false).init(device), [96, 11], 3, |l| &mut l.weight),
            classes: filled(LinearConfig::new(11, 3).with_bias(false).init(device), [11, 3], 4, |l| &mut l.weight),
        }
    }

    fn loss(&self, images: Tensor<B, 4>) -> Tensor<B, 1> {
        let x = self.second.forward(self.first.forward(images).tanh()).tanh();
        self.classes.forward(self.hidden.forward(x.flatten::<2>(1, 3)).tanh()).tanh().sum()
    }
}

/// The layer with a weight that is the same on every backend.
fn filled<B: Backend, L, const D: usize>(
    mut layer: L,
    shape: [usize; D],
    seed: u64,
    weight: impl Fn(&mut L) -> &mut Param<Tensor<B, D>>,
) -> L {
    let param = weight(&mut layer);
    let data = TensorData::new(random(shape.iter().product(), seed), shape);
    *param = Param::from_tensor(Tensor::from_data(data, &param.val().device()));
    layer
}

/// Gradients of latent weights and scales: through the leaf view and the kernels, and through autodiff.
pub(super) fn gradients<B: AutodiffBackend>(config: &TernaryConfig, device: &B::Device) -> [Vec<TensorData>; 2] {
    let ternary = Ternary::<B, Net<B>>::new(Net::new(device), config).expect("a valid configuration");
    let data = TensorData::new(random(3 * 2 * 8 * 8, 9), [3, 2, 8, 8]);
    let images = Tensor::<B, 4>::from_data(data, device);
    let leaves = ternary.leaf_view();
    let by_leaves = GradientsParams::from_grads(leaves.loss(images.clone()).backward(), &leaves);
    let by_autodiff = GradientsParams::from_grads(ternary.view().loss(images).backward(), &ternary);
    [ternary.pull_back(by_leaves), by_autodiff].map(|grads| {
        let net = ternary.latent();
        let conv = [&net.first, &net.second].map(|layer| grads.get::<B::InnerBackend, 4>(layer.weight.id));
        let linear = [&net.hidden, &net.classes].map(|layer| grads.get::<B::InnerBackend, 2>(layer.weight.id));
        let scales = ternary.scales().iter().map(|scale| grads.get::<B::InnerBackend, 2>(scale.id));
        let data = conv.into_iter().map(|grad| grad.map(Tensor::into_data));
        data.chain(linear.into_iter().chain(scales).map(|grad| grad.map(Tensor::into_data)))
            .map(|grad| grad.expect("every parameter has a gradient"))
            .collect()
    })
}

fn agree<B: AutodiffBackend>(device: &B::Device) {
    for granularity in [Granularity::Tensor, Granularity::Channel] {
        for threshold in [Threshold::MaxFraction(0.05), Threshold::MeanFraction(0.7), Threshold::Sparsity(0.4)] {
            let quantizer = QuantizerConfig { granularity, threshold, ..QuantizerConfig::ttq() };
            let config = TernaryConfig { quantizer, selection: SelectionConfig::default() };
            let [expected, _] = gradients::<Autodiff<Flex>>(&config, &Default::default());
            for found in gradients::<B>(&config, device) {
                assert_eq!(found.len(), expected.len());
                for (found, expected) in found.iter().zip(&expected) {
                    assert_eq!(found.shape, expected.shape);
                    let size = expected.iter::<f32>().map(f32::abs).fold(1e-6, f32::max);
                    for (found, expected) in found.iter::<f32>().zip(expected.iter::<f32>()) {
                        assert!((found - expected).abs() <= 1e-4 * size, "{config:?}: {found} for {expected}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_module_has_the_gradients_it_has_on_a_cpu() {
    let Some(device) = device() else { return };
    agree::<Autodiff<Plain>>(&device);
}

#[test]
fn a_module_has_the_gradients_it_has_on_a_cpu_with_fusion() {
    let Some(device) = device() else { return };
    agree::<Autodiff<Fused>>(&device);
}

#[test]
fn a_materialized_module_is_the_same_by_kernels_and_by_operations() {
    let Some(device) = device() else { return };
    let config = TernaryConfig::default();
    let ternary = Ternary::<Autodiff<Plain>, _>::new(Net::new(&device), &config).expect("a valid configuration");
    let by_operations = ternary.materialize();
    let by_kernels = ternary.leaf_view().valid();
    let weights = [&by_kernels.second, &by_operations.valid().second].map(|layer| layer.weight.val().into_data());
    assert_eq!(weights[0], weights[1]);
}
