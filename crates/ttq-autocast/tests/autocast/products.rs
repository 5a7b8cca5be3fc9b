//! Values and gradients of every operation that is computed in 16 bits.

use burn::backend::{Autodiff, Flex};
use burn::prelude::*;
use burn::tensor::TensorData;
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::module::{conv_transpose1d, conv_transpose2d, conv_transpose3d, conv1d, conv2d, conv3d, linear};
use burn::tensor::ops::{ConvOptions, ConvTransposeOptions};
use ttq_autocast::{Bf16, F16, Half};
use ttq_testing::{tensor, uniform};

use crate::{On, assert_within, rounding};

/// Input, weight, bias, and the gradient of the output.
struct Case([TensorData; 4]);

impl Case {
    fn new(x: &[usize], weight: &[usize], bias: usize, y: &[usize]) -> Self {
        Self([uniform(x, 1), uniform(weight, 2), uniform(&[bias], 3), uniform(y, 4)])
    }

    /// The case with the magnitude of every element. The operation then computes the sums of the magnitudes of its
    /// terms.
    fn magnitudes(&self) -> Self {
        let abs = |data: &TensorData| {
            TensorData::new(data.iter::<f32>().map(f32::abs).collect::<Vec<_>>(), data.shape.clone())
        };
        Self(self.0.each_ref().map(abs))
    }

    /// Returns the output and the gradients of input, weight and bias.
    fn outcome<B: AutodiffBackend, const D: usize, const W: usize>(
        &self,
        operation: impl Fn(Tensor<B, D>, Tensor<B, W>, Tensor<B, 1>) -> Tensor<B, D>,
    ) -> [TensorData; 4] {
        let [x, weight, bias, grad] = &self.0;
        let x = tensor::<B, D>(x).require_grad();
        let weight = tensor::<B, W>(weight).require_grad();
        let bias = tensor::<B, 1>(bias).require_grad();
        let y = operation(x.clone(), weight.clone(), bias.clone());
        let grads = (y.clone() * tensor(grad)).sum().backward();
        let missing = "every input has a gradient";
        [
            y.into_data(),
            x.grad(&grads).expect(missing).into_data(),
            weight.grad(&grads).expect(missing).into_data(),
            bias.grad(&grads).expect(missing).into_data(),
        ]
    }
}

/// Error of a product: three roundings, of both factors and of the product, plus the rounding of a float32 sum. Flex
/// accumulates bfloat16 in float32, but float16 in float16, which adds further roundings.
fn tolerance<P: Half>() -> f64 {
    let roundings = if P::NEEDS_SCALING { 8.0 } else { 3.0 };
    roundings * rounding::<P>() + 1e-6
}

/// Compares the operation in both 16-bit types with float32.
macro_rules! assert_near_float32 {
    ($case:expr, $x:literal, $w:literal, |$left:ident, $right:ident, $bias:ident| $work:expr) => {{
        let case: Case = $case;
        let expected = case.outcome::<Autodiff<Flex>, $x, $w>(|$left, $right, $bias| $work);
        let sizes = case.magnitudes().outcome::<Autodiff<Flex>, $x, $w>(|$left, $right, $bias| $work);
        assert_near_float32!(@in Bf16, case, expected, sizes, $x, $w, |$left, $right, $bias| $work);
        assert_near_float32!(@in F16, case, expected, sizes, $x, $w, |$left, $right, $bias| $work);
    }};
    (@in $half:ident, $case:ident, $expected:ident, $sizes:ident, $x:literal, $w:literal, $operation:expr) => {{
        let found = $case.outcome::<Autodiff<On<$half>>, $x, $w>($operation);
        for (index, what) in ["y", "gradient of x", "gradient of the weight"].iter().enumerate() {
            let what = format!("{what} in {}", $half::NAME);
            let (found, expected, sizes) = (&found[index], &$expected[index], &$sizes[index]);
            assert_within(found, expected, sizes, tolerance::<$half>(), &what);
            assert_ne!(found, expected, "{what}: computed in float32");
        }
        // The bias gradient is summed in float32.
        assert_within(&found[3], &$expected[3], &$sizes[3], 1e-6, "gradient of the bias");
    }};
}

#[test]
fn a_matrix_product_is_within_a_few_roundings() {
    let case = Case::new(&[5, 33], &[33, 7], 7, &[5, 7]);
    assert_near_float32!(case, 2, 2, |x, w, b| x.matmul(w) + b.unsqueeze());
    let case = Case::new(&[3, 5, 40], &[3, 40, 7], 7, &[3, 5, 7]);
    assert_near_float32!(case, 3, 3, |x, w, b| x.matmul(w) + b.unsqueeze());
}

#[test]
fn a_linear_layer_is_within_a_few_roundings() {
    let case = Case::new(&[5, 33], &[33, 7], 7, &[5, 7]);
    assert_near_float32!(case, 2, 2, |x, w, b| linear(x, w, Some(b)));
}

#[test]
fn a_convolution_is_within_a_few_roundings() {
    let case = Case::new(&[3, 4, 9], &[6, 4, 3], 6, &[3, 6, 5]);
    assert_near_float32!(case, 3, 3, |x, w, b| conv1d(x, w, Some(b), ConvOptions::new([2], [1], [1], 1)));
    let case = Case::new(&[3, 4, 8, 7], &[6, 4, 3, 3], 6, &[3, 6, 4, 4]);
    assert_near_float32!(case, 4, 4, |x, w, b| { conv2d(x, w, Some(b), ConvOptions::new([2, 2], [1, 1], [1, 1], 1)) });
    let case = Case::new(&[2, 3, 5, 5, 4], &[4, 3, 2, 3, 2], 4, &[2, 4, 4, 3, 3]);
    assert_near_float32!(case, 5, 5, |x, w, b| { conv3d(x, w, Some(b), ConvOptions::new([1; 3], [0; 3], [1; 3], 1)) });
}

#[test]
fn a_convolution_in_groups_is_within_a_few_roundings() {
    let case = Case::new(&[3, 4, 8, 7], &[6, 2, 3, 3], 6, &[3, 6, 6, 5]);
    assert_near_float32!(case, 4, 4, |x, w, b| { conv2d(x, w, Some(b), ConvOptions::new([1, 1], [0, 0], [1, 1], 2)) });
}

#[test]
fn a_transposed_convolution_is_within_a_few_roundings() {
    let case = Case::new(&[3, 4, 5], &[4, 6, 3], 6, &[3, 6, 7]);
    assert_near_float32!(case, 3, 3, |x, w, b| {
        conv_transpose1d(x, w, Some(b), ConvTransposeOptions::new([1], [0], [0], [1], 1))
    });
    let case = Case::new(&[3, 4, 5, 3], &[4, 6, 3, 2], 6, &[3, 6, 7, 4]);
    assert_near_float32!(case, 4, 4, |x, w, b| {
        conv_transpose2d(x, w, Some(b), ConvTransposeOptions::new([1; 2], [0; 2], [0; 2], [1; 2], 1))
    });
    let case = Case::new(&[2, 3, 3, 4, 2], &[3, 4, 2, 2, 2], 4, &[2, 4, 4, 5, 3]);
    assert_near_float32!(case, 5, 5, |x, w, b| {
        conv_transpose3d(x, w, Some(b), ConvTransposeOptions::new([1; 3], [0; 3], [0; 3], [1; 3], 1))
    });
}
