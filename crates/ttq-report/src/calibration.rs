//! Calibration: how well a classifier's confidence matches its accuracy.
//!
//! Source: Guo, Pleiss, Sun, Weinberger, "On Calibration of Modern Neural Networks", ICML 2017.

use crate::record::Prediction;

/// Number of confidence intervals that the paper uses.
pub const BINS: usize = 15;

/// Predictions whose confidence lies in one interval.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Bin {
    /// Number of predictions.
    pub count: usize,
    /// Mean confidence, 0 to 1; 0 in an empty bin.
    pub confidence: f64,
    /// Share of correct predictions, 0 to 1; 0 in an empty bin.
    pub accuracy: f64,
}

/// Groups predictions by confidence into `bins` intervals of equal width, for a reliability diagram.
///
/// With `M = bins`, bin `m` holds the confidences in `(m/M, (m+1)/M]`. The result has `bins` entries.
///
/// # Panics
/// If `bins` is 0.
pub fn reliability_bins(predictions: impl IntoIterator<Item = Prediction>, bins: usize) -> Vec<Bin> {
    assert!(bins > 0, "reliability_bins: the number of bins is 0, use at least 1");
    let mut sums = vec![Bin::default(); bins];
    for prediction in predictions {
        let above = (prediction.confidence * bins as f64).ceil() as usize;
        let bin = &mut sums[above.clamp(1, bins) - 1];
        bin.count += 1;
        bin.confidence += prediction.confidence;
        bin.accuracy += f64::from(u8::from(prediction.is_correct()));
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

/// Computes the expected calibration error, 0 to 1: `Σ_m (n_m / n) |accuracy_m - confidence_m|`.
///
/// Returns 0 without predictions.
pub fn expected_calibration_error(bins: &[Bin]) -> f64 {
    let total: usize = bins.iter().map(|bin| bin.count).sum();
    let gaps = bins.iter().map(|bin| bin.count as f64 * (bin.accuracy - bin.confidence).abs());
    gaps.sum::<f64>() / total.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prediction(confidence: f64, correct: bool) -> Prediction {
        Prediction::new(usize::from(!correct), &[confidence, 1.0 - confidence])
    }

    #[test]
    fn the_expected_calibration_error_equals_a_manual_computation() {
        // Bin (0.5, 0.75]: confidences 0.6, 0.7, one correct: |0.5 - 0.65| = 0.15, weight 2/4.
        // Bin (0.75, 1]: confidences 0.8, 1.0, both correct: |1 - 0.9| = 0.1, weight 2/4.
        let predictions = [(0.6, true), (0.7, false), (0.8, true), (1.0, true)]
            .map(|(confidence, correct)| prediction(confidence, correct));
        let bins = reliability_bins(predictions, 4);
        assert_eq!(bins.iter().map(|bin| bin.count).collect::<Vec<_>>(), [0, 0, 2, 2]);
        assert!((bins[2].confidence - 0.65).abs() < 1e-12 && bins[2].accuracy == 0.5);
        assert!((expected_calibration_error(&bins) - 0.125).abs() < 1e-12);
    }

    #[test]
    fn a_confidence_on_a_bin_edge_falls_into_the_lower_bin() {
        let bins = reliability_bins([prediction(0.75, true)], 4);
        assert_eq!((bins[2].count, bins[3].count), (1, 0));
    }

    #[test]
    fn without_predictions_the_error_is_zero() {
        assert_eq!(expected_calibration_error(&reliability_bins([], BINS)), 0.0);
    }
}
