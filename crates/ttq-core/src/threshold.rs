//! Where the zero ends: the threshold Δ of a weight.

use std::fmt;
use std::str::FromStr;

use burn::prelude::*;
use serde::{Deserialize, Serialize};

use crate::ConfigError;

/// Rule for the threshold Δ. A weight becomes `+W_p` where `w > Δ`, `-W_n` where `w < -Δ`, and `0` where `|w| <= Δ`.
///
/// | rule | Δ | written | source |
/// |---|---|---|---|
/// | [`MaxFraction(t)`](Self::MaxFraction) | `t · max|w|` | `max:0.05` | TTQ (arXiv 1612.01064), t = 0.05 |
/// | [`MeanFraction(f)`](Self::MeanFraction) | `f · mean|w|` | `mean:0.7` | TWN (arXiv 1605.04711) f = 0.7; BitNet b1.58 (arXiv 2402.17764) f = 0.5 |
/// | [`Sparsity(r)`](Self::Sparsity) | the ⌊r·n + ½⌋-th smallest magnitude | `zeros:0.5` | TTQ, second heuristic |
///
/// The maximum, mean and order are those of a group: the whole weight or one output channel
/// ([`Granularity`](crate::Granularity)).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Threshold {
    /// A fraction of the largest magnitude, 0 to 1.
    MaxFraction(f64),
    /// A multiple of the mean magnitude, 0 or more.
    MeanFraction(f64),
    /// The target share of zeros, 0 to 1. Equal magnitudes at the threshold all become zero.
    Sparsity(f64),
}

impl Default for Threshold {
    fn default() -> Self {
        Self::MaxFraction(0.05)
    }
}

impl Threshold {
    fn parts(self) -> (&'static str, f64) {
        match self {
            Self::MaxFraction(t) => ("max", t),
            Self::MeanFraction(f) => ("mean", f),
            Self::Sparsity(r) => ("zeros", r),
        }
    }

    /// Refuses numbers that make no sense.
    ///
    /// # Errors
    /// [`ConfigError::Threshold`] for a negative, infinite or NaN number, a fraction of the maximum or a share of zeros
    /// above 1, and a multiple of the mean above 10. (At 1 no weight is left; the statistics flag such layers.)
    pub fn check(self) -> Result<Self, ConfigError> {
        let (rule, value) = self.parts();
        let (end, allowed) = match self {
            Self::MaxFraction(_) => (1.0, "a fraction of the largest magnitude, from 0 to 1"),
            Self::MeanFraction(_) => (10.0, "a multiple of the mean magnitude, from 0 to 10"),
            Self::Sparsity(_) => (1.0, "a share of zeros, from 0 to 1"),
        };
        if (0.0..=end).contains(&value) { Ok(self) } else { Err(ConfigError::Threshold { rule, value, allowed }) }
    }

    /// The threshold of each group.
    ///
    /// # Shapes
    /// - magnitudes: `[groups, n]`, `|w|`, not empty
    /// - output: `[groups, 1]`
    pub(crate) fn of_groups<B: Backend>(self, magnitudes: Tensor<B, 2>) -> Tensor<B, 2> {
        match self {
            Self::MaxFraction(t) => magnitudes.max_dim(1).mul_scalar(t),
            Self::MeanFraction(f) => magnitudes.mean_dim(1).mul_scalar(f),
            Self::Sparsity(r) => {
                let [groups, n] = magnitudes.dims();
                match zeros(r, n) {
                    0 => Tensor::zeros([groups, 1], &magnitudes.device()),
                    zeros => magnitudes.sort(1).narrow(1, zeros - 1, 1),
                }
            }
        }
    }
}

/// How many of `n` weights are to be zero.
pub(crate) fn zeros(share: f64, n: usize) -> usize {
    ((share * n as f64 + 0.5).floor() as usize).min(n)
}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rule, value) = self.parts();
        write!(f, "{rule}:{value}")
    }
}

impl FromStr for Threshold {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let unreadable = || ConfigError::ThresholdText { text: text.into() };
        let (rule, value) = text.split_once(':').ok_or_else(unreadable)?;
        let value = value.trim().parse().map_err(|_| unreadable())?;
        match rule.trim() {
            "max" => Self::MaxFraction(value).check(),
            "mean" => Self::MeanFraction(value).check(),
            "zeros" => Self::Sparsity(value).check(),
            _ => Err(unreadable()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_threshold_reads_what_it_writes() {
        for text in ["max:0.05", "mean:0.7", "zeros:0.5"] {
            assert_eq!(text.parse::<Threshold>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn an_absurd_threshold_is_refused_with_its_range() {
        for text in ["max:-0.1", "max:1.01", "mean:NaN", "zeros:1.5", "mean:inf"] {
            let error = text.parse::<Threshold>().unwrap_err().to_string();
            assert!(error.contains("out of range"), "{error}");
        }
        for text in ["0.05", "max:", "median:0.5"] {
            let error = text.parse::<Threshold>().unwrap_err().to_string();
            assert!(error.contains(text) && error.contains("max:0.05"), "{error}");
        }
    }
}
