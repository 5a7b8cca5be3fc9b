//! Compares the quantizer with its definition written as loops, for every threshold, scale rule and pair of
//! granularities, and its gradients with finite differences.

use burn::backend::{Autodiff, Flex};
use burn::prelude::*;
use ttq_core::{
    Granularity, LatentGradient, NegativeScaleGradient, QuantizerConfig, SCALE_FLOOR, ScaleRule, TernaryQuantizer,
    Threshold,
};
use ttq_cpu::Cpu;
use ttq_testing::{normal, tensor, uniform};

type B = Flex;
type A = Autodiff<Flex>;

const THRESHOLDS: [Threshold; 6] = [
    Threshold::MaxFraction(0.05),
    Threshold::MaxFraction(0.3),
    Threshold::MeanFraction(0.7),
    Threshold::MeanFraction(0.5),
    Threshold::Sparsity(0.5),
    Threshold::Sparsity(0.9),
];
const RULES: [ScaleRule; 4] = [ScaleRule::Learned, ScaleRule::SideMeans, ScaleRule::SharedMean, ScaleRule::OverallMean];
const SLOPES: [LatentGradient; 3] = [LatentGradient::Relative, LatentGradient::Scaled, LatentGradient::Identity];

/// The granularities of threshold and scales.
const GRANULARITIES: [[Granularity; 2]; 4] = [
    [Granularity::Tensor, Granularity::Tensor],
    [Granularity::Channel, Granularity::Channel],
    [Granularity::Tensor, Granularity::Channel],
    [Granularity::Channel, Granularity::Tensor],
];

/// Returns every combination of threshold, scale rule and granularities.
fn configs() -> impl Iterator<Item = QuantizerConfig> {
    THRESHOLDS.into_iter().flat_map(|threshold| {
        RULES.into_iter().flat_map(move |scales| {
            GRANULARITIES.into_iter().map(move |[of_threshold, of_scales]| {
                QuantizerConfig { threshold, scales, ..QuantizerConfig::ttq() }
                    .with_threshold_granularity(of_threshold)
                    .with_scale_granularity(of_scales)
            })
        })
    })
}

fn mean(values: &[f32]) -> f32 {
    (values.iter().map(|value| f64::from(*value)).sum::<f64>() / values.len() as f64) as f32
}

/// Computes the threshold of one group of weights by the definition.
fn naive_threshold(config: &QuantizerConfig, weights: &[f32]) -> f32 {
    let mut magnitudes: Vec<f32> = weights.iter().map(|w| w.abs()).collect();
    let mean = mean(&magnitudes);
    magnitudes.sort_by(f32::total_cmp);
    match config.threshold {
        Threshold::MaxFraction(t) => t as f32 * magnitudes[magnitudes.len() - 1],
        Threshold::MeanFraction(f) => f as f32 * mean,
        Threshold::Sparsity(r) => match (r * weights.len() as f64 + 0.5).floor() as usize {
            0 => 0.0,
            zeros => magnitudes[zeros - 1],
        },
        other => panic!("{other} has no definition in this test"),
    }
}

/// Computes the measured scales of one group of weights and their codes by the definition.
fn naive_scales(config: &QuantizerConfig, weights: &[f32], codes: &[i32]) -> [f32; 2] {
    let overall = mean(&weights.iter().map(|w| w.abs()).collect::<Vec<f32>>());
    let mean_over = |keep: &dyn Fn(i32) -> bool| {
        let kept: Vec<f32> = weights.iter().zip(codes).filter(|(_, c)| keep(**c)).map(|(w, _)| w.abs()).collect();
        (!kept.is_empty()).then(|| mean(&kept))
    };
    let shared = mean_over(&|code| code != 0).unwrap_or(overall);
    let scales = match config.scales {
        ScaleRule::Learned | ScaleRule::SideMeans => {
            [mean_over(&|code| code == 1).unwrap_or(shared), mean_over(&|code| code == -1).unwrap_or(shared)]
        }
        ScaleRule::SharedMean => [shared, shared],
        ScaleRule::OverallMean => [overall, overall],
        other => panic!("{other:?} has no definition in this test"),
    };
    scales.map(|scale| scale.max(SCALE_FLOOR as f32))
}

