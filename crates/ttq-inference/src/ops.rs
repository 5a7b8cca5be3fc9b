//! The operations that keep a ternary weight packed. All others unpack it.

#![allow(
    clippy::extra_unused_type_parameters,
    reason = "`delegate` calls every operation with the same type arguments"
)]

use burn_backend::ops::ConvOptions;
use burn_backend::tensor::{Device, FloatTensor, IntTensor};
use burn_backend::{Backend, Distribution, FloatDType, Shape, TensorMetadata};

use crate::load::Replaced;
use crate::tensor::{Content, PackedTensor, inner, unpacked, wrap};
use crate::weight::TernaryTensor;
use crate::{ActivationType, product};

pub(crate) fn float_device<B: Backend, A: ActivationType>(tensor: &PackedTensor) -> Device<B> {
    match inner::<B>(tensor) {
        Ok(tensor) => B::float_device(tensor),
        Err(tensor) => tensor.device::<B>(),
    }
}

pub(crate) fn float_is_require_grad<B: Backend, A: ActivationType>(tensor: &PackedTensor) -> bool {
    inner::<B>(tensor).is_ok_and(B::float_is_require_grad)
}

/// Draws random numbers, unless they are initial values that are replaced.
pub(crate) fn float_random<B: Backend, A: ActivationType>(
    shape: Shape,
    distribution: Distribution,
    device: &Device<B>,
    dtype: FloatDType,
) -> PackedTensor {
    wrap(match Replaced::is_active() {
        true => B::float_zeros(shape, device, dtype),
        false => B::float_random(shape, distribution, device, dtype),
    })
}

/// Applies one function to a tensor of the inner backend, and another one to a ternary weight.
fn either<B: Backend>(
    tensor: PackedTensor,
    on_inner: impl FnOnce(FloatTensor<B>) -> FloatTensor<B>,
    on_ternary: impl FnOnce(TernaryTensor) -> TernaryTensor,
) -> PackedTensor {
    match tensor.0 {
        Content::Inner(_) => wrap(on_inner(unpacked::<B>(tensor))),
        Content::Ternary(tensor) => on_ternary(tensor).into(),
    }
}

pub(crate) fn float_to_device<B: Backend, A: ActivationType>(tensor: PackedTensor, device: &Device<B>) -> PackedTensor {
    either::<B>(tensor, |tensor| B::float_to_device(tensor, device), |tensor| tensor.to_device::<B>(device))
}

pub(crate) fn float_cast<B: Backend, A: ActivationType>(tensor: PackedTensor, dtype: FloatDType) -> PackedTensor {
    either::<B>(tensor, |tensor| B::float_cast(tensor, dtype), |tensor| tensor.cast(dtype))
}

pub(crate) fn float_detach<B: Backend, A: ActivationType>(tensor: PackedTensor) -> PackedTensor {
    either::<B>(tensor, B::float_detach, |tensor| tensor)
}

/// A ternary weight has no gradient.
pub(crate) fn float_set_require_grad<B: Backend, A: ActivationType>(
    tensor: PackedTensor,
    require_grad: bool,
) -> PackedTensor {
    either::<B>(tensor, |tensor| B::float_set_require_grad(tensor, require_grad), |tensor| tensor)
}

pub(crate) fn float_transpose<B: Backend, A: ActivationType>(tensor: PackedTensor) -> PackedTensor {
    either::<B>(tensor, B::float_transpose, transposed)
}

fn transposed(tensor: TernaryTensor) -> TernaryTensor {
    let rank = tensor.dims().len();
    tensor.swapped(rank - 2, rank - 1)
}

pub(crate) fn float_swap_dims<B: Backend, A: ActivationType>(
    tensor: PackedTensor,
    dim1: usize,
    dim2: usize,
) -> PackedTensor {
    either::<B>(tensor, |tensor| B::float_swap_dims(tensor, dim1, dim2), |tensor| tensor.swapped(dim1, dim2))
}

pub(crate) fn float_permute<B: Backend, A: ActivationType>(tensor: PackedTensor, axes: &[usize]) -> PackedTensor {
    either::<B>(tensor, |tensor| B::float_permute(tensor, axes), |tensor| tensor.permuted(axes))
}

