//! Rules for the threshold Δ: weights with a magnitude of at most Δ become zero.

use std::fmt;
use std::str::FromStr;

use burn::prelude::*;
use burn::tensor::TensorData;
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

    /// Returns the rule with another number, which may be out of range.
    #[must_use]
    pub fn with_number(self, number: f64) -> Self {
        match self {
            Self::MaxFraction(_) => Self::MaxFraction(number),
            Self::MeanFraction(_) => Self::MeanFraction(number),
            Self::Sparsity(_) => Self::Sparsity(number),
        }
    }

    /// Returns the threshold between this one and `end`, of the same rule, at `progress` along a half cosine:
    ///
    /// ```text
    /// start + (end - start) · (1 - cos(π · progress)) / 2
    /// ```
    ///
    /// It is `self` at a progress of 0 and below, and exactly `end` at 1 and above. With [`Ternary::with_threshold`
    /// ](crate::Ternary::with_threshold) it is a schedule of the share of zeros, one line in each step of a loop:
    ///
    /// ```
    /// use ttq_core::Threshold;
    ///
    /// let (start, end) = (Threshold::Sparsity(0.0), Threshold::Sparsity(0.5));
    /// assert_eq!(start.toward(end, 0.0)?, start);
    /// assert_eq!(start.toward(end, 1.2)?, end);
    /// # Ok::<(), ttq_core::ConfigError>(())
    /// ```
    ///
    /// # Errors
    /// Returns [`ConfigError`] if the rules differ or a number is out of range.
    pub fn toward(self, end: Self, progress: f64) -> Result<Self, ConfigError> {
        let ((rule, from), (other, to)) = (self.check()?.parts(), end.check()?.parts());
        if rule != other {
            return Err(ConfigError::ThresholdRules { start: self, end });
        }
        if progress >= 1.0 {
            return Ok(end);
        }
        let risen = (1.0 - (std::f64::consts::PI * progress.max(0.0)).cos()) / 2.0;
        Ok(self.with_number(from + (to - from) * risen))
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
                count => finite(&magnitudes) + kth_smallest(magnitudes, count),
            },
        }
    }
}

/// Returns how many of `n` weights become zero.
pub(crate) fn zero_count(share: f64, n: usize) -> usize {
    ((share * n as f64 + 0.5).floor() as usize).min(n)
}

/// Returns the k-th smallest number of each row, with k from 1.
///
/// The rows are read and selected from on the host, in linear time. (Burn's `sort` reads them too on most backends and takes
/// ten times as long.)
///
/// # Shapes
/// - magnitudes: `[groups, n]`, not negative
/// - output: `[groups, 1]`
fn kth_smallest<B: Backend>(magnitudes: Tensor<B, 2>, k: usize) -> Tensor<B, 2> {
    let ([groups, n], device, dtype) = (magnitudes.dims(), magnitudes.device(), magnitudes.dtype());
    let data = magnitudes.into_data();
    // Of numbers that are not negative, the bits have the order of the values, with NaN last.
    let selected = match data.as_slice::<f32>() {
        Ok(numbers) => {
            let bits = numbers.iter().map(|number| number.to_bits()).collect();
            TensorData::new(select(bits, n, k).into_iter().map(f32::from_bits).collect(), [groups, 1])
        }
        Err(_) => {
            let bits = data.iter::<f64>().map(f64::to_bits).collect();
            TensorData::new(select(bits, n, k).into_iter().map(f64::from_bits).collect(), [groups, 1])
        }
    };
    Tensor::from_data(selected, (&device, dtype))
}

/// Returns the k-th smallest of each `n` numbers.
fn select<T: Copy + Ord>(mut numbers: Vec<T>, n: usize, k: usize) -> Vec<T> {
    numbers.chunks_exact_mut(n).map(|row| *row.select_nth_unstable(k - 1).1).collect()
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
    fn a_threshold_moves_along_a_half_cosine_and_reaches_both_ends_exactly() {
        let (start, end) = (Threshold::MeanFraction(0.1), Threshold::MeanFraction(0.7));
        let number = |progress| start.toward(end, progress).unwrap().parts().1;
        assert_eq!([-1.0, 0.0, 1.0, 2.0].map(number), [0.1, 0.1, 0.7, 0.7]);
        for (progress, cosine) in [(1.0 / 3.0, 0.5), (0.5, 0.0), (2.0 / 3.0, -0.5)] {
            assert!((number(progress) - (0.1 + 0.6 * (1.0 - cosine) / 2.0)).abs() < 1e-15);
        }
        let numbers: Vec<f64> = (0..=100).map(|step| number(f64::from(step) / 100.0)).collect();
        assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]));
        let error = Threshold::Sparsity(0.1).toward(end, 0.5).unwrap_err().to_string();
        assert!(error.contains("from `zeros:0.1` to `mean:0.7`"), "{error}");
        assert!(Threshold::MeanFraction(11.0).toward(end, 0.5).is_err());
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
