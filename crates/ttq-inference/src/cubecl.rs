//! Products with the GPU kernels of `ttq-cubecl`, for the tensors that they support.

use burn::prelude::*;
use burn::tensor::TensorPrimitive;
use burn_backend::TensorMetadata;
use burn_backend::ops::ConvOptions;
use burn_backend::ops::conv::calculate_conv_output_size;
use burn_backend::tensor::FloatTensor;
use ttq_cubecl::{PackedLayer, Window};

use crate::device::DeviceWeight;
use crate::host::Layout;
use crate::weight::TernaryTensor;

pub(crate) fn linear<B: Backend>(
    x: &FloatTensor<B>,
    weight: &TernaryTensor,
    on_device: &DeviceWeight<B>,
    bias: Option<&FloatTensor<B>>,
    int8: bool,
) -> Option<FloatTensor<B>> {
    let layout = weight.matrix()?;
    let [outputs, inputs, ..] = layout.shape;
    let mut shape = x.shape().to_vec();
    (shape.pop() == Some(inputs)).then_some(())?;
    let rows = shape.iter().product();
    let layer = layer(x, weight, layout, on_device, bias, int8)?;
    let x = float::<B, 2>(B::float_reshape(x.clone(), [rows, inputs].into()));
    ttq_cubecl::supports(&x).then_some(())?;
    shape.push(outputs);
    let y = ttq_cubecl::linear(x, layer).into_primitive().tensor();
    Some(B::float_reshape(y, shape.into()))
}

pub(crate) fn conv2d<B: Backend>(
    x: &FloatTensor<B>,
    weight: &TernaryTensor,
    on_device: &DeviceWeight<B>,
    bias: Option<&FloatTensor<B>>,
    options: &ConvOptions<2>,
    int8: bool,
) -> Option<FloatTensor<B>> {
    let ConvOptions { stride, padding, dilation, groups } = *options;
    let layout = weight.convolution(groups)?;
    let [outputs, channels, height, width] = layout.shape;
    let [_, inputs, rows, columns] = x.shape().to_vec().try_into().ok()?;
    let (kernel, input) = ([height, width], [rows, columns]);
    let is_valid = |axis: usize| input[axis] + 2 * padding[axis] > dilation[axis] * (kernel[axis] - 1);
    let is_valid = inputs == channels * groups && outputs % groups == 0 && (0..2).all(is_valid);
    let layer = is_valid.then(|| layer(x, weight, layout, on_device, bias, int8))??;
    let x = float::<B, 4>(x.clone());
    ttq_cubecl::supports(&x).then_some(())?;
    let output = [0, 1]
        .map(|axis| calculate_conv_output_size(kernel[axis], stride[axis], padding[axis], dilation[axis], input[axis]));
    let window = Window { kernel, stride, dilation, padding, output, groups };
    Some(ttq_cubecl::conv2d(x, layer, window).into_primitive().tensor())
}

fn layer<B: Backend>(
    x: &FloatTensor<B>,
    weight: &TernaryTensor,
    layout: Layout,
    on_device: &DeviceWeight<B>,
    bias: Option<&FloatTensor<B>>,
    int8: bool,
) -> Option<PackedLayer<B>> {
    let DeviceWeight { words, scales } = on_device.clone();
    let [outputs, inner @ ..] = layout.shape;
    let outputs_along = if layout.groups.is_some() { 0 } else { weight.dims().len() - 1 };
    let bias_fits = bias.is_none_or(|bias| *bias.shape() == [outputs]);
    let is_supported = weight.is_in_device_order(outputs_along) && bias_fits && x.dtype() == weight.dtype();
    is_supported.then(|| PackedLayer {
        words,
        inner: inner.iter().product(),
        scales,
        bias: bias.map(|bias| float(bias.clone())),
        int8,
    })
}

/// Returns the primitive as a tensor.
fn float<B: Backend, const D: usize>(primitive: FloatTensor<B>) -> Tensor<B, D> {
    Tensor::from_primitive(TensorPrimitive::Float(primitive))
}
