//! Histograms and quartiles.

use serde::{Deserialize, Serialize};

use crate::record::null_is_nan;

/// Histogram with bins of equal width.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    /// Lower edge of the first bin.
    #[serde(deserialize_with = "null_is_nan")]
    pub low: f64,
    /// Upper edge of the last bin.
    #[serde(deserialize_with = "null_is_nan")]
    pub high: f64,
    /// Number of values in each bin.
    pub counts: Vec<usize>,
}

impl Histogram {
    /// Counts `values` in `bins` bins from `low` to `high`.
    ///
    /// With `w = (high - low) / bins`, bin `i` holds `[low + i w, low + (i + 1) w)`; the last bin also holds `high`.
    /// Values outside of `[low, high]` and NaN are not counted. If `low` equals `high`, the middle bin holds all
    /// values.
    ///
    /// # Panics
    /// If `bins` is 0 and a value lies in the range.
    pub fn new(values: impl IntoIterator<Item = f64>, low: f64, high: f64, bins: usize) -> Self {
        let mut counts = vec![0; bins];
        let per_unit = bins as f64 / (high - low);
        for value in values.into_iter().filter(|value| (low..=high).contains(value)) {
            // If all values are equal, the bins have no width.
            let bin = if high > low { ((value - low) * per_unit) as usize } else { bins / 2 };
            counts[bin.min(bins - 1)] += 1;
        }
        Self { low, high, counts }
    }

    /// Returns the number of counted values.
    pub fn total(&self) -> usize {
        self.counts.iter().sum()
    }

    /// Returns the width of a bin.
    pub fn width(&self) -> f64 {
        (self.high - self.low) / self.counts.len().max(1) as f64
    }

    /// Returns the share of the counted values in each bin, 0 to 1.
    pub fn shares(&self) -> Vec<f64> {
        let total = self.total().max(1) as f64;
        self.counts.iter().map(|count| *count as f64 / total).collect()
    }
}

/// Five-number summary of a distribution.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quartiles {
    /// Smallest value.
    pub min: f64,
    /// First quartile (25 %).
    pub lower: f64,
    /// Median (50 %).
    pub median: f64,
    /// Third quartile (75 %).
    pub upper: f64,
    /// Largest value.
    pub max: f64,
}

/// Computes the quartiles of the finite values, with linear interpolation between neighbours.
///
/// Returns `None` if no value is finite.
pub fn quartiles(values: impl IntoIterator<Item = f64>) -> Option<Quartiles> {
    let mut sorted: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().checked_sub(1)?;
    let quantile = |share: f64| {
        let rank = share * last as f64;
        let (below, above) = (sorted[rank.floor() as usize], sorted[rank.ceil() as usize]);
        below + (above - below) * rank.fract()
    };
    let [min, lower, median, upper, max] = [0.0, 0.25, 0.5, 0.75, 1.0].map(quantile);
    Some(Quartiles { min, lower, median, upper, max })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_equals_a_manual_count() {
        let histogram = Histogram::new([-1.0, -0.5, 0.0, 0.4, 1.0, 1.5, f64::NAN], -1.0, 1.0, 4);
        assert_eq!(histogram.counts, [1, 1, 2, 1]);
        assert_eq!((histogram.total(), histogram.width()), (5, 0.5));
        assert_eq!(histogram.shares(), [0.2, 0.2, 0.4, 0.2]);
    }

    #[test]
    fn equal_values_fall_into_one_bin() {
        assert_eq!(Histogram::new([0.0; 3], 0.0, 0.0, 4).counts, [0, 0, 3, 0]);
    }

    #[test]
    fn quartiles_interpolate_and_ignore_nan() {
        let found = quartiles([4.0, 1.0, 2.0, 3.0, f64::NAN]).unwrap();
        assert_eq!(found, Quartiles { min: 1.0, lower: 1.75, median: 2.5, upper: 3.25, max: 4.0 });
        assert_eq!(quartiles([f64::NAN]), None);
    }
}
