//! Statistics of ternary weights, for each layer and as a table.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Choice, SCALE_FLOOR};

/// A property of a ternary weight that indicates a problem in training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Warning {
    /// Every weight is zero, so the output of the layer does not depend on its input.
    AllZero,
    /// No weight has the code +1, or none has the code -1.
    OneSided,
    /// A scale that some weight uses is near zero: at most [`SCALE_FLOOR`], up to rounding.
    ScaleNearZero,
    /// A latent weight, a threshold or a scale is NaN or infinite. The shares of the codes and their entropy are NaN.
    NotFinite,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AllZero => "all zero",
            Self::OneSided => "one-sided",
            Self::ScaleNearZero => "scale near zero",
            Self::NotFinite => "not finite",
        })
    }
}

/// Latent values, thresholds, codes and scales of one ternary weight, in host memory.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct LayerValues {
    /// Path, layer kind and shape of the weight.
    pub choice: Choice,
    /// The latent values in row-major order.
    pub latent: Vec<f32>,
    /// The threshold Δ of each group.
    pub thresholds: Vec<f32>,
    /// The codes -1, 0 and +1 in row-major order; 0 where the threshold is NaN.
    pub codes: Vec<i8>,
    /// W_p and W_n of each group: `[groups, 2]` in row-major order.
    pub scales: Vec<f32>,
}

/// Statistics of one ternary weight.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LayerStats {
    /// Path of the parameter in the module, e.g. `blocks.0.conv1.weight`.
    pub path: String,
    /// Shape of the weight.
    pub shape: Vec<usize>,
    /// Number of elements.
    pub weights: usize,
    /// Share of elements with code 0, from 0 to 1.
    pub sparsity: f64,
    /// Share of elements with code +1, from 0 to 1.
    pub positive: f64,
    /// Share of elements with code -1, from 0 to 1.
    pub negative: f64,
    /// Mean of W_p over the groups.
    pub w_pos: f64,
    /// Mean of W_n over the groups.
    pub w_neg: f64,
    /// Entropy of the codes in bits per element, `-Σ p log2 p` over their three shares; at most log2 3 = 1.585.
    pub entropy_bits: f64,
    /// Size in bytes with 2 bits per element and the scales in float32.
    pub packed_bytes: usize,
    /// Size in bytes in float32.
    pub float_bytes: usize,
    /// Indications of problems in training.
    pub warnings: Vec<Warning>,
}

impl LayerStats {
    /// Computes the statistics from the codes and scales of a weight.
    pub(crate) fn new(LayerValues { choice, latent, thresholds, codes, scales }: &LayerValues) -> Self {
        let weights = codes.len();
        let finite = [latent, thresholds, scales].iter().all(|values| values.iter().all(|value| value.is_finite()));
        let share = |count: usize| if finite { count as f64 / weights as f64 } else { f64::NAN };
        let plus = codes.iter().filter(|code| **code > 0).count();
        let minus = codes.iter().filter(|code| **code < 0).count();
        let shares = [share(plus), share(minus), share(weights - plus - minus)];
        let mean_of = |column: usize| {
            let values = scales.iter().skip(column).step_by(2);
            values.map(|value| f64::from(*value)).sum::<f64>() / (scales.len() / 2) as f64
        };
        // 16-bit floats round the floor by up to 1.4 %.
        let near_zero =
            |column: usize| scales.iter().skip(column).step_by(2).any(|s| f64::from(*s) <= SCALE_FLOOR * 1.02);
        let mut warnings = Vec::new();
        if !finite {
            warnings.push(Warning::NotFinite);
        } else if plus + minus == 0 {
            warnings.push(Warning::AllZero);
        } else if plus == 0 || minus == 0 {
            warnings.push(Warning::OneSided);
        }
        if (plus > 0 && near_zero(0)) || (minus > 0 && near_zero(1)) {
            warnings.push(Warning::ScaleNearZero);
        }
        Self {
            path: choice.path.clone(),
            shape: choice.shape.clone(),
            weights,
            sparsity: shares[2],
            positive: shares[0],
            negative: shares[1],
            w_pos: mean_of(0),
            w_neg: mean_of(1),
            entropy_bits: entropy(&shares),
            packed_bytes: weights.div_ceil(4) + 4 * scales.len(),
            float_bytes: 4 * weights,
            warnings,
        }
    }
}

