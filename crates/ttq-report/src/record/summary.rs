//! Final results of a run, in the format of the examples' `summary.json`.

use serde::{Deserialize, Serialize};

use super::number::null_is_nan;

/// Final results of a run. Accuracies, in percent, and perplexities are measured on the test set.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Summary {
    /// Name of the example that trained the network.
    pub example: String,
    /// Source of the data.
    pub data: String,
    /// Name of the Burn backend.
    pub backend: String,
    /// Top-1 accuracy of the full-precision network.
    pub full_precision_accuracy: Option<f64>,
    /// Top-5 accuracy of the full-precision network.
    pub full_precision_top5: Option<f64>,
    /// Top-1 accuracy of the ternary network.
    pub ternary_accuracy: Option<f64>,
    /// Top-5 accuracy of the ternary network.
    pub ternary_top5: Option<f64>,
    /// Perplexity of the full-precision network on the test data, per byte. A run has accuracies or perplexities.
    pub full_precision_perplexity: Option<f64>,
    /// Perplexity of the ternary network, per byte.
    pub ternary_perplexity: Option<f64>,
    /// Share of zeros among the ternary weights, 0 to 1.
    pub sparsity: Option<f64>,
    /// Size of the network's file in float32, in bytes.
    pub float_bytes: Option<usize>,
    /// Size of the packed file, in bytes.
    pub packed_bytes: Option<usize>,
    /// Duration of training and evaluation in seconds.
    pub seconds: Option<f64>,
    /// Statistics of each ternary weight.
    pub layers: Option<LayerSummaries>,
}

impl Summary {
    /// Returns whether the network is a language model: its score is the perplexity, and lower is better.
    pub fn is_language_model(&self) -> bool {
        self.full_precision_perplexity.or(self.ternary_perplexity).is_some()
    }

    /// Returns the scores of the full-precision and of the ternary network: accuracies, or perplexities of a language model.
    pub fn scores(&self) -> [Option<f64>; 2] {
        if self.is_language_model() {
            return [self.full_precision_perplexity, self.ternary_perplexity];
        }
        [self.full_precision_accuracy, self.ternary_accuracy]
    }
}

/// Statistics of every ternary weight.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LayerSummaries {
    /// One entry per ternary weight, in the order of the module's parameters.
    pub layers: Vec<LayerSummary>,
    /// Number of parameters (elements) that stay in full precision.
    pub full_precision_parameters: usize,
}

/// Statistics of one ternary weight.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LayerSummary {
    /// Path of the weight in the module.
    pub path: String,
    /// Shape of the weight.
    pub shape: Vec<usize>,
    /// Number of weights.
    pub weights: usize,
    /// Share of zeros, 0 to 1.
    #[serde(deserialize_with = "null_is_nan")]
    pub sparsity: f64,
    /// Share of weights equal to +W_p, 0 to 1.
    #[serde(deserialize_with = "null_is_nan")]
    pub positive: f64,
    /// Share of weights equal to -W_n, 0 to 1.
    #[serde(deserialize_with = "null_is_nan")]
    pub negative: f64,
    /// Scale W_p, as the mean over groups.
    #[serde(deserialize_with = "null_is_nan")]
    pub w_pos: f64,
    /// Scale W_n, as the mean over groups.
    #[serde(deserialize_with = "null_is_nan")]
    pub w_neg: f64,
    /// Entropy of the codes in bits per weight.
    #[serde(deserialize_with = "null_is_nan")]
    pub entropy_bits: f64,
    /// Size at 2 bits per weight, with the scales in float32, in bytes.
    pub packed_bytes: usize,
    /// Size in float32, in bytes.
    pub float_bytes: usize,
    /// Names of warnings, such as `scale_near_zero`.
    pub warnings: Vec<String>,
}

impl LayerSummary {
    /// Computes the size in bytes with the codes at their entropy and the scales in float32.
    ///
    /// An ideal order-0 entropy coder reaches this size.
    pub fn entropy_bytes(&self) -> f64 {
        let scales = self.packed_bytes.saturating_sub(self.weights.div_ceil(4));
        self.weights as f64 * self.entropy_bits / 8.0 + scales as f64
    }
}

impl LayerSummaries {
    /// Computes the size of the network in bytes, with the codes at their entropy and everything else in float32.
    pub fn entropy_bytes(&self) -> f64 {
        self.layers.iter().map(LayerSummary::entropy_bytes).sum::<f64>() + 4.0 * self.full_precision_parameters as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entropy_bytes_count_the_codes_at_their_entropy_and_the_scales_in_float32() {
        // 8 weights at 1.5 bits are 1.5 bytes. Packed they are 2 bytes of codes and 8 bytes of scales.
        let layer = LayerSummary { weights: 8, entropy_bits: 1.5, packed_bytes: 10, ..Default::default() };
        assert_eq!(layer.entropy_bytes(), 9.5);
        let network = LayerSummaries { layers: vec![layer.clone(), layer], full_precision_parameters: 3 };
        assert_eq!(network.entropy_bytes(), 31.0);
    }
}
