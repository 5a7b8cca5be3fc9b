//! Products, and operations on windows of images.

use burn::prelude::*;
use burn_backend::ops::{
    AttentionModuleOptions, ConvOptions, ConvTransposeOptions, InterpolateOptions, attention as unfused,
};
use burn_backend::tensor::FloatTensor;
use burn_backend::{Shape, TensorMetadata};
use ttq_packed::kernels::ConvolutionOptions;
use ttq_packed::network::{Operation, Window};

use super::layout::{float_reshape, float_swap_dims};
use super::{Boolean, Float, many, one};
use crate::Capture;
use crate::call::Call;
use crate::tape::{Operand, Origin, Step, Tracked, dims};

/// A product with a constant matrix is a linear layer.
pub(crate) fn float_matmul<B: Backend>(lhs: Float<B>, rhs: Float<B>) -> Float<B> {
    let dims = rhs.dims();
    let [leading @ .., rows, columns] = &*dims else {
        return many::<B, 2>(Operation::MatrixProduct, [lhs, rhs], |[lhs, rhs]| B::float_matmul(lhs, rhs));
    };
    let is_matrix = !lhs.is_constant() && rhs.is_constant() && leading.iter().all(|size| *size == 1);
    if !is_matrix {
        return many::<B, 2>(Operation::MatrixProduct, [lhs, rhs], |[lhs, rhs]| B::float_matmul(lhs, rhs));
    }
    let matrix = float_reshape::<B>(rhs.clone(), Shape::new([*rows, *columns]));
    many::<B, 2>(Operation::Linear, [lhs, matrix], |[lhs, _]| B::float_matmul(lhs, rhs.inner))
}

pub(crate) fn linear<B: Backend>(x: Float<B>, weight: Float<B>, bias: Option<Float<B>>) -> Float<B> {
    let constants = weight.is_constant() && bias.as_ref().is_none_or(Tracked::is_constant);
    if !constants {
        let call = Call::new("linear");
        let bias = call.argument(bias);
        return call.result(B::linear(call.argument(x), call.argument(weight), bias));
    }
    product::<B>(Operation::Linear, x, weight, bias, B::linear)
}

pub(crate) fn conv2d<B: Backend>(
    x: Float<B>,
    weight: Float<B>,
    bias: Option<Float<B>>,
    options: ConvOptions<2>,
) -> Float<B> {
    let ConvOptions { stride, padding, dilation, groups } = options;
    let padding = padding.map(|padding| [padding; 2]);
    let operation = Operation::Convolution(ConvolutionOptions { stride, padding, dilation, groups });
    product::<B>(operation, x, weight, bias, |x, weight, bias| B::conv2d(x, weight, bias, options))
}

pub(crate) fn conv_transpose2d<B: Backend>(
    x: Float<B>,
    weight: Float<B>,
    bias: Option<Float<B>>,
    options: ConvTransposeOptions<2>,
) -> Float<B> {
    let ConvTransposeOptions { stride, padding, padding_out, dilation, groups } = options;
    let padding = padding.map(|padding| [padding; 2]);
    let operation = Operation::TransposedConvolution {
        options: ConvolutionOptions { stride, padding, dilation, groups },
        output_padding: padding_out,
    };
    product::<B>(operation, x, weight, bias, |x, weight, bias| B::conv_transpose2d(x, weight, bias, options))
}

/// An operation with a weight and a bias.
fn product<B: Backend>(
    operation: Operation,
    x: Float<B>,
    weight: Float<B>,
    bias: Option<Float<B>>,
    compute: impl FnOnce(FloatTensor<B>, FloatTensor<B>, Option<FloatTensor<B>>) -> FloatTensor<B>,
) -> Float<B> {
    match bias {
        Some(bias) => many::<B, 3>(operation, [x, weight, bias], |[x, weight, bias]| compute(x, weight, Some(bias))),
        None => many::<B, 2>(operation, [x, weight], |[x, weight]| compute(x, weight, None)),
    }
}

