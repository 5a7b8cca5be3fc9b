//! Values outside the range of float16.

use burn::backend::{Autodiff, Flex};
use burn::prelude::*;
use burn::tensor::TensorData;
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::module::conv2d;
use burn::tensor::ops::ConvOptions;
use ttq_autocast::{Bf16, F16, Half};
use ttq_testing::{tensor, uniform};

use crate::{On, assert_within, rounding};

/// Gradients of a convolution's input and weight, with the gradient of the output multiplied by `factor`.
fn gradients<B: AutodiffBackend>(factor: f64) -> [TensorData; 2] {
    let x = tensor::<B, 4>(&uniform(&[2, 3, 6, 6], 1)).require_grad();
    let weight = tensor::<B, 4>(&uniform(&[4, 3, 3, 3], 2)).require_grad();
    let y = conv2d(x.clone(), weight.clone(), None, ConvOptions::new([1, 1], [1, 1], [1, 1], 1));
    let grads = (y * tensor(&uniform(&[2, 4, 6, 6], 3)) * factor).sum().backward();
    [x.grad(&grads), weight.grad(&grads)].map(|grad| grad.expect("a gradient").into_data())
}

/// Compares gradients with float32. Without scaling by the largest magnitude they would underflow or overflow in
/// float16.
fn assert_gradients_are_accurate<P: Half>(factor: f64) {
    let expected = gradients::<Autodiff<Flex>>(factor);
    for (found, expected) in gradients::<Autodiff<On<P>>>(factor).iter().zip(&expected) {
        let largest = expected.iter::<f32>().map(f32::abs).fold(0.0, f32::max);
        let sizes = TensorData::full(expected.shape.clone(), 8.0 * largest);
        assert_within(found, expected, &sizes, 3.0 * rounding::<P>(), P::NAME);
    }
}

#[test]
fn gradients_of_any_magnitude_are_accurate() {
    for factor in [1e-30, 1e-12, 1e-7, 1.0, 1e7, 1e30] {
        assert_gradients_are_accurate::<F16>(factor);
        assert_gradients_are_accurate::<Bf16>(factor);
    }
}

/// Computes the product of a row of `n` ones and a column of `n` elements `value`.
fn sum_of_equals<P: Half>(n: usize, value: f32) -> f32 {
    let device = Default::default();
    let ones = Tensor::<On<P>, 2>::ones([1, n], &device);
    ones.matmul(Tensor::full([n, 1], value, &device)).into_scalar()
}

#[test]
fn a_long_sum_does_not_overflow() {
    let n = 1 << 20;
    assert!((sum_of_equals::<F16>(n, 1.0) / n as f32 - 1.0).abs() < 1e-3);
    assert!((sum_of_equals::<F16>(n, 1e6) / n as f32 - 1e6).abs() < 1e3);
    assert!((sum_of_equals::<Bf16>(n, 1.0) / n as f32 - 1.0).abs() < 1e-2);
}

#[test]
fn zeros_stay_zeros_and_infinities_and_nan_are_not_hidden() {
    assert_eq!(sum_of_equals::<F16>(8, 0.0), 0.0);
    assert!(!sum_of_equals::<F16>(8, f32::INFINITY).is_finite());
    assert!(!sum_of_equals::<Bf16>(8, f32::INFINITY).is_finite());
    assert!(sum_of_equals::<F16>(8, f32::NAN).is_nan());
}

#[test]
fn small_elements_beside_large_ones_have_the_error_that_is_documented() {
    let device = Default::default();
    for n in [1, 3, 16] {
        // Magnitudes from 1 to 1e-12.
        let spread = |seed| {
            let numbers = uniform(&[n, n], seed).iter::<f64>().collect::<Vec<_>>();
            let scaled = numbers.iter().enumerate().map(|(i, x)| (x * 10_f64.powi(-(i as i32 * 7 % 13))) as f32);
            TensorData::new(scaled.collect::<Vec<_>>(), [n, n])
        };
        let (left, right) = (spread(31), spread(32));
        let product = |left: &TensorData, right: &TensorData| {
            let [left, right] = [left, right].map(|data| Tensor::<On<F16>, 2>::from_data(data.clone(), &device));
            left.matmul(right).into_data().iter::<f64>().collect::<Vec<_>>()
        };
        let found = product(&left, &right);
        let [left, right] = [left, right].map(|data| data.iter::<f64>().collect::<Vec<_>>());
        let [s_l, s_r] = [&left, &right].map(|x| x.iter().fold(0.0, |max: f64, x| max.max(x.abs())));
        let tiny = 2f64.powi(-25);
        for (i, found) in found.into_iter().enumerate() {
            let terms = (0..n).map(|k| (left[i / n * n + k], right[k * n + i % n]));
            let (mut expected, mut bound) = (0.0, tiny * s_l * s_r);
            for (l, r) in terms {
                expected += l * r;
                // Three roundings, those of the sum on Flex in float16, and underflow of factors and partial sums.
                bound += (3.0 + n as f64) * rounding::<F16>() * (l * r).abs();
                bound += tiny * (s_l * (r.abs() + tiny * s_r) + s_r * l.abs() + 2.0 * s_l * s_r);
            }
            assert!((found - expected).abs() <= bound, "{n}: {found} instead of {expected}, {bound}");
        }
    }
}
