//! Convolution in one and two dimensions, and its gradients. Images are computed in channels-last memory: `[N, C, H, W]`
//! with the strides of `[N, H, W, C]`.

use burn_backend::ops::{ConvOptions, ModuleOps};
use burn_backend::{DType, Shape};
use burn_flex::{Flex, FlexTensor, Layout};

use super::layout::{contiguous, floats};
use crate::buffer::Buffer;
use crate::kernels::Geometry;
use crate::kernels::convolution::{self, Images};
use crate::kernels::simd::Level;
use crate::lazy::ready;

pub(crate) fn conv2d(
    x: FlexTensor,
    weight: FlexTensor,
    bias: Option<FlexTensor>,
    options: ConvOptions<2>,
) -> FlexTensor {
    forward(&x, &weight, bias.as_ref(), &options)
        .unwrap_or_else(|| <Flex as ModuleOps<Flex>>::conv2d(ready(x), ready(weight), bias.map(ready), options))
}

pub(crate) fn conv2d_x_backward(
    x: FlexTensor,
    weight: FlexTensor,
    output_grad: FlexTensor,
    options: ConvOptions<2>,
) -> FlexTensor {
    x_backward(&x, &weight, &output_grad, &options).unwrap_or_else(|| {
        <Flex as ModuleOps<Flex>>::conv2d_x_backward(ready(x), ready(weight), ready(output_grad), options)
    })
}

pub(crate) fn conv2d_weight_backward(
    x: FlexTensor,
    weight: FlexTensor,
    output_grad: FlexTensor,
    options: ConvOptions<2>,
) -> FlexTensor {
    weight_backward(&x, &weight, &output_grad, &options).unwrap_or_else(|| {
        <Flex as ModuleOps<Flex>>::conv2d_weight_backward(ready(x), ready(weight), ready(output_grad), options)
    })
}

pub(crate) fn conv1d(
    x: FlexTensor,
    weight: FlexTensor,
    bias: Option<FlexTensor>,
    options: ConvOptions<1>,
) -> FlexTensor {
    forward(&as_row(&x), &as_row(&weight), bias.as_ref(), &row_options(&options))
        .map(from_row)
        .unwrap_or_else(|| <Flex as ModuleOps<Flex>>::conv1d(ready(x), ready(weight), bias.map(ready), options))
}

pub(crate) fn conv1d_x_backward(
    x: FlexTensor,
    weight: FlexTensor,
    output_grad: FlexTensor,
    options: ConvOptions<1>,
) -> FlexTensor {
    x_backward(&as_row(&x), &as_row(&weight), &as_row(&output_grad), &row_options(&options))
        .map(from_row)
        .unwrap_or_else(|| {
            <Flex as ModuleOps<Flex>>::conv1d_x_backward(ready(x), ready(weight), ready(output_grad), options)
        })
}

pub(crate) fn conv1d_weight_backward(
    x: FlexTensor,
    weight: FlexTensor,
    output_grad: FlexTensor,
    options: ConvOptions<1>,
) -> FlexTensor {
    weight_backward(&as_row(&x), &as_row(&weight), &as_row(&output_grad), &row_options(&options))
        .map(from_row)
        .unwrap_or_else(|| {
            <Flex as ModuleOps<Flex>>::conv1d_weight_backward(ready(x), ready(weight), ready(output_grad), options)
        })
}

/// Returns a view with height 1: `[a, b, c]` as `[a, b, 1, c]`.
fn as_row(tensor: &FlexTensor) -> FlexTensor {
    let layout = tensor.layout();
    let (mut shape, mut strides) = (layout.shape().to_vec(), layout.strides().to_vec());
    let axis = shape.len().saturating_sub(1);
    let stride = shape.last().zip(strides.last()).map_or(1, |(size, stride)| *size as isize * stride);
    shape.insert(axis, 1);
    strides.insert(axis, stride);
    let layout = Layout::new(Shape::from(shape), strides, layout.start_offset());
    tensor.clone().with_layout(layout)
}

/// Reverts [`as_row`].
fn from_row(tensor: FlexTensor) -> FlexTensor {
    let layout = tensor.layout();
    let (mut shape, mut strides) = (layout.shape().to_vec(), layout.strides().to_vec());
    shape.remove(2);
    strides.remove(2);
    let layout = Layout::new(Shape::from(shape), strides, layout.start_offset());
    tensor.with_layout(layout)
}

fn row_options(options: &ConvOptions<1>) -> ConvOptions<2> {
    let ConvOptions { stride: [stride], padding: [padding], dilation: [dilation], groups } = *options;
    ConvOptions::new([1, stride], [0, padding], [1, dilation], groups)
}

