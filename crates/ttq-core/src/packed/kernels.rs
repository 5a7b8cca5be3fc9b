//! Packed layers with the CPU kernels of `ttq-packed`, for every backend whose tensors are those of Burn's Flex.

use std::any::{Any, TypeId};
use std::cell::Cell;
use std::sync::Arc;

use burn::module::Param;
use burn::nn::conv::Conv2dConfig;
use burn::prelude::*;
use burn::tensor::{DType, TensorData};
use burn_flex::FlexTensor;
use ttq_packed::TernaryWeight;
use ttq_packed::kernels::{
    Activations as Precision, ConvolutionOptions, KernelError, PackedConvolution, PackedMatrix, Scales, Scratch,
};

use super::geometry::Geometry;
use super::kernel_cache::KernelCache;
use super::{ActivationType, PackedWeight};

/// Returns whether the kernels support this tensor.
pub(super) fn supports<B: Backend, const D: usize>(input: &Tensor<B, D>) -> bool {
    let flex = TypeId::of::<FlexTensor>();
    TypeId::of::<B::FloatTensorPrimitive>() == flex
        && TypeId::of::<B::IntTensorPrimitive>() == flex
        && input.dtype() == DType::F32
}

/// The kernel of a layer and the parameters that it was built from.
#[derive(Debug)]
pub(super) struct CachedKernel<K> {
    parameters: Parameters,
    kernel: K,
}

/// Cache of the kernel of a layer.
pub(super) type Cache<K> = KernelCache<CachedKernel<K>>;

/// Handles of the parameters of a layer.
///
/// Flex writes to the memory of a tensor only if it has a single handle. Memory with a handle here is thus constant and
/// not reused, and tensors with the same memory have the same elements.
#[derive(Debug, Clone)]
struct Parameters {
    codes: FlexTensor,
    scales: FlexTensor,
    bias: Option<FlexTensor>,
}

impl Parameters {
    fn new<B: Backend>(weight: &PackedWeight<B>, bias: Option<&Param<Tensor<B, 1>>>) -> Self {
        Self {
            codes: flex(weight.codes().into_primitive()),
            scales: flex(weight.scales().into_primitive().tensor()),
            bias: bias.map(|bias| flex(bias.val().into_primitive().tensor())),
        }
    }

    fn are_same(&self, other: &Self) -> bool {
        let same = |a: &FlexTensor, b: &FlexTensor| {
            Arc::ptr_eq(&a.data_arc(), &b.data_arc()) && a.layout() == b.layout() && a.dtype() == b.dtype()
        };
        let same_bias = match (&self.bias, &other.bias) {
            (Some(a), Some(b)) => same(a, b),
            (None, None) => true,
            _ => false,
        };
        same(&self.codes, &other.codes) && same(&self.scales, &other.scales) && same_bias
    }
}

/// Returns the kernel of the current parameters. If the cache does not have it, `build` creates it from weight and bias.
fn current<B: Backend, K>(
    cache: &Cache<K>,
    weight: &PackedWeight<B>,
    bias: Option<&Param<Tensor<B, 1>>>,
    build: impl FnOnce(&TernaryWeight, Option<&[f32]>) -> Result<K, KernelError>,
) -> Arc<CachedKernel<K>> {
    let parameters = Parameters::new(weight, bias);
    cache.get_or_build(
        |cached| cached.parameters.are_same(&parameters),
        || {
            let bias: Option<Vec<f32>> = bias.map(|bias| bias.val().into_data().iter().collect());
            let kernel = build(&weight.to_ternary(), bias.as_deref())
                .unwrap_or_else(|error| panic!("the parameters of a packed layer do not fit together: {error}"));
            CachedKernel { parameters: parameters.clone(), kernel }
        },
    )
}

thread_local! {
    static SCRATCH: Cell<Scratch> = Cell::default();
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

/// Computes a linear layer: input `[.., in]`, weight `[in, out]`, output `[.., out]`.
pub(super) fn linear<B: Backend, A: ActivationType, const D: usize>(
    input: Tensor<B, D>,
    weight: &PackedWeight<B>,
    bias: Option<&Param<Tensor<B, 1>>>,
    cache: &Cache<PackedMatrix>,
) -> Tensor<B, D> {
    let cached = current(cache, weight, bias, matrix::<A>);
    let matrix = &cached.kernel;
    let mut shape = input.dims();
    assert_eq!(
        shape[D - 1],
        matrix.columns(),
        "PackedLinear: the last dimension of the input differs from that of the weight"
    );
    shape[D - 1] = matrix.rows();
    with_float_slices(input, shape, |x, y, scratch| matrix.forward(x, y, scratch))
}

/// Builds the kernel of a linear weight, `[in, out]`.
fn matrix<A: ActivationType>(weight: &TernaryWeight, bias: Option<&[f32]>) -> Result<PackedMatrix, KernelError> {
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

/// Computes a convolution: input `[n, in, h, w]`, weight `[out, in / groups, kh, kw]`, output `[n, out, h', w']`.
pub(super) fn conv2d<B: Backend, A: ActivationType>(
    input: Tensor<B, 4>,
    weight: &PackedWeight<B>,
    bias: Option<&Param<Tensor<B, 1>>>,
    config: &Conv2dConfig,
    cache: &Cache<PackedConvolution>,
) -> Tensor<B, 4> {
    let cached = current(cache, weight, bias, |weight, bias| convolution::<A>(weight, config, bias));
    let shape = input.dims();
    let padding = Geometry::of(config).padding_of([shape[2], shape[3]]);
    let convolution = cached.kernel.clone().with_padding(padding);
    let output = convolution.output_shape(shape).unwrap_or_else(|error| panic!("PackedConv2d: {error}"));
    with_float_slices(input, output, |x, y, scratch| convolution.forward(x, shape, y, scratch))
}

/// Builds the kernel of a convolution weight, `[out, in / groups, kh, kw]`, without padding.
fn convolution<A: ActivationType>(
    weight: &TernaryWeight,
    config: &Conv2dConfig,
    bias: Option<&[f32]>,
) -> Result<PackedConvolution, KernelError> {
    let Conv2dConfig { stride, dilation, groups, .. } = *config;
    let options = ConvolutionOptions { stride, dilation, groups, ..ConvolutionOptions::default() };
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

/// Returns a tensor of `shape` whose elements `work` computes from those of `input`.
fn with_float_slices<B: Backend, const D: usize>(
    input: Tensor<B, D>,
    shape: [usize; D],
    work: impl FnOnce(&[f32], &mut [f32], &mut Scratch) -> Result<(), KernelError>,
) -> Tensor<B, D> {
    let device = input.device();
    let input = flex(input.into_primitive().tensor()).to_contiguous();
    let (start, end) = input.layout().contiguous_offsets().unwrap_or((0, 0));
    let mut output = vec![0.0; shape.iter().product()];
    // While a thread waits for the others, it may compute another layer: that call gets buffers of its own.
    let mut scratch = SCRATCH.take();
    work(&input.storage::<f32>()[start..end], &mut output, &mut scratch)
        .expect("the slices have the lengths of the shapes");
    SCRATCH.set(scratch);
    Tensor::from_data(TensorData::new(output, shape), &device)
}

/// Returns the Flex tensor of a backend that [`supports`] has checked.
fn flex<T: 'static>(primitive: T) -> FlexTensor {
    let primitive: Box<dyn Any> = Box::new(primitive);
    *primitive.downcast().expect("`supports` has checked the type")
}