/// Computes the entropy of a distribution in bits.
fn entropy(shares: &[f64]) -> f64 {
    if shares.iter().any(|p| p.is_nan()) {
        return f64::NAN;
    }
    let bits: f64 = shares.iter().filter(|p| **p > 0.0).map(|p| -p * p.log2()).sum();
    bits.max(0.0)
}

/// Statistics of the ternary weights of a module. `Display` prints a table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TernaryStats {
    /// Statistics of each ternary weight, in the order of the module.
    pub layers: Vec<LayerStats>,
    /// Number of float parameters in full precision, without the scales.
    pub full_precision_parameters: usize,
}

impl TernaryStats {
    pub(crate) fn new(layers: Vec<LayerStats>, full_precision_parameters: usize) -> Self {
        Self { layers, full_precision_parameters }
    }

    /// Returns the number of elements of all ternary weights.
    pub fn weights(&self) -> usize {
        self.layers.iter().map(|layer| layer.weights).sum()
    }

    /// Returns the sparsity: the share of zeros among the elements of all ternary weights, from 0 to 1.
    pub fn sparsity(&self) -> f64 {
        self.weighted(|layer| layer.sparsity)
    }

    /// Returns the mean entropy of the codes in bits per element.
    pub fn entropy_bits(&self) -> f64 {
        self.weighted(|layer| layer.entropy_bits)
    }

    /// Returns the size of the whole module in bytes in float32.
    pub fn float_bytes(&self) -> usize {
        4 * (self.weights() + self.full_precision_parameters)
    }

    /// Returns the size of the whole module in bytes with 2 bits per ternary element and all other parameters and the
    /// scales in float32.
    pub fn packed_bytes(&self) -> usize {
        self.layers.iter().map(|layer| layer.packed_bytes).sum::<usize>() + 4 * self.full_precision_parameters
    }

    /// Returns the path and the warning for every warning of every layer.
    pub fn warnings(&self) -> impl Iterator<Item = (&str, Warning)> {
        self.layers.iter().flat_map(|layer| layer.warnings.iter().map(|warning| (layer.path.as_str(), *warning)))
    }

    /// Returns the mean of a value over the layers, weighted by their number of elements.
    fn weighted(&self, value: impl Fn(&LayerStats) -> f64) -> f64 {
        let sum: f64 = self.layers.iter().map(|layer| value(layer) * layer.weights as f64).sum();
        sum / self.weights().max(1) as f64
    }
}

impl fmt::Display for TernaryStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.layers.iter().map(|layer| layer.path.len()).max().unwrap_or(0).max(13);
        writeln!(
            f,
            "{:width$} {:>9} {:>7} {:>7} {:>7} {:>9} {:>9} {:>6} {:>9} {:>9}",
            "weight", "weights", "0", "+1", "-1", "W_p", "W_n", "bits", "2-bit", "float32"
        )?;
        for layer in &self.layers {
            write!(
                f,
                "{:width$} {:>9} {:>6.1}% {:>6.1}% {:>6.1}% {:>9.5} {:>9.5} {:>6.3} {:>9} {:>9}",
                layer.path,
                layer.weights,
                100.0 * layer.sparsity,
                100.0 * layer.positive,
                100.0 * layer.negative,
                layer.w_pos,
                layer.w_neg,
                layer.entropy_bits,
                layer.packed_bytes,
                layer.float_bytes
            )?;
            for warning in &layer.warnings {
                write!(f, "  ! {warning}")?;
            }
            writeln!(f)?;
        }
        write!(
            f,
            "{:width$} {:>9} {:>6.1}% {:>7} {:>7} {:>9} {:>9} {:>6.3} {:>9} {:>9}  (with {} full-precision parameters)",
            "whole network",
            self.weights(),
            100.0 * self.sparsity(),
            "",
            "",
            "",
            "",
            self.entropy_bits(),
            self.packed_bytes(),
            self.float_bytes(),
            self.full_precision_parameters
        )
    }
}