/// Computes a convolution; `None` if the kernels do not support it. The same holds for the gradients.
fn forward(
    x: &FlexTensor,
    weight: &FlexTensor,
    bias: Option<&FlexTensor>,
    options: &ConvOptions<2>,
) -> Option<FlexTensor> {
    let (geometry, output) = geometry(x, weight, options)?;
    if bias.is_some_and(|bias| bias.dtype() != DType::F32 || bias.layout().shape()[..] != [geometry.channels_out]) {
        return None;
    }
    let (x, weight, bias) = (ready(x.clone()), contiguous(weight.clone()), bias.cloned().map(contiguous));
    let (weight, bias) = (floats(&weight), bias.as_ref().map(floats));
    let shape = [geometry.batch, geometry.channels_out, output[0], output[1]];
    let level = Level::best();
    // SAFETY: the kernel writes every output.
    Some(unsafe {
        channels_last(shape, |y| convolution::forward(level, &geometry, output, images(&x), weight, bias, y))
    })
}

fn x_backward(
    x: &FlexTensor,
    weight: &FlexTensor,
    output_grad: &FlexTensor,
    options: &ConvOptions<2>,
) -> Option<FlexTensor> {
    let geometry = gradient_geometry(x, weight, output_grad, options)?;
    let (weight, output_grad) = (contiguous(weight.clone()), ready(output_grad.clone()));
    let (weight, dy) = (floats(&weight), images(&output_grad));
    let shape = [geometry.batch, geometry.channels_in, geometry.input[0], geometry.input[1]];
    // SAFETY: the kernel writes every element of the gradient.
    Some(unsafe { channels_last(shape, |dx| convolution::input_gradient(Level::best(), &geometry, dy, weight, dx)) })
}

fn weight_backward(
    x: &FlexTensor,
    weight: &FlexTensor,
    output_grad: &FlexTensor,
    options: &ConvOptions<2>,
) -> Option<FlexTensor> {
    let geometry = gradient_geometry(x, weight, output_grad, options)?;
    let shape = weight.layout().shape().clone();
    let (x, output_grad) = (ready(x.clone()), ready(output_grad.clone()));
    let (x, dy) = (images(&x), images(&output_grad));
    // SAFETY: the kernel writes every element of the gradient.
    Some(unsafe { Buffer::filled(shape, |dw| convolution::weight_gradient(Level::best(), &geometry, x, dy, dw)) })
}

/// Returns a tensor of four axes as images.
fn images(tensor: &FlexTensor) -> Images<'_> {
    let layout = tensor.layout();
    let shape = core::array::from_fn(|axis| layout.shape()[axis]);
    let strides = core::array::from_fn(|axis| layout.strides()[axis]);
    Images::new(tensor.storage(), layout.start_offset(), shape, strides)
}

/// Allocates images `[N, C, H, W]` whose elements `write` initializes in the order `[N, H, W, C]`.
///
/// # Safety
/// `write` must write every float.
unsafe fn channels_last(
    [n, c, h, w]: [usize; 4],
    write: impl FnOnce(&mut [core::mem::MaybeUninit<f32>]),
) -> FlexTensor {
    // SAFETY: the caller guarantees that `write` initializes every float.
    let tensor = unsafe { Buffer::filled(Shape::from([n, c, h, w]), write) };
    if c == 1 || h * w == 1 {
        // Both orders are the same, and contiguous strides are those that other operations are fastest on.
        return tensor;
    }
    let strides = [h * w * c, 1, w * c, c].map(|stride| stride as isize);
    tensor.with_layout(Layout::new(Shape::from([n, c, h, w]), strides.to_vec(), 0))
}

/// Returns the geometry of a convolution and the height and width of its output; `None` if the kernels do not support
/// it.
fn geometry(x: &FlexTensor, weight: &FlexTensor, options: &ConvOptions<2>) -> Option<(Geometry, [usize; 2])> {
    let [batch, channels_in, h, w] = <[usize; 4]>::try_from(x.layout().shape().to_vec()).ok()?;
    let [channels_out, channels, kh, kw] = <[usize; 4]>::try_from(weight.layout().shape().to_vec()).ok()?;
    let ConvOptions { stride, padding, dilation, groups } = *options;
    let sizes = [batch, channels_in, h, w, channels_out, kh, kw, stride[0], stride[1], dilation[0], dilation[1]];
    let floats = x.dtype() == DType::F32 && weight.dtype() == DType::F32;
    if !floats || groups != 1 || channels != channels_in || sizes.contains(&0) {
        return None;
    }
    let (input, kernel) = ([h, w], [kh, kw]);
    let geometry = Geometry { batch, channels_in, channels_out, input, kernel, stride, padding, dilation };
    Some((geometry, geometry.output()?))
}

/// Like [`geometry`], but also `None` if `output_grad` does not have the output's shape and type.
fn gradient_geometry(
    x: &FlexTensor,
    weight: &FlexTensor,
    output_grad: &FlexTensor,
    options: &ConvOptions<2>,
) -> Option<Geometry> {
    let (geometry, output) = geometry(x, weight, options)?;
    let shape = [geometry.batch, geometry.channels_out, output[0], output[1]];
    (output_grad.dtype() == DType::F32 && output_grad.layout().shape()[..] == shape).then_some(geometry)
}
