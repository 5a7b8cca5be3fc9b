//! What the default method does not depend on: the unit of weights.

use burn::backend::{Autodiff, Flex};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig};
use burn::optim::GradientsParams;
use burn::prelude::*;
use burn::tensor::DType;
use burn_ndarray::NdArray;
use ttq_core::{
    LatentGradient, QuantizerConfig, ScaleParameter, SelectionConfig, Ternary, TernaryConfig, TernaryQuantizer,
};
use ttq_cpu::Cpu;
use ttq_testing::{normal, reproducible, tensor, uniform};

use crate::{configs, floats, typed};

/// Latents, scales and threshold times `c`, gradients over `c`: the codes are the same, ternary weights are multiplied by
/// `c`, the gradients of latents and scales divided by `c`, so that those of the logarithms of scales are the same.
fn assert_units_do_not_matter<B: Backend>() {
    let c = 8.0; // A power of two, so that every product is exact.
    for (dims, axis) in [([5, 4, 3, 3], 0), ([4, 7, 1, 1], 1)] {
        let [latent, grad] = [1, 2].map(|seed| typed::<B, 4>(&normal(&dims, seed), DType::F32));
        for config in configs() {
            let quantizer: TernaryQuantizer<B> = config.init().unwrap();
            let groups = config.scale_granularity.groups(&dims, axis);
            let scales = typed::<B, 2>(&uniform(&[groups, 2], 3), DType::F32).abs() + 0.1;
            let (large, large_scales) = (latent.clone().mul_scalar(c), scales.clone().mul_scalar(c));

            let same = |a: Tensor<B, 4>, b: Tensor<B, 4>| assert_eq!(floats(a), floats(b), "{config:?}");
            let codes = [&latent, &large].map(|latent| floats(quantizer.codes(latent.clone(), axis).float()));
            assert_eq!(codes[0], codes[1], "{config:?}");
            same(
                quantizer.ternarize(large.clone(), large_scales.clone(), axis),
                quantizer.ternarize(latent.clone(), scales.clone(), axis).mul_scalar(c),
            );
            let ternary = [(&latent, &scales), (&large, &large_scales)]
                .map(|(latent, scales)| quantizer.ternarize(latent.clone(), scales.clone(), axis));
            let [before, after] = ternary;
            let before = quantizer.gradients(grad.clone(), before, scales.clone(), axis);
            let after = quantizer.gradients(grad.clone().div_scalar(c), after, large_scales.clone(), axis);
            same(after.latent, before.latent.div_scalar(c));
            assert_eq!(floats(after.scales * large_scales), floats(before.scales * scales), "{config:?}");
        }
    }
}

#[test]
fn multiplying_latents_and_scales_changes_nothing_but_units() {
    assert_units_do_not_matter::<Flex>();
    assert_units_do_not_matter::<Cpu>();
    assert_units_do_not_matter::<NdArray>();
}

#[test]
fn only_relative_slopes_are_free_of_units() {
    let latent = typed::<Flex, 2>(&normal(&[6, 6], 1), DType::F32);
    let factor = |slope: LatentGradient| {
        let quantizer: TernaryQuantizer<Flex> = QuantizerConfig::ttq().with_latent_gradient(slope).init().unwrap();
        let of_latent = |c: f64| {
            let scales = typed::<Flex, 2>(&[[0.5f32, 0.7]].into(), DType::F32).mul_scalar(c);
            let ternary = quantizer.ternarize(latent.clone().mul_scalar(c), scales.clone(), 1);
            floats(quantizer.gradients(latent.ones_like(), ternary, scales, 1).latent)
        };
        of_latent(8.0) == of_latent(1.0)
    };
    assert!(factor(LatentGradient::Relative) && factor(LatentGradient::Identity));
    assert!(!factor(LatentGradient::Scaled));
}

/// A convolution with batch normalization behind it.
#[derive(Module, Debug)]
struct Net<B: Backend> {
    convolution: Conv2d<B>,
    norm: BatchNorm<B>,
}

impl<B: Backend> Net<B> {
    fn new() -> Self {
        let device = Default::default();
        let net = Self {
            convolution: Conv2dConfig::new([2, 6], [3, 3]).with_bias(false).init(&device),
            // The constant that keeps the variance from zero breaks the invariance.
            norm: BatchNormConfig::new(6).with_epsilon(1e-12).init(&device),
        };
        reproducible(net, 1)
    }

    fn loss(&self, x: Tensor<B, 4>) -> Tensor<B, 1> {
        let y = self.norm.forward(self.convolution.forward(x));
        (y.clone() * tensor::<B, 4>(&normal(&y.dims(), 5))).tanh().sum()
    }
}

#[test]
fn behind_batch_normalization_the_gradients_of_both_logarithms_cancel() {
    type A = Autodiff<Flex>;
    let selection =
        SelectionConfig { keep_first_convolution: false, keep_last_layer: false, ..SelectionConfig::default() };
    for quantizer in configs() {
        let config = TernaryConfig { quantizer, selection: selection.clone() };
        let ternary = Ternary::new(Net::<A>::new(), &config).unwrap();
        let view = ternary.leaf_view();
        let grads = view.loss(tensor(&normal(&[4, 2, 7, 7], 2))).backward();
        let grads = view.pull_back(GradientsParams::from_grads(grads, &*view));
        let (_, scales) = ternary.parameter_groups();
        let of_rho = floats(grads.get::<Flex, 2>(scales[0]).unwrap());
        let size = of_rho.iter().fold(0.0, |size: f64, grad| size.max(grad.abs()));
        assert!(size > 0.1, "{quantizer:?}: the test must not compare zeros: {of_rho:?}");
        for pair in of_rho.chunks(2) {
            assert!((pair[0] + pair[1]).abs() < 1e-4 * size, "{quantizer:?}: {pair:?}");
        }
    }
}

#[test]
fn the_gradient_of_a_logarithm_is_that_of_its_scale_times_the_scale() {
    type A = Autodiff<Flex>;
    let selection =
        SelectionConfig { keep_first_convolution: false, keep_last_layer: false, ..SelectionConfig::default() };
    let gradients = [ScaleParameter::Logarithm, ScaleParameter::Linear].map(|parameter| {
        let quantizer = QuantizerConfig::ttq().with_scale_parameter(parameter);
        let ternary =
            Ternary::new(Net::<A>::new(), &TernaryConfig { quantizer, selection: selection.clone() }).unwrap();
        let grads = ternary.view().loss(tensor(&normal(&[4, 2, 7, 7], 2))).backward();
        let grads = GradientsParams::from_grads(grads, &ternary);
        floats(grads.get::<Flex, 2>(ternary.parameter_groups().1[0]).unwrap())
    });
    let quantizer: TernaryQuantizer<A> = QuantizerConfig::ttq().init().unwrap();
    let scales = floats(quantizer.initial_scales(Net::<A>::new().convolution.weight.val(), 0));
    for side in [0, 1] {
        let expected = scales[side] * gradients[1][side];
        assert!((gradients[0][side] - expected).abs() < 1e-5 * expected.abs(), "{gradients:?} {scales:?}");
    }
}
