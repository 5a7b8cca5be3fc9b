//! Compares codes, values, gradients and thresholds with reference values computed by PyTorch
//! (`golden/make_golden.py`).

use burn::backend::{Autodiff, Flex};
use burn::prelude::*;
use serde::Deserialize;
use ttq_core::{QuantizerConfig, ScaleRule, TernaryQuantizer, Threshold};

type B = Flex;

#[derive(Deserialize)]
struct Case {
    name: String,
    shape: Vec<usize>,
    t: f64,
    w_p: f32,
    w_n: f32,
    latent: Vec<f32>,
    delta: f32,
    codes: Vec<i32>,
    ternary: Vec<f32>,
    sparsity: f64,
    upstream: Vec<f32>,
    grad_latent: Vec<f32>,
    grad_w_p: f32,
    grad_w_n: f32,
}

/// Returns every case and the shape of its weight in two dimensions, `[first, rest]`.
fn cases() -> Vec<(Case, [usize; 2])> {
    let cases: Vec<Case> = serde_json::from_str(include_str!("golden/quantize.json")).unwrap();
    cases
        .into_iter()
        .map(|case| {
            let dims = [case.shape[0], case.latent.len() / case.shape[0]];
            (case, dims)
        })
        .collect()
}

fn quantizer<B: Backend>(case: &Case) -> TernaryQuantizer<B> {
    QuantizerConfig::paper().with_threshold(Threshold::MaxFraction(case.t)).init().unwrap()
}

fn tensor<B: Backend>(values: &[f32], dims: [usize; 2]) -> Tensor<B, 2> {
    Tensor::from_data(TensorData::new(values.to_vec(), dims), &Default::default())
}

fn assert_close(found: Tensor<B, 2>, expected: &[f32], what: &str) {
    for (found, expected) in found.into_data().iter::<f32>().zip(expected) {
        let error = (found - expected).abs();
        assert!(error <= 1e-6 * expected.abs(), "{what}: {found} instead of {expected}");
    }
}

/// Asserts that two sums are close. Sums of floats depend on their order, so the error is relative to the sum of
/// magnitudes.
fn assert_sum_close(found: f32, expected: f32, terms: &[f32], what: &str) {
    let magnitude: f32 = terms.iter().map(|term| term.abs()).sum();
    assert!((found - expected).abs() <= 1e-6 * magnitude, "{what}: {found} instead of {expected}");
}

#[test]
fn codes_values_and_thresholds_equal_the_reference() {
    for (case, dims) in cases() {
        let quantizer = quantizer::<B>(&case);
        let latent = tensor::<B>(&case.latent, dims);
        let scales = tensor(&[case.w_p, case.w_n], [1, 2]);
        assert_close(quantizer.threshold(latent.clone(), 0), &[case.delta], &case.name);
        let codes: Vec<i32> = quantizer.codes(latent.clone(), 0).into_data().iter().collect();
        assert_eq!(codes, case.codes, "{}", case.name);
        let zeros = codes.iter().filter(|code| **code == 0).count() as f64 / codes.len() as f64;
        assert!((zeros - case.sparsity).abs() < 1e-12, "{}", case.name);
        assert_close(quantizer.ternarize(latent, scales, 0), &case.ternary, &case.name);
    }
}

#[test]
fn gradients_in_closed_form_equal_the_reference() {
    for (case, dims) in cases() {
        let quantizer = quantizer::<B>(&case);
        let scales = tensor(&[case.w_p, case.w_n], [1, 2]);
        let ternary = quantizer.ternarize(tensor(&case.latent, dims), scales.clone(), 0);
        let gradients = quantizer.gradients(tensor(&case.upstream, dims), ternary, scales, 0);
        assert_close(gradients.latent, &case.grad_latent, &case.name);
        let scales: Vec<f32> = gradients.scales.into_data().iter().collect();
        assert_sum_close(scales[0], case.grad_w_p, &case.upstream, &case.name);
        assert_sum_close(scales[1], case.grad_w_n, &case.upstream, &case.name);
    }
}

#[test]
fn gradients_through_autodiff_equal_the_reference() {
    type A = Autodiff<B>;
    for (case, dims) in cases() {
        let latent = tensor::<A>(&case.latent, dims).require_grad();
        let scales = tensor::<A>(&[case.w_p, case.w_n], [1, 2]).require_grad();
        let ternary = quantizer::<A>(&case).ternarize(latent.clone(), scales.clone(), 0);
        assert_close(ternary.clone().inner(), &case.ternary, &case.name);
        let grads = (ternary * tensor(&case.upstream, dims)).sum().backward();
        assert_close(latent.grad(&grads).unwrap(), &case.grad_latent, &case.name);
        let scales: Vec<f32> = scales.grad(&grads).unwrap().into_data().iter().collect();
        assert_sum_close(scales[0], case.grad_w_p, &case.upstream, &case.name);
        assert_sum_close(scales[1], case.grad_w_n, &case.upstream, &case.name);
    }
}

#[derive(Deserialize)]
struct Thresholds {
    shape: Vec<usize>,
    latent: Vec<f32>,
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
struct Rule {
    rule: String,
    factor: Option<f64>,
    target: Option<f64>,
    delta: f32,
    zeros: usize,
    w_p_mean: f32,
    w_n_mean: f32,
    alpha: f32,
}

#[test]
fn every_threshold_and_every_measured_scale_equals_the_reference() {
    let golden: Thresholds = serde_json::from_str(include_str!("golden/thresholds.json")).unwrap();
    let dims = [golden.shape[0], golden.latent.len() / golden.shape[0]];
    let latent = tensor::<B>(&golden.latent, dims);
    let overall = golden.latent.iter().map(|w| w.abs()).sum::<f32>() / golden.latent.len() as f32;
    for rule in golden.rules {
        let threshold = match rule.rule.as_str() {
            "max" => Threshold::MaxFraction(rule.factor.unwrap()),
            "mean" => Threshold::MeanFraction(rule.factor.unwrap()),
            _ => Threshold::Sparsity(rule.target.unwrap()),
        };
        for (scales, expected) in [
            (ScaleRule::Learned, [rule.w_p_mean, rule.w_n_mean]),
            (ScaleRule::SideMeans, [rule.w_p_mean, rule.w_n_mean]),
            (ScaleRule::SharedMean, [rule.alpha, rule.alpha]),
            (ScaleRule::OverallMean, [overall, overall]),
        ] {
            let config = QuantizerConfig { threshold, scales, ..QuantizerConfig::ttq() };
            let quantizer: TernaryQuantizer<B> = config.init().unwrap();
            let what = format!("{threshold} with {scales:?}");
            assert_close(quantizer.threshold(latent.clone(), 0), &[rule.delta], &what);
            let codes: Vec<i32> = quantizer.codes(latent.clone(), 0).into_data().iter().collect();
            assert_eq!(codes.iter().filter(|code| **code == 0).count(), rule.zeros, "{what}");
            assert_close(quantizer.measured_scales(latent.clone(), 0), &expected, &what);
            assert_close(quantizer.initial_scales(latent.clone(), 0), &[rule.w_p_mean, rule.w_n_mean], &what);
        }
    }
}
