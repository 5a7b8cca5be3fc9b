//! Linear layers and convolutions with packed weights, as operations on tensors.

use burn::prelude::*;
use burn::tensor::TensorPrimitive;
use burn_cubecl::CubeRuntime;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_dtype;
use burn_cubecl::tensor::CubeTensor;
use burn_std::{DType, Shape};

use crate::kernels::product::{Matrix, Product, VALUES};
use crate::kernels::source::ProductKind;
pub use crate::kernels::source::Window;
use crate::kernels::{activations, tile, vector};
use crate::operation::{ErasedTensor, Operation, TensorSpec, float, int, run};

/// A linear layer or convolution with a packed ternary weight, 2 bits a value.
///
/// The weight is a matrix with one row for each output, whose values are those of the weight of this output in
/// row-major order: `[in]`, or `[in / groups, kh, kw]`. A 32-bit word holds 16 consecutive values of a row, two bits
/// each, the first in the lowest bits. The lower bit is set if the value is negative, the higher one if it is positive;
/// both are zero for zeros and beyond the end of a row.
#[derive(Debug, Clone)]
pub struct PackedLayer<B: Backend> {
    /// The words, `[ceil(inner / 16), outputs]`, i32 or u32.
    pub words: Tensor<B, 2, Int>,
    /// Number of values of a row.
    pub inner: usize,
    /// W_p and W_n, for the whole weight `[1, 2]` or for each output channel `[outputs, 2]`.
    pub scales: Tensor<B, 2>,
    /// Bias `[outputs]`.
    pub bias: Option<Tensor<B, 1>>,
    /// Whether activations are quantized to int8, with one factor `max|x| / 127` for each row (linear) or image
    /// (convolution).
    pub int8: bool,
}

impl<B: Backend> PackedLayer<B> {
    fn matrix(&self) -> Matrix {
        let [words, outputs] = self.words.dims();
        assert!(
            words == self.inner.div_ceil(VALUES as usize) && matches!(self.words.dtype(), DType::I32 | DType::U32),
            "packed layer: the words are {:?} of [{words}, {outputs}], but rows of {} values need i32 or u32 words of \
             [{}, outputs]",
            self.words.dtype(),
            self.inner,
            self.inner.div_ceil(VALUES as usize),
        );
        Matrix { outputs, inner: self.inner }
    }
}

/// Computes a linear layer, `y = x W + bias`, in the type of `x`.
///
/// # Shapes
/// - input: `[.., in]`
/// - output: `[.., out]`
///
/// # Panics
/// Panics if the last dimension of the input or the shape of the words differs from that of the weight, or if the backend of the input is not
/// supported. Other conditions of [`supports`](crate::supports) are not checked.
pub fn linear<B: Backend, const D: usize>(input: Tensor<B, D>, layer: PackedLayer<B>) -> Tensor<B, D> {
    let mut output = input.dims();
    let Matrix { inner, outputs } = layer.matrix();
    assert!(
        output[D - 1] == inner,
        "linear: the last dimension of the input {output:?} must be {inner}, as the weight is [{inner}, {outputs}]"
    );
    output[D - 1] = outputs;
    multiply(input, layer, Shape::from(output), None)
}

/// Computes a two-dimensional convolution with bias, in the type of the input.
///
/// # Shapes
/// - input: `[n, in, h, w]`
/// - output: `[n, out, h', w']`, with `[h', w'] = window.output`
///
/// # Panics
/// Panics if the number of channels of the input differs from that of the weight, or if the backend of the input is not
/// supported. Other conditions of [`supports`](crate::supports), and the output size, are not checked.
pub fn conv2d<B: Backend>(input: Tensor<B, 4>, layer: PackedLayer<B>, window: Window) -> Tensor<B, 4> {
    let [images, channels, height, width] = input.dims();
    let Matrix { inner, outputs } = layer.matrix();
    let expected = inner / (window.kernel[0] * window.kernel[1]) * window.groups;
    assert!(channels == expected, "conv2d: the input has {channels} channels, but the weight expects {expected}");
    let output = Shape::from([images, outputs, window.output[0], window.output[1]]);
    multiply(input, layer, output, Some((window, [channels, height, width])))
}

fn multiply<B: Backend, const D: usize>(
    input: Tensor<B, D>,
    layer: PackedLayer<B>,
    output: Shape,
    window: Option<(Window, [usize; 3])>,
) -> Tensor<B, D> {
    let kind = ProductKind { windows: window.is_some(), int8: layer.int8, per_output: layer.scales.dims()[0] > 1 };
    let multiply = Multiply { matrix: layer.matrix(), output, kind, window };
    let parameters = [float(input), int(layer.words), float(layer.scales.cast(DType::F32))];
    let bias = layer.bias.map(|bias| float(bias.cast(DType::F32)));
    let inputs: Vec<ErasedTensor> = parameters.into_iter().chain(bias).collect();
    Tensor::from_primitive(TensorPrimitive::Float(run::<B, _>(&multiply, inputs).remove(0)))
}

#[derive(Debug, Clone)]
struct Multiply {
    matrix: Matrix,
    output: Shape,
    kind: ProductKind,
    window: Option<(Window, [usize; 3])>,
}

impl Operation for Multiply {
    const NAME: &'static str = "ttq_multiply";

    fn outputs(&self, inputs: &[TensorSpec]) -> Vec<TensorSpec> {
        vec![(self.output.clone(), inputs[0].1)]
    }

    fn run<R: CubeRuntime>(&self, inputs: Vec<CubeTensor<R>>) -> Vec<CubeTensor<R>> {
        let mut inputs = inputs.into_iter();
        let [x, words, scales] = [0; 3].map(|_| inputs.next().expect("activations, words and scales"));
        let output = empty_device_dtype(x.client.clone(), x.device.clone(), self.output.clone(), x.dtype);
        let elements = self.output.num_elements();
        if elements == 0 {
            return vec![output];
        }
        let rows = elements / self.matrix.outputs;
        let (x, factors) = if self.kind.int8 {
            // One factor for each image, or for each row of a matrix.
            let quantized = activations::quantize(x, if self.kind.windows { self.output[0] } else { rows });
            (quantized.words, Some(quantized.factors))
        } else {
            (x, None)
        };
        let product = Product {
            x,
            factors,
            words: into_contiguous(words),
            scales: into_contiguous(scales),
            bias: inputs.next().map(into_contiguous),
            matrix: self.matrix,
            rows,
            groups: self.window.map_or(1, |(window, _)| window.groups),
            kind: self.kind,
            window: self.window,
        };
        if rows <= vector::ROWS && !self.kind.windows {
            vector::multiply(product, output.clone());
        } else {
            tile::multiply(product, output.clone());
        }
        vec![output]
    }
}
