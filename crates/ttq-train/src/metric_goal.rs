//! A validation metric and the direction in which it improves.

use serde::{Deserialize, Serialize};

/// A validation metric, by its name in burn-train, and whether higher or lower values are better.
///
/// Schedules, early stopping and the choice of checkpoints compare epochs by it:
/// `MetricGoal::maximize("Accuracy")` for a classifier, `MetricGoal::minimize("Loss")` for a regression.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetricGoal {
    metric: String,
    maximize: bool,
    /// The first epoch that can be the best.
    first_epoch: usize,
}

impl MetricGoal {
    /// Higher values of `metric` are better.
    pub fn maximize(metric: impl Into<String>) -> Self {
        Self { metric: metric.into(), maximize: true, first_epoch: 0 }
    }

    /// Lower values of `metric` are better.
    pub fn minimize(metric: impl Into<String>) -> Self {
        Self { metric: metric.into(), maximize: false, first_epoch: 0 }
    }

    /// Leaves the epochs before `epoch`, from 1, out of every comparison but that of a plateau schedule: their networks are
    /// not yet of the final kind.
    #[must_use]
    pub fn from_epoch(mut self, epoch: usize) -> Self {
        self.first_epoch = epoch;
        self
    }

    /// Returns whether the epoch is compared.
    pub(crate) fn counts(&self, epoch: usize) -> bool {
        epoch >= self.first_epoch
    }

    /// Returns the metric's name.
    pub fn metric(&self) -> &str {
        &self.metric
    }

    /// Returns whether higher values are better.
    pub fn is_maximized(&self) -> bool {
        self.maximize
    }

    /// Returns whether `value` is better than `other`; false if either is NaN.
    pub fn is_better(&self, value: f64, other: f64) -> bool {
        self.score(value) > self.score(other)
    }

    /// Returns the value with the sign that makes higher better.
    pub(crate) fn score(&self, value: f64) -> f64 {
        if self.maximize { value } else { -value }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_orders_values_in_its_direction() {
        let (accuracy, loss) = (MetricGoal::maximize("Accuracy"), MetricGoal::minimize("Loss"));
        assert!(accuracy.is_better(2.0, 1.0) && !accuracy.is_better(1.0, 1.0));
        assert!(loss.is_better(1.0, 2.0) && !loss.is_better(1.0, 1.0));
        assert!(!loss.is_better(f64::NAN, 1.0) && !loss.is_better(1.0, f64::NAN));
    }
}
