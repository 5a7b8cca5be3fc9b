//! Threshold, ternary weight and gradients.

use burn::backend::{Autodiff, Flex};
use burn::prelude::*;
use burn::tensor::{DType, TensorData, f16};
use ttq_core::{Granularity, LatentGradient, NegativeScaleGradient, QuantizerConfig, TernaryQuantizer, Threshold};

use super::{Device, Fused, Plain, device};
use crate::numbers::{assert_near, code, groups, random, threshold};
use crate::{floats, print_line};

const THRESHOLDS: [Threshold; 8] = [
    Threshold::MaxFraction(0.05),
    Threshold::MaxFraction(1.0),
    Threshold::MeanFraction(0.7),
    Threshold::MeanFraction(0.0),
    Threshold::Sparsity(0.5),
    Threshold::Sparsity(0.0),
    Threshold::Sparsity(0.93),
    Threshold::Sparsity(1.0),
];

/// Shapes and the axis of the output channels: single elements, incomplete blocks, several parts per group, and the
/// channels as first, last and middle axis.
const SHAPES: [([usize; 4], usize); 11] = [
    ([1, 1, 1, 1], 0),
    ([1, 1, 1, 1], 1),
    ([5, 3, 3, 3], 0),
    ([33, 16, 3, 3], 0),
    ([3, 1000, 3, 3], 0),
    ([7, 4, 1, 1], 1),
    ([300, 33, 1, 1], 1),
    ([3000, 37, 1, 1], 1),
    ([2, 9, 1, 2], 1),
    ([40, 3, 31, 5], 1),
    ([4, 5, 6, 7], 3),
];

fn quantizer<B: Backend>(threshold: Threshold, granularity: Granularity) -> TernaryQuantizer<B> {
    QuantizerConfig { threshold, granularity, ..QuantizerConfig::ttq() }.init().expect("a valid configuration")
}

/// Weights of several kinds: both signs, negative only, all zero, all equal.
fn weight_kinds(n: usize) -> [Vec<f32>; 4] {
    let both = random(n, 1);
    [both.clone(), both.iter().map(|w| -w.abs()).collect(), vec![0.0; n], vec![0.25; n]]
}

fn scales_of(groups: usize) -> Vec<f32> {
    random(2 * groups, 7).iter().map(|scale| scale.abs() + 0.01).collect()
}

/// Compares codes, values and thresholds of one weight with the reference.
fn assert_forward_matches_reference<B: Backend>(
    quantizer: &TernaryQuantizer<B>,
    latent: Tensor<B, 4>,
    weights: &[f32],
    channel_axis: usize,
) {
    let (config, dims, device) = (quantizer.config(), latent.dims(), latent.device());
    let groups = groups(config.granularity, &dims, channel_axis);
    let scales = scales_of(groups.len());
    let pairs = Tensor::<B, 2>::from_data(TensorData::new(scales.clone(), [groups.len(), 2]), &device);
    assert!(ttq_cubecl::supports(&latent));
    let thresholds = floats(quantizer.threshold(latent.clone(), channel_axis));
    let codes: Vec<i32> = quantizer.codes(latent.clone(), channel_axis).into_data().iter().collect();
    let ternary = floats(quantizer.ternarize(latent, pairs, channel_axis));
    assert_eq!((thresholds.len(), ternary.len()), (groups.len(), weights.len()));
    for (group, indices) in groups.iter().enumerate() {
        let members: Vec<f32> = indices.iter().map(|index| weights[*index]).collect();
        let expected = threshold(config, &members);
        let delta = thresholds[group];
        match config.threshold {
            Threshold::MeanFraction(_) => assert_near(delta, expected, expected, "threshold"),
            _ => assert_eq!(delta, expected as f32, "{config:?} {dims:?}"),
        }
        for (index, weight) in indices.iter().zip(members) {
            let code = code(weight, delta);
            assert_eq!(codes[*index], code, "{config:?} {dims:?}");
            let value = [-scales[2 * group + 1], 0.0, scales[2 * group]][(code + 1) as usize];
            assert_eq!(ternary[*index], value, "{config:?} {dims:?}: weight {weight}, threshold {delta}");
        }
    }
}

fn assert_ternary_weights_match_reference<B: Backend<Device = Device>>() {
    let Some(device) = device() else { return };
    for (dims, channel_axis) in SHAPES {
        let n = dims.iter().product();
        // The reduction of several parts does not depend on the kind of the weights, so large weights are tested with
        // one kind.
        let taken = if n < 10_000 { 4 } else { 1 };
        for weights in weight_kinds(n).into_iter().take(taken) {
            let latent = Tensor::<B, 4>::from_data(TensorData::new(weights.clone(), dims), &device);
            for threshold in THRESHOLDS {
                for granularity in [Granularity::Tensor, Granularity::Channel] {
                    let quantizer = quantizer(threshold, granularity);
                    assert_forward_matches_reference(&quantizer, latent.clone(), &weights, channel_axis);
                }
            }
        }
    }
}

#[test]
fn the_ternary_weight_matches_the_reference() {
    assert_ternary_weights_match_reference::<Plain>();
}

