//! Predictions of a classifier on a test set, reduced to the values that the report uses.

use serde::{Deserialize, Serialize};

use super::bytes;
use super::number::null_is_nan;
use crate::classification::entropy;

/// Prediction of a classifier for one item.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prediction {
    /// Index of the true class.
    pub label: usize,
    /// Index of the class with the highest probability; the lowest index if several are equal.
    pub predicted: usize,
    /// Probability of the predicted class.
    pub confidence: f64,
    /// Second highest probability.
    pub runner_up: f64,
    /// Probability of the true class.
    pub label_probability: f64,
    /// Entropy of the class probabilities in nats.
    pub entropy: f64,
}

impl Prediction {
    /// Creates a prediction from the probabilities of all classes.
    ///
    /// # Panics
    /// If `label` is not an index of `probabilities`.
    pub fn new(label: usize, probabilities: &[f64]) -> Self {
        let first = |best: usize, class: usize| if probabilities[class] > probabilities[best] { class } else { best };
        let predicted = (0..probabilities.len()).reduce(first).unwrap_or(label);
        let others = probabilities.iter().enumerate().filter(|(class, _)| *class != predicted);
        Self {
            label,
            predicted,
            confidence: probabilities[predicted],
            runner_up: others.map(|(_, probability)| *probability).fold(0.0, f64::max),
            label_probability: probabilities[label],
            entropy: entropy(probabilities),
        }
    }

    /// Returns `true` if the predicted class is the true class.
    pub fn is_correct(&self) -> bool {
        self.predicted == self.label
    }

    /// Returns the highest probability minus the second highest.
    pub fn margin(&self) -> f64 {
        self.confidence - self.runner_up
    }
}

/// Largest number of classes of predictions in a file: the confusion matrix has the square of it.
const MOST_CLASSES: usize = 1 << 13;

/// Predictions on a whole test set.
///
/// They are stored as one array per field, so that the JSON stays compact for any number of classes. Probabilities and
/// entropies are rounded to float32.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Predictions {
    classes: usize,
    labels: Vec<u16>,
    predicted: Vec<u16>,
    #[serde(deserialize_with = "null_is_nan")]
    confidence: Vec<f32>,
    #[serde(deserialize_with = "null_is_nan")]
    runner_up: Vec<f32>,
    #[serde(deserialize_with = "null_is_nan")]
    label_probability: Vec<f32>,
    #[serde(deserialize_with = "null_is_nan")]
    entropy: Vec<f32>,
}

impl Predictions {
    /// Creates an empty list of predictions of a classifier with `classes` classes.
    pub fn new(classes: usize) -> Self {
        Self { classes, ..Self::default() }
    }

    /// Appends a prediction.
    ///
    /// Class indices are stored in 16 bits.
    pub fn push(&mut self, prediction: &Prediction) {
        self.labels.push(prediction.label as u16);
        self.predicted.push(prediction.predicted as u16);
        self.confidence.push(prediction.confidence as f32);
        self.runner_up.push(prediction.runner_up as f32);
        self.label_probability.push(prediction.label_probability as f32);
        self.entropy.push(prediction.entropy as f32);
    }

    /// Returns what is wrong with predictions from a file.
    pub(super) fn problem(&self) -> Option<&'static str> {
        let lengths = [
            self.predicted.len(),
            self.confidence.len(),
            self.runner_up.len(),
            self.label_probability.len(),
            self.entropy.len(),
        ];
        let exists = |class: &u16| usize::from(*class) < self.classes;
        match () {
            () if self.classes > MOST_CLASSES => Some("more classes than a report shows"),
            () if lengths.iter().any(|len| *len != self.labels.len()) => Some("lists of different lengths"),
            () if !self.labels.iter().chain(&self.predicted).all(exists) => Some("a class that does not exist"),
            () => None,
        }
    }

    /// Returns the number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Returns the number of predictions.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Returns `true` if there are no predictions.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Iterates over the predictions in the order of the test set.
    pub fn iter(&self) -> impl Iterator<Item = Prediction> + '_ {
        let classes = self.labels.iter().zip(&self.predicted);
        let tops = self.confidence.iter().zip(&self.runner_up);
        classes.zip(tops).zip(self.label_probability.iter().zip(&self.entropy)).map(
            |(((label, predicted), (confidence, runner_up)), (label_probability, entropy))| Prediction {
                label: (*label).into(),
                predicted: (*predicted).into(),
                confidence: (*confidence).into(),
                runner_up: (*runner_up).into(),
                label_probability: (*label_probability).into(),
                entropy: (*entropy).into(),
            },
        )
    }

    /// Returns the indices of at most `count` incorrect predictions, in descending order of confidence.
    pub fn most_confident_mistakes(&self, count: usize) -> Vec<usize> {
        let mut wrong: Vec<usize> = (0..self.len()).filter(|i| self.labels[*i] != self.predicted[*i]).collect();
        wrong.sort_by(|a, b| self.confidence[*b].total_cmp(&self.confidence[*a]));
        wrong.truncate(count);
        wrong
    }

    /// Returns the share of correct predictions, 0 to 1; 0 without predictions.
    pub fn accuracy(&self) -> f64 {
        self.mean(|prediction| f64::from(u8::from(prediction.is_correct())))
    }

    /// Computes the cross-entropy in nats: the mean of `-ln p(label)`; 0 without predictions.
    ///
    /// Probabilities below the smallest positive normal float32 are replaced by it. A NaN stays NaN.
    pub fn cross_entropy(&self) -> f64 {
        let smallest = f64::from(f32::MIN_POSITIVE);
        self.mean(|prediction| {
            let probability = prediction.label_probability;
            -(if probability < smallest { smallest } else { probability }).ln()
        })
    }

    fn mean(&self, value: impl Fn(&Prediction) -> f64) -> f64 {
        self.iter().map(|prediction| value(&prediction)).sum::<f64>() / self.len().max(1) as f64
    }
}

