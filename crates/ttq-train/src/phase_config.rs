//! The configuration of a phase.

use std::fmt;

use burn::config::Config;
use burn::optim::LearningRate;
use serde::{Deserialize, Serialize};

use crate::{
    Averaging, EarlyStoppingConfig, MetricGoal, OscillationFreezing, PhaseError, ScheduleConfig, ScheduleError,
    ThresholdSchedule,
};

/// The weights that a [`TernaryStep`](crate::TernaryStep) trains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The wrapped model with all weights in full precision. Scales do not train.
    FullPrecision,
    /// The ternary view: latent weights, scales and all other parameters.
    #[default]
    Ternary,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::FullPrecision => "full precision",
            Self::Ternary => "ternary",
        })
    }
}

/// The epoch whose model a [`PhaseTraining`](crate::PhaseTraining) returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeptEpoch {
    /// The one with the best validation metric.
    #[default]
    Best,
    /// The last one. A figure on test data is then not of an epoch that was chosen by its noise.
    Last,
}

/// Configuration of a [`PhaseTraining`](crate::PhaseTraining).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PhaseConfig {
    /// The weights that train.
    pub phase: Phase,
    /// Number of epochs, at least 1.
    pub epochs: usize,
    /// Base learning rate of the schedule, above 0 and at most 1.
    pub learning_rate: LearningRate,
    /// Course of the learning rate. Constant by default.
    #[serde(default)]
    pub schedule: ScheduleConfig,
    /// The validation metric that chooses the best epoch; plateau and early stopping watch it too.
    pub goal: MetricGoal,
    /// The epoch whose model is returned. The best one by default.
    #[serde(default)]
    pub kept_epoch: KeptEpoch,
    /// Early stopping. None by default.
    #[serde(default)]
    pub early_stopping: Option<EarlyStoppingConfig>,
    /// Schedule of the threshold in [`Phase::Ternary`]. None by default. The best epoch is one after its end, since the
    /// network has the threshold of its configuration then; early stopping watches those epochs alone. The scales are fitted
    /// to the weights with the threshold at the start.
    #[serde(default)]
    pub threshold_schedule: Option<ThresholdSchedule>,
    /// Average over the updates, with which epochs validate and of which the best one is returned. None by default.
    #[serde(default)]
    pub averaging: Option<Averaging>,
    /// Freezing of codes that oscillate, in [`Phase::Ternary`]. None by default.
    #[serde(default)]
    pub oscillation_freezing: Option<OscillationFreezing>,
    /// Number of batches whose gradients make one update, from 1 to the batches of an epoch. Batches left over at the
    /// end of an epoch make an update of their own, [`Accumulated`](crate::Accumulated). 1 by default.
    #[serde(default = "one")]
    pub accumulated_batches: usize,
    /// Whether the metrics of the ternary weights are logged in [`Phase::Ternary`]: sparsity, scales, flip ratio, statistics of
    /// layers. They compute all codes three more times per step. True by default.
    #[serde(default = "yes")]
    pub ternary_metrics: bool,
}

fn one() -> usize {
    1
}

fn yes() -> bool {
    true
}

impl Config for PhaseConfig {}

impl PhaseConfig {
    /// Creates the configuration of a phase with a constant learning rate.
    pub fn new(phase: Phase, epochs: usize, learning_rate: LearningRate, goal: MetricGoal) -> Self {
        Self {
            phase,
            epochs,
            learning_rate,
            schedule: ScheduleConfig::Constant,
            goal,
            kept_epoch: KeptEpoch::Best,
            early_stopping: None,
            threshold_schedule: None,
            averaging: None,
            oscillation_freezing: None,
            accumulated_batches: 1,
            ternary_metrics: true,
        }
    }

    /// Sets the course of the learning rate.
    #[must_use]
    pub fn with_schedule(mut self, schedule: ScheduleConfig) -> Self {
        self.schedule = schedule;
        self
    }

    /// Sets the epoch whose model is returned.
    #[must_use]
    pub fn with_kept_epoch(mut self, epoch: KeptEpoch) -> Self {
        self.kept_epoch = epoch;
        self
    }

    /// Sets the early stopping.
    #[must_use]
    pub fn with_early_stopping(mut self, early_stopping: Option<EarlyStoppingConfig>) -> Self {
        self.early_stopping = early_stopping;
        self
    }

    /// Sets the schedule of the threshold.
    #[must_use]
    pub fn with_threshold_schedule(mut self, schedule: Option<ThresholdSchedule>) -> Self {
        self.threshold_schedule = schedule;
        self
    }

    /// Sets the average over the updates.
    #[must_use]
    pub fn with_averaging(mut self, averaging: Option<Averaging>) -> Self {
        self.averaging = averaging;
        self
    }

    /// Sets the freezing of codes that oscillate.
    #[must_use]
    pub fn with_oscillation_freezing(mut self, freezing: Option<OscillationFreezing>) -> Self {
        self.oscillation_freezing = freezing;
        self
    }

    /// Sets whether the metrics of the ternary weights are logged.
    #[must_use]
    pub fn with_ternary_metrics(mut self, metrics: bool) -> Self {
        self.ternary_metrics = metrics;
        self
    }

    /// Returns the schedule of the threshold and its number of steps, in the ternary phase.
    pub(crate) fn threshold_course(&self, batches: usize) -> Result<Option<(ThresholdSchedule, usize)>, ScheduleError> {
        let schedule = self.threshold_schedule.filter(|_| self.phase == Phase::Ternary);
        schedule.map(|schedule| Ok((schedule, schedule.steps(self.epochs * batches)?))).transpose()
    }

    /// Returns what takes its course over all epochs, so that their number cannot change on the way.
    pub(crate) fn spanning_courses(&self) -> impl Iterator<Item = &'static str> {
        let ternary = self.phase == Phase::Ternary;
        let courses = [
            ("the cosine schedule", matches!(self.schedule, ScheduleConfig::WarmupCosine { .. })),
            ("the schedule of the threshold", ternary && self.threshold_schedule.is_some()),
            ("the freezing of oscillations", ternary && self.oscillation_freezing.is_some()),
        ];
        courses.into_iter().filter(|(_, spans)| *spans).map(|(name, _)| name)
    }

    /// Checks the numbers that no other type checks.
    pub(crate) fn check(&self) -> Result<(), PhaseError> {
        if self.epochs == 0 {
            return Err(PhaseError::Number { name: "number of epochs", value: 0.0, range: "1 or more" });
        }
        match self.early_stopping.map(|rule| rule.min_improvement) {
            Some(value) if !value.is_finite() => {
                Err(PhaseError::Number { name: "improvement for early stopping", value, range: "a finite number" })
            }
            _ => Ok(()),
        }
    }

    /// Sets the number of batches whose gradients make one update.
    #[must_use]
    pub fn with_accumulated_batches(mut self, batches: usize) -> Self {
        self.accumulated_batches = batches;
        self
    }
}
