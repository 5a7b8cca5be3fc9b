//! The figures at the end of a run, as the examples write them.

use serde::{Deserialize, Serialize};

/// What a run came to. Accuracies are of the test set, in percent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Summary {
    /// Name of the task.
    pub example: String,
    /// Where the data came from.
    pub data: String,
    /// The backend.
    pub backend: String,
    /// Top-1 accuracy in full precision.
    pub full_precision_accuracy: Option<f64>,
    /// Top-5 accuracy in full precision.
    pub full_precision_top5: Option<f64>,
    /// Top-1 accuracy with ternary weights.
    pub ternary_accuracy: Option<f64>,
    /// Top-5 accuracy with ternary weights.
    pub ternary_top5: Option<f64>,
    /// Share of zeros among the ternary weights, 0 to 1.
    pub sparsity: Option<f64>,
    /// Bytes of the network's parameters in float32.
    pub float_bytes: Option<usize>,
    /// Bytes with ternary weights at 2 bits and the rest in float32.
    pub packed_bytes: Option<usize>,
    /// Seconds of training and evaluation.
    pub seconds: Option<f64>,
    /// Statistics of each ternary weight.
    pub layers: Option<LayerSummaries>,
}

/// Statistics of every ternary weight.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LayerSummaries {
    /// One entry for each ternary weight, in the order of the network.
    pub layers: Vec<LayerSummary>,
    /// Number of parameters that stay in full precision.
    pub full_precision_parameters: usize,
}

/// Statistics of one ternary weight.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LayerSummary {
    /// Path of the weight.
    pub path: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Number of weights.
    pub weights: usize,
    /// Share of zeros, 0 to 1.
    pub sparsity: f64,
    /// Share of +W_p.
    pub positive: f64,
    /// Share of -W_n.
    pub negative: f64,
    /// W_p, the mean over groups.
    pub w_pos: f64,
    /// W_n, the mean over groups.
    pub w_neg: f64,
    /// Entropy of the codes, bits a weight.
    pub entropy_bits: f64,
    /// Bytes at 2 bits a weight, with the scales in float32.
    pub packed_bytes: usize,
    /// Bytes in float32.
    pub float_bytes: usize,
    /// What deserves a look.
    pub warnings: Vec<String>,
}

impl LayerSummary {
    /// Bytes if the codes were coded at their entropy (what an ideal order-0 coder reaches), with the scales in float32.
    pub fn entropy_bytes(&self) -> f64 {
        let scales = self.packed_bytes.saturating_sub(self.weights.div_ceil(4));
        self.weights as f64 * self.entropy_bits / 8.0 + scales as f64
    }
}

impl LayerSummaries {
    /// Bytes of the whole network with ternary weights at their entropy and the rest in float32.
    pub fn entropy_bytes(&self) -> f64 {
        self.layers.iter().map(LayerSummary::entropy_bytes).sum::<f64>() + 4.0 * self.full_precision_parameters as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entropy_bytes_are_bits_over_eight_and_the_scales() {
        // 8 weights at 1.5 bits: 1.5 bytes; 2 packed bytes of codes and one pair of scales: 10.
        let layer = LayerSummary { weights: 8, entropy_bits: 1.5, packed_bytes: 10, ..Default::default() };
        assert_eq!(layer.entropy_bytes(), 9.5);
        let network = LayerSummaries { layers: vec![layer.clone(), layer], full_precision_parameters: 3 };
        assert_eq!(network.entropy_bytes(), 31.0);
    }
}