#[test]
fn the_ternary_weight_matches_the_reference_with_fusion() {
    assert_ternary_weights_match_reference::<Fused>();
}

/// Compares all three gradients of one weight with the reference.
fn assert_gradients_match_reference<B: Backend>(
    quantizer: &TernaryQuantizer<B>,
    grad: Tensor<B, 4>,
    latent: Tensor<B, 4>,
    channel_axis: usize,
) {
    let (config, dims, device) = (*quantizer.config(), latent.dims(), latent.device());
    let groups = groups(config.granularity, &dims, channel_axis);
    let scales = scales_of(groups.len());
    let pairs = Tensor::<B, 2>::from_data(TensorData::new(scales.clone(), [groups.len(), 2]), &device);
    let thresholds = floats(quantizer.threshold(latent.clone(), channel_axis));
    let gradients = quantizer.gradients(grad.clone(), latent.clone(), pairs, channel_axis);
    let (grad, weights) = (floats(grad), floats(latent));
    let (of_latent, of_scales) = (floats(gradients.latent), floats(gradients.scales));
    assert_eq!((of_latent.len(), of_scales.len()), (weights.len(), scales.len()));
    for (group, indices) in groups.iter().enumerate() {
        let mut sums = [0.0, 0.0];
        let mut size = 0.0;
        for index in indices {
            let code = code(weights[*index], thresholds[group]);
            let slope = match config.latent_gradient {
                LatentGradient::Scaled => [scales[2 * group + 1], 1.0, scales[2 * group]][(code + 1) as usize],
                LatentGradient::Identity => 1.0,
                other => panic!("{other:?} has no definition in this test"),
            };
            assert_eq!(of_latent[*index], grad[*index] * slope, "{config:?} {dims:?}");
            sums[0] += if code == 1 { f64::from(grad[*index]) } else { 0.0 };
            sums[1] += if code == -1 { f64::from(grad[*index]) } else { 0.0 };
            size += f64::from(grad[*index].abs());
        }
        if config.negative_scale_gradient == NegativeScaleGradient::Exact {
            sums[1] = -sums[1];
        }
        assert_near(of_scales[2 * group], sums[0], size, "gradient of W_p");
        assert_near(of_scales[2 * group + 1], sums[1], size, "gradient of W_n");
    }
}

fn assert_all_gradients_match_reference<B: Backend<Device = Device>>() {
    let Some(device) = device() else { return };
    for (dims, channel_axis) in SHAPES {
        let n = dims.iter().product();
        let grad = Tensor::<B, 4>::from_data(TensorData::new(random(n, 3), dims), &device);
        let [both, one_sided, zeros, _] = weight_kinds(n);
        let [largest, mean, order] = [THRESHOLDS[0], THRESHOLDS[2], THRESHOLDS[4]];
        for (weights, threshold) in [(&both, largest), (&one_sided, mean), (&zeros, largest), (&both, order)] {
            let latent = Tensor::<B, 4>::from_data(TensorData::new(weights.clone(), dims), &device);
            for granularity in [Granularity::Tensor, Granularity::Channel] {
                for latent_gradient in [LatentGradient::Scaled, LatentGradient::Identity] {
                    for sign in [NegativeScaleGradient::Exact, NegativeScaleGradient::Published] {
                        let config = QuantizerConfig {
                            threshold,
                            granularity,
                            latent_gradient,
                            negative_scale_gradient: sign,
                            ..QuantizerConfig::ttq()
                        };
                        let quantizer = config.init().expect("a valid configuration");
                        assert_gradients_match_reference(&quantizer, grad.clone(), latent.clone(), channel_axis);
                    }
                }
            }
        }
    }
}

#[test]
fn the_gradients_match_the_reference() {
    assert_all_gradients_match_reference::<Plain>();
}

#[test]
fn the_gradients_match_the_reference_with_fusion() {
    assert_all_gradients_match_reference::<Fused>();
}

/// Views that are not row-major: transposed, sliced, expanded (stride zero), and fused with other operations.
fn assert_views_match_reference<B: Backend<Device = Device>>() {
    let Some(device) = device() else { return };
    let whole = Tensor::<B, 4>::from_data(TensorData::new(random(12 * 10 * 5 * 6, 5), [12, 10, 5, 6]), &device);
    let views = [
        whole.clone().swap_dims(0, 1),
        whole.clone().permute([3, 1, 0, 2]),
        whole.clone().slice([2..9, 1..8, 0..4, 3..6]),
        whole.clone().slice([0..1, 0..10, 0..5, 0..6]).expand([4, 10, 5, 6]),
        whole.swap_dims(2, 3).slice([3..12, 0..3, 1..6, 0..5]).mul_scalar(2.0).add_scalar(0.125),
    ];
    for latent in views {
        let grad = latent.clone().swap_dims(0, 3).cos().swap_dims(0, 3);
        for channel_axis in 0..4 {
            for granularity in [Granularity::Tensor, Granularity::Channel] {
                for threshold in [THRESHOLDS[0], THRESHOLDS[2], THRESHOLDS[4]] {
                    let quantizer = quantizer(threshold, granularity);
                    let weights = floats(latent.clone());
                    assert_forward_matches_reference(&quantizer, latent.clone(), &weights, channel_axis);
                    assert_gradients_match_reference(&quantizer, grad.clone(), latent.clone(), channel_axis);
                }
            }
        }
    }
}

