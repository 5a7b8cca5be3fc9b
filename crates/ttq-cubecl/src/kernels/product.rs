//! Inputs, kernel arguments and device code that all product kernels share.

use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;
use cubecl::std::tensor::layout::linear::LinearViewLaunch;

use super::source::{GeometryLaunch, ProductKind, Window};

/// Values in a word.
pub(crate) const VALUES: u32 = 16;

/// A weight as a matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Matrix {
    /// Number of rows.
    pub(crate) outputs: usize,
    /// Number of values of a row.
    pub(crate) inner: usize,
}

/// A product of activations and a ternary weight.
pub(crate) struct Product<R: CubeRuntime> {
    /// Activations, or the words of int8 activations.
    pub(crate) x: CubeTensor<R>,
    /// Factors of int8 activations, one for each row of a matrix or each image, float32.
    pub(crate) factors: Option<CubeTensor<R>>,
    /// Words of the weight, `[ceil(inner / 16), outputs]`.
    pub(crate) words: CubeTensor<R>,
    /// `[1 or outputs, 2]`, float32.
    pub(crate) scales: CubeTensor<R>,
    /// `[outputs]`, float32.
    pub(crate) bias: Option<CubeTensor<R>>,
    pub(crate) matrix: Matrix,
    /// Number of rows of the product: rows of a matrix, or windows of all images.
    pub(crate) rows: usize,
    /// Number of groups of a grouped convolution, else 1.
    pub(crate) groups: usize,
    pub(crate) kind: ProductKind,
    /// The convolution and the images' `[channels, height, width]`; `None` for a matrix.
    pub(crate) window: Option<(Window, [usize; 3])>,
}

/// Arguments that all product kernels have in common.
pub(crate) struct Arguments<R: CubeRuntime> {
    pub(crate) x: LinearViewLaunch<R>,
    pub(crate) words: ArrayArg<R>,
    pub(crate) parameters: ParametersLaunch<R>,
    pub(crate) output: LinearViewLaunch<R>,
    pub(crate) geometry: GeometryLaunch<R>,
    /// Types of the activations (or of their words), of the output, and of sums.
    pub(crate) dtypes: [StorageType; 3],
}

impl<R: CubeRuntime> Product<R> {
    /// Returns the arguments of a kernel that writes the product to `output`.
    pub(crate) fn arguments(self, output: CubeTensor<R>) -> Arguments<R> {
        let sum = if self.kind.int8 { i32::as_type_native_unchecked() } else { f32::as_type_native_unchecked() };
        Arguments {
            dtypes: [self.x.dtype.into(), output.dtype.into(), sum.storage_type()],
            geometry: match &self.window {
                Some((window, image)) => GeometryLaunch::windows(window, *image),
                None => GeometryLaunch::matrix(self.matrix.inner),
            },
            x: self.x.into_linear_view(),
            words: self.words.into_array_arg(),
            parameters: ParametersLaunch::new(
                self.scales.into_array_arg(),
                self.bias.map(CubeTensor::into_array_arg).into(),
                self.factors.map(CubeTensor::into_array_arg).into(),
            ),
            output: output.into_linear_view(),
        }
    }
}

/// Parameters of a layer besides the codes.
#[derive(CubeLaunch, CubeType)]
pub(crate) struct Parameters {
    /// W_p and W_n of the whole weight or of each output.
    scales: Array<f32>,
    bias: ComptimeOption<Array<f32>>,
    /// Factors of int8 activations.
    factors: ComptimeOption<Array<f32>>,
}

#[cube]
impl Parameters {
    /// Returns W_p of an output.
    pub(crate) fn w_pos(&self, output: u32, #[comptime] kind: ProductKind) -> f32 {
        if comptime!(kind.per_output) { self.scales[(2 * output) as usize] } else { self.scales[0] }
    }

    /// Returns W_n of an output.
    pub(crate) fn w_neg(&self, output: u32, #[comptime] kind: ProductKind) -> f32 {
        if comptime!(kind.per_output) { self.scales[(2 * output + 1) as usize] } else { self.scales[1] }
    }

    /// Returns `W_p · positive - W_n · negative`.
    pub(crate) fn combine(&self, positive: f32, negative: f32, output: u32, #[comptime] kind: ProductKind) -> f32 {
        self.w_pos(output, kind) * positive - self.w_neg(output, kind) * negative
    }

    /// Returns the output for a sum: the sum times the factor of its row or image, plus the bias.
    pub(crate) fn finish(&self, sum: f32, row: u32, output: u32) -> f32 {
        let mut value = sum;
        #[comptime]
        match &self.factors {
            ComptimeOption::Some(factors) => {
                value *= factors[row as usize];
            }
            ComptimeOption::None => {}
        }
        #[comptime]
        match &self.bias {
            ComptimeOption::Some(bias) => {
                value += bias[output as usize];
            }
            ComptimeOption::None => {}
        }
        value
    }
}
