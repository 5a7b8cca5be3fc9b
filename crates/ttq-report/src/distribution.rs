//! How numbers are distributed.

use serde::{Deserialize, Serialize};

/// Counts of numbers in bins of equal width.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    /// Where the first bin begins.
    pub low: f64,
    /// Where the last bin ends.
    pub high: f64,
    /// Numbers in each bin.
    pub counts: Vec<usize>,
}

impl Histogram {
    /// Counts `values` in `bins` bins from `low` to `high`. Bin `i` of `n` holds `[low + i w, low + (i + 1) w)`,
    /// `w = (high - low) / n`, the last one its end as well. Numbers outside and NaN are not counted.
    pub fn of(values: impl IntoIterator<Item = f64>, low: f64, high: f64, bins: usize) -> Self {
        let mut counts = vec![0; bins];
        let per_unit = bins as f64 / (high - low);
        for value in values.into_iter().filter(|value| (low..=high).contains(value)) {
            // All numbers equal: no width, one bin.
            let bin = if high > low { ((value - low) * per_unit) as usize } else { bins / 2 };
            counts[bin.min(bins - 1)] += 1;
        }
        Self { low, high, counts }
    }

    /// Numbers counted.
    pub fn total(&self) -> usize {
        self.counts.iter().sum()
    }

    /// Width of a bin.
    pub fn width(&self) -> f64 {
        (self.high - self.low) / self.counts.len().max(1) as f64
    }

    /// Share of the numbers in each bin.
    pub fn shares(&self) -> Vec<f64> {
        let total = self.total().max(1) as f64;
        self.counts.iter().map(|count| *count as f64 / total).collect()
    }
}

/// Five numbers that describe a distribution.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quartiles {
    /// The smallest.
    pub min: f64,
    /// A quarter lies below.
    pub lower: f64,
    /// Half lie below.
    pub median: f64,
    /// Three quarters lie below.
    pub upper: f64,
    /// The largest.
    pub max: f64,
}

/// Quartiles of `values` with linear interpolation between neighbours; `None` where there is no finite one.
pub fn quartiles(values: impl IntoIterator<Item = f64>) -> Option<Quartiles> {
    let mut sorted: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().checked_sub(1)?;
    let at = |share: f64| {
        let place = share * last as f64;
        let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
        below + (above - below) * place.fract()
    };
    Some(Quartiles { min: at(0.0), lower: at(0.25), median: at(0.5), upper: at(0.75), max: at(1.0) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_counts_by_hand() {
        let histogram = Histogram::of([-1.0, -0.5, 0.0, 0.4, 1.0, 1.5, f64::NAN], -1.0, 1.0, 4);
        assert_eq!(histogram.counts, [1, 1, 2, 1]);
        assert_eq!((histogram.total(), histogram.width()), (5, 0.5));
        assert_eq!(histogram.shares(), [0.2, 0.2, 0.4, 0.2]);
    }

    #[test]
    fn equal_numbers_fall_into_one_bin() {
        assert_eq!(Histogram::of([0.0; 3], 0.0, 0.0, 4).counts, [0, 0, 3, 0]);
    }

    #[test]
    fn quartiles_interpolate() {
        let found = quartiles([4.0, 1.0, 2.0, 3.0, f64::NAN]).unwrap();
        assert_eq!(found, Quartiles { min: 1.0, lower: 1.75, median: 2.5, upper: 3.25, max: 4.0 });
        assert_eq!(quartiles([f64::NAN]), None);
    }
}
