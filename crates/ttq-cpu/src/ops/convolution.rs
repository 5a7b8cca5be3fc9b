//! Two-dimensional convolution and its gradients.

use burn_backend::ops::{ConvOptions, ModuleOps};
use burn_backend::{DType, Shape};
use burn_flex::{Flex, FlexTensor};

use super::layout::{contiguous, floats};
use crate::buffer::Buffer;
use crate::kernels::simd::Level;
use crate::kernels::{Geometry, direct};
use crate::lazy::ready;

pub(crate) fn conv2d(
    x: FlexTensor,
    weight: FlexTensor,
    bias: Option<FlexTensor>,
    options: ConvOptions<2>,
) -> FlexTensor {
    let fits =
        |bias: &FlexTensor| bias.dtype() == DType::F32 && bias.layout().shape()[..] == weight.layout().shape()[..1];
    let Some((geometry, output)) = geometry(&x, &weight, &options).filter(|_| bias.as_ref().is_none_or(fits)) else {
        return <Flex as ModuleOps<Flex>>::conv2d(ready(x), ready(weight), bias.map(ready), options);
    };
    let (x, weight, bias) = (contiguous(x), contiguous(weight), bias.map(contiguous));
    let (x, weight, bias) = (floats(&x), floats(&weight), bias.as_ref().map(floats));
    let shape = Shape::from([geometry.batch, geometry.channels_out, output[0], output[1]]);
    // SAFETY: the kernel writes every output.
    unsafe { Buffer::filled(shape, |y| direct::forward(Level::best(), &geometry, output, x, weight, bias, y)) }
}

pub(crate) fn conv2d_x_backward(
    x: FlexTensor,
    weight: FlexTensor,
    output_grad: FlexTensor,
    options: ConvOptions<2>,
) -> FlexTensor {
    let Some((geometry, output)) = gradient_geometry(&x, &weight, &output_grad, &options) else {
        return <Flex as ModuleOps<Flex>>::conv2d_x_backward(ready(x), ready(weight), ready(output_grad), options);
    };
    let shape = x.layout().shape().clone();
    let (weight, dy) = (contiguous(weight), contiguous(output_grad));
    let (weight, dy) = (floats(&weight), floats(&dy));
    // SAFETY: the kernel writes every element of the gradient.
    unsafe { Buffer::filled(shape, |dx| direct::input_gradient(Level::best(), &geometry, output, dy, weight, dx)) }
}

pub(crate) fn conv2d_weight_backward(
    x: FlexTensor,
    weight: FlexTensor,
    output_grad: FlexTensor,
    options: ConvOptions<2>,
) -> FlexTensor {
    let Some((geometry, output)) = gradient_geometry(&x, &weight, &output_grad, &options) else {
        return <Flex as ModuleOps<Flex>>::conv2d_weight_backward(ready(x), ready(weight), ready(output_grad), options);
    };
    let shape = weight.layout().shape().clone();
    let (x, dy) = (contiguous(x), contiguous(output_grad));
    let (x, dy) = (floats(&x), floats(&dy));
    // SAFETY: the kernel writes every element of the gradient.
    unsafe { Buffer::filled(shape, |dw| direct::weight_gradient(Level::best(), &geometry, output, x, dy, dw)) }
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
) -> Option<(Geometry, [usize; 2])> {
    let (geometry, output) = geometry(x, weight, options)?;
    let shape = [geometry.batch, geometry.channels_out, output[0], output[1]];
    (output_grad.dtype() == DType::F32 && output_grad.layout().shape()[..] == shape).then_some((geometry, output))
}
