//! The layers of a trained network.

use serde::{Deserialize, Serialize};
use ttq_packed::Codes;

use super::bytes;
use crate::distribution::Histogram;

/// Bins of a latent weight's histogram: with the paper's Δ = 0.05 max|w| a threshold falls on the edge of a bin.
const BINS: usize = 80;

/// A layer whose weight is ternary.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Layer {
    /// Path of the weight.
    pub path: String,
    /// Shape of the weight.
    pub shape: Vec<usize>,
    /// The dimension along which output channels lie.
    pub channel_axis: usize,
    /// Δ of each group of weights.
    pub thresholds: Vec<f32>,
    /// The latent weights between `-max|w|` and `max|w|`.
    pub histogram: Histogram,
    /// The ternary codes in the layout of `ttq-packed`.
    #[serde(with = "bytes")]
    pub codes: Vec<u8>,
    /// Output positions for one item: height times width for a convolution of images, one for a linear layer.
    pub positions: Option<usize>,
}

/// A convolution or linear layer in full precision.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DenseLayer {
    /// Path of the weight.
    pub path: String,
    /// Shape of the weight.
    pub shape: Vec<usize>,
    /// Output positions for one item.
    pub positions: Option<usize>,
}

impl Layer {
    /// Summarizes a layer: the latent weights become a histogram, the codes (-1, 0, +1, in row-major order) are packed.
    ///
    /// # Panics
    /// Where a code is none of the three.
    pub fn new(
        path: &str,
        shape: &[usize],
        channel_axis: usize,
        latent: &[f32],
        thresholds: &[f32],
        codes: &[i8],
    ) -> Self {
        let packed = Codes::pack(codes).unwrap_or_else(|error| panic!("layer {path}: {error}"));
        let largest = latent.iter().fold(0f32, |largest, weight| largest.max(weight.abs()));
        Self {
            path: path.into(),
            shape: shape.to_vec(),
            channel_axis,
            thresholds: thresholds.to_vec(),
            histogram: Histogram::of(latent.iter().map(|w| f64::from(*w)), -f64::from(largest), largest.into(), BINS),
            codes: packed.as_bytes().to_vec(),
            positions: None,
        }
    }

    /// Number of weights.
    pub fn weights(&self) -> usize {
        self.shape.iter().product()
    }

    /// Output channels.
    pub fn outputs(&self) -> usize {
        self.shape.get(self.channel_axis).copied().unwrap_or(0)
    }

    /// The codes, -1, 0 and +1; empty where the record's are damaged.
    pub fn unpacked(&self) -> Vec<i8> {
        Codes::from_bytes(self.codes.clone(), self.weights()).map(|codes| codes.unpack()).unwrap_or_default()
    }
}

impl DenseLayer {
    /// Number of weights.
    pub fn weights(&self) -> usize {
        self.shape.iter().product()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_keeps_its_codes_and_counts_its_latents() {
        let layer = Layer::new("a", &[2, 3], 1, &[-1.0, -0.5, 0.0, 0.1, 0.6, 1.0], &[0.2], &[-1, -1, 0, 0, 1, 1]);
        assert_eq!(layer.unpacked(), [-1, -1, 0, 0, 1, 1]);
        assert_eq!(layer.outputs(), 3);
        assert_eq!(layer.histogram.counts.iter().sum::<usize>(), 6);
        assert_eq!((layer.histogram.low, layer.histogram.high), (-1.0, 1.0));
        let json = serde_json::to_string(&layer).unwrap();
        assert_eq!(serde_json::from_str::<Layer>(&json).unwrap(), layer);
    }
}
