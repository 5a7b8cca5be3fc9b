//! Weights and scales that are not finite.

use burn::backend::{Autodiff, Flex};
use burn::nn::{Linear, LinearConfig};
use burn::optim::{GradientsParams, Optimizer, SgdConfig};
use burn::prelude::*;
use burn::tensor::DType;
use burn_ndarray::NdArray;
use ttq_core::{QuantizerConfig, SCALE_FLOOR, ScaleRule, SelectionConfig, Ternary, TernaryConfig, TernaryQuantizer};
use ttq_cpu::Cpu;
use ttq_testing::normal;

use crate::{configs, floats, group_of, typed};

fn assert_nan_is_not_masked<B: Backend>() {
    // `Cpu` records the operations of the last two.
    for (dims, axis) in [([3, 3, 3, 3], 0), ([17, 4, 1, 1], 1), ([33, 4, 3, 3], 0), ([67, 16, 1, 1], 1)] {
        let n: usize = dims.iter().product();
        for spoiled in [f32::NAN, f32::NEG_INFINITY] {
            let mut data = normal(&dims, 1);
            data.as_mut_slice::<f32>().unwrap()[n / 2] = spoiled;
            let latent = typed::<B, 4>(&data, DType::F32);
            for config in configs() {
                let quantizer: TernaryQuantizer<B> = config.init().unwrap();
                let [(of_threshold, thresholds), (of_scales, scales)] =
                    [config.threshold_granularity, config.scale_granularity]
                        .map(|granularity| group_of(granularity, &dims, axis));
                let what = format!("{} with {spoiled} on {}", config.threshold, B::name(&latent.device()));

                let found = floats(quantizer.threshold(latent.clone(), axis));
                for (group, delta) in found.into_iter().enumerate().take(thresholds) {
                    assert_eq!(delta.is_nan(), group == of_threshold[n / 2], "{what}: threshold {group}");
                }
                let ones = typed::<B, 2>(&burn::tensor::TensorData::ones::<f32, _>([scales, 2]), DType::F32);
                let ternary = floats(quantizer.ternarize(latent.clone(), ones.clone(), axis));
                for (index, value) in ternary.into_iter().enumerate() {
                    let same_threshold = of_threshold[index] == of_threshold[n / 2];
                    // With a threshold per channel and one pair of scales, tensor operations spoil the whole weight.
                    let same = same_threshold || (thresholds > scales);
                    assert!(value.is_nan() || !same_threshold, "{what}: weight {index} is {value}");
                    assert!(!value.is_nan() || same, "{what}: weight {index} is NaN");
                }
                for rule in [ScaleRule::Learned, ScaleRule::SideMeans, ScaleRule::SharedMean, ScaleRule::OverallMean] {
                    let quantizer: TernaryQuantizer<B> = config.with_scales(rule).init().unwrap();
                    for found in [
                        quantizer.measured_scales(latent.clone(), axis),
                        quantizer.initial_scales(latent.clone(), axis),
                    ] {
                        let found = floats(found);
                        let pair = of_scales[n / 2];
                        assert!(found[2 * pair].is_nan() && found[2 * pair + 1].is_nan(), "{what}: {rule:?} {found:?}");
                    }
                }
                let grad = latent.ones_like();
                let ternary = quantizer.ternarize(latent.clone(), ones.clone(), axis);
                let gradients = quantizer.gradients(grad, ternary, ones, axis);
                assert!(floats(gradients.latent)[n / 2].is_nan(), "{what}: latent gradient");
                assert!(floats(gradients.scales)[2 * of_scales[n / 2]].is_nan(), "{what}: gradient of W_p");
            }
        }
    }
}

#[test]
fn nan_is_never_masked() {
    assert_nan_is_not_masked::<Flex>();
    assert_nan_is_not_masked::<Cpu>();
    assert_nan_is_not_masked::<NdArray>();
    assert_nan_is_not_masked::<Autodiff<Flex>>();
}

fn assert_nan_scales_are_not_masked<B: Backend>() {
    let (dims, axis) = ([6, 5], 1);
    let latent = typed::<B, 2>(&normal(&dims, 1), DType::F32);
    for config in configs() {
        let quantizer: TernaryQuantizer<B> = config.init().unwrap();
        let scales = quantizer.initial_scales(latent.clone(), axis);
        let spoiled = scales.clone().mul_scalar(f32::NAN);
        let codes = floats(quantizer.codes(latent.clone(), axis).float());
        let ternary = floats(quantizer.ternarize(latent.clone(), spoiled, axis));
        assert!(ternary.into_iter().zip(codes).all(|(value, code)| code == 0.0 || value.is_nan()), "{config:?}");
    }
}

#[test]
fn a_nan_scale_makes_its_ternary_weights_nan() {
    assert_nan_scales_are_not_masked::<Flex>();
    assert_nan_scales_are_not_masked::<Cpu>();
    assert_nan_scales_are_not_masked::<NdArray>();
}

/// Trains one step in which the gradient of W_p is NaN and that of W_n so large that a linear W_n would become negative.
/// Returns W_p and W_n.
fn scales_after_a_nan<B: Backend>(quantizer: QuantizerConfig) -> [f64; 2] {
    let selection = SelectionConfig { keep_last_layer: false, ..SelectionConfig::default() };
    let model: Linear<Autodiff<B>> = LinearConfig::new(4, 3).init(&Default::default());
    let ternary = Ternary::new(model, &TernaryConfig { quantizer, selection }).unwrap();
    let mut grads = GradientsParams::new();
    let (_, scales) = ternary.parameter_groups();
    grads.register(scales[0], Tensor::<B, 2>::from_floats([[f32::NAN, 100.0]], &Default::default()));
    let mut optimizer = SgdConfig::new().init::<Autodiff<B>, Ternary<Autodiff<B>, Linear<Autodiff<B>>>>();
    let layer = &optimizer.step(0.1, ternary, grads).after_step().stats().layers[0];
    [layer.w_pos, layer.w_neg]
}

#[test]
fn a_nan_scale_stays_nan_when_scales_are_clamped() {
    for config in [QuantizerConfig::ttq(), QuantizerConfig::paper()] {
        for scales in [
            scales_after_a_nan::<Flex>(config),
            scales_after_a_nan::<Cpu>(config),
            scales_after_a_nan::<NdArray>(config),
        ] {
            assert!(scales[0].is_nan() && scales[1] > 0.0, "{config:?}: {scales:?}");
            assert_eq!(
                scales[1] == f64::from(SCALE_FLOOR as f32),
                config == QuantizerConfig::paper(),
                "{config:?}: {scales:?}"
            );
        }
    }
}
