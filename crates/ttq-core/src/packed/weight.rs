//! A packed weight as a Burn module.

use burn::module::{Param, ParamId};
use burn::prelude::*;
use burn::tensor::TensorData;
use ttq_packed::{Codes, TernaryWeight};

/// Type of the module as Burn's visitors name it.
pub(super) const CONTAINER: &str = "Struct:PackedWeight";
/// Name of the parameter that holds the shape of the weight.
pub(super) const LAYOUT: &str = "layout";
/// Names of the parameters.
pub(super) const PARAMETERS: [&str; 3] = ["codes", "scales", LAYOUT];
/// Number of codes in a 32-bit word.
const CODES_PER_WORD: usize = 16;

/// A ternary weight with 2 bits per element: codes, scales and shape.
///
/// The parameters `codes` and `scales` have the names of the tensors in a file, `NAME.codes` and `NAME.scales`.
#[derive(Module, Debug)]
pub struct PackedWeight<B: Backend> {
    /// The codes of a file, four bytes per element, little-endian, `[words]`.
    codes: Param<Tensor<B, 1, Int>>,
    /// `w_pos` and `w_neg`, one pair or one for each output channel, `[1 or out, 2]`.
    scales: Param<Tensor<B, 2>>,
    /// Shape and output axis of the weight, `[dimensions + 1]`. A parameter, so that [`load`](super::load) can compare
    /// it with the file.
    layout: Param<Tensor<B, 1, Int>>,
    #[module(skip)]
    dims: Vec<usize>,
    #[module(skip)]
    output_axis: usize,
}

impl<B: Backend> PackedWeight<B> {
    /// Creates a weight of zeros.
    pub(super) fn zeros(dims: Vec<usize>, output_axis: usize, device: &B::Device) -> Self {
        let n = dims.iter().product();
        let zeros = vec![0_i8; n];
        // Zeros are valid codes, and one pair of zero scales is valid for every shape.
        let codes = Codes::pack(&zeros).unwrap_or_else(|error| unreachable!("{error}"));
        let layout = TensorData::from(layout(&dims, output_axis).as_slice());
        Self {
            codes: Param::initialized(ParamId::new(), Tensor::from_data(words(&codes), device)),
            scales: frozen(Tensor::zeros([1, 2], device)),
            layout: Param::initialized(ParamId::new(), Tensor::from_data(layout, device)),
            dims,
            output_axis,
        }
    }

    /// Replaces codes and scales by those of `weight`, which has the same shape.
    pub(super) fn with_contents(mut self, weight: &TernaryWeight) -> Self {
        let device = self.scales.val().device();
        self.codes = Param::initialized(ParamId::new(), Tensor::from_data(words(weight.codes()), &device));
        self.scales = frozen(Tensor::from_data(scales(weight), &device));
        self
    }

    /// Returns the shape of the weight.
    pub fn dims(&self) -> &[usize] {
        &self.dims
    }

    /// Returns the dimension of the output channels.
    pub fn output_axis(&self) -> usize {
        self.output_axis
    }

    /// Returns the codes as words, `[words]`.
    #[cfg(any(feature = "cubecl", feature = "flex"))]
    pub(super) fn codes(&self) -> Tensor<B, 1, Int> {
        self.codes.val()
    }

    /// Returns `w_pos` and `w_neg`, `[1 or out, 2]`.
    #[cfg(any(feature = "cubecl", feature = "flex"))]
    pub(super) fn scales(&self) -> Tensor<B, 2> {
        self.scales.val()
    }

    /// Returns the weight in host memory. Reads from the device.
    ///
    /// # Panics
    /// Panics if the parameters do not hold a valid ternary weight. [`load`](super::load) stores only valid ones.
    pub fn to_ternary(&self) -> TernaryWeight {
        let words = self.codes.val().into_data();
        let n: usize = self.dims.iter().product();
        let mut bytes: Vec<u8> = words.iter::<i32>().flat_map(i32::to_le_bytes).collect();
        bytes.truncate(n.div_ceil(ttq_packed::codes::VALUES_PER_BYTE));
        let scales: Vec<f32> = self.scales.val().into_data().iter::<f32>().collect();
        let codes = Codes::from_bytes(bytes, n).expect("a packed weight holds valid codes");
        TernaryWeight::new(codes, scales.as_chunks().0, self.dims.as_slice(), self.output_axis)
            .expect("a packed weight holds valid scales")
    }

    /// Unpacks the dense weight on the device, in the shape [`dims`](Self::dims).
    ///
    /// # Panics
    /// Panics if `D` is not the number of dimensions of the weight.
    pub fn dense<const D: usize>(&self) -> Tensor<B, D> {
        let shape: [usize; D] = self.dims.as_slice().try_into().expect("`D` is the number of dimensions of the weight");
        let n: usize = shape.iter().product();
        let words = self.codes.val();
        let (device, dtype, [count]) = (words.device(), words.dtype(), words.dims());
        let shifts = Tensor::<B, 1, Int>::arange(0..CODES_PER_WORD as i64, &device).mul_scalar(2).cast(dtype);
        // Not every backend broadcasts a shift.
        let shifts = shifts.reshape([1, CODES_PER_WORD]).repeat_dim(0, count);
        let words = words.reshape([count, 1]).repeat_dim(1, CODES_PER_WORD);
        // The right shift of a negative word fills with ones; the mask keeps the two lowest bits.
        let codes = words.bitwise_right_shift(shifts).bitwise_and_scalar(3_i32.elem());
        let codes = codes.reshape([-1]).slice(0..n).sub_scalar(1).reshape(shape);
        let mut along = [1; D];
        let scales = self.scales.val();
        along[self.output_axis] = scales.dims()[0];
        let column = |index: usize| scales.clone().slice([0..scales.dims()[0], index..index + 1]).reshape(along);
        let mask = |code: i32| codes.clone().equal_elem(code).float().cast(scales.dtype());
        mask(1).mul(column(0)).sub(mask(-1).mul(column(1)))
    }
}

/// Returns the codes as 32-bit words, `[words]`.
pub(super) fn words(codes: &Codes) -> TensorData {
    let word = |bytes: &[u8]| {
        let mut word = [0; 4];
        word[..bytes.len()].copy_from_slice(bytes);
        i32::from_le_bytes(word)
    };
    let words: Vec<i32> = codes.as_bytes().chunks(4).map(word).collect();
    TensorData::from(words.as_slice())
}

/// Returns the scales, `[1 or out, 2]`.
pub(super) fn scales(weight: &TernaryWeight) -> TensorData {
    let scales = weight.scales();
    TensorData::new(scales.as_flattened().to_vec(), [scales.len(), 2])
}

/// Returns the shape, followed by the output axis.
pub(super) fn layout(dims: &[usize], output_axis: usize) -> Vec<i64> {
    dims.iter().chain([&output_axis]).map(|number| *number as i64).collect()
}

/// Creates a parameter that does not train, as packed weights never do.
fn frozen<B: Backend>(scales: Tensor<B, 2>) -> Param<Tensor<B, 2>> {
    Param::initialized(ParamId::new(), scales).set_require_grad(false)
}
