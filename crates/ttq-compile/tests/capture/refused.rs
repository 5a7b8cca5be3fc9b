//! What cannot be captured is an error that says where and why.

use std::cell::RefCell;

use burn::nn::{Linear, LinearConfig};
use burn::prelude::*;
use burn::tensor::activation::relu;
use burn::tensor::{DType, IntDType};
use ttq_compile::{Capture, CaptureError, capture};

use crate::agreement::B;

/// Two layers, with a function between them.
#[derive(Module, Debug)]
struct Layers<B: Backend> {
    first: Linear<B>,
    second: Linear<B>,
}

type T<const D: usize> = Tensor<Capture<B>, D>;

fn error(between: impl Fn(T<2>) -> T<2>) -> CaptureError {
    let device = Default::default();
    let layers =
        Layers { first: LinearConfig::new(3, 4).init::<B>(&device), second: LinearConfig::new(4, 2).init(&device) };
    let example = Tensor::<B, 2>::ones([4, 3], &device);
    capture(&layers, example, |layers, x| layers.second.forward(between(layers.first.forward(x)))).unwrap_err()
}

#[test]
fn an_unknown_operation_names_itself_and_the_module() {
    for (operation, found) in [
        ("float_cos", error(Tensor::cos)),
        ("float_sort", error(|x| x.sort(1))),
        ("float_argmax", error(|x| x.clone() * x.argmax(1).float())),
        ("float_cumsum", error(|x| x.cumsum(1))),
        ("float_slice with a negative step", error(|x| x.slice(s![.., ..;-1]))),
    ] {
        let message = found.to_string();
        assert!(matches!(found, CaptureError::Unsupported { .. }), "{message}");
        assert!(message.contains(operation) && message.contains("`first`"), "{message}");
    }
}

#[test]
fn a_cast_that_can_change_integers_is_refused() {
    let device = Default::default();
    let layer = LinearConfig::new(2, 3).init::<B>(&device);
    let example = Tensor::<B, 2, Int>::from_ints([[1, 2], [3, 4]], &device);
    let cast = |dtype: IntDType| {
        capture(&layer, example.clone(), |layer, x: Tensor<Capture<B>, 2, Int>| layer.forward(x.cast(dtype).float()))
    };
    for dtype in [IntDType::I64, IntDType::I32] {
        cast(dtype).unwrap();
    }
    for dtype in [IntDType::I16, IntDType::I8, IntDType::U64, IntDType::U8] {
        let message = cast(dtype).unwrap_err().to_string();
        assert!(message.contains("int_cast to a smaller type"), "{message}");
    }
}

#[test]
fn elements_must_not_be_read() {
    for found in [
        error(|x| x.clone() * x.sum().into_scalar()),
        error(|x| Tensor::from_data(x.into_data(), &Default::default())),
        error(|x| if x.clone().greater_elem(0.0).all().into_scalar() { x } else { -x }),
        error(|x| Tensor::from_inner(x.inner())),
        {
            let kept = RefCell::new(None::<T<2>>);
            error(|x| match kept.replace(Some(x.clone())) {
                Some(old) => x + old.narrow(0, 0, 1),
                None => x.clone() + x,
            })
        },
    ] {
        assert!(matches!(found, CaptureError::Read { .. }), "{found}");
        assert!(found.to_string().contains("`first`"), "{found}");
    }
}

