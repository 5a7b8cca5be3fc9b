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

/// The granularities of threshold and scales.
const GRANULARITIES: [[Granularity; 2]; 4] = [
    [Granularity::Tensor, Granularity::Tensor],
    [Granularity::Channel, Granularity::Channel],
    [Granularity::Tensor, Granularity::Channel],
    [Granularity::Channel, Granularity::Tensor],
];

fn config(threshold: Threshold, [of_threshold, of_scales]: [Granularity; 2]) -> QuantizerConfig {
    QuantizerConfig::ttq()
        .with_threshold(threshold)
        .with_threshold_granularity(of_threshold)
        .with_scale_granularity(of_scales)
}

fn quantizer<B: Backend>(threshold: Threshold, granularities: [Granularity; 2]) -> TernaryQuantizer<B> {
    config(threshold, granularities).init().expect("a valid configuration")
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
    let [of_threshold, of_scales] = [config.threshold_granularity, config.scale_granularity]
        .map(|granularity| groups(granularity, &dims, channel_axis));
    let scales = scales_of(of_scales.len());
    let pairs = Tensor::<B, 2>::from_data(TensorData::new(scales.clone(), [of_scales.len(), 2]), &device);
    assert!(ttq_cubecl::supports(&latent));
    let thresholds = floats(quantizer.threshold(latent.clone(), channel_axis));
    let codes: Vec<i32> = quantizer.codes(latent.clone(), channel_axis).into_data().iter().collect();
    let ternary = floats(quantizer.ternarize(latent, pairs, channel_axis));
    assert_eq!((thresholds.len(), ternary.len()), (of_threshold.len(), weights.len()));
    for (group, indices) in of_threshold.iter().enumerate() {
        let members: Vec<f32> = indices.iter().map(|index| weights[*index]).collect();
        let expected = threshold(config, &members);
        let delta = thresholds[group];
        match config.threshold {
            Threshold::MeanFraction(_) => assert_near(delta, expected, expected, "threshold"),
            _ => assert_eq!(delta, expected as f32, "{config:?} {dims:?}"),
        }
        for (index, weight) in indices.iter().zip(members) {
            assert_eq!(codes[*index], code(weight, delta), "{config:?} {dims:?}: weight {weight}, threshold {delta}");
        }
    }
    for (group, indices) in of_scales.iter().enumerate() {
        for index in indices {
            let value = [-scales[2 * group + 1], 0.0, scales[2 * group]][(codes[*index] + 1) as usize];
            assert_eq!(ternary[*index], value, "{config:?} {dims:?}");
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
                for granularities in GRANULARITIES {
                    let quantizer = quantizer(threshold, granularities);
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
    let groups = groups(config.scale_granularity, &dims, channel_axis);
    let scales = scales_of(groups.len());
    let pairs = Tensor::<B, 2>::from_data(TensorData::new(scales.clone(), [groups.len(), 2]), &device);
    let codes: Vec<i32> = quantizer.codes(latent.clone(), channel_axis).into_data().iter().collect();
    let ternary = quantizer.ternarize(latent, pairs.clone(), channel_axis);
    let gradients = quantizer.gradients(grad.clone(), ternary, pairs, channel_axis);
    let grad = floats(grad);
    let (of_latent, of_scales) = (floats(gradients.latent), floats(gradients.scales));
    assert_eq!((of_latent.len(), of_scales.len()), (grad.len(), scales.len()));
    for (group, indices) in groups.iter().enumerate() {
        let mut sums = [0.0, 0.0];
        let mut size = 0.0;
        let [w_pos, w_neg] = [scales[2 * group], scales[2 * group + 1]];
        let slopes = match config.latent_gradient {
            LatentGradient::Relative => [w_neg, (w_pos + w_neg) / 2.0, w_pos].map(|w| w / ((w_pos + w_neg) / 2.0)),
            LatentGradient::Scaled => [w_neg, 1.0, w_pos],
            LatentGradient::Identity => [1.0; 3],
            other => panic!("{other:?} has no definition in this test"),
        };
        for index in indices {
            let code = codes[*index];
            let expected = grad[*index] * slopes[(code + 1) as usize];
            // Devices round a quotient to two or three units.
            let tolerance = if config.latent_gradient == LatentGradient::Relative { 1e-6 } else { 0.0 };
            let error = (of_latent[*index] - expected).abs();
            assert!(error <= tolerance * expected.abs(), "{config:?} {dims:?}: {} {expected}", of_latent[*index]);
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
            for granularities in GRANULARITIES {
                for latent_gradient in [LatentGradient::Relative, LatentGradient::Scaled, LatentGradient::Identity] {
                    for sign in [NegativeScaleGradient::Exact, NegativeScaleGradient::Published] {
                        let config = config(threshold, granularities)
                            .with_latent_gradient(latent_gradient)
                            .with_negative_scale_gradient(sign);
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

/// A gradient in 16 bits of a weight in 32.
fn assert_gradients_of_another_type_match<B: Backend<Device = Device>>() {
    let Some(device) = device() else { return };
    let (dims, n) = ([3, 5, 2, 4], 120);
    let latent = Tensor::<B, 4>::from_data(TensorData::new(random(n, 5), dims), &device);
    let grad = Tensor::<B, 4>::from_data(TensorData::new(random(n, 3), dims), &device).cast(DType::F16);
    let quantizer: TernaryQuantizer<B> = QuantizerConfig::ttq().init().expect("a valid configuration");
    let pairs = Tensor::<B, 2>::from_data([[0.5, 0.25]], &device);
    let ternary = quantizer.ternarize(latent, pairs.clone(), 0);
    let of = |grad: Tensor<B, 4>| quantizer.gradients(grad, ternary.clone(), pairs.clone(), 0);
    let [found, expected] = [of(grad.clone()), of(grad.cast(DType::F32))];
    assert_eq!(floats(found.latent), floats(expected.latent));
    assert_eq!(floats(found.scales), floats(expected.scales));
}

#[test]
fn a_gradient_of_another_type_is_converted() {
    assert_gradients_of_another_type_match::<Plain>();
    assert_gradients_of_another_type_match::<Fused>();
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
            for granularities in GRANULARITIES {
                for threshold in [THRESHOLDS[0], THRESHOLDS[2], THRESHOLDS[4]] {
                    let quantizer = quantizer(threshold, granularities);
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
        let quantizer = quantizer(threshold, GRANULARITIES[0]);
        assert_forward_matches_reference(&quantizer, latent.clone(), &weights, 0);
        assert_gradients_match_reference(&quantizer, grad.clone(), latent.clone(), 0);
        let bits = || {
            let scales = Tensor::from_floats([[0.5, 2.0]], &device);
            let ternary = quantizer.ternarize(latent.clone(), scales, 0);
            let scales = Tensor::from_floats([[0.5, 2.0]], &device);
            let gradients = quantizer.gradients(grad.clone(), ternary, scales, 0);
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
            let quantizer: TernaryQuantizer<Plain> = config(Threshold::MaxFraction(0.05), [granularity; 2])
                .with_latent_gradient(LatentGradient::Scaled)
                .init()
                .expect("a valid configuration");
            let groups = groups(granularity, &dims, channel_axis);
            let pairs = Tensor::<Plain, 2>::from_floats([[0.5, 2.0]], &device).repeat_dim(0, groups.len());
            let pairs = pairs.cast(DType::F16);
            let thresholds = floats(quantizer.threshold(latent.clone(), channel_axis));
            let ternary = quantizer.ternarize(latent.clone(), pairs.clone(), channel_axis);
            let gradients = quantizer.gradients(grad.clone(), ternary.clone(), pairs, channel_axis);
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

fn assert_nan_is_not_masked<B: Backend<Device = Device>>() {
    let Some(device) = device() else { return };
    // The largest weights of these have several parts for each group.
    for (dims, axis) in [SHAPES[1], SHAPES[2], SHAPES[4], SHAPES[6]] {
        for spoiled in [f32::NAN, f32::NEG_INFINITY] {
            let n = dims.iter().product();
            let mut weights = random(n, 1);
            weights[n / 2] = spoiled;
            let latent = Tensor::<B, 4>::from_data(TensorData::new(weights, dims), &device);
            let grad = Tensor::<B, 4>::ones(dims, &device);
            for threshold in [THRESHOLDS[0], THRESHOLDS[2], THRESHOLDS[4], THRESHOLDS[5]] {
                for [of_threshold, of_scales] in GRANULARITIES {
                    let quantizer = quantizer::<B>(threshold, [of_threshold, of_scales]);
                    let spoiled_group = |granularity| {
                        let groups = groups(granularity, &dims, axis);
                        (0..groups.len()).map(|g| groups[g].contains(&(n / 2))).collect::<Vec<bool>>()
                    };
                    let pairs = Tensor::<B, 2>::ones([spoiled_group(of_scales).len(), 2], &device);
                    let thresholds = floats(quantizer.threshold(latent.clone(), axis));
                    let nans: Vec<bool> = thresholds.iter().map(|delta| delta.is_nan()).collect();
                    assert_eq!(nans, spoiled_group(of_threshold), "{threshold}");
                    let ternary = quantizer.ternarize(latent.clone(), pairs.clone(), axis);
                    let gradients = quantizer.gradients(grad.clone(), ternary.clone(), pairs, axis);
                    let ternary = floats(ternary);
                    let of_latent = floats(gradients.latent);
                    for (indices, spoiled) in groups(of_threshold, &dims, axis).iter().zip(nans) {
                        assert!(indices.iter().all(|index| ternary[*index].is_nan() == spoiled), "{threshold}");
                        assert!(!spoiled || of_latent[n / 2].is_nan(), "{threshold}");
                    }
                    let of_scales_are_nan =
                        floats(gradients.scales).chunks(2).map(|pair| pair[0].is_nan()).collect::<Vec<_>>();
                    let measured = floats(quantizer.measured_scales(latent.clone(), axis));
                    for (group, spoiled) in spoiled_group(of_scales).into_iter().enumerate() {
                        assert!(!spoiled || (of_scales_are_nan[group] && measured[2 * group].is_nan()), "{threshold}");
                    }
                }
            }
        }
    }
}

#[test]
fn nan_is_never_masked() {
    assert_nan_is_not_masked::<Plain>();
}

#[test]
fn nan_is_never_masked_with_fusion() {
    assert_nan_is_not_masked::<Fused>();
}

#[test]
fn multiplying_latents_and_scales_changes_nothing_but_units() {
    let Some(device) = device() else { return };
    // A power of two: every product is exact.
    let c = 8.0;
    for (dims, axis) in SHAPES {
        let n = dims.iter().product();
        let [latent, grad] =
            [1, 2].map(|seed| Tensor::<Plain, 4>::from_data(TensorData::new(random(n, seed), dims), &device));
        for threshold in [THRESHOLDS[0], THRESHOLDS[2], THRESHOLDS[4]] {
            for granularities in GRANULARITIES {
                let quantizer = quantizer::<Plain>(threshold, granularities);
                let groups = granularities[1].groups(&dims, axis);
                let pairs = Tensor::<Plain, 2>::from_data(TensorData::new(scales_of(groups), [groups, 2]), &device);
                let ternary = quantizer.ternarize(latent.clone(), pairs.clone(), axis);
                let plain = quantizer.gradients(grad.clone(), ternary.clone(), pairs.clone(), axis);
                let (latent, pairs) = (latent.clone().mul_scalar(c), pairs.mul_scalar(c));
                let grad = grad.clone().div_scalar(c);
                let large = quantizer.ternarize(latent, pairs.clone(), axis);
                assert_eq!(floats(large.clone()), floats(ternary.mul_scalar(c)));
                let found = quantizer.gradients(grad, large, pairs, axis);
                assert_eq!(floats(found.latent), floats(plain.latent.div_scalar(c)));
                assert_eq!(floats(found.scales), floats(plain.scales.div_scalar(c)));
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