/// A product with a matrix for the rows and one for the columns: every mode is linear in the elements. The inner backend
/// computes the matrices, from images with one element that is not 0.
pub(crate) fn interpolate<B: Backend>(x: Float<B>, size: [usize; 2], options: InterpolateOptions) -> Float<B> {
    let matrix = |axis: usize| {
        let (from, to) = (x.dims()[2 + axis], size[axis]);
        let unit: Tensor<B, 2> = Tensor::eye(from, &B::float_device(&x.inner));
        let images = unit.cast(x.dtype()).reshape([1, from, from, 1]).into_primitive().tensor();
        let matrix = B::interpolate(images, [to, 1], options.clone());
        Tracked::constant(B::float_reshape(matrix, Shape::new([1, 1, from, to])))
    };
    let (rows, columns) = (matrix(0), matrix(1));
    let transposed = float_matmul::<B>(float_swap_dims::<B>(x, 2, 3), rows);
    float_matmul::<B>(float_swap_dims::<B>(transposed, 2, 3), columns)
}

/// Returns the window of a pooling operation. Where Burn rounds the size of the output up, it has more padding at the end.
fn window(x: &[usize], output: &[usize], size: [usize; 2], stride: [usize; 2], padding: [usize; 2]) -> Window {
    let [height, width] = [0, 1].map(|i| {
        let (x, output) = (x[x.len() - 2 + i], output[output.len() - 2 + i]);
        let reach = (output.saturating_sub(1) * stride[i] + size[i]).saturating_sub(x + padding[i]);
        [padding[i], reach.max(padding[i])]
    });
    Window { size, stride, padding: [height, width] }
}

pub(crate) fn max_pool2d<B: Backend>(
    x: Float<B>,
    size: [usize; 2],
    stride: [usize; 2],
    padding: [usize; 2],
    dilation: [usize; 2],
    ceil_mode: bool,
) -> Float<B> {
    let compute = |x| B::max_pool2d(x, size, stride, padding, dilation, ceil_mode);
    if dilation != [1, 1] {
        let call = Call::new("max_pool2d with dilation");
        return call.result(compute(call.argument(x)));
    }
    pool::<B>(x, compute, |x, output| Some(Operation::MaxPool(window(x, output, size, stride, padding))))
}

pub(crate) fn avg_pool2d<B: Backend>(
    x: Float<B>,
    size: [usize; 2],
    stride: [usize; 2],
    padding: [usize; 2],
    count_padding: bool,
    ceil_mode: bool,
) -> Float<B> {
    let compute = |x| B::avg_pool2d(x, size, stride, padding, count_padding, ceil_mode);
    pool::<B>(x, compute, |x, output| {
        let window = window(x, output, size, stride, padding);
        // Burn counts the padding, but not what rounding adds to it.
        let symmetric = window.padding.iter().all(|[before, after]| before == after);
        (symmetric || !count_padding).then_some(Operation::AveragePool { window, count_padding })
    })
}

/// A pooling operation; the operation of a graph, if there is one, depends on the shapes of input and output.
fn pool<B: Backend>(
    x: Float<B>,
    compute: impl FnOnce(FloatTensor<B>) -> FloatTensor<B>,
    operation: impl FnOnce(&[usize], &[usize]) -> Option<Operation>,
) -> Float<B> {
    let input = x.dims();
    let inner = compute(x.inner);
    let dims = dims(&inner);
    let origin = match x.origin {
        Origin::Value(tape, index) => {
            let step = operation(&input, &dims).map_or(Step::Unknown("pooling with ceil_mode"), Step::Known);
            tape.push(step, vec![Operand::Value(index)], dims)
        }
        constant => constant,
    };
    Tracked { inner, origin }
}

pub(crate) fn adaptive_avg_pool2d<B: Backend>(x: Float<B>, size: [usize; 2]) -> Float<B> {
    one(Some(Operation::AdaptiveAveragePool(size)), x, |x| B::adaptive_avg_pool2d(x, size))
}

pub(crate) fn attention<B: Backend>(
    query: Float<B>,
    key: Float<B>,
    value: Float<B>,
    mask: Option<Boolean<B>>,
    bias: Option<Float<B>>,
    options: AttentionModuleOptions,
) -> Float<B> {
    unfused::attention_fallback::<Capture<B>>(query, key, value, mask, bias, options)
}