/// Returns the groups of a flattened `[a, b, c, d]` weight as lists of flat indices.
fn groups(granularity: Granularity, dims: [usize; 4], channel_axis: usize) -> Vec<Vec<usize>> {
    let total = dims.iter().product::<usize>();
    match granularity {
        Granularity::Tensor => vec![(0..total).collect()],
        Granularity::Channel => {
            let stride: usize = dims[channel_axis + 1..].iter().product();
            let channel = |flat: usize| flat / stride % dims[channel_axis];
            (0..dims[channel_axis]).map(|c| (0..total).filter(|flat| channel(*flat) == c).collect()).collect()
        }
        other => panic!("{other:?} has no definition in this test"),
    }
}

fn floats<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Vec<f32> {
    tensor.into_data().iter().collect()
}

/// Shapes and axes of weights. `Cpu` records the operations of the last two.
const SHAPES: [([usize; 4], usize); 6] = [
    ([5, 3, 3, 3], 0),
    ([7, 4, 1, 1], 1),
    ([1, 1, 1, 1], 0),
    ([2, 9, 1, 2], 1),
    ([37, 6, 3, 3], 0),
    ([41, 29, 1, 1], 1),
];

#[test]
fn every_combination_of_rules_equals_the_definition() {
    assert_equals_the_definition::<Flex>();
    assert_equals_the_definition::<Cpu>();
}

fn assert_equals_the_definition<B: Backend>() {
    for (dims, channel_axis) in SHAPES {
        let latent = tensor::<B, 4>(&normal(&dims, 1)) * 0.1 + 0.02;
        let weights = floats(latent.clone());
        for config in configs() {
            let quantizer: TernaryQuantizer<B> = config.init().unwrap();
            let scales = quantizer.measured_scales(latent.clone(), channel_axis);
            let thresholds = floats(quantizer.threshold(latent.clone(), channel_axis));
            let codes: Vec<i32> = quantizer.codes(latent.clone(), channel_axis).into_data().iter().collect();
            let ternary = floats(quantizer.ternarize(latent.clone(), scales.clone(), channel_axis));
            let scales = floats(scales);
            for (group, indices) in groups(config.threshold_granularity, dims, channel_axis).iter().enumerate() {
                let members: Vec<f32> = indices.iter().map(|i| weights[*i]).collect();
                let delta = naive_threshold(&config, &members);
                assert!((thresholds[group] - delta).abs() <= 1e-6 * delta, "{config:?}");
                for (index, weight) in indices.iter().zip(members) {
                    let code = i32::from(weight > thresholds[group]) - i32::from(weight < -thresholds[group]);
                    assert_eq!(codes[*index], code, "{config:?} {dims:?}");
                }
            }
            for (group, indices) in groups(config.scale_granularity, dims, channel_axis).iter().enumerate() {
                let members: Vec<f32> = indices.iter().map(|i| weights[*i]).collect();
                let member_codes: Vec<i32> = indices.iter().map(|i| codes[*i]).collect();
                let [w_pos, w_neg] = naive_scales(&config, &members, &member_codes);
                assert!((scales[2 * group] - w_pos).abs() <= 2e-6 * w_pos, "{config:?}");
                assert!((scales[2 * group + 1] - w_neg).abs() <= 2e-6 * w_neg, "{config:?}");
                for (index, code) in indices.iter().zip(member_codes) {
                    let value = [-scales[2 * group + 1], 0.0, scales[2 * group]][(code + 1) as usize];
                    assert_eq!(ternary[*index], value, "{config:?}: the three values are exact");
                }
            }
        }
    }
}