#[test]
fn items_must_not_mix() {
    for found in [
        error(|x| x.clone() - x.mean_dim(0)),
        error(|x| x.clone() * x.sum().reshape([1, 1])),
        error(|x| {
            let first = x.clone().narrow(0, 0, 1);
            x + first
        }),
        error(|x| x.clone().matmul(x.clone().transpose().matmul(x))),
        error(|x| burn::tensor::activation::softmax(x, 0)),
        error(|x| {
            let [n, m] = x.dims();
            x.transpose().reshape([n, m])
        }),
        error(|x| x.clone() / x.dims()[0] as f32),
        error(|x| {
            let n = x.dims()[0];
            x.clamp(0.0, n as f32)
        }),
        error(|x| {
            let n = x.dims()[0];
            x + Tensor::full([1, 4], n as f32, &Default::default())
        }),
        error(|x| {
            let n = x.dims()[0];
            x.matmul(Tensor::full([4, 4], n as f32, &Default::default()))
        }),
        error(|x| {
            let n = x.dims()[0];
            (0..n).fold(x, |x, _| relu(x))
        }),
        error(|x| {
            let n = x.dims()[0] as i64;
            x + Tensor::arange(0..n, &Default::default()).float().reshape([-1, 1])
        }),
        error(|x| x.flip([0])),
    ] {
        assert!(matches!(found, CaptureError::Batch { .. } | CaptureError::Unsupported { .. }), "{found}");
    }
    let message = error(|x| {
        let n = x.dims()[0];
        x / n as f32
    })
    .to_string();
    assert!(message.contains("a constant that depends on the size of the batch"), "{message}");
}

#[test]
fn constants_are_compared_by_their_bits() {
    let layer = LinearConfig::new(3, 4).init::<B>(&Default::default());
    let example = Tensor::<B, 2>::ones([2, 3], &Default::default());
    let graph = capture(&layer, example, |layer, x: T<2>| {
        let y = layer.forward(x);
        let y = y.clone().mask_fill(y.greater_elem(1e30), f32::NAN);
        let nan = Tensor::full([1, 4], f32::NAN, &Default::default());
        let y = y.clone().mask_where(y.greater_elem(2e30), nan);
        // Infinities of both signs.
        y.clone().mul_scalar(0.0).exp() / 0.0 - y.mul_scalar(0.0).exp() / -0.0
    });
    let y = graph.unwrap().evaluate(&[0.5; 3]).unwrap();
    assert!(y.iter().all(|y| *y == f64::INFINITY), "{y:?}");
}

#[test]
fn finite_numbers_of_float64_stay_finite() {
    let device = Default::default();
    let layer = LinearConfig::new(3, 4).init::<B>(&device);
    let example = Tensor::<B, 2>::ones([2, 3], &device);
    // The steps of Burn's attention in float64, on rows that are masked as a whole.
    let graph = capture(&layer, example, |layer, x: T<2>| {
        let scores = layer.forward(x).cast(DType::F64);
        let scores = scores.clone().mask_fill(scores.greater_elem(-1e30), f64::NEG_INFINITY);
        let shifted = scores.clone() - scores.max_dim(1).clamp_min(f64::MIN);
        let weights = shifted.exp();
        (weights.clone() / weights.sum_dim(1).clamp_min(f64::MIN_POSITIVE)).cast(DType::F32)
    });
    assert_eq!(graph.unwrap().evaluate(&[0.5; 3]).unwrap(), [0.0; 4]);
}

#[test]
fn the_output_must_depend_on_the_input_and_the_example_must_have_items() {
    assert!(matches!(error(|_| Tensor::ones([2, 4], &Default::default())), CaptureError::ConstantOutput));
    let layer = LinearConfig::new(3, 4).init::<B>(&Default::default());
    let example = Tensor::<B, 2>::ones([0, 3], &Default::default());
    let found = capture(&layer, example, |layer, x| layer.forward(x)).unwrap_err();
    assert!(matches!(found, CaptureError::Example { .. }), "{found}");
}

#[test]
fn operations_that_do_not_reach_the_output_do_not_matter() {
    let layer = LinearConfig::new(3, 4).init::<B>(&Default::default());
    let example = Tensor::<B, 2>::ones([1, 3], &Default::default());
    let forward = |layer: &Linear<Capture<B>>, x: T<2>| {
        let _statistics = x.clone().cos().mean();
        layer.forward(x)
    };
    assert_eq!(capture(&layer, example, forward).unwrap().len(), 4);
}
