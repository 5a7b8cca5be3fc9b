//! Training with independent granularities of threshold and scales, step by step, against float64
//! (`golden/make_granularity.py`).

use burn::backend::{Autodiff, Flex};
use burn::prelude::*;
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::{DType, TensorData};
use burn_ndarray::NdArray;
use serde::Deserialize;
use ttq_core::{Granularity, QuantizerConfig, TernaryQuantizer, Threshold};

use crate::{floats, typed};

#[derive(Deserialize)]
struct Golden {
    fraction: f64,
    rate: f64,
    start: [Vec<f64>; 2],
    x: Vec<f64>,
    target: Vec<f64>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    threshold_granularity: Granularity,
    scale_granularity: Granularity,
    steps: Vec<Step>,
    r#final: [Vec<f64>; 2],
}

#[derive(Deserialize)]
struct Step {
    loss: f64,
    rho: [Vec<f64>; 2],
}

/// Output channels of both weights: along axis 0 of `[out, in, k, k]` and axis 1 of `[in, out]`.
const AXES: [usize; 2] = [0, 1];

/// The weights of both layers and the logarithms of their scales.
struct Net<B: Backend> {
    convolution: Tensor<B, 4>,
    linear: Tensor<B, 2>,
    rho: [Tensor<B, 2>; 2],
}

/// Takes a step of gradient descent. Returns the loss.
fn step<A: AutodiffBackend>(
    quantizer: &TernaryQuantizer<A>,
    net: &mut Net<A>,
    [x, target]: [Tensor<A, 2>; 2],
    rate: f64,
    closed_form: bool,
) -> f64 {
    let convolution = net.convolution.clone().require_grad();
    let linear = net.linear.clone().require_grad();
    let rho = net.rho.clone().map(Tensor::require_grad);
    let scales = rho.clone().map(Tensor::exp);
    let mut q1 = quantizer.ternarize(convolution.clone(), scales[0].clone(), AXES[0]);
    let mut q2 = quantizer.ternarize(linear.clone(), scales[1].clone(), AXES[1]);
    if closed_form {
        (q1, q2) = (q1.detach().require_grad(), q2.detach().require_grad());
    }
    let h = x.matmul(q1.clone().reshape([4, 12]).transpose()).tanh();
    let loss = (h.matmul(q2.clone()) - target).powi_scalar(2).mean();
    let grads = loss.backward();
    let [of_convolution, of_linear, of_rho] = if closed_form {
        let inner = quantizer.on::<A::InnerBackend>();
        let [s1, s2] = scales.map(Tensor::inner);
        let (g1, g2) = (q1.grad(&grads).unwrap(), q2.grad(&grads).unwrap());
        let first = inner.gradients(g1, q1.inner(), s1.clone(), AXES[0]);
        let second = inner.gradients(g2, q2.inner(), s2.clone(), AXES[1]);
        let rho = vec![s1 * first.scales, s2 * second.scales];
        [vec![first.latent.reshape([4, 12])], vec![second.latent], rho]
    } else {
        let of_rho = rho.iter().map(|rho| rho.grad(&grads).unwrap()).collect();
        [vec![convolution.grad(&grads).unwrap().reshape([4, 12])], vec![linear.grad(&grads).unwrap()], of_rho]
    };
    let descend = |grad: &Tensor<A::InnerBackend, 2>| Tensor::<A, 2>::from_inner(grad.clone().mul_scalar(rate));
    net.convolution = net.convolution.clone() - descend(&of_convolution[0]).reshape([4, 3, 2, 2]);
    net.linear = net.linear.clone() - descend(&of_linear[0]);
    for (rho, grad) in net.rho.iter_mut().zip(&of_rho) {
        *rho = rho.clone() - descend(grad);
    }
    floats(loss)[0]
}

fn assert_near(found: Vec<f64>, expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() <= tolerance, "{what}: {found} instead of {expected}");
    }
}

fn assert_follows<A: AutodiffBackend>(dtype: DType, tolerance: f64) {
    let golden: Golden = serde_json::from_str(include_str!("../golden/granularity.json")).unwrap();
    let data = |values: &[f64], dims: &[usize]| TensorData::new(values.to_vec(), dims);
    let batch =
        [typed::<A, 2>(&data(&golden.x, &[5, 12]), dtype), typed::<A, 2>(&data(&golden.target, &[5, 3]), dtype)];
    for case in &golden.cases {
        for closed_form in [false, true] {
            let config = QuantizerConfig::ttq()
                .with_threshold(Threshold::MaxFraction(golden.fraction))
                .with_threshold_granularity(case.threshold_granularity)
                .with_scale_granularity(case.scale_granularity);
            let quantizer: TernaryQuantizer<A> = config.init().unwrap();
            let convolution = typed::<A, 4>(&data(&golden.start[0], &[4, 3, 2, 2]), dtype);
            let linear = typed::<A, 2>(&data(&golden.start[1], &[4, 3]), dtype);
            let rho = [
                quantizer.initial_scales(convolution.clone(), AXES[0]).log(),
                quantizer.initial_scales(linear.clone(), AXES[1]).log(),
            ];
            let mut net = Net { convolution, linear, rho };
            for (index, expected) in case.steps.iter().enumerate() {
                let what = format!("{config:?}, step {index}");
                let loss = step(&quantizer, &mut net, batch.clone(), golden.rate, closed_form);
                assert_near(vec![loss], &[expected.loss], tolerance, &what);
                for (rho, expected) in net.rho.iter().zip(&expected.rho) {
                    assert_near(floats(rho.clone()), expected, tolerance, &what);
                }
            }
            assert_near(floats(net.convolution), &case.r#final[0], tolerance, "the convolution's weight");
            assert_near(floats(net.linear), &case.r#final[1], tolerance, "the linear weight");
        }
    }
}

#[test]
fn training_with_any_granularities_follows_the_reference() {
    assert_follows::<Autodiff<Flex>>(DType::F32, 1e-5);
}

#[test]
fn training_in_float64_follows_the_reference_to_1e_12() {
    assert_follows::<Autodiff<NdArray<f64>>>(DType::F64, 1e-12);
    assert_follows::<Autodiff<Flex>>(DType::F64, 1e-12);
}
