//! Early stopping by the rule of the PyTorch port of TTQ.

use burn::config::Config;
use burn::train::EarlyStoppingStrategy;
use burn::train::metric::store::EventStoreClient;
use serde::{Deserialize, Serialize};

use crate::{History, MetricGoal};

/// Configuration of [`EarlyStopping`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EarlyStoppingConfig {
    /// Age in epochs of the newest of the five epochs that the latest one is compared with. Defaults to 10.
    #[serde(default = "default_patience")]
    pub patience: usize,
    /// Required improvement over the mean of those five, in the metric's own unit.
    pub min_improvement: f64,
}

fn default_patience() -> usize {
    10
}

impl Config for EarlyStoppingConfig {}

impl EarlyStoppingConfig {
    /// Creates the configuration with the default patience and the required improvement, in the metric's own unit: 1 is one
    /// percentage point of Burn's accuracy (the port's value).
    pub fn new(min_improvement: f64) -> Self {
        Self { patience: default_patience(), min_improvement }
    }

    /// Sets the patience, in epochs.
    #[must_use]
    pub fn with_patience(mut self, patience: usize) -> Self {
        self.patience = patience;
        self
    }

    /// Creates the strategy: it watches the validation metric of `goal` as logged in `history`.
    pub fn init(self, history: History, goal: MetricGoal) -> EarlyStopping {
        EarlyStopping { config: self, history, goal }
    }

    /// Returns whether the rule stops after these scores (higher is better) of all epochs so far, oldest first.
    fn stops(self, scores: &[f64]) -> bool {
        let n = scores.len();
        if n < self.patience + WINDOW {
            return false;
        }
        let window = &scores[n - self.patience - WINDOW..n - self.patience];
        scores[n - 1] < self.min_improvement + window.iter().sum::<f64>() / WINDOW as f64
    }
}

/// The early stopping of the PyTorch port of TTQ, made by an [`EarlyStoppingConfig`].
///
/// After more than `patience + 4` epochs, training stops when the latest value of a maximized metric is below
///
/// ```text
/// min_improvement + mean of the five values that are patience to patience + 4 epochs old
/// ```
///
/// that is, when the latest value does not exceed that mean by `min_improvement`. A NaN among the values does not stop.
/// A minimized metric is compared with its sign changed.
#[derive(Clone)]
pub struct EarlyStopping {
    config: EarlyStoppingConfig,
    history: History,
    goal: MetricGoal,
}

/// Number of values that are averaged.
const WINDOW: usize = 5;

impl EarlyStopping {
    /// Returns whether the rule stops a training after the complete epochs of the history. Check it before a resumed
    /// training is launched: burn-train checks after an epoch only.
    pub fn is_met(&self) -> bool {
        self.is_met_after(usize::MAX)
    }

    /// Decides from the epochs up to `epoch`, so that every worker decides the same, whenever it asks.
    fn is_met_after(&self, epoch: usize) -> bool {
        let epochs = self.history.epochs();
        let values = epochs.iter().filter(|metrics| metrics.epoch <= epoch && self.goal.counts(metrics.epoch));
        let values = values.filter_map(|metrics| metrics.valid.get(self.goal.metric()));
        self.config.stops(&values.map(|value| self.goal.score(*value)).collect::<Vec<_>>())
    }
}

impl EarlyStoppingStrategy for EarlyStopping {
    fn should_stop(&mut self, epoch: usize, _store: &EventStoreClient) -> bool {
        self.history.wait_valid(epoch, self.goal.metric());
        self.is_met_after(epoch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::tests::with_accuracies;

    /// The port's rule, epoch by epoch.
    fn naive(accuracies: &[f64], patience: usize, min_improvement: f64) -> Vec<bool> {
        (1..=accuracies.len())
            .map(|epochs| {
                let aged = |age: usize| accuracies[epochs - 1 - age];
                let mean = || (0..5).map(|k| aged(patience + 4 - k)).sum::<f64>() / 5.0;
                epochs > patience + 4 && aged(0) < min_improvement + mean()
            })
            .collect()
    }

    #[test]
    fn the_rule_is_the_ports_on_any_course() {
        let saturating = |k: i32| 0.9 - 0.5 * (-f64::from(k) / 6.0).exp() + 0.02 * f64::from(k * k).sin();
        let accuracies: Vec<f64> = (0..60).map(saturating).collect();
        let mut stops = 0;
        for patience in [0, 1, 5, 10, 30] {
            for min_improvement in [0.0, 0.01, 0.05] {
                let rule = EarlyStoppingConfig { patience, min_improvement };
                let found: Vec<bool> = (1..=60).map(|epochs| rule.stops(&accuracies[..epochs])).collect();
                assert_eq!(
                    found,
                    naive(&accuracies, patience, min_improvement),
                    "patience {patience}, {min_improvement}"
                );
                stops += found.iter().filter(|stop| **stop).count();
            }
        }
        assert!((100..800).contains(&stops), "{stops} of 900: a course on which the rule says both");
    }

    #[test]
    fn the_metric_of_the_history_is_compared_in_the_direction_of_the_goal() {
        let directory = tempfile::tempdir().unwrap();
        let rule = EarlyStoppingConfig::new(1.0).with_patience(1);
        let (maximize, minimize) = (MetricGoal::maximize("Accuracy"), MetricGoal::minimize("Accuracy"));
        for (latest, goal, stops) in
            [(50.9, &maximize, true), (51.1, &maximize, false), (49.1, &minimize, true), (48.9, &minimize, false)]
        {
            let history = with_accuracies(directory.path(), &[50.0, 50.0, 50.0, 50.0, 50.0, latest]);
            assert_eq!(rule.init(history, goal.clone()).is_met(), stops, "{latest} {goal:?}");
        }
    }

    #[test]
    fn a_worker_that_asks_late_decides_as_the_first_did() {
        let directory = tempfile::tempdir().unwrap();
        let goal = MetricGoal::maximize("Accuracy");
        let rule = EarlyStoppingConfig::new(1.0).with_patience(1);
        let accuracies = [50.0, 50.0, 50.0, 50.0, 50.0, 50.9, 60.0, 50.0];
        let late = rule.init(with_accuracies(directory.path(), &accuracies), goal.clone());
        for epoch in 1..=accuracies.len() {
            let in_time = rule.init(with_accuracies(directory.path(), &accuracies[..epoch]), goal.clone());
            assert_eq!(late.is_met_after(epoch), in_time.is_met(), "epoch {epoch}");
        }
        assert!(late.is_met_after(6) && !late.is_met_after(7));
    }

    #[test]
    fn training_stops_when_patience_epochs_brought_less_than_the_required_improvement() {
        let rule = EarlyStoppingConfig { patience: 2, min_improvement: 0.01 };
        // Ages 2 to 6 of six epochs do not exist yet: never within patience + 4 epochs.
        assert!(!rule.stops(&[0.9, 0.5, 0.4, 0.3, 0.2, 0.1]));
        // The five accuracies that are 2 to 6 epochs old are the first five: their mean is 0.5.
        let old = [0.4, 0.45, 0.5, 0.55, 0.6];
        let with = |latest: f64| [&old[..], &[0.99, latest]].concat();
        assert!(rule.stops(&with(0.509)));
        assert!(!rule.stops(&with(0.511)));
    }
}
