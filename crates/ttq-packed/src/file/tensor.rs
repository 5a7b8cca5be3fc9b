//! Tensors that are not ternary, such as biases, normalization parameters, and the first and last layer.

use alloc::vec::Vec;

use half::{bf16, f16};
use safetensors::Dtype;
use thiserror::Error;

/// A tensor of any element type, stored as row-major, little-endian bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DenseTensor {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

/// Error of creating or converting a [`DenseTensor`].
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum TensorError {
    /// The size of the shape overflows or is not a whole number of bytes.
    #[error("the size of shape {shape:?} of {dtype} overflows or is not a whole number of bytes")]
    Shape {
        /// Element type.
        dtype: Dtype,
        /// The shape.
        shape: Vec<usize>,
    },
    /// The number of bytes does not match the shape.
    #[error("shape {shape:?} of {dtype} needs {expected} bytes, found {found}")]
    Length {
        /// Element type.
        dtype: Dtype,
        /// The shape.
        shape: Vec<usize>,
        /// Required number of bytes.
        expected: usize,
        /// Actual number of bytes.
        found: usize,
    },
    /// The element type cannot be converted to float32.
    #[error("elements of {dtype} are not converted, only F64, F32, F16 and BF16: read the bytes with `as_bytes`")]
    NotFloat {
        /// Element type.
        dtype: Dtype,
    },
    /// A finite element overflows to infinity in float32.
    #[error("element {index} is {value}, which exceeds the float32 maximum 3.4e38: keep this tensor in float64")]
    Overflow {
        /// Row-major index of the element.
        index: usize,
        /// The element.
        value: f64,
    },
    /// A finite element overflows to infinity in float16.
    #[error("element {index} is {value}, which exceeds the float16 maximum 65504: keep this tensor in float32")]
    TooLarge {
        /// Row-major index of the element.
        index: usize,
        /// The element.
        value: f32,
    },
}

impl DenseTensor {
    /// Creates a tensor of any safetensors type from row-major, little-endian bytes.
    ///
    /// # Errors
    /// - [`TensorError::Shape`] if the size of the shape overflows or is not a whole number of bytes;
    /// - [`TensorError::Length`] if the number of bytes does not match the shape.
    pub fn new(dtype: Dtype, shape: impl Into<Vec<usize>>, bytes: Vec<u8>) -> Result<Self, TensorError> {
        let shape = shape.into();
        check_length(dtype, &shape, bytes.len())?;
        Ok(Self { dtype, shape, bytes })
    }

    /// Creates a float32 tensor from row-major elements.
    ///
    /// # Errors
    /// - [`TensorError::Shape`] if the size of the shape overflows;
    /// - [`TensorError::Length`] if the number of elements does not match the shape.
    pub fn from_f32(shape: impl Into<Vec<usize>>, values: &[f32]) -> Result<Self, TensorError> {
        Self::new(Dtype::F32, shape, f32_bytes(values))
    }

    /// Returns the tensor rounded to float16 (11 significant bits; to nearest, ties to even).
    ///
    /// # Errors
    /// - the errors of [`to_f32`](Self::to_f32);
    /// - [`TensorError::TooLarge`] if a finite element overflows to infinity.
    pub fn to_f16(&self) -> Result<Self, TensorError> {
        if self.dtype == Dtype::F16 {
            return Ok(self.clone());
        }
        let mut bytes = Vec::with_capacity(self.bytes.len() / 2);
        for (index, value) in self.to_f32()?.into_iter().enumerate() {
            let rounded = f16::from_f32(value);
            if value.is_finite() && !rounded.is_finite() {
                return Err(TensorError::TooLarge { index, value });
            }
            bytes.extend(rounded.to_le_bytes());
        }
        Self::new(Dtype::F16, self.shape.clone(), bytes)
    }

    /// Returns the elements of a float tensor as float32, in row-major order. The conversion of F32, F16 and BF16 is exact;
    /// F64 is rounded to nearest, ties to even.
    ///
    /// # Errors
    /// - [`TensorError::NotFloat`] if the element type is another one;
    /// - [`TensorError::Overflow`] if a finite element overflows to infinity.
    pub fn to_f32(&self) -> Result<Vec<f32>, TensorError> {
        match self.dtype {
            Dtype::F32 => Ok(f32_values(&self.bytes)),
            Dtype::F16 => Ok(self.bytes.as_chunks().0.iter().map(|&b| f16::from_le_bytes(b).to_f32()).collect()),
            Dtype::BF16 => Ok(self.bytes.as_chunks().0.iter().map(|&b| bf16::from_le_bytes(b).to_f32()).collect()),
            Dtype::F64 => {
                let values = self.bytes.as_chunks().0.iter().map(|&b| f64::from_le_bytes(b)).enumerate();
                let round = |(index, value): (usize, f64)| {
                    let rounded = value as f32;
                    let overflows = value.is_finite() && !rounded.is_finite();
                    if overflows { Err(TensorError::Overflow { index, value }) } else { Ok(rounded) }
                };
                values.map(round).collect()
            }
            dtype => Err(TensorError::NotFloat { dtype }),
        }
    }

