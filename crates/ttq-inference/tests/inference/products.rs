//! Products with a ternary weight, and the operations that keep it packed.

use burn::backend::Flex;
use burn::prelude::*;
use burn::tensor::module::{conv2d, linear};
use burn::tensor::ops::ConvOptions;
use burn::tensor::{DType, TensorData};
use burn_ndarray::NdArray;
use ttq_cpu::Cpu;
use ttq_inference::{Int8, Packed, is_packed, tensor};
use ttq_packed::TernaryWeight;

use crate::ternary::{assert_close, random, weight};

fn dense<B: Backend, const D: usize>(weight: &TernaryWeight) -> Tensor<B, D> {
    Tensor::from_data(TensorData::new(weight.dequantize(), weight.shape().to_vec()), &Default::default())
}

/// `y[m, n] = Σ_k x[m, k] w[k, n]`, in float64.
fn naive(x: &TensorData, w: &[f32], [rows, inputs, outputs]: [usize; 3]) -> TensorData {
    let x: Vec<f64> = x.iter().collect();
    let sum = |index: usize| -> f64 {
        let (row, output) = (index / outputs, index % outputs);
        (0..inputs).map(|k| x[row * inputs + k] * f64::from(w[k * outputs + output])).sum()
    };
    TensorData::new((0..rows * outputs).map(sum).map(|sum| sum as f32).collect(), [rows, outputs])
}

fn products_equal_the_definition<B: Backend>() {
    let device = Default::default();
    for [rows, inputs, outputs] in [[1, 1, 1], [1, 7, 33], [2, 64, 16], [5, 100, 70], [70, 30, 20]] {
        for (per_channel, axis) in [(false, 1), (true, 1), (true, 0)] {
            let weight = weight(&[inputs, outputs], axis, per_channel, 1);
            let w = weight.dequantize();
            if w.iter().all(|value| *value == 0.0) {
                continue;
            }
            let packed = tensor::<Packed<B>, 2>(&weight, &device);
            assert_eq!(packed.clone().into_data(), TensorData::new(w.clone(), [inputs, outputs]));
            let x = random::<Packed<B>, 2>([rows, inputs], 2);
            let expected = naive(&x.to_data(), &w, [rows, inputs, outputs]);
            assert_close(&x.clone().matmul(packed.clone()).into_data(), &expected, 1e-5);
            // (Wᵀ xᵀ)ᵀ
            let transposed = packed.clone().transpose();
            assert!(is_packed(&transposed));
            assert_eq!(transposed.to_data(), dense::<B, 2>(&weight).transpose().into_data());
            let y = transposed.matmul(x.clone().transpose()).transpose();
            assert_close(&y.into_data(), &expected, 1e-5);
            // Batches, with a weight that has a dimension of size 1 more.
            let batches = x.clone().reshape([1, rows, inputs]).repeat_dim(0, 3);
            let y = batches.matmul(packed.clone().unsqueeze()).narrow(0, 2, 1).reshape([rows, outputs]);
            assert_close(&y.into_data(), &expected, 1e-5);
            let bias = random::<Packed<B>, 1>([outputs], 3);
            let y = linear(x.unsqueeze_dim::<3>(1), packed, Some(bias.clone())).reshape([rows, outputs]);
            assert_close(&(y - bias.unsqueeze()).into_data(), &expected, 1e-5);
        }
    }
}

#[test]
fn products_with_a_packed_weight_equal_the_definition() {
    products_equal_the_definition::<Flex>();
    products_equal_the_definition::<Cpu>();
    products_equal_the_definition::<NdArray>();
}

fn views_equal_dense<B: Backend>() {
    type P<B> = Packed<B>;
    let device = Default::default();
    for axis in 0..4 {
        let weight = weight(&[4, 3, 1, 5], axis, true, 1);
        let (packed, dense) = (tensor::<P<B>, 4>(&weight, &device), dense::<B, 4>(&weight));
        assert_eq!((packed.dims(), packed.dtype()), (dense.dims(), DType::F32));
        macro_rules! check {
            ($is_packed:literal, $w:ident => $view:expr) => {{
                let view = {
                    let $w = packed.clone();
                    $view
                };
                assert_eq!(is_packed(&view), $is_packed, stringify!($view));
                let expected = {
                    let $w = dense.clone();
                    $view
                };
                assert_eq!(view.dims(), expected.dims());
                assert_eq!(view.into_data(), expected.into_data(), stringify!($view));
            }};
        }
        check!(true, w => w);
        check!(true, w => w.transpose());
        check!(true, w => w.swap_dims(0, 2).swap_dims(1, 3));
        check!(true, w => w.permute([3, 0, 1, 2]));
        check!(true, w => w.squeeze_dim::<3>(2).transpose().unsqueeze::<5>());
        check!(true, w => w.reshape([1, 4, 3, 1, 1, 5]).permute([0, 5, 2, 1, 3, 4]));
        check!(true, w => w.to_device(&Default::default()));
        check!(false, w => w.reshape([12, 5]));
        check!(false, w => w.permute([1, 0, 2, 3]).reshape([3, 4 * 5]));
        check!(false, w => w.narrow(0, 1, 2));
        check!(false, w => w.mul_scalar(2.0));
        check!(false, w => w.clone() + w);
        check!(false, w => w.sum());
        check!(false, w => w.max_dim_with_indices(1).0);
        check!(false, w => Tensor::cat(vec![w.clone(), w], 3));
        for dim in [0, 1, 3] {
            let rows = [2, 0, 0];
            let select = |w: Tensor<P<B>, 4>| w.select(dim, Tensor::from_data(rows, &device));
            let expected = dense.clone().select(dim, Tensor::from_data(rows, &device));
            assert_eq!(select(packed.clone()).into_data(), expected.into_data());
        }
    }
}