/// Image with 8 bits per channel.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Picture {
    /// `[channels, height, width]`, with 1 channel (grey) or 3 channels (red, green, blue).
    pub shape: [usize; 3],
    /// Pixels in row-major order of `shape`.
    #[serde(with = "bytes")]
    pub pixels: Vec<u8>,
}

/// Incorrect prediction with its image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Mistake {
    /// Index of the item in the test set.
    pub index: usize,
    /// Index of the true class.
    pub label: usize,
    /// Index of the predicted class.
    pub predicted: usize,
    /// Probability of the predicted class.
    #[serde(deserialize_with = "null_is_nan")]
    pub confidence: f64,
    /// Probability of the true class.
    #[serde(deserialize_with = "null_is_nan")]
    pub label_probability: f64,
    /// Image of the item.
    pub picture: Picture,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> Predictions {
        let mut predictions = Predictions::new(3);
        for (label, probabilities) in [(0, [0.5, 0.25, 0.25]), (1, [0.75, 0.25, 0.0]), (2, [0.125, 0.875, 0.0])] {
            predictions.push(&Prediction::new(label, &probabilities));
        }
        predictions
    }

    #[test]
    fn a_prediction_holds_the_two_highest_probabilities() {
        let prediction = Prediction::new(2, &[0.25, 0.5, 0.25]);
        assert_eq!((prediction.predicted, prediction.confidence, prediction.runner_up), (1, 0.5, 0.25));
        assert_eq!((prediction.margin(), prediction.label_probability), (0.25, 0.25));
        // 0.5 ln 2 + 2 · 0.25 ln 4 = 1.5 ln 2
        assert!((prediction.entropy - 1.5 * 2f64.ln()).abs() < 1e-12);
        // The lowest index of equal probabilities.
        assert_eq!(Prediction::new(1, &[0.5, 0.5]).predicted, 0);
    }

    #[test]
    fn predictions_round_trip_and_mistakes_are_sorted_by_confidence() {
        let predictions = three();
        assert_eq!(predictions.iter().nth(1), Some(rounded(Prediction::new(1, &[0.75, 0.25, 0.0]))));
        assert_eq!(predictions.most_confident_mistakes(5), [2, 1]);
        assert_eq!(predictions.most_confident_mistakes(1), [2]);
        assert!((predictions.accuracy() - 1.0 / 3.0).abs() < 1e-12);
    }

    #[test]
    fn cross_entropy_is_the_mean_negative_log_probability_of_the_label() {
        let floor = -f64::from(f32::MIN_POSITIVE).ln();
        assert!((three().cross_entropy() - (2f64.ln() + 4f64.ln() + floor) / 3.0).abs() < 1e-9);
    }

    fn rounded(prediction: Prediction) -> Prediction {
        Prediction { entropy: (prediction.entropy as f32).into(), ..prediction }
    }

    #[test]
    fn predictions_that_do_not_fit_together_are_a_problem() {
        let mut good = Predictions::new(2);
        good.push(&Prediction::new(1, &[0.25, 0.75]));
        assert_eq!(good.problem(), None);
        for bad in [
            Predictions { classes: 1, ..good.clone() },
            Predictions { classes: 100_000, ..good.clone() },
            Predictions { labels: vec![7], ..good.clone() },
            Predictions { entropy: Vec::new(), ..good.clone() },
        ] {
            assert!(bad.problem().is_some(), "{bad:?}");
        }
    }
}
