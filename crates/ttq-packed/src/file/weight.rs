//! A ternary weight: codes, scales and shape.

use alloc::vec::Vec;

use thiserror::Error;

use super::Coding;
use super::tensor::elements;
use crate::archive;
use crate::codes::{Codes, CodesError};

/// A ternary weight, which is `+w_pos`, `0` or `-w_neg` where its code is +1, 0 or -1.
///
/// A pair of scales `[w_pos, w_neg]` applies to a group: the whole weight, or one output channel, which is one index
/// along [`output_axis`](Self::output_axis). The output axis is 1 for a linear weight `[in, out]` of Burn and 0 for a
/// convolution weight `[out, in / groups, kh, kw]`.
#[derive(Debug, Clone, PartialEq)]
pub struct TernaryWeight {
    codes: Codes,
    scales: Vec<[f32; 2]>,
    shape: Vec<usize>,
    output_axis: usize,
}

/// Error of creating a [`TernaryWeight`] from codes, scales and a shape.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum WeightError {
    /// The codes are invalid.
    #[error(transparent)]
    Codes(#[from] CodesError),
    /// The number of elements of the shape overflows `usize`.
    #[error("the number of elements of shape {shape:?} overflows")]
    Shape {
        /// The shape.
        shape: Vec<usize>,
    },
    /// The number of codes does not match the shape.
    #[error("shape {shape:?} needs {expected} codes, found {found}")]
    Length {
        /// The shape.
        shape: Vec<usize>,
        /// Number of elements of the shape.
        expected: usize,
        /// Actual number of codes.
        found: usize,
    },
    /// The shape has no such axis. A scalar has only the output axis 0.
    #[error("output axis {output_axis} is out of range for shape {shape:?}")]
    OutputAxis {
        /// The output axis.
        output_axis: usize,
        /// The shape.
        shape: Vec<usize>,
    },
    /// The number of pairs of scales is neither 1 nor the number of output channels.
    #[error("found {found} pairs of scales: expected 1 for the whole weight or {channels}, one per output channel")]
    Groups {
        /// Actual number of pairs.
        found: usize,
        /// Number of output channels.
        channels: usize,
    },
    /// A scale is negative, infinite or NaN.
    #[error("group {group} has {name} {value}: scales must be finite and not negative")]
    Scale {
        /// Index of the output channel, or 0 if one pair applies to the whole weight.
        group: usize,
        /// Name of the scale, `w_pos` or `w_neg`.
        name: &'static str,
        /// The scale.
        value: f32,
    },
}

impl TernaryWeight {
    /// Creates a weight from row-major codes of `shape` and pairs of scales `[w_pos, w_neg]`.
    ///
    /// There is one pair for the whole weight or one per output channel, that is, `shape[output_axis]` pairs. A scalar
    /// has the shape `[]`, the output axis 0 and one output channel.
    ///
    /// # Errors
    /// - [`WeightError::Shape`] if the number of elements of the shape overflows;
    /// - [`WeightError::Length`] if the number of codes does not match the shape;
    /// - [`WeightError::OutputAxis`] if the shape has no such axis;
    /// - [`WeightError::Groups`] if the number of pairs is neither 1 nor the number of output channels;
    /// - [`WeightError::Scale`] if a scale is negative, infinite or NaN.
    pub fn new(
        codes: Codes,
        scales: impl Into<Vec<[f32; 2]>>,
        shape: impl Into<Vec<usize>>,
        output_axis: usize,
    ) -> Result<Self, WeightError> {
        let (scales, shape) = (scales.into(), shape.into());
        match elements(&shape, 1) {
            None => return Err(WeightError::Shape { shape }),
            Some(expected) if expected != codes.len() => {
                return Err(WeightError::Length { shape, expected, found: codes.len() });
            }
            Some(_) => {}
        }
        // A scalar has one output channel.
        let Some(channels) = shape.get(output_axis).copied().or((shape.is_empty() && output_axis == 0).then_some(1))
        else {
            return Err(WeightError::OutputAxis { output_axis, shape });
        };
        if scales.len() != 1 && scales.len() != channels {
            return Err(WeightError::Groups { found: scales.len(), channels });
        }
        for (group, pair) in scales.iter().enumerate() {
            for (name, &value) in ["w_pos", "w_neg"].into_iter().zip(pair) {
                if !(value.is_finite() && value >= 0.0) {
                    return Err(WeightError::Scale { group, name, value });
                }
            }
        }
        Ok(Self { codes, scales, shape, output_axis })
    }

    /// Returns the weight in float32: `+w_pos`, `0` and `-w_neg`, in row-major order.
    pub fn dequantize(&self) -> Vec<f32> {
        let tables: Vec<[f32; 3]> = self.scales.iter().map(|&[w_pos, w_neg]| [-w_neg, 0.0, w_pos]).collect();
        // The pair of scales changes after every `run` elements. A single pair applies to all elements.
        let run = match tables.len() {
            1 => self.codes.len(),
            _ => self.shape[self.output_axis + 1..].iter().product(),
        };
        let codes = self.codes.unpack();
        let mut values = Vec::with_capacity(codes.len());
        for (codes, table) in codes.chunks(run.max(1)).zip(tables.iter().cycle()) {
            values.extend(codes.iter().map(|code| table[(code + 1) as usize]));
        }
        values
    }