#[test]
fn views_keep_a_weight_packed_and_every_other_operation_equals_that_on_the_dense_weight() {
    views_equal_dense::<Flex>();
    views_equal_dense::<Cpu>();
    views_equal_dense::<NdArray>();
}

#[test]
fn a_weight_that_kernels_have_read_unpacks_to_the_same_values() {
    let device = Default::default();
    let matrix = weight(&[37, 50], 1, true, 1);
    let packed = tensor::<Packed<Flex>, 2>(&matrix, &device);
    let _ = random::<_, 2>([2, 37], 2).matmul(packed.clone());
    assert_eq!(packed.clone().into_data(), dense::<Flex, 2>(&matrix).into_data());
    let rows = Tensor::from_data([36, 3], &device);
    assert_eq!(
        packed.select(0, rows).into_data(),
        dense::<Flex, 2>(&matrix).select(0, Tensor::from_data([36, 3], &device)).into_data()
    );
}

/// Small batches are convolved by the packed kernels, large ones by those of the backend if it has its own.
fn convolutions_equal_dense<B: Backend>() {
    let device = Default::default();
    let shape = [8, 3, 3, 2];
    for (groups, transposed) in [(1, false), (4, false), (1, true)] {
        let weight = weight(&shape, 0, true, 1);
        let (mut packed, mut expected) = (tensor::<Packed<B>, 4>(&weight, &device), dense::<B, 4>(&weight));
        if transposed {
            (packed, expected) = (packed.permute([0, 1, 3, 2]), expected.permute([0, 1, 3, 2]));
        }
        let options = || ConvOptions::new([2, 1], [0, 1], [1, 1], groups);
        let bias = random::<Packed<B>, 1>([8], 4);
        let dense_bias = Tensor::from_data(bias.to_data(), &device);
        for images in [40, 1, 40] {
            let x = random::<Packed<B>, 4>([images, 3 * groups, 7, 7], 3);
            let y = conv2d(x.clone(), packed.clone(), Some(bias.clone()), options());
            let dense_x = Tensor::from_data(x.into_data(), &device);
            let dense_y = conv2d(dense_x, expected.clone(), Some(dense_bias.clone()), options());
            assert_close(&y.into_data(), &dense_y.into_data(), 1e-5);
            assert_eq!(packed.to_data(), expected.to_data());
        }
    }
}

#[test]
fn convolutions_with_a_packed_weight_equal_those_with_the_dense_weight_and_leave_it_packed() {
    convolutions_equal_dense::<Flex>();
    convolutions_equal_dense::<Cpu>();
    convolutions_equal_dense::<NdArray>();
}

#[test]
fn int8_activations_have_an_error_of_at_most_a_step_times_the_magnitudes_of_the_weights() {
    let device = Default::default();
    let [rows, inputs, outputs] = [7, 90, 20];
    for per_channel in [false, true] {
        let weight = weight(&[inputs, outputs], 1, per_channel, 1);
        let x = random::<Packed<Flex, Int8>, 2>([rows, inputs], 2);
        let found = x.clone().matmul(tensor(&weight, &device)).into_data();
        let (x, w) = (x.into_data(), weight.dequantize());
        let expected = naive(&x, &w, [rows, inputs, outputs]);
        let x: Vec<f32> = x.iter().collect();
        let mut differing = 0;
        for (index, (found, expected)) in found.iter::<f32>().zip(expected.iter::<f32>()).enumerate() {
            let largest = x[index / outputs * inputs..][..inputs].iter().map(|x| x.abs()).fold(0.0, f32::max);
            let size: f32 = (0..inputs).map(|k| w[k * outputs + index % outputs].abs()).sum();
            assert!((found - expected).abs() <= largest / 127.0 * size * 1.001);
            differing += usize::from((found - expected).abs() > 1e-4 * expected.abs());
        }
        assert!(differing > rows * outputs / 2);
    }
}