pub(crate) fn float_reshape<B: Backend, A: ActivationType>(tensor: PackedTensor, shape: Shape) -> PackedTensor {
    let reshaped = inner::<B>(&tensor).err().and_then(|ternary| ternary.reshaped(&shape.to_vec()));
    reshaped.map_or_else(|| wrap(B::float_reshape(unpacked::<B>(tensor), shape)), PackedTensor::from)
}

/// Unpacks only the selected outputs, such as the rows of an embedding.
pub(crate) fn float_select<B: Backend, A: ActivationType>(
    tensor: PackedTensor,
    dim: usize,
    indices: IntTensor<B>,
) -> PackedTensor {
    match inner::<B>(&tensor) {
        Err(ternary) if ternary.has_outputs_along(dim) => {
            wrap(unpacked::<B>(ternary.with_outputs::<B>(indices).into()))
        }
        _ => wrap(B::float_select(unpacked::<B>(tensor), dim, indices)),
    }
}

pub(crate) fn float_matmul<B: Backend, A: ActivationType>(lhs: PackedTensor, rhs: PackedTensor) -> PackedTensor {
    let product = match (inner::<B>(&lhs), inner::<B>(&rhs)) {
        (Ok(x), Err(weight)) => product::linear::<B, A>(x, weight, None),
        (Err(weight), Ok(x)) => {
            // W x = (xᵀ Wᵀ)ᵀ
            let rank = x.shape().num_dims();
            let swapped = |tensor: FloatTensor<B>| B::float_swap_dims(tensor, rank - 2, rank - 1);
            let weight = transposed(weight.clone());
            product::linear::<B, A>(&swapped(x.clone()), &weight, None).map(swapped)
        }
        _ => None,
    };
    wrap(product.unwrap_or_else(|| B::float_matmul(unpacked::<B>(lhs), unpacked::<B>(rhs))))
}

pub(crate) fn linear<B: Backend, A: ActivationType>(
    x: PackedTensor,
    weight: PackedTensor,
    bias: Option<PackedTensor>,
) -> PackedTensor {
    let (x, bias) = (unpacked::<B>(x), bias.map(unpacked::<B>));
    let product = inner::<B>(&weight).err().and_then(|weight| product::linear::<B, A>(&x, weight, bias.as_ref()));
    wrap(product.unwrap_or_else(|| B::linear(x, unpacked::<B>(weight), bias)))
}

pub(crate) fn conv2d<B: Backend, A: ActivationType>(
    x: PackedTensor,
    weight: PackedTensor,
    bias: Option<PackedTensor>,
    options: ConvOptions<2>,
) -> PackedTensor {
    let (x, bias) = (unpacked::<B>(x), bias.map(unpacked::<B>));
    let ternary = inner::<B>(&weight).err();
    let product = ternary.and_then(|weight| product::conv2d::<B, A>(&x, weight, bias.as_ref(), &options));
    wrap(product.unwrap_or_else(|| B::conv2d(x, unpacked::<B>(weight), bias, options)))
}

/// A convolution of images of height 1.
pub(crate) fn conv1d<B: Backend, A: ActivationType>(
    x: PackedTensor,
    weight: PackedTensor,
    bias: Option<PackedTensor>,
    options: ConvOptions<1>,
) -> PackedTensor {
    let (x, bias) = (unpacked::<B>(x), bias.map(unpacked::<B>));
    let product = || {
        let weight = inner::<B>(&weight).err()?;
        let [images, channels, length]: [usize; 3] = x.shape().to_vec().try_into().ok()?;
        let [outputs, inputs, kernel]: [usize; 3] = weight.dims().try_into().ok()?;
        let weight = weight.reshaped(&[outputs, inputs, 1, kernel])?;
        let x = B::float_reshape(x.clone(), [images, channels, 1, length].into());
        let ConvOptions { stride: [stride], padding: [padding], dilation: [dilation], groups } = options;
        let options = ConvOptions::new([1, stride], [0, padding], [1, dilation], groups);
        let y = product::conv2d::<B, A>(&x, &weight, bias.as_ref(), &options)?;
        let [images, outputs, _, length]: [usize; 4] = y.shape().to_vec().try_into().ok()?;
        Some(B::float_reshape(y, [images, outputs, length].into()))
    };
    wrap(product().unwrap_or_else(|| B::conv1d(x, unpacked::<B>(weight), bias, options)))
}
