//! Gradients of a whole module: with the kernels (leaf view), through autodiff (view), and on a CPU.

use burn::backend::{Autodiff, Flex};
use burn::module::{AutodiffModule, Module};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{Linear, LinearConfig};
use burn::optim::GradientsParams;
use burn::prelude::*;
use burn::tensor::TensorData;
use burn::tensor::backend::AutodiffBackend;
use ttq_core::{Granularity, QuantizerConfig, SelectionConfig, Ternary, TernaryConfig, Threshold};

use ttq_testing::{normal, reproducible, tensor};

use super::{Fused, Plain, device};

#[derive(Module, Debug)]
struct Net<B: Backend> {
    conv: Conv2d<B>,
    linear: Linear<B>,
}

impl<B: Backend> Net<B> {
    fn new(device: &B::Device) -> Self {
        let net = Self {
            conv: Conv2dConfig::new([2, 6], [3, 3]).with_bias(false).init(device),
            linear: LinearConfig::new(96, 11).with_bias(false).init(device),
        };
        reproducible(net, 1)
    }

    fn loss(&self, images: Tensor<B, 4>) -> Tensor<B, 1> {
        let x = self.conv.forward(images).tanh();
        self.linear.forward(x.flatten::<2>(1, 3)).tanh().sum()
    }
}

/// A configuration that ternarizes both layers.
pub(super) fn config(quantizer: QuantizerConfig) -> TernaryConfig {
    let selection =
        SelectionConfig { keep_first_convolution: false, keep_last_layer: false, ..SelectionConfig::default() };
    TernaryConfig { quantizer, selection }
}

/// Returns the gradients of latent weights and scales, first with the leaf view and the kernels, then through autodiff.
pub(super) fn gradients<B: AutodiffBackend>(config: &TernaryConfig, device: &B::Device) -> [Vec<TensorData>; 2] {
    let ternary = Ternary::<B, Net<B>>::new(Net::new(device), config).expect("a valid configuration");
    let images = tensor::<B, 4>(&normal(&[3, 2, 6, 6], 9)).to_device(device);
    let leaves = ternary.leaf_view();
    let by_leaves = leaves.pull_back(GradientsParams::from_grads(leaves.loss(images.clone()).backward(), &*leaves));
    let by_autodiff = GradientsParams::from_grads(ternary.view().loss(images).backward(), &ternary);
    [by_leaves, by_autodiff].map(|grads| {
        let net = ternary.latent();
        let conv = grads.get::<B::InnerBackend, 4>(net.conv.weight.id).map(Tensor::into_data);
        let linear = grads.get::<B::InnerBackend, 2>(net.linear.weight.id).map(Tensor::into_data);
        let scales = ternary.scales().iter().map(|s| grads.get::<B::InnerBackend, 2>(s.id).map(Tensor::into_data));
        let all = [conv, linear].into_iter().chain(scales);
        all.map(|grad| grad.expect("a gradient of every parameter")).collect()
    })
}

fn assert_gradients_match_cpu<B: AutodiffBackend>(device: &B::Device) {
    let [tensor, channel] = [Granularity::Tensor, Granularity::Channel];
    for [of_threshold, of_scales] in [[tensor, tensor], [channel, channel], [tensor, channel]] {
        for threshold in [Threshold::MaxFraction(0.05), Threshold::MeanFraction(0.7), Threshold::Sparsity(0.4)] {
            let quantizer = QuantizerConfig::ttq()
                .with_threshold(threshold)
                .with_threshold_granularity(of_threshold)
                .with_scale_granularity(of_scales);
            let config = config(quantizer);
            let [expected, _] = gradients::<Autodiff<Flex>>(&config, &Default::default());
            for found in gradients::<B>(&config, device) {
                assert_eq!(found.len(), expected.len());
                for (found, expected) in found.iter().zip(&expected) {
                    assert_eq!(found.shape, expected.shape);
                    let size = expected.iter::<f32>().map(f32::abs).fold(1e-6, f32::max);
                    for (found, expected) in found.iter::<f32>().zip(expected.iter::<f32>()) {
                        assert!(
                            (found - expected).abs() <= 1e-4 * size,
                            "{config:?}: found {found}, expected {expected}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn gradients_of_a_module_match_those_on_a_cpu() {
    let Some(device) = device() else { return };
    assert_gradients_match_cpu::<Autodiff<Plain>>(&device);
}

#[test]
fn gradients_of_a_module_match_those_on_a_cpu_with_fusion() {
    let Some(device) = device() else { return };
    assert_gradients_match_cpu::<Autodiff<Fused>>(&device);
}

#[test]
fn a_materialized_module_is_the_same_with_kernels_and_with_tensor_operations() {
    let Some(device) = device() else { return };
    let config = config(QuantizerConfig::ttq());
    let ternary = Ternary::<Autodiff<Plain>, _>::new(Net::new(&device), &config).expect("a valid configuration");
    let by_operations = ternary.materialize();
    let by_kernels = ternary.leaf_view().valid();
    let weights = [&by_kernels.conv, &by_operations.valid().conv].map(|layer| layer.weight.val().into_data());
    assert_eq!(weights[0], weights[1]);
}