#[test]
fn strided_views_match_the_reference() {
    assert_views_match_reference::<Plain>();
}

#[test]
fn strided_views_match_the_reference_with_fusion() {
    assert_views_match_reference::<Fused>();
}

#[test]
fn sums_over_millions_of_weights_are_reproducible() {
    let Some(device) = device() else { return };
    let dims = [1, 1, 3001, 1003];
    let n = dims.iter().product();
    let weights = random(n, 11);
    let latent = Tensor::<Plain, 4>::from_data(TensorData::new(weights.clone(), dims), &device);
    let grad = Tensor::<Plain, 4>::from_data(TensorData::new(random(n, 12), dims), &device);
    for threshold in [THRESHOLDS[0], THRESHOLDS[2], THRESHOLDS[4]] {
        let quantizer = quantizer(threshold, Granularity::Tensor);
        assert_forward_matches_reference(&quantizer, latent.clone(), &weights, 0);
        assert_gradients_match_reference(&quantizer, grad.clone(), latent.clone(), 0);
        let bits = || {
            let scales = Tensor::from_floats([[0.5, 2.0]], &device);
            let gradients = quantizer.gradients(grad.clone(), latent.clone(), scales, 0);
            let numbers = [floats(gradients.scales), floats(quantizer.threshold(latent.clone(), 0))].concat();
            numbers.into_iter().map(f32::to_bits).collect::<Vec<u32>>()
        };
        assert_eq!(bits(), bits());
    }
}

#[test]
fn half_precision_weights_keep_their_type() {
    let Some(device) = device() else { return };
    if !Plain::supports_dtype(&device, DType::F16) {
        return print_line("the device does not support float16: its test is skipped");
    }
    for (dims, channel_axis) in SHAPES {
        let n = dims.iter().product();
        let whole = |seed| Tensor::<Plain, 4>::from_data(TensorData::new(random(n, seed), dims), &device);
        let half = |seed| whole(seed).cast(DType::F16);
        let (latent, grad) = (half(1), half(2));
        assert_eq!(latent.dtype(), DType::F16);
        let (weights, slopes) = (floats(latent.clone()), floats(grad.clone()));
        for granularity in [Granularity::Tensor, Granularity::Channel] {
            let quantizer = quantizer::<Plain>(Threshold::MaxFraction(0.05), granularity);
            let groups = groups(granularity, &dims, channel_axis);
            let pairs = Tensor::<Plain, 2>::from_floats([[0.5, 2.0]], &device).repeat_dim(0, groups.len());
            let pairs = pairs.cast(DType::F16);
            let thresholds = floats(quantizer.threshold(latent.clone(), channel_axis));
            let ternary = quantizer.ternarize(latent.clone(), pairs.clone(), channel_axis);
            let gradients = quantizer.gradients(grad.clone(), latent.clone(), pairs, channel_axis);
            assert_eq!([ternary.dtype(), gradients.latent.dtype(), gradients.scales.dtype()], [DType::F16; 3]);
            let (ternary, of_latent, of_scales) = (floats(ternary), floats(gradients.latent), floats(gradients.scales));
            for (group, indices) in groups.iter().enumerate() {
                let largest = indices.iter().map(|index| weights[*index].abs()).fold(0.0, f32::max);
                assert!((thresholds[group] - 0.05 * largest).abs() <= 1e-3 * largest);
                let (mut sum, mut size) = (0.0, 0.0);
                for index in indices {
                    let code = code(weights[*index], thresholds[group]);
                    assert_eq!(ternary[*index], [-2.0, 0.0, 0.5][(code + 1) as usize]);
                    let expected = f16::from_f32(slopes[*index] * [2.0, 1.0, 0.5][(code + 1) as usize]);
                    assert_eq!(of_latent[*index], expected.to_f32());
                    sum += if code == 1 { slopes[*index] } else { 0.0 };
                    size += slopes[*index].abs();
                }
                assert!((of_scales[2 * group] - sum).abs() <= 1e-3 * size);
            }
        }
    }
}

#[test]
fn only_tensors_of_cubecl_backends_without_autodiff_are_supported() {
    let flex = Tensor::<Flex, 2>::ones([2, 3], &Default::default());
    assert!(!ttq_cubecl::supports(&flex) && !ttq_cubecl::supports(&Tensor::<Autodiff<Flex>, 2>::from_inner(flex)));
    let Some(device) = device() else { return };
    let plain = Tensor::<Plain, 2>::ones([2, 3], &device);
    assert!(ttq_cubecl::supports(&plain) && ttq_cubecl::supports(&Tensor::<Fused, 2>::ones([2, 3], &device)));
    assert!(!ttq_cubecl::supports(&Tensor::<Autodiff<Plain>, 2>::from_inner(plain)));
    assert!(!ttq_cubecl::supports(&Tensor::<Plain, 2>::ones([0, 3], &device)));
}
