//! What cannot be captured is an error that says where and why.

use std::cell::RefCell;

use burn::nn::{Linear, LinearConfig};
use burn::prelude::*;
use burn::tensor::IntDType;
use burn::tensor::activation::relu;
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
