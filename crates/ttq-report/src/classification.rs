//! Statistics of a classifier: softmax, entropy, confusion matrix, agreement of two networks.

use crate::record::Prediction;

/// Computes class probabilities from logits: `p_i = exp(z_i) / Σ_j exp(z_j)`.
///
/// The largest logit is subtracted first, so large logits do not overflow. The result has as many entries as `logits`.
pub fn softmax(logits: &[f32]) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f64> = logits.iter().map(|logit| f64::from(logit - largest).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|power| power / sum).collect()
}

/// Computes the entropy of a distribution in nats: `-Σ p ln p`.
///
/// The result lies between 0 and the natural logarithm of the number of classes. It is NaN if a probability is.
pub fn entropy(probabilities: &[f64]) -> f64 {
    let terms = probabilities.iter().filter(|p| **p != 0.0).map(|p| -p * p.ln());
    let sum: f64 = terms.sum();
    if sum.is_nan() { sum } else { sum.max(0.0) }
}

/// Confusion matrix: predictions counted by true class (row) and predicted class (column).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfusionMatrix {
    classes: usize,
    counts: Vec<usize>,
}

/// Recall and precision of one class.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ClassScore {
    /// Index of the class.
    pub class: usize,
    /// Number of items whose true class this is.
    pub items: usize,
    /// Correct predictions of the class / items of the class, 0 to 1.
    pub recall: f64,
    /// Correct predictions of the class / all predictions of the class, 0 to 1; 0 if the class is never predicted.
    pub precision: f64,
}

/// Counts the items that two networks classify correctly: `[both, only the first, only the second, neither]`.
///
/// Item `i` of `first` is compared with item `i` of `second`; surplus items of the longer sequence are ignored.
pub fn agreement(
    first: impl IntoIterator<Item = Prediction>,
    second: impl IntoIterator<Item = Prediction>,
) -> [usize; 4] {
    first.into_iter().zip(second).fold([0; 4], |mut counts, (first, second)| {
        counts[2 * usize::from(!first.is_correct()) + usize::from(!second.is_correct())] += 1;
        counts
    })
}

/// Number of items of one class that were predicted as another class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConfusedPair {
    /// Index of the true class.
    pub label: usize,
    /// Index of the predicted class.
    pub predicted: usize,
    /// Number of items.
    pub count: usize,
}

/// Computes the confusion matrix of a classifier with `classes` classes.
///
/// # Panics
/// If a true or predicted class is `classes` or greater.
pub fn confusion_matrix(predictions: impl IntoIterator<Item = Prediction>, classes: usize) -> ConfusionMatrix {
    let mut counts = vec![0; classes * classes];
    for prediction in predictions {
        let (label, predicted) = (prediction.label, prediction.predicted);
        assert!(
            label < classes && predicted < classes,
            "confusion_matrix: class {} is out of range, the number of classes is {classes}",
            label.max(predicted)
        );
        counts[label * classes + predicted] += 1;
    }
    ConfusionMatrix { classes, counts }
}

impl ConfusionMatrix {
    /// Returns the number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Returns the number of items of class `label` that were predicted as `predicted`.
    ///
    /// # Panics
    /// If the pair is outside the matrix.
    pub fn count(&self, label: usize, predicted: usize) -> usize {
        self.counts[label * self.classes + predicted]
    }

    /// Returns the number of items whose true class is `label`.
    ///
    /// # Panics
    /// If `label` is not a class of the matrix.
    pub fn items(&self, label: usize) -> usize {
        (0..self.classes).map(|predicted| self.count(label, predicted)).sum()
    }

    /// Returns the scores of all classes that have items, in ascending order of recall.
    pub fn worst_classes(&self) -> Vec<ClassScore> {
        let mut scores: Vec<ClassScore> =
            (0..self.classes).filter(|class| self.items(*class) > 0).map(|class| self.score(class)).collect();
        scores.sort_by(|a, b| a.recall.total_cmp(&b.recall));
        scores
    }

