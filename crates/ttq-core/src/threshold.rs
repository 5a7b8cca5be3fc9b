//! Rules for the threshold Δ: weights with a magnitude of at most Δ become zero.

use std::fmt;
use std::str::FromStr;

use burn::prelude::*;
use serde::{Deserialize, Serialize};

use crate::ConfigError;

/// Rule for the threshold Δ. A weight becomes `+W_p` if `w > Δ`, `-W_n` if `w < -Δ`, and `0` if `|w| <= Δ`.
///
/// | rule | Δ | text form | source |
/// |---|---|---|---|
/// | [`MaxFraction(t)`](Self::MaxFraction) | `t · max|w|` | `max:0.05` | TTQ (arXiv 1612.01064), t = 0.05 |
/// | [`MeanFraction(f)`](Self::MeanFraction) | `f · mean|w|` | `mean:0.7` | TWN (arXiv 1605.04711) f = 0.7; BitNet b1.58 (arXiv 2402.17764) f = 0.5 |
/// | [`Sparsity(r)`](Self::Sparsity) | the ⌊r·n + ½⌋-th smallest magnitude | `zeros:0.5` | TTQ, second heuristic |
///
/// Maximum, mean and order statistic are taken over a group: the whole weight or one output channel
/// ([`Granularity`](crate::Granularity)). `n` is the number of weights in a group. If a weight of the group is not finite,
/// Δ is NaN.
///
/// `Display` and `FromStr` use the text form.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Threshold {
    /// A fraction of the largest magnitude, from 0 to 1.
    MaxFraction(f64),
    /// A multiple of the mean magnitude, from 0 to 10.
    MeanFraction(f64),
    /// The target share of zeros, from 0 to 1. All weights whose magnitude equals the threshold become zero.
    Sparsity(f64),
}

impl Default for Threshold {
    /// Returns `MaxFraction(0.05)`.
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

    /// Returns the rule unchanged if its number is in range.
    ///
    /// # Errors
    /// Returns [`ConfigError::Threshold`] for a negative, infinite or NaN number, a fraction of the maximum or a share
    /// of zeros above 1, and a multiple of the mean above 10. (At 1 every weight becomes zero; the statistics contain a
    /// warning for such layers.)
    pub fn check(self) -> Result<Self, ConfigError> {
        let (rule, value) = self.parts();
        let (end, allowed) = match self {
            Self::MaxFraction(_) => (1.0, "a fraction of the largest magnitude, from 0 to 1"),
            Self::MeanFraction(_) => (10.0, "a multiple of the mean magnitude, from 0 to 10"),
            Self::Sparsity(_) => (1.0, "a share of zeros, from 0 to 1"),
        };
        if (0.0..=end).contains(&value) { Ok(self) } else { Err(ConfigError::Threshold { rule, value, allowed }) }
    }

    /// Computes the threshold of each group.
    ///
    /// # Shapes
    /// - magnitudes: `[groups, n]`, `|w|`, with `n > 0`
    /// - output: `[groups, 1]`
    pub(crate) fn of_groups<B: Backend>(self, magnitudes: Tensor<B, 2>) -> Tensor<B, 2> {
        // Maximum and order of most backends skip NaN; a sum does not. This is 0, or NaN.
        let finite = |magnitudes: &Tensor<B, 2>| magnitudes.clone().mean_dim(1).mul_scalar(0.0);
        match self {
            Self::MaxFraction(t) => finite(&magnitudes) + magnitudes.max_dim(1).mul_scalar(t),
            Self::MeanFraction(f) => {
                let mean = magnitudes.mean_dim(1);
                mean.clone().mul_scalar(f) + mean.mul_scalar(0.0)
            }
            Self::Sparsity(r) => match zero_count(r, magnitudes.dims()[1]) {
                0 => finite(&magnitudes),
                count => finite(&magnitudes) + magnitudes.sort(1).narrow(1, count - 1, 1),
            },
        }
    }
}

/// Returns how many of `n` weights become zero.
pub(crate) fn zero_count(share: f64, n: usize) -> usize {
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
    fn a_threshold_parses_its_own_text_form() {
        for text in ["max:0.05", "mean:0.7", "zeros:0.5"] {
            assert_eq!(text.parse::<Threshold>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_threshold_out_of_range_is_an_error_that_names_the_range() {
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