    /// Returns the element type.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Returns the shape, which is `[]` for a scalar.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Returns the elements as row-major, little-endian bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Converts numbers to little-endian bytes.
pub(super) fn f32_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// Converts little-endian bytes to numbers.
pub(super) fn f32_values(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
}

/// Checks that the shape needs `found` bytes.
pub(super) fn check_length(dtype: Dtype, shape: &[usize], found: usize) -> Result<(), TensorError> {
    let bits = elements(shape, dtype.bitsize()).filter(|bits| bits.is_multiple_of(8));
    let Some(bits) = bits else { return Err(TensorError::Shape { dtype, shape: shape.to_vec() }) };
    let expected = bits / 8;
    if found != expected {
        return Err(TensorError::Length { dtype, shape: shape.to_vec(), expected, found });
    }
    Ok(())
}

/// Returns the number of elements of a shape times `size`, or `None` on overflow.
///
/// The product of the nonzero dimensions must not overflow even if a dimension is zero. Strides and other partial
/// products therefore never overflow.
pub(super) fn elements(shape: &[usize], size: usize) -> Option<usize> {
    let others = shape.iter().filter(|&&dim| dim != 0).try_fold(size, |product, &dim| product.checked_mul(dim))?;
    Some(if shape.contains(&0) { 0 } else { others })
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn float32_round_trips_and_float16_rounds_to_nearest() {
        let values = [1.0, -2.5, 0.1, f32::INFINITY];
        let tensor = DenseTensor::from_f32([2, 2], &values).unwrap();
        assert_eq!(tensor.to_f32().unwrap(), values);
        let half = tensor.to_f16().unwrap();
        assert_eq!((half.dtype(), half.as_bytes().len()), (Dtype::F16, 8));
        // The float16 number nearest to 0.1 is 1638 / 2¹⁴.
        assert_eq!(half.to_f32().unwrap(), [1.0, -2.5, 1638.0 / 16384.0, f32::INFINITY]);
        let bf16 = DenseTensor::new(Dtype::BF16, [1], vec![0x80, 0x3f]).unwrap();
        assert_eq!(bf16.to_f32().unwrap(), [1.0]);
    }

    #[test]
    fn float64_rounds_to_nearest_and_its_overflow_is_an_error() {
        let double = |value: f64| DenseTensor::new(Dtype::F64, [1], value.to_le_bytes().to_vec()).unwrap();
        assert_eq!(double(0.1).to_f32().unwrap(), [0.1_f32]);
        assert!(double(f64::NAN).to_f32().unwrap()[0].is_nan());
        assert_eq!(double(1e39).to_f32(), Err(TensorError::Overflow { index: 0, value: 1e39 }));
    }

    #[test]
    fn shapes_and_lengths_are_checked() {
        let error = |dtype, shape: &[usize], bytes| DenseTensor::new(dtype, shape, vec![0; bytes]).unwrap_err();
        assert!(matches!(error(Dtype::F32, &[3], 8), TensorError::Length { expected: 12, found: 8, .. }));
        assert!(matches!(error(Dtype::F32, &[usize::MAX, 2], 8), TensorError::Shape { .. }));
        assert!(matches!(error(Dtype::F32, &[usize::MAX, 0], 0), TensorError::Shape { .. }));
        assert!(matches!(error(Dtype::F4, &[3], 1), TensorError::Shape { .. }));
        assert!(DenseTensor::new(Dtype::I64, [], vec![0; 8]).is_ok());
        assert!(DenseTensor::new(Dtype::U8, [0, 7], vec![]).is_ok());
    }

    #[test]
    fn values_beyond_the_float16_range_are_rejected() {
        let tensor = DenseTensor::from_f32([2], &[65504.0, 65520.0]).unwrap();
        assert_eq!(tensor.to_f16(), Err(TensorError::TooLarge { index: 1, value: 65520.0 }));
        let integers = DenseTensor::new(Dtype::I32, [1], vec![0; 4]).unwrap();
        assert_eq!(integers.to_f16(), Err(TensorError::NotFloat { dtype: Dtype::I32 }));
    }
}
