//! Linear layers and convolutions with packed weights, as operations on tensors.

use burn::prelude::*;
use burn::tensor::TensorPrimitive;
use burn_cubecl::CubeRuntime;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_dtype;
use burn_cubecl::tensor::CubeTensor;
use burn_std::{DType, Shape};

use crate::kernels::packing::{self, Matrix};
use crate::kernels::product::Product;
use crate::kernels::source::ProductKind;
pub use crate::kernels::source::Window;
use crate::kernels::{activations, tile, vector};
use crate::operation::{ErasedTensor, Operation, TensorSpec, float, int, memory, run};

/// A packed ternary weight on a device, in the layout of the kernels: 2 bits a value.
///
/// The codes are the words of a packed file: each 32-bit word holds sixteen codes `t + 1` (0, 1, 2 for -1, 0, +1), two
/// bits each, the first in the lowest bits, in row-major order of the weight.
#[derive(Debug, Clone)]
pub struct DeviceWeight<B: Backend> {
    /// `[ceil(inner / 16), outputs]`
    words: Tensor<B, 2, Int>,
    matrix: Matrix,
    /// The codes that it was built from. Memory with two handles is not written to.
    codes: Tensor<B, 1, Int>,
}

impl<B: Backend> DeviceWeight<B> {
    /// Creates the weight of a linear layer.
    ///
    /// # Shapes
    /// - codes: `[words]` with at least `ceil(in · out / 16)` words
    /// - weight: `[in, out]`
    ///
    /// # Panics
    /// Panics if the codes are not supported ([`supports_codes`]) or there are too few words.
    pub fn linear(codes: Tensor<B, 1, Int>, [inputs, outputs]: [usize; 2]) -> Self {
        Self::new(codes, Matrix { outputs, inner: inputs, row_stride: 1, value_stride: outputs })
    }

    /// Creates the weight of a convolution.
    ///
    /// # Shapes
    /// - codes: `[words]` with at least `ceil(out · in / groups · kh · kw / 16)` words
    /// - weight: `[out, in / groups, kh, kw]`
    ///
    /// # Panics
    /// Panics if the codes are not supported ([`supports_codes`]) or there are too few words.
    pub fn convolution(codes: Tensor<B, 1, Int>, [outputs, channels, height, width]: [usize; 4]) -> Self {
        let inner = channels * height * width;
        Self::new(codes, Matrix { outputs, inner, row_stride: inner, value_stride: 1 })
    }

    fn new(codes: Tensor<B, 1, Int>, matrix: Matrix) -> Self {
        assert!(
            supports_codes(&codes),
            "packed weight: codes must be an i32 or u32 tensor on a backend that the kernels support"
        );
        let values = matrix.outputs * matrix.inner;
        let [words] = codes.dims();
        assert!(
            words * 16 >= values,
            "packed weight: {words} words hold fewer than {values} values: pass {} words",
            values.div_ceil(16)
        );
        let words = run::<B, _>(&Pack { matrix }, vec![int(codes.clone())]).remove(0);
        Self { words: integers(words), matrix, codes }
    }

    /// Returns whether the weight was built from this tensor or a clone of it. Does not read elements: another tensor
    /// with equal elements gives `false`.
    pub fn is_built_from(&self, codes: &Tensor<B, 1, Int>) -> bool {
        codes.device() == self.codes.device() && memory::<B, 1>(codes) == memory(&self.codes)
    }
}

/// Returns whether the kernels support these codes: 32-bit words (i32 or u32) on a backend that the crate is compiled
/// for.
pub fn supports_codes<B: Backend>(codes: &Tensor<B, 1, Int>) -> bool {
    crate::operation::supports_backend::<B>() && matches!(codes.dtype(), DType::I32 | DType::U32)
}

/// Scales, bias and activation type of a layer with packed weights.
#[derive(Debug, Clone)]
pub struct LayerParameters<B: Backend> {
    /// W_p and W_n, for the whole weight `[1, 2]` or for each output channel `[out, 2]`.
    pub scales: Tensor<B, 2>,
    /// Bias `[out]`.
    pub bias: Option<Tensor<B, 1>>,
    /// Whether activations are quantized to int8, with one factor `max|x| / 127` for each row (linear) or image
    /// (convolution).
    pub int8: bool,
}

/// Computes a linear layer, `y = x W + bias`, in the type of `x`.
///
/// # Shapes
/// - input: `[.., in]`
/// - output: `[.., out]`
///
/// # Panics
/// Panics if the last dimension of the input differs from that of the weight, or if the backend of the input is not
/// supported. Other conditions of [`supports`](crate::supports) are not checked.
pub fn linear<B: Backend, const D: usize>(
    input: Tensor<B, D>,
    weight: &DeviceWeight<B>,
    layer: LayerParameters<B>,
) -> Tensor<B, D> {
    let mut output = input.dims();
    let Matrix { inner, outputs, .. } = weight.matrix;
    assert!(
        output[D - 1] == inner,
        "linear: the last dimension of the input {output:?} must be {inner}, as the weight is [{inner}, {outputs}]"
    );
    output[D - 1] = outputs;
    multiply(input, weight, layer, Shape::from(output), None)
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
pub fn conv2d<B: Backend>(
    input: Tensor<B, 4>,
    weight: &DeviceWeight<B>,
    layer: LayerParameters<B>,
    window: Window,
) -> Tensor<B, 4> {
    let [images, channels, height, width] = input.dims();
    let expected = weight.matrix.inner / (window.kernel[0] * window.kernel[1]) * window.groups;
    assert!(channels == expected, "conv2d: the input has {channels} channels, but the weight expects {expected}");
    let output = Shape::from([images, weight.matrix.outputs, window.output[0], window.output[1]]);
    multiply(input, weight, layer, output, Some((window, [channels, height, width])))
}

fn multiply<B: Backend, const D: usize>(
    input: Tensor<B, D>,
    weight: &DeviceWeight<B>,
    layer: LayerParameters<B>,
    output: Shape,
    window: Option<(Window, [usize; 3])>,
) -> Tensor<B, D> {
    let kind = ProductKind { windows: window.is_some(), int8: layer.int8, per_output: layer.scales.dims()[0] > 1 };
    let multiply = Multiply { matrix: weight.matrix, output, kind, window };
    let parameters = [float(input), int(weight.words.clone()), float(layer.scales.cast(DType::F32))];
    let bias = layer.bias.map(|bias| float(bias.cast(DType::F32)));
    let inputs: Vec<ErasedTensor> = parameters.into_iter().chain(bias).collect();
    Tensor::from_primitive(TensorPrimitive::Float(run::<B, _>(&multiply, inputs).remove(0)))
}

/// Converts a float primitive to an integer tensor. Both have the same type on every supported backend.
fn integers<B: Backend, const D: usize>(primitive: B::FloatTensorPrimitive) -> Tensor<B, D, Int> {
    let primitive: ErasedTensor = Box::new(primitive);
    Tensor::from_primitive(*primitive.downcast().expect("float and integer tensors have the same primitive type"))
}

#[derive(Debug, Clone)]
struct Pack {
    matrix: Matrix,
}

impl Operation for Pack {
    const NAME: &'static str = "ttq_pack";

    fn outputs(&self, inputs: &[TensorSpec]) -> Vec<TensorSpec> {
        vec![(Shape::from(self.matrix.words_shape()), inputs[0].1)]
    }

    fn run<R: CubeRuntime>(&self, inputs: Vec<CubeTensor<R>>) -> Vec<CubeTensor<R>> {
        inputs.into_iter().map(|codes| packing::pack(codes, self.matrix)).collect()
    }
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
            words,
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
