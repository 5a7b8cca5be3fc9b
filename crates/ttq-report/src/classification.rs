//! What probabilities and predictions say about a classifier.

use crate::record::Prediction;

/// Probabilities of logits: `p_i = exp(z_i) / Σ_j exp(z_j)`, computed from the differences to the largest.
pub fn softmax(logits: &[f32]) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f64> = logits.iter().map(|logit| f64::from(logit - largest).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|power| power / sum).collect()
}

/// Entropy of a distribution in nats: `-Σ p ln p`, at most the logarithm of the number of classes.
pub fn entropy(probabilities: &[f64]) -> f64 {
    let terms = probabilities.iter().filter(|p| **p > 0.0).map(|p| -p * p.ln());
    terms.sum::<f64>().max(0.0)
}

/// Predictions counted by true class (row) and predicted class (column).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confusion {
    classes: usize,
    counts: Vec<usize>,
}

/// How one class fares.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ClassScore {
    /// The class.
    pub class: usize,
    /// Items of this class.
    pub items: usize,
    /// Share of its items that are recognized: right / items.
    pub recall: f64,
    /// Share of its predictions that are right: right / predicted; 0 where it is never predicted.
    pub precision: f64,
}

/// Items that two networks get right: `[both, the first alone, the second alone, neither]`, item by item.
pub fn agreement(
    first: impl IntoIterator<Item = Prediction>,
    second: impl IntoIterator<Item = Prediction>,
) -> [usize; 4] {
    first.into_iter().zip(second).fold([0; 4], |mut counts, (first, second)| {
        counts[2 * usize::from(!first.is_right()) + usize::from(!second.is_right())] += 1;
        counts
    })
}

/// A kind of mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConfusedPair {
    /// The true class.
    pub label: usize,
    /// What it was taken for.
    pub predicted: usize,
    /// How often.
    pub count: usize,
}

/// Counts predictions of `classes` classes.
///
/// # Panics
/// Where a class is not below `classes`.
pub fn confusion(predictions: impl IntoIterator<Item = Prediction>, classes: usize) -> Confusion {
    let mut counts = vec![0; classes * classes];
    for prediction in predictions {
        let (label, predicted) = (prediction.label, prediction.predicted);
        assert!(label < classes && predicted < classes, "class {} of {classes}", label.max(predicted));
        counts[label * classes + predicted] += 1;
    }
    Confusion { classes, counts }
}

impl Confusion {
    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// How often `label` was taken for `predicted`.
    pub fn count(&self, label: usize, predicted: usize) -> usize {
        self.counts[label * self.classes + predicted]
    }

    /// Items of a class.
    pub fn items(&self, label: usize) -> usize {
        (0..self.classes).map(|predicted| self.count(label, predicted)).sum()
    }

    /// Classes that have items, the worst recognized first.
    pub fn worst_classes(&self) -> Vec<ClassScore> {
        let mut scores: Vec<ClassScore> =
            (0..self.classes).filter(|class| self.items(*class) > 0).map(|class| self.score(class)).collect();
        scores.sort_by(|a, b| a.recall.total_cmp(&b.recall));
        scores
    }

    /// Kinds of mistakes that occur, the most frequent first.
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
        let (right, items) = (self.count(class, class), self.items(class));
        let predicted: usize = (0..self.classes).map(|label| self.count(label, class)).sum();
        let share = |whole: usize| if whole == 0 { 0.0 } else { right as f64 / whole as f64 };
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
    fn softmax_of_logarithms_is_the_numbers_over_their_sum() {
        let p = softmax(&[1f32.ln(), 2f32.ln(), 5f32.ln()]);
        for (p, expected) in p.iter().zip([0.125, 0.25, 0.625]) {
            assert!((p - expected).abs() < 1e-6);
        }
        // Large logits do not overflow.
        assert_eq!(softmax(&[1000.0, 1000.0]), [0.5, 0.5]);
    }

    #[test]
    fn entropy_is_zero_for_certainty_and_greatest_for_equal_chances() {
        assert_eq!(entropy(&[1.0, 0.0]), 0.0);
        assert!((entropy(&[0.25; 4]) - 4f64.ln()).abs() < 1e-12);
        // 0.5 ln 2 + 0.5 ln 4 with two quarters.
        assert!((entropy(&[0.5, 0.25, 0.25]) - 1.0397207708399179).abs() < 1e-12);
    }

    #[test]
    fn a_confusion_matrix_counts_by_hand() {
        let matrix = confusion(predictions(&[(0, 0), (0, 1), (0, 1), (1, 1), (2, 2), (2, 2), (2, 0)]), 3);
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
    fn agreement_counts_item_by_item() {
        let first = predictions(&[(0, 0), (0, 0), (0, 1), (0, 1), (0, 1)]);
        let second = predictions(&[(0, 0), (0, 1), (0, 0), (0, 1), (0, 2)]);
        assert_eq!(agreement(first, second), [1, 1, 1, 2]);
    }

    #[test]
    fn a_class_without_items_is_not_among_the_worst() {
        assert_eq!(confusion(predictions(&[(0, 0)]), 3).worst_classes().len(), 1);
    }
}
