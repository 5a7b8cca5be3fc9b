//! Layers on packed weights: preparation and products, on tensors.

use burn::prelude::*;
use burn::tensor::TensorPrimitive;
use burn_cubecl::CubeRuntime;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_dtype;
use burn_cubecl::tensor::CubeTensor;
use burn_std::{DType, Shape};

use crate::kernels::packing::{self, Matrix};
use crate::kernels::product::Product;
pub use crate::kernels::source::Window;
use crate::kernels::source::Kind;
use crate::kernels::{activations, tile, vector};
use crate::operation::{Erased, Form, Operation, float, int, run};

/// A ternary weight on a device, as the kernels read it: 2 bits a value.
#[derive(Debug, Clone)]
pub struct Weight<B: Backend> {
    /// `[ceil(inner / 16), outputs]`
    words: Tensor<B, 2, Int>,
    matrix: Matrix,
}

impl<B: Backend> Weight<B> {
    /// The weight `[in, out]` of a linear layer, from the words of a file: codes `t + 1`, sixteen to a word.
    ///
    /// # Panics
    /// Where the kernels do not take such words ([`takes_codes`]).
    pub fn linear(codes: Tensor<B, 1, Int>, [inputs, outputs]: [usize; 2]) -> Self {
        Self::new(codes, Matrix { outputs, inner: inputs, across: 1, along: outputs })
    }

    /// The weight `[out, in / groups, kh, kw]` of a convolution, from the words of a file.
    ///
    /// # Panics
    /// Where the kernels do not take such words ([`takes_codes`]).
    pub fn convolution(codes: Tensor<B, 1, Int>, [outputs, channels, height, width]: [usize; 4]) -> Self {
        let inner = channels * height * width;
        Self::new(codes, Matrix { outputs, inner, across: inner, along: 1 })
    }

    fn new(codes: Tensor<B, 1, Int>, matrix: Matrix) -> Self {
        assert!(takes_codes(&codes), "packed weight: the kernels take words of 32 bits on their devices");
        let values = matrix.outputs * matrix.inner;
        let [words] = codes.dims();
        assert!(words * 16 >= values, "packed weight: {words} words are too few for {values} values");
        let words = run::<B, _>(&Pack { matrix }, vec![int(codes)]).remove(0);
        Self { words: integers(words), matrix }
    }
}

/// Do the kernels take these codes? They must be words of 32 bits on a device of a runtime that the kernels were compiled for.
pub fn takes_codes<B: Backend>(codes: &Tensor<B, 1, Int>) -> bool {
    crate::operation::takes::<B>() && matches!(codes.dtype(), DType::I32 | DType::U32)
}

/// What a layer computes with beside its codes.
#[derive(Debug, Clone)]
pub struct Layer<B: Backend> {
    /// W_p and W_n, once or for each output. `[1 or out, 2]`
    pub scales: Tensor<B, 2>,
    /// `[out]`
    pub bias: Option<Tensor<B, 1>>,
    /// Are activations quantized to int8, by the largest magnitude of each row or image?
    pub int8: bool,
}

/// `y = x W + bias`, `[.., in]` to `[.., out]`.
///
/// # Panics
/// Where the last dimension of the input is not that of the weight, or the kernels do not take the input ([`takes`](crate::takes)).
pub fn linear<B: Backend, const D: usize>(input: Tensor<B, D>, weight: &Weight<B>, layer: Layer<B>) -> Tensor<B, D> {
    let mut output = input.dims();
    let Matrix { inner, outputs, .. } = weight.matrix;
    assert!(output[D - 1] == inner, "linear: an input {output:?} does not fit a weight [{inner}, {outputs}]");
    output[D - 1] = outputs;
    multiply(input, weight, layer, Shape::from(output), None)
}

/// The convolution of `[n, in, h, w]` to `[n, out, h', w']`, with `h'` and `w'` as the window says.
///
/// # Panics
/// Where the channels of the input are not those of the weight, or the kernels do not take the input ([`takes`](crate::takes)).
pub fn conv2d<B: Backend>(input: Tensor<B, 4>, weight: &Weight<B>, layer: Layer<B>, window: Window) -> Tensor<B, 4> {
    let [images, channels, height, width] = input.dims();
    let expected = weight.matrix.inner / (window.kernel[0] * window.kernel[1]) * window.groups;
    assert!(channels == expected, "conv2d: images of {channels} channels do not fit a weight for {expected}");
    let output = Shape::from([images, weight.matrix.outputs, window.output[0], window.output[1]]);
    multiply(input, weight, layer, output, Some((window, [channels, height, width])))
}

fn multiply<B: Backend, const D: usize>(
    input: Tensor<B, D>,
    weight: &Weight<B>,
    layer: Layer<B>,
    output: Shape,
    window: Option<(Window, [usize; 3])>,
) -> Tensor<B, D> {
    let kind =
        Kind { windows: window.is_some(), int8: layer.int8, per_output: layer.scales.dims()[0] > 1 };
    let multiply = Multiply { matrix: weight.matrix, output, kind, window };
    let parameters = [float(input), int(weight.words.clone()), float(layer.scales.cast(DType::F32))];
    let bias = layer.bias.map(|bias| float(bias.cast(DType::F32)));
    let inputs: Vec<Erased> = parameters.into_iter().chain(bias).collect();
    Tensor::from_primitive(TensorPrimitive::Float(run::<B, _>(&multiply, inputs).remove(0)))
}

/// An integer tensor, from the float primitive that is the same type on every backend that the kernels take.
fn integers<B: Backend, const D: usize>(primitive: B::FloatTensorPrimitive) -> Tensor<B, D, Int> {
    let primitive: Erased = Box::new(primitive);
    Tensor::from_primitive(*primitive.downcast().expect("both kinds of tensors have the same primitive"))
}

#[derive(Debug, Clone)]
struct Pack {
    matrix: Matrix,
}

impl Operation for Pack {
    const NAME: &'static str = "ttq_pack";

    fn outputs(&self, inputs: &[Form]) -> Vec<Form> {
        vec![(Shape::from(self.matrix.words()), inputs[0].1)]
    }

    fn run<R: CubeRuntime>(&self, inputs: Vec<CubeTensor<R>>) -> Vec<CubeTensor<R>> {
        inputs.into_iter().map(|codes| packing::pack(codes, self.matrix)).collect()
    }
}

#[derive(Debug, Clone)]
struct Multiply {
    matrix: Matrix,
    output: Shape,
    kind: Kind,
    window: Option<(Window, [usize; 3])>,
}

impl Operation for Multiply {
    const NAME: &'static str = "ttq_multiply";

    fn outputs(&self, inputs: &[Form]) -> Vec<Form> {
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
            // Each image, or each row of the matrix, has a factor of its own.
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
