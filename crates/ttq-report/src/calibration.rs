//! Whether a classifier's confidence is the share of its right answers (Guo, Pleiss, Sun, Weinberger, "On Calibration of
//! Modern Neural Networks", ICML 2017).

use crate::record::Prediction;

/// Number of bins in that paper.
pub const BINS: usize = 15;

/// Predictions whose confidence lies in one interval.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Bin {
    /// Predictions.
    pub count: usize,
    /// Mean confidence.
    pub confidence: f64,
    /// Share of right ones.
    pub accuracy: f64,
}

/// Sorts predictions into `bins` intervals of confidence of equal width: bin `m` of `M` holds `(m/M, (m+1)/M]`. Empty ones
/// are all zero.
///
/// # Panics
/// Where `bins` is 0.
pub fn reliability(predictions: impl IntoIterator<Item = Prediction>, bins: usize) -> Vec<Bin> {
    assert!(bins > 0, "reliability: at least one bin");
    let mut sums = vec![Bin::default(); bins];
    for prediction in predictions {
        let above = (prediction.confidence * bins as f64).ceil() as usize;
        let bin = &mut sums[above.clamp(1, bins) - 1];
        bin.count += 1;
        bin.confidence += prediction.confidence;
        bin.accuracy += f64::from(u8::from(prediction.is_right()));
    }
    let mean = |sum: f64, count: usize| if count == 0 { 0.0 } else { sum / count as f64 };
    sums.into_iter()
        .map(|bin| Bin {
            count: bin.count,
            confidence: mean(bin.confidence, bin.count),
            accuracy: mean(bin.accuracy, bin.count),
        })
        .collect()
}

/// Expected calibration error, 0 to 1: `Σ_m (n_m / n) |accuracy_m - confidence_m|`.
pub fn expected_calibration_error(bins: &[Bin]) -> f64 {
    let total: usize = bins.iter().map(|bin| bin.count).sum();
    let gaps = bins.iter().map(|bin| bin.count as f64 * (bin.accuracy - bin.confidence).abs());
    gaps.sum::<f64>() / total.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prediction(confidence: f64, right: bool) -> Prediction {
        Prediction::new(usize::from(!right), &[confidence, 1.0 - confidence])
    }

    #[test]
    fn the_expected_calibration_error_is_the_weighted_gap_by_hand() {
        // Bin (0.5, 0.75]: confidences 0.6, 0.7, one right: |0.5 - 0.65| = 0.15, weight 2/4.
        // Bin (0.75, 1]: confidences 0.8, 1.0, both right: |1 - 0.9| = 0.1, weight 2/4.
        let predictions = [(0.6, true), (0.7, false), (0.8, true), (1.0, true)].map(|(c, r)| prediction(c, r));
        let bins = reliability(predictions, 4);
        assert_eq!(bins.iter().map(|bin| bin.count).collect::<Vec<_>>(), [0, 0, 2, 2]);
        assert!((bins[2].confidence - 0.65).abs() < 1e-12 && bins[2].accuracy == 0.5);
        assert!((expected_calibration_error(&bins) - 0.125).abs() < 1e-12);
    }

    #[test]
    fn a_confidence_on_an_edge_belongs_to_the_lower_bin() {
        let bins = reliability([prediction(0.75, true)], 4);
        assert_eq!((bins[2].count, bins[3].count), (1, 0));
    }

    #[test]
    fn no_predictions_have_no_error() {
        assert_eq!(expected_calibration_error(&reliability([], BINS)), 0.0);
    }
}
