//! When to stop.

use burn::train::EarlyStoppingStrategy;
use burn::train::metric::store::EventStoreClient;

use crate::History;

/// The early stopping of the PyTorch port of TTQ.
///
/// After more than `patience + 4` epochs, training stops when the latest validation accuracy is below
///
/// ```text
/// threshold + mean of the five accuracies that are patience to patience + 4 epochs old
/// ```
///
/// that is, when `patience` epochs have not raised the accuracy by `threshold` over the mean of the five before them.
/// Accuracies count as fractions of 1, while Burn's metrics are percents: the rule divides by 100. Patience 10 and threshold
/// 0.01 unless set.
#[derive(Clone)]
pub struct EarlyStopping {
    history: History,
    metric: String,
    patience: usize,
    threshold: f64,
}

/// Accuracies that are averaged.
const WINDOW: usize = 5;

impl EarlyStopping {
    /// Watches the validation metric `metric`, in percent, as logged in `history`.
    pub fn new(history: History, metric: &str) -> Self {
        Self { history, metric: metric.into(), patience: 10, threshold: 0.01 }
    }

    /// Sets the number of epochs that must bring something.
    #[must_use]
    pub fn with_patience(mut self, epochs: usize) -> Self {
        self.patience = epochs;
        self
    }

    /// Sets how much they must bring, as a fraction of 1: 0.01 is one point of percent.
    #[must_use]
    pub fn with_threshold(mut self, threshold: f64) -> Self {
        self.threshold = threshold;
        self
    }

    /// Whether the rule stops a training that has the history's complete epochs behind it. Ask before a resumed training
    /// is launched: Burn asks only after an epoch.
    pub fn is_met(&self) -> bool {
        let epochs = self.history.epochs();
        let accuracies: Vec<f64> =
            epochs.iter().filter_map(|e| e.valid.get(&self.metric)).map(|percent| percent / 100.0).collect();
        self.stops(&accuracies)
    }

    /// The rule on the accuracies (fractions of 1) of all epochs so far, oldest first.
    fn stops(&self, accuracies: &[f64]) -> bool {
        let n = accuracies.len();
        if n < self.patience + WINDOW {
            return false;
        }
        let window = &accuracies[n - self.patience - WINDOW..n - self.patience];
        accuracies[n - 1] < self.threshold + window.iter().sum::<f64>() / WINDOW as f64
    }
}

impl EarlyStoppingStrategy for EarlyStopping {
    fn should_stop(&mut self, epoch: usize, _store: &EventStoreClient) -> bool {
        self.history.wait_valid(epoch, &self.metric);
        self.is_met()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::tests::with_accuracies;

    /// The port's rule, epoch by epoch.
    fn naive(accuracies: &[f64], patience: usize, threshold: f64) -> Vec<bool> {
        (1..=accuracies.len())
            .map(|epochs| {
                let aged = |age: usize| accuracies[epochs - 1 - age];
                let mean = || (0..5).map(|k| aged(patience + 4 - k)).sum::<f64>() / 5.0;
                epochs > patience + 4 && aged(0) < threshold + mean()
            })
            .collect()
    }

    #[test]
    fn the_rule_is_the_ports_on_any_course() {
        let directory = tempfile::tempdir().unwrap();
        let saturating = |k: i32| 0.9 - 0.5 * (-f64::from(k) / 6.0).exp() + 0.02 * f64::from(k * k).sin();
        let accuracies: Vec<f64> = (0..60).map(saturating).collect();
        let mut stops = 0;
        for patience in [0, 1, 5, 10, 30] {
            for threshold in [0.0, 0.01, 0.05] {
                let rule = EarlyStopping::new(History::new(directory.path()), "Accuracy")
                    .with_patience(patience)
                    .with_threshold(threshold);
                let found: Vec<bool> = (1..=60).map(|epochs| rule.stops(&accuracies[..epochs])).collect();
                assert_eq!(found, naive(&accuracies, patience, threshold), "patience {patience}, {threshold}");
                stops += found.iter().filter(|stop| **stop).count();
            }
        }
        assert!((100..800).contains(&stops), "{stops} of 900: a course on which the rule says both");
    }

    #[test]
    fn percents_of_the_history_are_compared_as_fractions() {
        let directory = tempfile::tempdir().unwrap();
        for (latest, stops) in [(50.9, true), (51.1, false)] {
            let history = with_accuracies(directory.path(), &[50.0, 50.0, 50.0, 50.0, 50.0, latest]);
            assert_eq!(EarlyStopping::new(history, "Accuracy").with_patience(1).is_met(), stops);
        }
    }

    #[test]
    fn training_stops_when_patience_epochs_brought_less_than_the_threshold() {
        let directory = tempfile::tempdir().unwrap();
        let rule = EarlyStopping::new(History::new(directory.path()), "Accuracy").with_patience(2);
        // Ages 2 to 6 of six epochs do not exist yet: never within patience + 4 epochs.
        assert!(!rule.stops(&[0.9, 0.5, 0.4, 0.3, 0.2, 0.1]));
        // The five accuracies that are 2 to 6 epochs old are the first five: their mean is 0.5.
        let old = [0.4, 0.45, 0.5, 0.55, 0.6];
        let with = |latest: f64| [&old[..], &[0.99, latest]].concat();
        assert!(rule.stops(&with(0.509)));
        assert!(!rule.stops(&with(0.511)));
    }
}
