//! A schedule of the threshold, and with it of the share of zeros.

use serde::{Deserialize, Serialize};
use ttq_core::{ConfigError, Threshold};

use crate::ScheduleError;

/// A schedule of the threshold over a phase of `n` steps: a half cosine from `start` to the threshold of the wrapper's
/// configuration over the first `share · n` steps, [`Threshold::toward`], where it stays.
///
/// With `zeros:0` as the start and `zeros:0.5` in the configuration, every layer has half of its weights at zero when the
/// schedule ends. A network in full precision loses less if its small weights become zero one after another (as in gradual
/// pruning: Zhu and Gupta, "To prune, or not to prune", 2017, section 3).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ThresholdSchedule {
    /// The threshold at the start, of the same rule as that of the configuration.
    pub start: Threshold,
    /// The share of the phase in which it moves, above 0 and at most 1.
    pub share: f64,
}

impl ThresholdSchedule {
    /// Creates the schedule.
    pub fn new(start: Threshold, share: f64) -> Self {
        Self { start, share }
    }

    /// Returns the number of steps after which the threshold is that of the configuration, of `steps` steps in the phase.
    pub(crate) fn steps(self, steps: usize) -> Result<usize, ScheduleError> {
        if self.share > 0.0 && self.share <= 1.0 {
            return Ok((self.share * steps as f64).floor().max(1.0) as usize);
        }
        let (name, range) = ("share of the threshold's schedule", "above 0 to 1");
        Err(ScheduleError::Number { name, value: self.share, range })
    }
}

/// The schedule in a training: `finished` of its `steps` are done.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ThresholdCourse {
    pub(crate) start: Threshold,
    pub(crate) steps: usize,
    pub(crate) finished: usize,
}

impl ThresholdCourse {
    /// Returns the threshold of the next step.
    pub(crate) fn threshold(self, end: Threshold) -> Result<Threshold, ConfigError> {
        self.start.toward(end, self.finished as f64 / self.steps.max(1) as f64)
    }
}
