//! Types of weights other than float32.

use burn::backend::{Autodiff, Flex};
use burn::tensor::{DType, TensorData};
use ttq_core::{QuantizerConfig, ScaleRule, TernaryQuantizer, Threshold};
use ttq_testing::normal;

use crate::{configs, floats, typed};

type B = Flex;

/// Relative error of one rounding.
fn rounding(dtype: DType) -> f64 {
    if dtype == DType::F16 { 2f64.powi(-11) } else { 2f64.powi(-8) }
}

fn assert_rounded(found: &[f64], exact: &[f64], roundings: f64, dtype: DType, what: &str) {
    for (found, exact) in found.iter().zip(exact) {
        let tolerance = roundings * rounding(dtype) * exact.abs() + 1e-7;
        assert!((found - exact).abs() <= tolerance, "{what}: {found} instead of {exact}");
    }
}

#[test]
fn weights_of_16_bits_keep_their_type_and_round_only_results() {
    let (dims, axis) = ([6, 4, 3, 3], 0);
    for dtype in [DType::F16, DType::BF16] {
        for config in configs() {
            let quantizer: TernaryQuantizer<B> = config.init().unwrap();
            let latent = typed::<B, 4>(&normal(&dims, 1), dtype);
            let grad = typed::<B, 4>(&normal(&dims, 2), dtype);
            let [wide, wide_grad] = [&latent, &grad].map(|tensor| tensor.clone().cast(DType::F32));
            let what = format!("{config:?} in {dtype:?}");

            let threshold = quantizer.threshold(latent.clone(), axis);
            assert_eq!(threshold.dtype(), dtype);
            assert_rounded(&floats(threshold), &floats(quantizer.threshold(wide.clone(), axis)), 1.0, dtype, &what);

            let scales = quantizer.initial_scales(latent.clone(), axis);
            assert_eq!(scales.dtype(), dtype);
            let ternary = quantizer.ternarize(latent.clone(), scales.clone(), axis);
            assert_eq!(ternary.dtype(), dtype);
            let codes = floats(quantizer.codes(latent.clone(), axis).float());
            let pairs = floats(scales.clone());
            for (index, value) in floats(ternary.clone()).into_iter().enumerate() {
                let group = if pairs.len() == 2 { 0 } else { index / 36 };
                let expected = [-pairs[2 * group + 1], 0.0, pairs[2 * group]][(codes[index] + 1.0) as usize];
                assert_eq!(value, expected, "{what}: the three values are exact");
            }

            let gradients = quantizer.gradients(grad, ternary, scales.clone(), axis);
            assert_eq!([gradients.latent.dtype(), gradients.scales.dtype()], [dtype; 2]);
            if let Threshold::MeanFraction(_) = config.threshold {
                continue; // A rounded threshold can change codes.
            }
            let scales = scales.cast(DType::F32);
            let ternary = quantizer.ternarize(wide, scales.clone(), axis);
            let exact = quantizer.gradients(wide_grad, ternary, scales, axis);
            if config.threshold == Threshold::Sparsity(0.5) {
                assert_rounded(&floats(gradients.latent), &floats(exact.latent), 1.0, dtype, &what);
                assert_rounded(&floats(gradients.scales), &floats(exact.scales), 1.0, dtype, &what);
            }
        }
    }
}

#[test]
fn scales_may_have_another_type_than_the_weight() {
    let (dims, types) = ([5, 7], [DType::F16, DType::BF16, DType::F32, DType::F64]);
    for dtype in types {
        for of_scales in types {
            let quantizer: TernaryQuantizer<B> = QuantizerConfig::ttq().init().unwrap();
            let latent = typed::<B, 2>(&normal(&dims, 1), dtype);
            let scales = typed::<B, 2>(&[[0.5f32, 2.0]].into(), of_scales);
            let ternary = quantizer.ternarize(latent.clone(), scales.clone(), 1);
            assert_eq!(ternary.dtype(), dtype);
            assert!(floats(ternary.clone()).into_iter().all(|value| [-2.0, 0.0, 0.5].contains(&value)));
            let gradients = quantizer.gradients(latent.ones_like(), ternary.clone(), scales, 1);
            assert_eq!([gradients.latent.dtype(), gradients.scales.dtype()], [dtype, of_scales]);
        }
    }
}

#[test]
fn sums_and_counts_of_16_bit_weights_do_not_overflow_or_round_off() {
    // More elements than the largest float16, 65,504; a sum in bfloat16 stops growing at 256 times its terms.
    let n = 70_000;
    let values: Vec<f32> = (0..n).map(|i| [0.5, -0.25, 0.5, 0.0][i % 4]).collect();
    for dtype in [DType::F16, DType::BF16] {
        let latent = typed::<B, 2>(&TensorData::new(values.clone(), [n, 1]), dtype);
        for rule in [ScaleRule::Learned, ScaleRule::SideMeans, ScaleRule::OverallMean] {
            let quantizer: TernaryQuantizer<B> = QuantizerConfig::ttq().with_scales(rule).init().unwrap();
            let expected = if rule == ScaleRule::OverallMean { [0.3125; 2] } else { [0.5, 0.25] };
            assert_eq!(floats(quantizer.measured_scales(latent.clone(), 1)), expected, "{rule:?} in {dtype:?}");
        }
        let config = QuantizerConfig::ttq().with_threshold(Threshold::MeanFraction(0.5));
        let quantizer: TernaryQuantizer<B> = config.init().unwrap();
        assert_eq!(floats(quantizer.threshold(latent.clone(), 1)), [0.15625]);
        let grad = typed::<B, 2>(&TensorData::new(vec![0.25f32; n], [n, 1]), dtype);
        let pairs = typed::<B, 2>(&TensorData::from([[1.0f32, 1.0]]), dtype);
        let ternary = quantizer.ternarize(latent, pairs.clone(), 1);
        let of_scales = floats(quantizer.gradients(grad, ternary, pairs, 1).scales);
        assert_rounded(&of_scales, &[8750.0, -4375.0], 1.0, dtype, "gradients of the scales");
    }
}

#[test]
fn weights_of_16_bits_have_gradients_through_autodiff() {
    type A = Autodiff<Flex>;
    for dtype in [DType::F16, DType::BF16, DType::F64] {
        for config in configs() {
            let quantizer: TernaryQuantizer<A> = config.init().unwrap();
            let latent = typed::<A, 2>(&normal(&[5, 7], 1), dtype).require_grad();
            let scales = quantizer.initial_scales(latent.clone(), 1).require_grad();
            let grad = typed::<A, 2>(&normal(&[5, 7], 2), dtype);
            let ternary = quantizer.ternarize(latent.clone(), scales.clone(), 1);
            let grads = (ternary.clone() * grad.clone()).sum().backward();
            let [found, of_scales] = [latent.grad(&grads).unwrap(), scales.grad(&grads).unwrap()];
            assert_eq!([found.dtype(), of_scales.dtype()], [dtype; 2]);
            let closed = quantizer.on::<B>().gradients(grad.inner(), ternary.inner(), scales.inner(), 1);
            assert_rounded(&floats(found), &floats(closed.latent), 1.0, dtype, "latent gradient");
        }
    }
}