#[test]
fn autodiff_and_closed_form_give_the_same_gradients() {
    assert_closed_form_equals_autodiff::<Flex>([6, 4, 3, 3]);
    assert_closed_form_equals_autodiff::<Cpu>([31, 4, 3, 3]);
}

fn assert_closed_form_equals_autodiff<B: Backend>(dims: [usize; 4]) {
    type A<B> = Autodiff<B>;
    for [of_threshold, of_scales] in GRANULARITIES {
        for latent_gradient in SLOPES {
            for sign in [NegativeScaleGradient::Exact, NegativeScaleGradient::Published] {
                let config = QuantizerConfig::ttq()
                    .with_threshold_granularity(of_threshold)
                    .with_scale_granularity(of_scales)
                    .with_latent_gradient(latent_gradient)
                    .with_negative_scale_gradient(sign);
                let latent = (tensor::<A<B>, 4>(&normal(&dims, 2)) * 0.1).require_grad();
                let grad = tensor::<A<B>, 4>(&normal(&dims, 3));
                let groups = of_scales.groups(&dims, 0);
                let scales = (tensor::<A<B>, 2>(&uniform(&[groups, 2], 4)) + 1.1).require_grad();
                let quantizer: TernaryQuantizer<A<B>> = config.init().unwrap();
                let ternary = quantizer.ternarize(latent.clone(), scales.clone(), 0);
                let grads = (ternary.clone() * grad.clone()).sum().backward();
                let closed = quantizer.on::<B>().gradients(grad.inner(), ternary.inner(), scales.clone().inner(), 0);
                let latent = latent.grad(&grads).unwrap();
                let scales = scales.grad(&grads).unwrap();
                latent.into_data().assert_approx_eq::<f32>(&closed.latent.into_data(), Default::default());
                scales.into_data().assert_approx_eq::<f32>(&closed.scales.into_data(), Default::default());
            }
        }
    }
}

#[test]
fn latent_gradients_equal_their_equations() {
    assert_latent_gradients::<Flex>([5, 4, 3, 2], 1);
    assert_latent_gradients::<Cpu>([13, 11, 3, 5], 1);
    assert_latent_gradients::<Cpu>([13, 11, 3, 5], 0);
}

fn assert_latent_gradients<B: Backend>(dims: [usize; 4], axis: usize) {
    let latent = tensor::<B, 4>(&normal(&dims, 5)) * 0.1;
    let grad = tensor::<B, 4>(&normal(&dims, 6));
    for [of_threshold, of_scales] in GRANULARITIES {
        for latent_gradient in SLOPES {
            let config = QuantizerConfig::ttq()
                .with_threshold(Threshold::MeanFraction(0.7))
                .with_threshold_granularity(of_threshold)
                .with_scale_granularity(of_scales)
                .with_latent_gradient(latent_gradient);
            let quantizer: TernaryQuantizer<B> = config.init().unwrap();
            let groups = groups(of_scales, dims, axis);
            let scales = tensor::<B, 2>(&uniform(&[groups.len(), 2], 7)).abs() + 0.1;
            let ternary = quantizer.ternarize(latent.clone(), scales.clone(), axis);
            let gradients = quantizer.gradients(grad.clone(), ternary, scales.clone(), axis);
            let codes: Vec<i32> = quantizer.codes(latent.clone(), axis).into_data().iter().collect();
            let [found, grad, scales, of_scales] =
                [floats(gradients.latent), floats(grad.clone()), floats(scales), floats(gradients.scales)];
            for (group, indices) in groups.iter().enumerate() {
                let [w_pos, w_neg] = [scales[2 * group], scales[2 * group + 1]];
                let slopes = match latent_gradient {
                    LatentGradient::Relative => [w_neg / ((w_pos + w_neg) / 2.0), 1.0, w_pos / ((w_pos + w_neg) / 2.0)],
                    LatentGradient::Scaled => [w_neg, 1.0, w_pos],
                    _ => [1.0; 3],
                };
                let mut sums = [0f64; 2];
                for index in indices {
                    let expected = grad[*index] * slopes[(codes[*index] + 1) as usize];
                    assert!((found[*index] - expected).abs() <= 1e-6 * expected.abs(), "{config:?}");
                    sums[0] += if codes[*index] == 1 { f64::from(grad[*index]) } else { 0.0 };
                    sums[1] -= if codes[*index] == -1 { f64::from(grad[*index]) } else { 0.0 };
                }
                assert!((f64::from(of_scales[2 * group]) - sums[0]).abs() < 1e-4, "{config:?}");
                assert!((f64::from(of_scales[2 * group + 1]) - sums[1]).abs() < 1e-4, "{config:?}");
            }
        }
    }
}

