//! Layers of a trained network.

use serde::{Deserialize, Serialize};
use ttq_packed::Codes;

use super::bytes;
use super::number::null_is_nan;
use crate::distribution::Histogram;

/// Bins of the histogram of latent weights. With 80 bins, the paper's threshold Δ = 0.05 max|w| is a bin edge.
const BINS: usize = 80;

/// Layer with a ternary weight.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Layer {
    /// Path of the weight in the module.
    pub path: String,
    /// Shape of the weight, such as `[out, in / groups, kh, kw]` or `[in, out]`.
    pub shape: Vec<usize>,
    /// Index of the dimension of the output channels in `shape`.
    pub channel_axis: usize,
    /// Threshold Δ of each group of weights.
    #[serde(deserialize_with = "null_is_nan")]
    pub thresholds: Vec<f32>,
    /// Histogram of the finite latent weights from `-max|w|` to `max|w|`.
    pub histogram: Histogram,
    /// Ternary codes in row-major order, packed as by [`ttq_packed::Codes`].
    #[serde(with = "bytes")]
    pub codes: Vec<u8>,
    /// Output positions per input: height times width for a 2-D convolution, 1 for a linear layer. `None` if unknown.
    pub positions: Option<usize>,
}

/// Convolution or linear layer that stays in full precision.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DenseLayer {
    /// Path of the weight in the module.
    pub path: String,
    /// Shape of the weight.
    pub shape: Vec<usize>,
    /// Output positions per input. `None` if unknown.
    pub positions: Option<usize>,
}

impl Layer {
    /// Creates a layer from its latent weights, thresholds and codes.
    ///
    /// `latent` and `codes` (-1, 0, +1) have one entry per weight, in row-major order of `shape`; `thresholds` has one
    /// entry per group. The latent weights are kept as a histogram only, the codes are packed. `positions` is `None`.
    ///
    /// # Panics
    /// If a code is not -1, 0 or +1.
    pub fn new(
        path: &str,
        shape: &[usize],
        channel_axis: usize,
        latent: &[f32],
        thresholds: &[f32],
        codes: &[i8],
    ) -> Self {
        let packed = Codes::pack(codes).unwrap_or_else(|error| panic!("layer {path}: {error}"));
        let finite = latent.iter().filter(|weight| weight.is_finite());
        let largest = finite.fold(0f32, |largest, weight| largest.max(weight.abs()));
        Self {
            path: path.into(),
            shape: shape.to_vec(),
            channel_axis,
            thresholds: thresholds.to_vec(),
            histogram: Histogram::new(latent.iter().map(|w| f64::from(*w)), -f64::from(largest), largest.into(), BINS),
            codes: packed.as_bytes().to_vec(),
            positions: None,
        }
    }

    /// Returns the number of weights.
    pub fn weights(&self) -> usize {
        self.shape.iter().product()
    }

    /// Returns the number of output channels.
    pub fn output_channels(&self) -> usize {
        self.shape.get(self.channel_axis).copied().unwrap_or(0)
    }

    /// Returns the codes (-1, 0, +1) in row-major order.
    ///
    /// Returns an empty vector if the packed codes are damaged.
    pub fn unpack_codes(&self) -> Vec<i8> {
        Codes::from_bytes(self.codes.clone(), self.weights()).map(|codes| codes.unpack()).unwrap_or_default()
    }
}

impl DenseLayer {
    /// Returns the number of weights.
    pub fn weights(&self) -> usize {
        self.shape.iter().product()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_keeps_its_codes_and_counts_its_latent_weights() {
        let layer = Layer::new("a", &[2, 3], 1, &[-1.0, -0.5, 0.0, 0.1, 0.6, 1.0], &[0.2], &[-1, -1, 0, 0, 1, 1]);
        assert_eq!(layer.unpack_codes(), [-1, -1, 0, 0, 1, 1]);
        assert_eq!(layer.output_channels(), 3);
        assert_eq!(layer.histogram.counts.iter().sum::<usize>(), 6);
        assert_eq!((layer.histogram.low, layer.histogram.high), (-1.0, 1.0));
        let json = serde_json::to_string(&layer).unwrap();
        assert_eq!(serde_json::from_str::<Layer>(&json).unwrap(), layer);
    }
}
