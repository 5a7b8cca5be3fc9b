//! Ternary weights on a device of the inner backend.
//!
//! A weight is a matrix with one row for each index of its output axis; the elements of a row are in the order of the
//! weight. A word holds 16 consecutive elements of a row, two bits each: the lower bit is set if the element is
//! negative, the higher one if it is positive. Words are `[ceil(inner / 16), outputs]`, the layout of `ttq-cubecl`.

use std::any::Any;

use burn::prelude::*;
use burn::tensor::{DType, TensorData};
use burn_backend::tensor::FloatTensor;

use crate::weight::Weight;

/// Number of elements in a word.
const ELEMENTS: usize = 16;

/// A ternary weight on a device of the backend `B`.
#[derive(Debug, Clone)]
pub(crate) struct DeviceWeight<B: Backend> {
    /// `[ceil(inner / 16), outputs]`, of type i32
    pub(crate) words: Tensor<B, 2, Int>,
    /// `w_pos` and `w_neg`, `[1 or outputs, 2]`
    pub(crate) scales: Tensor<B, 2>,
}

impl<B: Backend> DeviceWeight<B> {
    /// Returns the weight of a [`Storage::Device`](crate::weight::Storage).
    pub(crate) fn of(weight: &(dyn Any + Send + Sync)) -> &Self {
        weight.downcast_ref().expect("the weight is on a device of the inner backend")
    }

    /// Moves codes, in the order of the weight, and scales to a device.
    pub(crate) fn upload(codes: &[i8], weight: &Weight, device: &B::Device) -> Self {
        let outputs = weight.outputs();
        let shape = [(codes.len() / outputs.max(1)).div_ceil(ELEMENTS), outputs];
        // Without rows, between which CUDA would leave gaps.
        let words = TensorData::new(words(codes, outputs, weight.run()), [shape[0] * shape[1]]);
        let scales = TensorData::new(weight.scales.as_flattened().to_vec(), [weight.scales.len(), 2]);
        Self {
            words: Tensor::<B, 1, Int>::from_data(words, (device, DType::I32)).reshape(shape),
            scales: Tensor::from_data(scales, (device, DType::F32)),
        }
    }

    pub(crate) fn to_device(&self, device: &B::Device) -> Self {
        Self { words: self.words.clone().to_device(device), scales: self.scales.clone().to_device(device) }
    }

    pub(crate) fn device(&self) -> B::Device {
        self.words.device()
    }

    /// Selects output channels.
    pub(crate) fn with_outputs(&self, outputs: Tensor<B, 1, Int>) -> Self {
        let scales = match self.scales.dims() {
            [1, _] => self.scales.clone(),
            _ => self.scales.clone().select(0, outputs.clone()),
        };
        Self { words: self.words.clone().select(1, outputs), scales }
    }

    /// Unpacks the weight on the device, in float32 and in its shape.
    pub(crate) fn unpack(&self, shape: &[usize], output_axis: usize) -> FloatTensor<B> {
        let ([count, outputs], device) = (self.words.dims(), self.device());
        let shifts = Tensor::<B, 1, Int>::arange(0..ELEMENTS as i64, &device).mul_scalar(2).cast(DType::I32);
        // Not every backend broadcasts a shift.
        let shifts = shifts.reshape([1, ELEMENTS, 1]).repeat(&[count, 1, outputs]);
        let words = self.words.clone().reshape([count, 1, outputs]).repeat_dim(1, ELEMENTS);
        // The right shift of a negative word fills with ones; the mask keeps the two lowest bits.
        let codes = words.bitwise_right_shift(shifts).bitwise_and_scalar(3_i32.elem());
        let inner: usize = shape.iter().product::<usize>() / outputs.max(1);
        let codes = codes.reshape([count * ELEMENTS, outputs]).slice([0..inner, 0..outputs]);
        let mask = |code: i32| codes.clone().equal_elem(code).float().cast(DType::F32);
        let scale = |index: usize| self.scales.clone().slice([0..self.scales.dims()[0], index..index + 1]).transpose();
        let floats = mask(2).mul(scale(0)).sub(mask(1).mul(scale(1)));
        // The output axis is last; it moves to its place.
        let mut others = shape.to_vec();
        let place = output_axis.min(shape.len());
        others.splice(place..(place + 1).min(shape.len()), []);
        let rank = others.len();
        let ordered: Vec<usize> = others.iter().copied().chain(shape.get(output_axis).copied()).collect();
        let floats = B::float_reshape(floats.into_primitive().tensor(), ordered.into());
        if shape.is_empty() || output_axis == rank {
            return floats;
        }
        let order: Vec<usize> = (0..output_axis).chain([rank]).chain(output_axis..rank).collect();
        B::float_permute(floats, &order)
    }
}

/// Returns floats of this shape as a tensor of a backend whose only device is the CPU.
pub(crate) fn from_host<B: Backend>(floats: Vec<f32>, shape: &[usize]) -> FloatTensor<B> {
    B::float_from_data(TensorData::new(floats, shape.to_vec()), &B::Device::default())
}

/// Packs codes, in the order of the weight, into words. `run` is the number of elements after the output axis.
fn words(codes: &[i8], outputs: usize, run: usize) -> Vec<i32> {
    let inner = codes.len().checked_div(outputs).unwrap_or(0);
    let mut words = vec![0_i32; inner.div_ceil(ELEMENTS) * outputs];
    for (block, codes) in codes.chunks(run.max(1)).enumerate() {
        let (output, before) = (block % outputs, block / outputs);
        for (index, code) in codes.iter().enumerate() {
            let element = before * run + index;
            let bits = i32::from(*code > 0) << 1 | i32::from(*code < 0);
            words[element / ELEMENTS * outputs + output] |= bits << (2 * (element % ELEMENTS));
        }
    }
    words
}
