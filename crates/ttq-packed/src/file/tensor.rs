//! Tensors that are not ternary: biases, normalization, first and last layers.

use alloc::vec::Vec;

use half::{bf16, f16};
use safetensors::Dtype;
use thiserror::Error;

/// A tensor stored as it is: row-major, little-endian.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DenseTensor {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

/// What is wrong with a tensor.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum TensorError {
    /// A shape whose bytes cannot be counted.
    #[error("shape {shape:?} of {dtype} overflows, or ends within a byte")]
    Shape {
        /// Type of an element.
        dtype: Dtype,
        /// The shape.
        shape: Vec<usize>,
    },
    /// More or fewer bytes than the shape takes.
    #[error("{found} bytes, shape {shape:?} of {dtype} takes {expected}")]
    Length {
        /// Type of an element.
        dtype: Dtype,
        /// The shape.
        shape: Vec<usize>,
        /// Bytes it takes.
        expected: usize,
        /// Bytes there are.
        found: usize,
    },
    /// A type that is not read as numbers.
    #[error("{dtype} is not converted, F32, F16 and BF16 are: take the bytes")]
    NotFloat {
        /// The type.
        dtype: Dtype,
    },
    /// A finite number that is infinite in float16.
    #[error("element {index} is {value}, beyond float16's 65504: keep this tensor in float32")]
    TooLarge {
        /// Its place.
        index: usize,
        /// The number.
        value: f32,
    },
}

impl DenseTensor {
    /// Bytes, row-major and little-endian, of any type that safetensors knows.
    ///
    /// # Errors
    /// [`TensorError::Shape`], [`TensorError::Length`]
    pub fn new(dtype: Dtype, shape: impl Into<Vec<usize>>, bytes: Vec<u8>) -> Result<Self, TensorError> {
        let shape = shape.into();
        check_length(dtype, &shape, bytes.len())?;
        Ok(Self { dtype, shape, bytes })
    }

    /// Numbers, row-major, as float32.
    ///
    /// # Errors
    /// [`TensorError::Shape`], [`TensorError::Length`]
    pub fn from_f32(shape: impl Into<Vec<usize>>, values: &[f32]) -> Result<Self, TensorError> {
        Self::new(Dtype::F32, shape, f32_bytes(values))
    }

    /// The same rounded to float16, to the nearest, ties to even: half the bytes, 11 significant bits.
    ///
    /// # Errors
    /// [`TensorError::NotFloat`]; [`TensorError::TooLarge`], for what float16 would make infinite
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

    /// The numbers of a tensor of type F32, F16 or BF16, row-major; exact.
    ///
    /// # Errors
    /// [`TensorError::NotFloat`]
    pub fn to_f32(&self) -> Result<Vec<f32>, TensorError> {
        match self.dtype {
            Dtype::F32 => Ok(f32_values(&self.bytes)),
            Dtype::F16 => Ok(self.bytes.as_chunks().0.iter().map(|&b| f16::from_le_bytes(b).to_f32()).collect()),
            Dtype::BF16 => Ok(self.bytes.as_chunks().0.iter().map(|&b| bf16::from_le_bytes(b).to_f32()).collect()),
            dtype => Err(TensorError::NotFloat { dtype }),
        }
    }

    /// Type of an element.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// The shape; of a scalar `[]`.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The elements, row-major and little-endian.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Numbers to little-endian bytes.
pub(super) fn f32_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// Little-endian bytes to numbers.
pub(super) fn f32_values(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
}

/// Does the shape take this many bytes?
pub(super) fn check_length(dtype: Dtype, shape: &[usize], found: usize) -> Result<(), TensorError> {
    let bits = elements(shape, dtype.bitsize()).filter(|bits| bits.is_multiple_of(8));
    let Some(bits) = bits else { return Err(TensorError::Shape { dtype, shape: shape.to_vec() }) };
    let expected = bits / 8;
    if found != expected {
        return Err(TensorError::Length { dtype, shape: shape.to_vec(), expected, found });
    }
    Ok(())
}

/// Elements of a shape times `size`; none where they cannot be counted. A zero among the dimensions does not excuse the others: no
/// product of some of them overflows either, so who indexes the tensor need not care.
pub(super) fn elements(shape: &[usize], size: usize) -> Option<usize> {
    let others = shape.iter().filter(|&&dim| dim != 0).try_fold(size, |product, &dim| product.checked_mul(dim))?;
    Some(if shape.contains(&0) { 0 } else { others })
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn numbers_come_back_and_float16_is_rounded() {
        let values = [1.0, -2.5, 0.1, f32::INFINITY];
        let tensor = DenseTensor::from_f32([2, 2], &values).unwrap();
        assert_eq!(tensor.to_f32().unwrap(), values);
        let half = tensor.to_f16().unwrap();
        assert_eq!((half.dtype(), half.as_bytes().len()), (Dtype::F16, 8));
        // 0.1 in float16 is 1638 / 2¹⁴.
        assert_eq!(half.to_f32().unwrap(), [1.0, -2.5, 1638.0 / 16384.0, f32::INFINITY]);
        let bf16 = DenseTensor::new(Dtype::BF16, [1], vec![0x80, 0x3f]).unwrap();
        assert_eq!(bf16.to_f32().unwrap(), [1.0]);
    }

    #[test]
    fn shapes_and_lengths_are_checked() {
        let refused = |dtype, shape: &[usize], bytes| DenseTensor::new(dtype, shape, vec![0; bytes]).unwrap_err();
        assert!(matches!(refused(Dtype::F32, &[3], 8), TensorError::Length { expected: 12, found: 8, .. }));
        assert!(matches!(refused(Dtype::F32, &[usize::MAX, 2], 8), TensorError::Shape { .. }));
        assert!(matches!(refused(Dtype::F32, &[usize::MAX, 0], 0), TensorError::Shape { .. }));
        assert!(matches!(refused(Dtype::F4, &[3], 1), TensorError::Shape { .. }));
        assert!(DenseTensor::new(Dtype::I64, [], vec![0; 8]).is_ok());
        assert!(DenseTensor::new(Dtype::U8, [0, 7], vec![]).is_ok());
    }

    #[test]
    fn what_float16_cannot_hold_is_refused() {
        let tensor = DenseTensor::from_f32([2], &[65504.0, 65520.0]).unwrap();
        assert_eq!(tensor.to_f16(), Err(TensorError::TooLarge { index: 1, value: 65520.0 }));
        let integers = DenseTensor::new(Dtype::I32, [1], vec![0; 4]).unwrap();
        assert_eq!(integers.to_f16(), Err(TensorError::NotFloat { dtype: Dtype::I32 }));
    }
}