/// Computes the loss `L(W_p, W_n)` of a small nonlinear network with one ternary weight, in float32.
fn loss<B: Backend>(quantizer: &TernaryQuantizer<B>, latent: Tensor<B, 2>, scales: Tensor<B, 2>) -> Tensor<B, 1> {
    let device = latent.device();
    let input = Tensor::<B, 2>::from_floats([[0.4, -1.1, 0.3], [1.2, 0.5, -0.7]], &device);
    let output = input.matmul(quantizer.ternarize(latent, scales, 1)).tanh();
    (output - 0.3).powf_scalar(2.0).sum()
}

/// Returns the gradients of W_p and W_n from autodiff and from central differences.
fn scale_gradients(sign: NegativeScaleGradient) -> ([f32; 2], [f32; 2]) {
    let device = Default::default();
    let latent = [[0.3, -0.2], [-0.6, 0.01], [0.15, 0.5]];
    let scales = [0.7f32, 0.4];
    let config = QuantizerConfig { negative_scale_gradient: sign, ..QuantizerConfig::ttq() };
    let quantizer: TernaryQuantizer<A> = config.init().unwrap();
    let tracked = Tensor::<A, 2>::from_floats([scales], &device).require_grad();
    let grads = loss(&quantizer, Tensor::from_floats(latent, &device), tracked.clone()).backward();
    let analytic = floats(tracked.grad(&grads).unwrap());
    let at = |scales: [f32; 2]| {
        let scales = Tensor::<B, 2>::from_floats([scales], &device);
        floats(loss(&quantizer.on::<B>(), Tensor::from_floats(latent, &device), scales))[0]
    };
    let h = 1e-2;
    let numeric = [
        (at([scales[0] + h, scales[1]]) - at([scales[0] - h, scales[1]])) / (2.0 * h),
        (at([scales[0], scales[1] + h]) - at([scales[0], scales[1] - h])) / (2.0 * h),
    ];
    ([analytic[0], analytic[1]], numeric)
}

#[test]
fn gradients_of_both_scales_equal_finite_differences() {
    let (analytic, numeric) = scale_gradients(NegativeScaleGradient::Exact);
    for (analytic, numeric) in analytic.into_iter().zip(numeric) {
        assert!(numeric.abs() > 0.05, "the test must not compare zeros");
        assert!((analytic - numeric).abs() < 2e-3 * numeric.abs(), "{analytic} against {numeric}");
    }
}

#[test]
fn the_published_gradient_of_w_n_has_the_wrong_sign() {
    let (analytic, numeric) = scale_gradients(NegativeScaleGradient::Published);
    assert!((analytic[0] - numeric[0]).abs() < 2e-3 * numeric[0].abs());
    assert!((analytic[1] + numeric[1]).abs() < 2e-3 * numeric[1].abs(), "the sign is reversed");
}

#[test]
#[should_panic(expected = "ternarize: the scales of a weight [4, 3] must have shape [1, 2], found [3, 2]")]
fn scales_of_the_wrong_shape_panic_with_both_shapes() {
    let device = Default::default();
    let quantizer: TernaryQuantizer<B> = QuantizerConfig::ttq().init().unwrap();
    quantizer.ternarize(Tensor::<B, 2>::ones([4, 3], &device), Tensor::ones([3, 2], &device), 1);
}
