//! A ternary weight: codes, two scales a group, a shape.

use alloc::vec::Vec;

use thiserror::Error;

use super::Coding;
use super::tensor::elements;
use crate::archive;
use crate::codes::{Codes, CodesError};

/// A ternary weight: `+w_pos`, `0` or `-w_neg` where its codes are +1, 0, -1.
///
/// The pairs `[w_pos, w_neg]` are one for the whole weight or one for each output channel, that is, for each index along
/// [`output_axis`](Self::output_axis): axis 1 of a linear weight `[in, out]` (Burn), axis 0 of a convolution's
/// `[out, in / groups, kh, kw]`.
#[derive(Debug, Clone, PartialEq)]
pub struct TernaryWeight {
    codes: Codes,
    scales: Vec<[f32; 2]>,
    shape: Vec<usize>,
    output_axis: usize,
}

/// Why codes, scales and shape are no ternary weight.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum WeightError {
    /// Values or bytes that are no codes.
    #[error(transparent)]
    Codes(#[from] CodesError),
    /// A shape of more elements than can be counted.
    #[error("shape {shape:?} has more elements than can be counted")]
    Shape {
        /// The shape.
        shape: Vec<usize>,
    },
    /// More or fewer codes than the shape has elements.
    #[error("{found} codes, shape {shape:?} has {expected} elements")]
    Length {
        /// The shape.
        shape: Vec<usize>,
        /// Its elements.
        expected: usize,
        /// Codes there are.
        found: usize,
    },
    /// An output axis that the shape has not; 0 is the only one for a scalar.
    #[error("output axis {output_axis} of shape {shape:?}, which has {} dimensions", shape.len())]
    OutputAxis {
        /// The axis.
        output_axis: usize,
        /// The shape.
        shape: Vec<usize>,
    },
    /// Neither one pair of scales nor one for each output channel.
    #[error(
        "{found} pairs of scales: one for the whole weight or {channels}, one for each output channel, are possible"
    )]
    Groups {
        /// Pairs there are.
        found: usize,
        /// Output channels.
        channels: usize,
    },
    /// A scale that is negative, infinite or NaN.
    #[error("group {group} has {name} {value}: scales are finite and not negative")]
    Scale {
        /// Its group: the output channel, or 0.
        group: usize,
        /// `w_pos` or `w_neg`.
        name: &'static str,
        /// The scale.
        value: f32,
    },
}

impl TernaryWeight {
    /// A weight of `shape`, with pairs `[w_pos, w_neg]`.
    ///
    /// # Errors
    /// [`WeightError`], but not its `Codes`
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
        // A scalar has one channel.
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

    /// The full-precision ternary weight, row-major.
    pub fn dequantize(&self) -> Vec<f32> {
        let tables: Vec<[f32; 3]> = self.scales.iter().map(|&[w_pos, w_neg]| [-w_neg, 0.0, w_pos]).collect();
        // Output channels change every `run` elements; one pair of scales never does.
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

    /// The codes, row-major.
    pub fn codes(&self) -> &Codes {
        &self.codes
    }

    /// `[w_pos, w_neg]`, once or for each output channel.
    pub fn scales(&self) -> &[[f32; 2]] {
        &self.scales
    }

    /// The shape; of a scalar `[]`.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The axis along which output channels, and scales, run.
    pub fn output_axis(&self) -> usize {
        self.output_axis
    }

    /// Share of zeros, in 0..=1; 0 where there are no elements.
    pub fn sparsity(&self) -> f64 {
        self.codes.counts()[1] as f64 / self.codes.len().max(1) as f64
    }

    /// Entropy of a code in bits, `-Σ p log2 p` over the shares of -1, 0 and +1: what [`Coding::Archive`] comes close to.
    pub fn entropy(&self) -> f64 {
        archive::entropy(self.codes.counts())
    }

    /// Bits a weight takes in a file, scales included and the header's lines not; 0 where there are no elements.
    ///
    /// Encodes the weight to find out: no estimate.
    pub fn bits_per_weight(&self, coding: Coding) -> f64 {
        let bytes = self.encode(coding).1.len() + size_of_val(self.scales.as_slice());
        if self.codes.is_empty() { 0.0 } else { 8.0 * bytes as f64 / self.codes.len() as f64 }
    }

    /// The codes as they lie in a file, and how they are coded there: an archive that is no smaller is none.
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
    fn scales_follow_the_output_axis() {
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
    fn scalars_and_empty_weights_are_weights() {
        let scalar = TernaryWeight::new(codes(&[-1]), [[1.0, 4.0]], [], 0).unwrap();
        assert_eq!(scalar.dequantize(), [-4.0]);
        for scales in [vec![], vec![[1.0, 1.0]]] {
            let empty = TernaryWeight::new(codes(&[]), scales, [0, 3], 0).unwrap();
            assert_eq!((empty.dequantize(), empty.sparsity(), empty.entropy()), (vec![], 0.0, 0.0));
            assert_eq!(empty.bits_per_weight(Coding::Archive), 0.0);
        }
    }

    #[test]
    fn what_is_no_weight_is_refused() {
        let refused = |scales: &[[f32; 2]], shape: &[usize], axis| {
            TernaryWeight::new(codes(&[0; 6]), scales, shape, axis).unwrap_err()
        };
        let one = [[1.0, 1.0]];
        assert!(matches!(refused(&one, &[7], 0), WeightError::Length { expected: 7, found: 6, .. }));
        assert!(matches!(refused(&one, &[usize::MAX, 3], 0), WeightError::Shape { .. }));
        assert!(matches!(refused(&one, &[2, 3], 2), WeightError::OutputAxis { output_axis: 2, .. }));
        assert!(matches!(refused(&[], &[2, 3], 0), WeightError::Groups { found: 0, channels: 2 }));
        assert!(matches!(refused(&[[1.0; 2]; 3], &[2, 3], 0), WeightError::Groups { found: 3, channels: 2 }));
        for (value, index) in [(f32::NAN, 0), (f32::INFINITY, 1), (-1.0, 1)] {
            let mut pair = [1.0, 1.0];
            pair[index] = value;
            let name = ["w_pos", "w_neg"][index];
            let error = refused(&[[1.0, 1.0], pair], &[2, 3], 0);
            assert!(matches!(error, WeightError::Scale { group: 1, name: found, .. } if found == name), "{error}");
        }
    }
}