    /// Returns all pairs of different classes that were confused, in descending order of their count.
    pub fn confused_pairs(&self) -> Vec<ConfusedPair> {
        let cells = (0..self.classes).flat_map(|label| (0..self.classes).map(move |predicted| (label, predicted)));
        let mut pairs: Vec<ConfusedPair> = cells
            .filter(|(label, predicted)| label != predicted && self.count(*label, *predicted) > 0)
            .map(|(label, predicted)| ConfusedPair { label, predicted, count: self.count(label, predicted) })
            .collect();
        pairs.sort_by_key(|pair| std::cmp::Reverse(pair.count));
        pairs
    }

    fn score(&self, class: usize) -> ClassScore {
        let (correct, items) = (self.count(class, class), self.items(class));
        let predicted: usize = (0..self.classes).map(|label| self.count(label, class)).sum();
        let share = |whole: usize| if whole == 0 { 0.0 } else { correct as f64 / whole as f64 };
        ClassScore { class, items, recall: share(items), precision: share(predicted) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn predictions(pairs: &[(usize, usize)]) -> impl Iterator<Item = Prediction> {
        pairs.iter().map(|(label, predicted)| {
            let mut probabilities = [0.0; 3];
            probabilities[*predicted] = 1.0;
            Prediction::new(*label, &probabilities)
        })
    }

    #[test]
    fn softmax_of_logarithms_normalizes_the_numbers() {
        let p = softmax(&[1f32.ln(), 2f32.ln(), 5f32.ln()]);
        for (p, expected) in p.iter().zip([0.125, 0.25, 0.625]) {
            assert!((p - expected).abs() < 1e-6);
        }
        // Large logits do not overflow.
        assert_eq!(softmax(&[1000.0, 1000.0]), [0.5, 0.5]);
    }

    #[test]
    fn entropy_is_zero_for_one_certain_class_and_largest_for_equal_probabilities() {
        assert_eq!(entropy(&[1.0, 0.0]), 0.0);
        assert!((entropy(&[0.25; 4]) - 4f64.ln()).abs() < 1e-12);
        // 0.5 ln 2 + 2 · 0.25 ln 4
        assert!((entropy(&[0.5, 0.25, 0.25]) - 1.0397207708399179).abs() < 1e-12);
    }

    #[test]
    fn a_confusion_matrix_equals_a_manual_count() {
        let matrix = confusion_matrix(predictions(&[(0, 0), (0, 1), (0, 1), (1, 1), (2, 2), (2, 2), (2, 0)]), 3);
        assert_eq!([matrix.count(0, 1), matrix.count(1, 0), matrix.count(2, 2)], [2, 0, 2]);
        assert_eq!([0, 1, 2].map(|class| matrix.items(class)), [3, 1, 3]);
        let pairs = matrix.confused_pairs();
        assert_eq!(pairs[0], ConfusedPair { label: 0, predicted: 1, count: 2 });
        assert_eq!(pairs[1], ConfusedPair { label: 2, predicted: 0, count: 1 });
        assert_eq!(pairs.len(), 2);
        let worst = matrix.worst_classes();
        assert_eq!(worst.iter().map(|score| score.class).collect::<Vec<_>>(), [0, 2, 1]);
        assert!((worst[0].recall - 1.0 / 3.0).abs() < 1e-12 && (worst[0].precision - 0.5).abs() < 1e-12);
        assert!((worst[2].precision - 1.0 / 3.0).abs() < 1e-12);
    }

    #[test]
    fn agreement_compares_predictions_of_the_same_item() {
        let first = predictions(&[(0, 0), (0, 0), (0, 1), (0, 1), (0, 1)]);
        let second = predictions(&[(0, 0), (0, 1), (0, 0), (0, 1), (0, 2)]);
        assert_eq!(agreement(first, second), [1, 1, 1, 2]);
    }

    #[test]
    fn a_class_without_items_has_no_score() {
        assert_eq!(confusion_matrix(predictions(&[(0, 0)]), 3).worst_classes().len(), 1);
    }
}