    /// Returns the codes, in row-major order.
    pub fn codes(&self) -> &Codes {
        &self.codes
    }

    /// Returns the pairs of scales `[w_pos, w_neg]`: one for the whole weight, or one per output channel.
    pub fn scales(&self) -> &[[f32; 2]] {
        &self.scales
    }

    /// Returns the shape, which is `[]` for a scalar.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Returns the axis of the output channels, to which the pairs of scales belong.
    pub fn output_axis(&self) -> usize {
        self.output_axis
    }

    /// Returns the sparsity: the fraction of zeros, from 0 to 1. It is 0 if the weight has no elements.
    pub fn sparsity(&self) -> f64 {
        self.codes.counts()[1] as f64 / self.codes.len().max(1) as f64
    }

    /// Returns the entropy of a code in bits: `-Σ p log2 p` over the fractions `p` of -1, 0 and +1.
    ///
    /// [`Coding::Archive`] approaches this number of bits per weight.
    pub fn entropy(&self) -> f64 {
        archive::entropy(self.codes.counts())
    }

    /// Returns the number of bits per element in a file with this coding.
    ///
    /// The number includes the scales but not the header of the file. It is 0 if the weight has no elements. It is
    /// exact, not an estimate: the method encodes the weight.
    pub fn bits_per_weight(&self, coding: Coding) -> f64 {
        let bytes = self.encode(coding).1.len() + size_of_val(self.scales.as_slice());
        if self.codes.is_empty() { 0.0 } else { 8.0 * bytes as f64 / self.codes.len() as f64 }
    }

    /// Encodes the codes for a file. Returns plain codes if an archive would not be smaller.
    pub(super) fn encode(&self, coding: Coding) -> (Coding, alloc::borrow::Cow<'_, [u8]>) {
        let plain = self.codes.as_bytes();
        if coding == Coding::Archive {
            let archive = archive::encode(&self.codes);
            if archive.len() < plain.len() {
                return (Coding::Archive, archive.into());
            }
        }
        (Coding::Plain, plain.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn codes(values: &[i8]) -> Codes {
        Codes::pack(values).unwrap()
    }

    #[test]
    fn scales_apply_along_the_output_axis() {
        let values = [1, -1, 0, 1, 1, -1];
        let pairs = [[2.0, 3.0], [5.0, 7.0], [11.0, 13.0]];
        let linear = TernaryWeight::new(codes(&values), &pairs[..], [2, 3], 1).unwrap();
        assert_eq!(linear.dequantize(), [2.0, -7.0, 0.0, 2.0, 5.0, -13.0]);
        let rows = TernaryWeight::new(codes(&values), &pairs[..2], [2, 3], 0).unwrap();
        assert_eq!(rows.dequantize(), [2.0, -3.0, 0.0, 5.0, 5.0, -7.0]);
        let one = TernaryWeight::new(codes(&values), [[0.5, 0.25]], [2, 3], 1).unwrap();
        assert_eq!(one.dequantize(), [0.5, -0.25, 0.0, 0.5, 0.5, -0.25]);
        assert_eq!(one.sparsity(), 1.0 / 6.0);
    }

    #[test]
    fn scalars_and_empty_weights_are_accepted() {
        let scalar = TernaryWeight::new(codes(&[-1]), [[1.0, 4.0]], [], 0).unwrap();
        assert_eq!(scalar.dequantize(), [-4.0]);
        for scales in [vec![], vec![[1.0, 1.0]]] {
            let empty = TernaryWeight::new(codes(&[]), scales, [0, 3], 0).unwrap();
            assert_eq!((empty.dequantize(), empty.sparsity(), empty.entropy()), (vec![], 0.0, 0.0));
            assert_eq!(empty.bits_per_weight(Coding::Archive), 0.0);
        }
    }

    #[test]
    fn inconsistent_shapes_axes_and_scales_are_rejected() {
        let rejected = |scales: &[[f32; 2]], shape: &[usize], axis| {
            TernaryWeight::new(codes(&[0; 6]), scales, shape, axis).unwrap_err()
        };
        let one = [[1.0, 1.0]];
        assert!(matches!(rejected(&one, &[7], 0), WeightError::Length { expected: 7, found: 6, .. }));
        assert!(matches!(rejected(&one, &[usize::MAX, 3], 0), WeightError::Shape { .. }));
        assert!(matches!(rejected(&one, &[2, 3], 2), WeightError::OutputAxis { output_axis: 2, .. }));
        assert!(matches!(rejected(&[], &[2, 3], 0), WeightError::Groups { found: 0, channels: 2 }));
        assert!(matches!(rejected(&[[1.0; 2]; 3], &[2, 3], 0), WeightError::Groups { found: 3, channels: 2 }));
        for (value, index) in [(f32::NAN, 0), (f32::INFINITY, 1), (-1.0, 1)] {
            let mut pair = [1.0, 1.0];
            pair[index] = value;
            let name = ["w_pos", "w_neg"][index];
            let error = rejected(&[[1.0, 1.0], pair], &[2, 3], 0);
            assert!(matches!(error, WeightError::Scale { group: 1, name: found, .. } if found == name), "{error}");
        }
    }
}
