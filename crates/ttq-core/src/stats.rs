//! What a ternary network consists of: numbers for each layer, and a table.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Choice, SCALE_FLOOR};

/// Something about a layer that a user should look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Warning {
    /// Every weight is zero: the layer passes nothing on.
    AllZero,
    /// No weight is +1, or none is -1.
    OneSided,
    /// A scale that is in use lies at [`SCALE_FLOOR`]: training drove it to zero.
    ScaleAtFloor,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AllZero => "all zero",
            Self::OneSided => "one-sided",
            Self::ScaleAtFloor => "scale at its floor",
        })
    }
}

/// The numbers of one ternary weight, read from the device.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerValues {
    /// Which weight it is.
    pub choice: Choice,
    /// The latent weights in row-major order.
    pub latent: Vec<f32>,
    /// Δ of each group.
    pub thresholds: Vec<f32>,
    /// The codes, -1, 0 and +1, in row-major order.
    pub codes: Vec<i8>,
    /// W_p and W_n of each group, flattened `[groups, 2]`.
    pub scales: Vec<f32>,
}

/// Statistics of one ternary weight.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LayerStats {
    /// Path of the parameter in the module.
    pub path: String,
    /// Shape of the weight.
    pub shape: Vec<usize>,
    /// Number of weights.
    pub weights: usize,
    /// Share of weights that are 0, between 0 and 1.
    pub sparsity: f64,
    /// Share of weights that are +W_p.
    pub positive: f64,
    /// Share of weights that are -W_n.
    pub negative: f64,
    /// W_p, the mean over output channels where there is one for each.
    pub w_pos: f64,
    /// W_n, the mean over output channels where there is one for each.
    pub w_neg: f64,
    /// Entropy of the three codes in bits a weight, at most log2 3 = 1.585: `-Σ p log2 p`.
    pub entropy_bits: f64,
    /// Bytes at 2 bits a weight, with the scales in float32.
    pub packed_bytes: usize,
    /// Bytes in float32.
    pub float_bytes: usize,
    /// What deserves a look.
    pub warnings: Vec<Warning>,
}

impl LayerStats {
    /// From the codes and the scales of a weight.
    pub(crate) fn new(LayerValues { choice, codes, scales, .. }: &LayerValues) -> Self {
        let weights = codes.len();
        let share = |count: usize| count as f64 / weights as f64;
        let plus = codes.iter().filter(|code| **code > 0).count();
        let minus = codes.iter().filter(|code| **code < 0).count();
        let shares = [share(plus), share(minus), share(weights - plus - minus)];
        let mean_of = |column: usize| {
            let values = scales.iter().skip(column).step_by(2);
            values.map(|value| f64::from(*value)).sum::<f64>() / (scales.len() / 2) as f64
        };
        let at_floor =
            |column: usize| scales.iter().skip(column).step_by(2).any(|s| f64::from(*s) <= SCALE_FLOOR * 1.001);
        let mut warnings = Vec::new();
        if plus + minus == 0 {
            warnings.push(Warning::AllZero);
        } else if plus == 0 || minus == 0 {
            warnings.push(Warning::OneSided);
        }
        if (plus > 0 && at_floor(0)) || (minus > 0 && at_floor(1)) {
            warnings.push(Warning::ScaleAtFloor);
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

/// Entropy of a distribution in bits.
fn entropy(shares: &[f64]) -> f64 {
    let bits: f64 = shares.iter().filter(|p| **p > 0.0).map(|p| -p * p.log2()).sum();
    bits.max(0.0)
}

/// Statistics of every ternary weight of a module. Its `Display` is a table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TernaryStats {
    /// One entry for each ternary weight, in the order of the module.
    pub layers: Vec<LayerStats>,
    /// Number of parameters that stay in full precision.
    pub full_precision_parameters: usize,
}

impl TernaryStats {
    pub(crate) fn new(layers: Vec<LayerStats>, full_precision_parameters: usize) -> Self {
        Self { layers, full_precision_parameters }
    }

    /// Number of ternary weights.
    pub fn weights(&self) -> usize {
        self.layers.iter().map(|layer| layer.weights).sum()
    }

    /// Share of zeros among the ternary weights, between 0 and 1.
    pub fn sparsity(&self) -> f64 {
        self.weighted(|layer| layer.sparsity)
    }

    /// Mean entropy of the codes in bits a weight.
    pub fn entropy_bits(&self) -> f64 {
        self.weighted(|layer| layer.entropy_bits)
    }

    /// Bytes of the whole module in float32.
    pub fn float_bytes(&self) -> usize {
        4 * (self.weights() + self.full_precision_parameters)
    }

    /// Bytes of the whole module with ternary weights at 2 bits and everything else, scales included, in float32.
    pub fn packed_bytes(&self) -> usize {
        self.layers.iter().map(|layer| layer.packed_bytes).sum::<usize>() + 4 * self.full_precision_parameters
    }

    /// Layers that deserve a look, with the reason.
    pub fn warnings(&self) -> impl Iterator<Item = (&str, Warning)> {
        self.layers.iter().flat_map(|layer| layer.warnings.iter().map(|warning| (layer.path.as_str(), *warning)))
    }

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
