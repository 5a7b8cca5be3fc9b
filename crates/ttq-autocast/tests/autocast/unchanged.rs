//! Operations that are not cast give the bits of the inner backend.

use burn::backend::{Autodiff, Flex};
use burn::prelude::*;
use burn::tensor::activation::{gelu, log_softmax, relu};
use burn::tensor::module::{adaptive_avg_pool2d, avg_pool2d, interpolate, max_pool2d, unfold4d};
use burn::tensor::ops::{InterpolateMode, InterpolateOptions, UnfoldOptions};
use burn::tensor::quantization::QuantScheme;
use burn::tensor::{DType, TensorData, TensorPrimitive, Transaction};
use ttq_autocast::{Autocast, Bf16, F16};
use ttq_testing::{tensor, uniform};

use crate::On;

/// Runs `work` on the inner backend and on `Autocast` and asserts equal results.
macro_rules! assert_same {
    (|$backend:ident| $work:expr) => {{
        let expected: Vec<TensorData> = {
            type $backend = Autodiff<Flex>;
            $work.into()
        };
        let found: Vec<TensorData> = {
            type $backend = Autodiff<On<F16>>;
            $work.into()
        };
        assert_eq!(found, expected);
    }};
}

#[test]
fn operations_other_than_products_equal_the_inner_backend() {
    let data = uniform(&[2, 3, 6, 8], 1);
    assert_same!(|B| {
        let x = tensor::<B, 4>(&data);
        [
            log_softmax(x.clone(), 3).into_data(),
            gelu(relu(x.clone())).into_data(),
            (x.clone() * x.clone().exp() - x.clone().mean_dim(0)).into_data(),
            x.clone().var(1).into_data(),
            x.clone().sort(3).into_data(),
            x.clone().greater_elem(0.1).int().sum().into_data(),
            x.clone().argmax(1).into_data(),
            avg_pool2d(x.clone(), [2, 2], [1, 1], [0, 0], true, false).into_data(),
            adaptive_avg_pool2d(x.clone(), [2, 3]).into_data(),
            unfold4d(x.clone().inner(), [2, 2], UnfoldOptions::new([1, 1], [1, 1], [1, 1])).into_data(),
            Tensor::cat(vec![x.clone(), x], 2).into_data(),
        ]
    });
}

#[test]
fn gradients_of_other_operations_equal_the_inner_backend() {
    let data = uniform(&[2, 3, 6, 8], 1);
    assert_same!(|B| {
        let x = tensor::<B, 4>(&data).require_grad();
        let pooled = max_pool2d(x.clone(), [2, 2], [2, 2], [0, 0], [1, 1], false);
        let resized = interpolate(x.clone(), [9, 9], InterpolateOptions::new(InterpolateMode::Bilinear));
        let grads = (pooled.powf_scalar(2.0).sum() + resized.tanh().sum()).backward();
        [x.grad(&grads).expect("a gradient").into_data()]
    });
}

#[test]
fn a_transaction_reads_several_tensors() {
    let data = uniform(&[2, 3], 1);
    assert_same!(|B| {
        let x = tensor::<B, 2>(&data);
        let read = Transaction::default().register(x.clone()).register(x.clone().int()).register(x.lower_elem(0));
        read.execute()
    });
}

#[test]
fn operations_on_quantized_tensors_equal_the_inner_backend() {
    let data = uniform(&[4, 32], 1);
    macro_rules! quantized {
        ($backend:ty) => {{
            let x = tensor::<$backend, 2>(&data).quantize_dynamic(&QuantScheme::default());
            (x.clone() + x.clone()).dequantize().into_data()
        }};
    }
    assert_eq!(quantized!(On<Bf16>), quantized!(Flex));
}

#[test]
fn tensors_of_other_types_are_multiplied_without_a_cast() {
    let (left, right) = (uniform(&[3, 5], 1), uniform(&[5, 4], 2));
    for dtype in [DType::F16, DType::F64] {
        macro_rules! multiplied {
            ($backend:ty) => {{
                let device = Default::default();
                let left = Tensor::<$backend, 2>::from_data(left.clone().convert_dtype(dtype), (&device, dtype));
                let right = Tensor::<$backend, 2>::from_data(right.clone().convert_dtype(dtype), (&device, dtype));
                left.matmul(right).into_data()
            }};
        }
        let found = multiplied!(On<Bf16>);
        assert_eq!((found.dtype, &found), (dtype, &multiplied!(Flex)));
    }
}

#[test]
fn tensor_primitives_are_those_of_the_inner_backend() {
    let x = tensor::<Flex, 2>(&uniform(&[2, 3], 1));
    let TensorPrimitive::Float(primitive) = x.clone().into_primitive() else { unreachable!("not quantized") };
    let converted = Tensor::<On<Bf16>, 2>::from_primitive(TensorPrimitive::Float(primitive));
    assert_eq!(converted.into_data(), x.into_data());
}

#[test]
fn a_backend_reports_its_name_and_supported_types() {
    let device = Default::default();
    assert!(Autocast::<Flex, Bf16>::is_supported(&device) && Autocast::<Flex, F16>::is_supported(&device));
    assert_eq!(On::<Bf16>::name(&device), format!("autocast<{}, bf16>", Flex::name(&device)));
}
