//! Products with the CPU kernels of `ttq-packed`, for every backend whose tensors are those of Burn's Flex.

use std::any::{Any, TypeId};
use std::cell::Cell;

use burn_backend::ops::ConvOptions;
use burn_backend::tensor::FloatTensor;
use burn_backend::{Backend, DType, TensorData, TensorMetadata};
use burn_flex::{Flex, FlexTensor};
use ttq_packed::kernels::{ConvolutionOptions, KernelError, Scratch};

use crate::host::{Host, Kernel};
use crate::weight::TernaryTensor;

/// Number of output positions from which a backend's own convolution is faster on an unpacked weight: the packed kernels
/// read fewer bytes, and unpacking takes time, but many positions share both.
///
/// Measured with 3 × 3 kernels of ResNet-20 on ttq-cpu and an EPYC (Zen 5), half of the weights zero: packed kernels have
/// 2.1 times the speed at 64 positions, 0.85 to 1.2 at 256, 0.8 at 1024 and 0.4 to 0.7 at 2048 and more.
const POSITIONS: usize = 512;

/// Returns whether tensors of the backend are Flex's.
pub(crate) fn has_flex_tensors<B: Backend>() -> bool {
    TypeId::of::<B::FloatTensorPrimitive>() == TypeId::of::<FlexTensor>()
}

pub(crate) fn linear<B: Backend>(
    x: &FloatTensor<B>,
    weight: &TernaryTensor,
    host: &Host,
    bias: Option<&FloatTensor<B>>,
    int8: bool,
) -> Option<FloatTensor<B>> {
    let layout = weight.matrix()?;
    let [outputs, inputs, ..] = layout.shape;
    let mut shape = x.shape().to_vec();
    let supported = is_float32::<B>(x, weight, bias) && shape.pop() == Some(inputs) && fits::<B>(bias, outputs);
    let Some(Kernel::Matrix(matrix)) = supported.then(|| host.kernel(layout, int8, &weight.weight().scales).ok())?
    else {
        return None;
    };
    shape.push(outputs);
    compute::<B>(x, shape, bias, |x, bias, y, scratch| matrix.forward_with_bias(x, bias, y, scratch))
}

pub(crate) fn conv2d<B: Backend>(
    x: &FloatTensor<B>,
    weight: &TernaryTensor,
    host: &Host,
    bias: Option<&FloatTensor<B>>,
    options: &ConvOptions<2>,
    int8: bool,
) -> Option<FloatTensor<B>> {
    let layout = weight.convolution(options.groups)?;
    let shape: [usize; 4] = x.shape().to_vec().try_into().ok()?;
    let [images, _, height, width] = shape;
    let positions = images * (height / options.stride[0].max(1)) * (width / options.stride[1].max(1));
    let unpacks = !int8 && has_own_convolution::<B>() && positions >= POSITIONS;
    let supported = !unpacks && is_float32::<B>(x, weight, bias) && fits::<B>(bias, layout.shape[0]);
    let Some(Kernel::Convolution(convolution)) =
        supported.then(|| host.kernel(layout, int8, &weight.weight().scales).ok())?
    else {
        return None;
    };
    let ConvOptions { stride, padding, dilation, groups } = *options;
    let options = ConvolutionOptions { stride, padding: padding.map(|zeros| [zeros; 2]), dilation, groups };
    let convolution = convolution.with_options(options).ok()?;
    let output = convolution.output_shape(shape).ok()?;
    compute::<B>(x, output.to_vec(), bias, |x, bias, y, scratch| {
        convolution.forward_with_bias(x, shape, bias, y, scratch)
    })
}

/// Returns whether the backend has Flex's tensors, but another convolution, as ttq-cpu does: it would not exist if it were
/// slower than Flex's, of which the packed kernels are 2 to 13 times as fast.
fn has_own_convolution<B: Backend>() -> bool {
    has_flex_tensors::<B>() && TypeId::of::<B>() != TypeId::of::<Flex>()
}

fn is_float32<B: Backend>(x: &FloatTensor<B>, weight: &TernaryTensor, bias: Option<&FloatTensor<B>>) -> bool {
    let bias = bias.map_or(DType::F32, TensorMetadata::dtype);
    has_flex_tensors::<B>() && [x.dtype(), weight.dtype(), bias] == [DType::F32; 3]
}

fn fits<B: Backend>(bias: Option<&FloatTensor<B>>, outputs: usize) -> bool {
    bias.is_none_or(|bias| *bias.shape() == [outputs])
}

thread_local! {
    static SCRATCH: Cell<Scratch> = Cell::default();
}

/// Returns a tensor of `shape` whose elements `work` computes from those of `x` and the bias.
fn compute<B: Backend>(
    x: &FloatTensor<B>,
    shape: Vec<usize>,
    bias: Option<&FloatTensor<B>>,
    work: impl FnOnce(&[f32], Option<&[f32]>, &mut [f32], &mut Scratch) -> Result<(), KernelError>,
) -> Option<FloatTensor<B>> {
    let x = flex::<B>(x).to_contiguous();
    let bias = bias.map(|bias| flex::<B>(bias).to_contiguous());
    let mut output = vec![0.0; shape.iter().product()];
    // While a thread waits for the others, it may compute another layer: that call gets buffers of its own.
    let mut scratch = SCRATCH.take();
    let result = work(floats(&x), bias.as_ref().map(floats), &mut output, &mut scratch);
    SCRATCH.set(scratch);
    result.ok()?;
    Some(B::float_from_data(TensorData::new(output, shape), &B::Device::default()))
}

fn floats(tensor: &FlexTensor) -> &[f32] {
    let (start, end) = tensor.layout().contiguous_offsets().unwrap_or((0, 0));
    &tensor.storage::<f32>()[start..end]
}

fn flex<B: Backend>(tensor: &FloatTensor<B>) -> &FlexTensor {
    (tensor as &dyn Any).downcast_ref().expect("the tensors of the backend are Flex's")
}
