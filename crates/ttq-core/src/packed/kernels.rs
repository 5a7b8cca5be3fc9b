//! Packed layers with the CPU kernels of `ttq-packed`, for every backend whose tensors are those of Burn's Flex.

use std::any::{Any, TypeId};
use std::cell::RefCell;

use burn::nn::conv::Conv2dConfig;
use burn::prelude::*;
use burn::tensor::{DType, TensorData};
use burn_flex::FlexTensor;
use ttq_packed::TernaryWeight;
use ttq_packed::kernels::{
    Activations as Precision, ConvolutionOptions, KernelError, PackedConvolution, PackedMatrix, Scales, Scratch,
};

use super::ActivationType;
use super::geometry::Geometry;

/// Returns whether the kernels support this tensor.
pub(super) fn supports<B: Backend, const D: usize>(input: &Tensor<B, D>) -> bool {
    TypeId::of::<B::FloatTensorPrimitive>() == TypeId::of::<FlexTensor>() && input.dtype() == DType::F32
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::new());
}

/// Unwraps the result of building a kernel, which the shape checks of the layers make infallible.
pub(super) fn expect_valid<K>(kernel: Result<K, KernelError>) -> K {
    kernel.expect("weight and bias of a packed layer have matching shapes")
}

fn precision<A: ActivationType>() -> Precision {
    if A::INT8 { Precision::Int8 } else { Precision::Float32 }
}

/// Calls `work` with the scales in the form that the kernels use.
fn with_scales<T>(weight: &TernaryWeight, work: impl FnOnce(Scales<'_>) -> T) -> T {
    if let [[w_pos, w_neg]] = *weight.scales() {
        return work(Scales::PerTensor { w_pos, w_neg });
    }
    let [w_pos, w_neg] = [0, 1].map(|column| weight.scales().iter().map(|pair| pair[column]).collect::<Vec<f32>>());
    work(Scales::PerRow { w_pos: &w_pos, w_neg: &w_neg })
}

/// Builds the kernel of a linear weight, `[in, out]`.
pub(super) fn matrix<A: ActivationType>(
    weight: &TernaryWeight,
    bias: Option<&[f32]>,
) -> Result<PackedMatrix, KernelError> {
    let (inputs, outputs) = (weight.shape()[0], weight.shape()[1]);
    let codes = transpose(&weight.codes().unpack(), outputs);
    let code = |output: usize, input: usize| codes[output * inputs + input];
    let matrix = with_scales(weight, |scales| PackedMatrix::new(outputs, inputs, scales, code))?;
    let matrix = matrix.with_activations(precision::<A>());
    match bias {
        Some(bias) => matrix.with_bias(bias),
        None => Ok(matrix),
    }
}

/// Transposes a row-major matrix with the given number of columns, in square blocks that fit into the cache.
fn transpose(matrix: &[i8], columns: usize) -> Vec<i8> {
    const SIDE: usize = 64;
    let rows = matrix.len().checked_div(columns).unwrap_or(0);
    let mut transposed = vec![0; matrix.len()];
    for top in (0..rows).step_by(SIDE) {
        for left in (0..columns).step_by(SIDE) {
            for column in left..columns.min(left + SIDE) {
                for row in top..rows.min(top + SIDE) {
                    transposed[column * rows + row] = matrix[row * columns + column];
                }
            }
        }
    }
    transposed
}

/// Computes a linear layer: input `[.., in]`, output `[.., out]`.
pub(super) fn multiply<B: Backend, const D: usize>(input: Tensor<B, D>, matrix: &PackedMatrix) -> Tensor<B, D> {
    let mut shape = input.dims();
    assert_eq!(
        shape[D - 1],
        matrix.columns(),
        "PackedLinear: the last dimension of the input differs from that of the weight"
    );
    shape[D - 1] = matrix.rows();
    with_float_slices(input, shape, |x, y, scratch| matrix.forward(x, y, scratch))
}

/// Returns the kernel options of a convolution for images of size `[height, width]`; `None` if the padding of two
/// opposite sides differs, which the kernels do not support.
pub(super) fn options(config: &Conv2dConfig, size: [usize; 2]) -> Option<ConvolutionOptions> {
    let Conv2dConfig { stride, dilation, groups, .. } = *config;
    let [[top, bottom], [left, right]] = Geometry::of(config).padding_of(size);
    let padding = [top, left];
    (padding == [bottom, right]).then_some(ConvolutionOptions { stride, padding, dilation, groups })
}

/// Builds the kernel of a convolution weight, `[out, in / groups, kh, kw]`.
pub(super) fn convolution<A: ActivationType>(
    weight: &TernaryWeight,
    options: ConvolutionOptions,
    bias: Option<&[f32]>,
) -> Result<PackedConvolution, KernelError> {
    let shape: [usize; 4] = weight.shape().try_into().expect("a convolution's weight has four dimensions");
    let inner = shape[1] * shape[2] * shape[3];
    let codes = weight.codes().unpack();
    let code = |output: usize, index: usize| codes[output * inner + index];
    let convolution = with_scales(weight, |scales| PackedConvolution::new(shape, options, scales, code))?;
    let convolution = convolution.with_activations(precision::<A>());
    match bias {
        Some(bias) => convolution.with_bias(bias),
        None => Ok(convolution),
    }
}

/// Computes a convolution: input `[n, in, h, w]`, output `[n, out, h', w']`.
pub(super) fn convolve<B: Backend>(input: Tensor<B, 4>, convolution: &PackedConvolution) -> Tensor<B, 4> {
    let shape = input.dims();
    let output = convolution.output_shape(shape).unwrap_or_else(|error| panic!("PackedConv2d: {error}"));
    with_float_slices(input, output, |x, y, scratch| convolution.forward(x, shape, y, scratch))
}

/// Returns a tensor of `shape` whose elements `work` computes from those of `input`.
fn with_float_slices<B: Backend, const D: usize>(
    input: Tensor<B, D>,
    shape: [usize; D],
    work: impl FnOnce(&[f32], &mut [f32], &mut Scratch) -> Result<(), KernelError>,
) -> Tensor<B, D> {
    let device = input.device();
    let input: Box<dyn Any> = Box::new(input.into_primitive().tensor());
    let input = input.downcast::<FlexTensor>().expect("`supports` has checked the type").to_contiguous();
    let (start, end) = input.layout().contiguous_offsets().unwrap_or((0, 0));
    let mut output = vec![0.0; shape.iter().product()];
    SCRATCH
        .with_borrow_mut(|scratch| work(&input.storage::<f32>()[start..end], &mut output, scratch))
        .expect("the slices have the lengths of the shapes");
    Tensor::from_data(TensorData::new(output, shape), &device)
}

/// Reads the elements of a tensor.
pub(super) fn floats<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}
