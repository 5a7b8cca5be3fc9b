//! Learning-rate schedules that count in epochs and resume exactly.

use burn::config::Config;
use burn::lr_scheduler::LrScheduler;
use burn::lr_scheduler::cosine::{CosineAnnealingLrScheduler, CosineAnnealingLrSchedulerConfig};
use burn::lr_scheduler::linear::{LinearLrScheduler, LinearLrSchedulerConfig};
use burn::optim::LearningRate;
use burn::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{History, MetricGoal};

/// Configuration of a [`Schedule`]: the course of the learning rate over the epochs. The groups of a
/// [`TernaryOptimizer`](crate::TernaryOptimizer) multiply it by their own factors.
///
/// ```
/// use ttq_train::{ScheduleConfig, TrainingLength};
///
/// let length = TrainingLength { epochs: 30, steps_per_epoch: 391 };
/// let schedule = ScheduleConfig::WarmupCosine { warmup_epochs: 1, min_factor: 0.0 }.init(0.1, length)?;
/// # Ok::<(), ttq_train::ScheduleError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ScheduleConfig {
    /// The base rate in every step.
    #[default]
    Constant,
    /// After `e` trained epochs
    ///
    /// ```text
    /// lr = base * gamma ^ (number of milestones m with e >= m)
    /// ```
    ///
    /// The milestones 80 and 120 with `gamma` 0.1 are the TTQ paper's "divided by ten at epochs 80, 120": epochs 1 to
    /// 80 use the base rate.
    MultiStep {
        /// Epochs after which the rate changes.
        milestones: Vec<usize>,
        /// Factor at each milestone, 0 to 1.
        gamma: f64,
    },
    /// With `w` steps of warm-up out of `n`, the rate of step `t` (from 0) is
    ///
    /// ```text
    /// base * (0.1 + 0.9 t / w)                                                                    t <  w
    /// base * (min_factor + (1 - min_factor) (1 + cos(pi (t - w) / (n - w))) / 2)                  t >= w
    /// ```
    ///
    /// The rates are those of Burn's linear scheduler, then of its cosine scheduler. (The linear one cannot start at
    /// 0.)
    WarmupCosine {
        /// Epochs of warm-up.
        warmup_epochs: usize,
        /// End of the cosine as a factor of the base rate, 0 to 1.
        min_factor: f64,
    },
    /// Lowered when a validation metric stops improving. It needs
    /// [`init_with_metric`](ScheduleConfig::init_with_metric).
    Plateau(PlateauConfig),
}

impl Config for ScheduleConfig {}

/// PyTorch's `ReduceLROnPlateau(threshold_mode="abs")` with the factor and the patience of the PyTorch port of TTQ. For a
/// metric that is maximized, after each epoch:
///
/// ```text
/// value > best + min_improvement:  best = value, bad = 0        otherwise:  bad = bad + 1
/// bad > patience:                  lr = max(lr * factor, min_lr), bad = 0
/// ```
///
/// For a metric that is minimized the first line reads `value < best - min_improvement`. As in PyTorch, a reduction of the
/// rate by 1e-8 or less is left out.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlateauConfig {
    /// Factor on the learning rate, 0 to 1. Defaults to 0.1.
    #[serde(default = "default_factor")]
    pub factor: f64,
    /// Number of epochs without improvement that are tolerated. Defaults to 4.
    #[serde(default = "default_patience")]
    pub patience: usize,
    /// Change that must be exceeded to count as an improvement, in the metric's own unit and not negative.
    pub min_improvement: f64,
    /// Lower bound of the learning rate, 0 to 1. Defaults to 0.
    #[serde(default)]
    pub min_lr: f64,
}

fn default_factor() -> f64 {
    0.1
}

fn default_patience() -> usize {
    4
}

impl Config for PlateauConfig {}

impl PlateauConfig {
    /// Creates the configuration with the defaults and the change that must be exceeded to count as an improvement, in the
    /// metric's own unit: 1 is one percentage point of Burn's accuracy (the port's value), and more than most losses ever
    /// improve by.
    pub fn new(min_improvement: f64) -> Self {
        Self { factor: default_factor(), patience: default_patience(), min_improvement, min_lr: 0.0 }
    }

    /// Sets the factor on the learning rate, 0 to 1.
    #[must_use]
    pub fn with_factor(mut self, factor: f64) -> Self {
        self.factor = factor;
        self
    }

    /// Sets the number of epochs without improvement that are tolerated.
    #[must_use]
    pub fn with_patience(mut self, patience: usize) -> Self {
        self.patience = patience;
        self
    }

    /// Sets the lower bound of the learning rate, 0 to 1.
    #[must_use]
    pub fn with_min_lr(mut self, min_lr: f64) -> Self {
        self.min_lr = min_lr;
        self
    }
}

/// Length of a training.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrainingLength {
    /// Number of epochs.
    pub epochs: usize,
    /// Number of times that burn-train asks the schedule for a rate in an epoch: the number of batches that the
    /// training loader yields. Accumulated batches count one by one, and a batch that several devices share counts
    /// once. Under Burn's distributed strategy each device counts every step of all devices: see
    /// [`steps_per_epoch`](crate::steps_per_epoch).
    pub steps_per_epoch: usize,
}

/// An invalid schedule.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ScheduleError {
    /// The learning rate is out of range.
    #[error("the learning rate {value} is out of range: choose one above 0 and at most 1")]
    LearningRate {
        /// The learning rate.
        value: LearningRate,
    },
    /// An epoch has no steps.
    #[error("a schedule needs at least one step per epoch, found {found}: use more data or smaller batches")]
    StepsPerEpoch {
        /// The number of steps.
        found: usize,
    },
    /// A number of the configuration is out of range.
    #[error("the schedule's {name} {value} is out of range: choose one from {range}")]
    Number {
        /// Name of the field.
        name: &'static str,
        /// Its value.
        value: f64,
        /// The allowed range in words.
        range: &'static str,
    },
    /// A plateau was initialized without a metric.
    #[error("a plateau schedule depends on a validation metric: initialize it with `init_with_metric`")]
    NoMetric,
    /// Burn's scheduler returned an error.
    #[error("Burn's scheduler refuses the learning rate or the number of epochs, change them: {reason}")]
    Burn {
        /// Burn's message.
        reason: String,
    },
}

impl ScheduleConfig {
    /// Creates the schedule of a training that starts at the learning rate `base`.
    ///
    /// # Errors
    /// [`ScheduleError`] if a number is out of range, or for a plateau, which needs
    /// [`init_with_metric`](Self::init_with_metric).
    pub fn init(&self, base: LearningRate, length: TrainingLength) -> Result<Schedule, ScheduleError> {
        self.build(base, length, None)
    }

    /// Creates the schedule of a training whose validation metrics are logged in `history`; a plateau watches the
    /// metric of `goal`.
    ///
    /// # Errors
    /// [`ScheduleError`] if a number is out of range.
    pub fn init_with_metric(
        &self,
        base: LearningRate,
        length: TrainingLength,
        history: &History,
        goal: &MetricGoal,
    ) -> Result<Schedule, ScheduleError> {
        self.build(base, length, Some((history, goal)))
    }

    fn build(
        &self,
        base: LearningRate,
        TrainingLength { epochs, steps_per_epoch }: TrainingLength,
        metric: Option<(&History, &MetricGoal)>,
    ) -> Result<Schedule, ScheduleError> {
        if !(base > 0.0 && base <= 1.0) {
            return Err(ScheduleError::LearningRate { value: base });
        }
        if steps_per_epoch == 0 {
            return Err(ScheduleError::StepsPerEpoch { found: steps_per_epoch });
        }
        let number = |name, value: f64, max: f64, range| {
            if (0.0..=max).contains(&value) { Ok(value) } else { Err(ScheduleError::Number { name, value, range }) }
        };
        let factor = |name, value| number(name, value, 1.0, "0 to 1");
        let burn = |reason| ScheduleError::Burn { reason };
        let kind = match self {
            Self::Constant => Kind::Constant,
            Self::MultiStep { milestones, gamma } => {
                Kind::MultiStep { milestones: milestones.clone(), gamma: factor("gamma", *gamma)? }
            }
            Self::WarmupCosine { warmup_epochs, min_factor } => {
                let warmup_steps = warmup_epochs * steps_per_epoch;
                let cosine_steps = (epochs * steps_per_epoch).saturating_sub(warmup_steps).max(1);
                let min_lr = base * factor("min_factor", *min_factor)?;
                let warmup = LinearLrSchedulerConfig::new(base / 10.0, base, warmup_steps.max(1));
                let cosine = CosineAnnealingLrSchedulerConfig::new(base, cosine_steps).with_min_lr(min_lr);
                Kind::WarmupCosine {
                    warmup_steps,
                    warmup: warmup.init().map_err(burn)?,
                    cosine: cosine.init().map_err(burn)?,
                }
            }
            Self::Plateau(config) => {
                factor("factor", config.factor)?;
                number("min_improvement", config.min_improvement, f64::MAX, "0 upwards")?;
                factor("min_lr", config.min_lr)?;
                let (history, goal) = metric.ok_or(ScheduleError::NoMetric)?;
                Kind::Plateau { config: *config, history: history.clone(), goal: goal.clone() }
            }
        };
        Ok(Schedule { kind, base, steps_per_epoch, step: 0, plateau: Plateau::default() })
    }
}

/// A learning-rate schedule for burn-train, made by a [`ScheduleConfig`]. burn-train asks it for one rate per
/// iteration.
///
/// Its record, saved in every checkpoint, holds the number of steps taken and the state of the plateau. A schedule
/// loaded from a record returns exactly the rates that the saved one would have returned next.
#[derive(Clone)]
pub struct Schedule {
    kind: Kind,
    base: LearningRate,
    steps_per_epoch: usize,
    step: usize,
    plateau: Plateau,
}

#[derive(Clone)]
enum Kind {
    Constant,
    MultiStep { milestones: Vec<usize>, gamma: f64 },
    WarmupCosine { warmup_steps: usize, warmup: LinearLrScheduler, cosine: CosineAnnealingLrScheduler },
    Plateau { config: PlateauConfig, history: History, goal: MetricGoal },
}

/// The state of PyTorch's `ReduceLROnPlateau`.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct Plateau {
    best: Option<f64>,
    bad_epochs: usize,
    reductions: usize,
}

/// PyTorch's `eps`: smaller reductions of the rate are left out.
const LEAST_STEP: f64 = 1e-8;

impl Plateau {
    /// Takes the score of an epoch, which is higher for a better epoch.
    fn observe(&mut self, score: f64, base: LearningRate, config: &PlateauConfig) {
        if score > self.best.unwrap_or(f64::NEG_INFINITY) + config.min_improvement {
            self.best = Some(score);
            self.bad_epochs = 0;
        } else {
            self.bad_epochs += 1;
        }
        if self.bad_epochs > config.patience {
            let lower = Self { reductions: self.reductions + 1, ..*self };
            if self.rate(base, config) - lower.rate(base, config) > LEAST_STEP {
                self.reductions = lower.reductions;
            }
            self.bad_epochs = 0;
        }
    }

    /// Multiplies once per reduction, which rounds as PyTorch does.
    fn rate(&self, base: LearningRate, config: &PlateauConfig) -> LearningRate {
        (0..self.reductions).fold(base, |lr, _| f64::max(lr * config.factor, config.min_lr))
    }
}

impl LrScheduler for Schedule {
    /// Steps taken and states of Burn's two schedulers; best score, epochs without improvement and reductions of a
    /// plateau.
    type Record<B: Backend> = ((usize, usize, usize), (Option<f64>, usize, usize));

    fn step(&mut self) -> LearningRate {
        let step = self.step;
        let finished = step / self.steps_per_epoch;
        self.step += 1;
        match &mut self.kind {
            Kind::Constant => self.base,
            Kind::MultiStep { milestones, gamma } => {
                let behind = milestones.iter().filter(|milestone| **milestone <= finished).count();
                self.base * gamma.powi(behind as i32)
            }
            Kind::WarmupCosine { warmup_steps, warmup, .. } if step < *warmup_steps => warmup.step(),
            Kind::WarmupCosine { cosine, .. } => cosine.step(),
            Kind::Plateau { config, history, goal } => {
                if finished > 0 && step.is_multiple_of(self.steps_per_epoch) {
                    match history.wait_valid(finished, goal.metric()) {
                        Some(value) => self.plateau.observe(goal.score(value), self.base, config),
                        None => log::warn!(
                            "epoch {finished} has no validation metric `{}`: the learning rate stays",
                            goal.metric()
                        ),
                    }
                }
                self.plateau.rate(self.base, config)
            }
        }
    }

    fn to_record<B: Backend>(&self) -> Self::Record<B> {
        let (warmup, cosine) = match &self.kind {
            Kind::WarmupCosine { warmup, cosine, .. } => (warmup.to_record::<B>(), cosine.to_record::<B>()),
            _ => (0, 0),
        };
        let Plateau { best, bad_epochs, reductions } = self.plateau;
        ((self.step, warmup, cosine), (best, bad_epochs, reductions))
    }

    fn load_record<B: Backend>(self, ((step, warmup, cosine), plateau): Self::Record<B>) -> Self {
        let (best, bad_epochs, reductions) = plateau;
        let kind = match self.kind {
            Kind::WarmupCosine { warmup_steps, warmup: linear, cosine: annealing } => Kind::WarmupCosine {
                warmup_steps,
                warmup: linear.load_record::<B>(warmup),
                cosine: annealing.load_record::<B>(cosine),
            },
            kind => kind,
        };
        Self { kind, step, plateau: Plateau { best, bad_epochs, reductions }, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::tests::with_accuracies;
    use burn::backend::Flex;

    /// A complete history. Its directory is removed: nothing more is logged.
    fn history(accuracies: &[f64]) -> History {
        with_accuracies(tempfile::tempdir().unwrap().path(), accuracies)
    }

    fn build(config: &ScheduleConfig, steps_per_epoch: usize, epochs: usize, history: &History) -> Schedule {
        let length = TrainingLength { epochs, steps_per_epoch };
        config.init_with_metric(0.1, length, history, &MetricGoal::maximize("Accuracy")).unwrap()
    }

    /// The learning rate at the first step of each epoch.
    fn epochs(mut schedule: Schedule, steps: usize, epochs: usize) -> Vec<f64> {
        (0..epochs)
            .map(|_| {
                let first = schedule.step();
                for _ in 1..steps {
                    schedule.step();
                }
                first
            })
            .collect()
    }

    fn assert_close(found: &[f64], expected: &[f64]) {
        assert_eq!(found.len(), expected.len());
        for (found_one, expected_one) in found.iter().zip(expected) {
            assert!((found_one - expected_one).abs() < 1e-12, "{found:?} instead of {expected:?}");
        }
    }

    #[test]
    fn milestones_count_trained_epochs() {
        let config = ScheduleConfig::MultiStep { milestones: vec![2, 3], gamma: 0.1 };
        assert_close(&epochs(build(&config, 5, 5, &history(&[])), 5, 5), &[0.1, 0.1, 0.01, 0.001, 0.001]);
    }

    #[test]
    fn warm_up_rises_to_the_base_and_the_cosine_falls_from_it() {
        let config = ScheduleConfig::WarmupCosine { warmup_epochs: 1, min_factor: 0.0 };
        let mut schedule = build(&config, 10, 3, &history(&[]));
        let rates: Vec<f64> = (0..30).map(|_| schedule.step()).collect();
        assert!(rates[..11].windows(2).all(|pair| pair[0] < pair[1]));
        assert_close(&[rates[0], rates[10]], &[0.01, 0.1]);
        assert!(rates[10..].windows(2).all(|pair| pair[0] > pair[1]) && rates[29] < 0.001);
    }

    #[test]
    fn warm_up_and_cosine_follow_their_equations() {
        let config = ScheduleConfig::WarmupCosine { warmup_epochs: 2, min_factor: 0.1 };
        let mut schedule = build(&config, 4, 5, &history(&[]));
        let found: Vec<f64> = (0..20).map(|_| schedule.step()).collect();
        let expected: Vec<f64> = (0..20)
            .map(|t| match t {
                0..8 => 0.1 * (0.1 + 0.9 * f64::from(t) / 8.0),
                _ => 0.1 * (0.1 + 0.9 * (1.0 + (std::f64::consts::PI * f64::from(t - 8) / 12.0).cos()) / 2.0),
            })
            .collect();
        assert_close(&found, &expected);
    }

    /// `ReduceLROnPlateau(threshold_mode="abs")`, transcribed from PyTorch.
    fn pytorch(config: &PlateauConfig, mode_max: bool, values: &[f64]) -> Vec<f64> {
        let (mut lr, mut bad) = (0.1, 0);
        let mut best = if mode_max { f64::NEG_INFINITY } else { f64::INFINITY };
        let mut rates = vec![lr];
        for value in values {
            let better =
                if mode_max { *value > best + config.min_improvement } else { *value < best - config.min_improvement };
            if better {
                best = *value;
                bad = 0;
            } else {
                bad += 1;
            }
            if bad > config.patience {
                let new = f64::max(lr * config.factor, config.min_lr);
                if lr - new > 1e-8 {
                    lr = new;
                }
                bad = 0;
            }
            rates.push(lr);
        }
        rates
    }

    /// Compares bit for bit, maximized and minimized; returns the rates of the former.
    fn assert_as_pytorch(config: PlateauConfig, values: &[f64], history: &History) -> Vec<f64> {
        let n = values.len() + 1;
        let [_, rates] = [MetricGoal::minimize("Accuracy"), MetricGoal::maximize("Accuracy")].map(|goal| {
            let length = TrainingLength { epochs: n, steps_per_epoch: 3 };
            let schedule = ScheduleConfig::Plateau(config).init_with_metric(0.1, length, history, &goal).unwrap();
            let rates = epochs(schedule, 3, n);
            assert_eq!(rates, pytorch(&config, goal.is_maximized(), values), "{config:?} {goal:?} on {values:?}");
            rates
        });
        rates
    }

    #[test]
    fn a_plateau_lowers_the_rate_as_pytorch_does() {
        let rising = [50.0, 60.0, 60.5, 61.5, 61.9, 62.0, 62.1, 62.2, 70.0, 70.0, 70.0, 70.0, 70.9, 71.5];
        let diverged = [f64::NAN, 30.0, f64::NAN, 35.0, 20.0, 20.0];
        // A walk that looks random.
        let walk: Vec<f64> = (0..40).map(|k| 50.0 + f64::from(k) / 4.0 + 4.0 * f64::from(k * k).sin()).collect();
        for percents in [&rising[..], &diverged, &walk] {
            let history = history(percents);
            for patience in [0, 1, 2, 4] {
                for (factor, min_lr) in [(0.1, 0.0), (0.1, 1e-4), (0.3, 0.02), (1.0, 0.0)] {
                    let config = PlateauConfig { patience, factor, min_lr, min_improvement: 1.0 };
                    assert_as_pytorch(config, percents, &history);
                }
            }
        }
    }

    #[test]
    fn a_plateau_stops_at_steps_too_small_for_pytorch() {
        let rates = assert_as_pytorch(PlateauConfig::new(1.0).with_patience(0), &[50.0; 12], &history(&[50.0; 12]));
        assert!(rates[11] > 0.9e-8, "{rates:?}");
    }

    #[test]
    fn a_saved_schedule_goes_on_where_it_was() {
        let plateau = PlateauConfig::new(1.0).with_patience(1);
        let history = history(&[50.0, 50.1, 50.2, 50.3]);
        for config in [
            ScheduleConfig::Constant,
            ScheduleConfig::MultiStep { milestones: vec![1, 3], gamma: 0.5 },
            ScheduleConfig::WarmupCosine { warmup_epochs: 2, min_factor: 0.01 },
            ScheduleConfig::Plateau(plateau),
        ] {
            for stop in 0..30 {
                let mut whole = build(&config, 6, 5, &history);
                let resumed = whole.clone();
                (0..stop).for_each(|_| _ = whole.step());
                let mut resumed = resumed.load_record::<Flex>(whole.to_record::<Flex>());
                let rest = |schedule: &mut Schedule| (stop..30).map(|_| schedule.step()).collect::<Vec<_>>();
                assert_eq!(rest(&mut whole), rest(&mut resumed), "{config:?} after {stop} steps");
            }
        }
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let history = History::new(directory.path());
        let build = |config: ScheduleConfig, base, steps_per_epoch| {
            let length = TrainingLength { epochs: 2, steps_per_epoch };
            config.init_with_metric(base, length, &history, &MetricGoal::maximize("Accuracy")).err()
        };
        assert_eq!(build(ScheduleConfig::Constant, -0.1, 5), Some(ScheduleError::LearningRate { value: -0.1 }));
        assert_eq!(build(ScheduleConfig::Constant, 0.1, 0), Some(ScheduleError::StepsPerEpoch { found: 0 }));
        let config = ScheduleConfig::MultiStep { milestones: vec![], gamma: 2.0 };
        assert_eq!(build(config, 0.1, 5), Some(ScheduleError::Number { name: "gamma", value: 2.0, range: "0 to 1" }));
        let plateau = PlateauConfig::new(f64::NAN);
        let error = build(ScheduleConfig::Plateau(plateau), 0.1, 5).unwrap();
        assert!(error.to_string().contains("min_improvement NaN"), "{error}");
    }

    #[test]
    fn only_a_plateau_needs_a_metric() {
        let length = TrainingLength { epochs: 2, steps_per_epoch: 3 };
        assert!(ScheduleConfig::Constant.init(0.1, length).is_ok());
        let plateau = ScheduleConfig::Plateau(PlateauConfig::new(1.0));
        assert_eq!(plateau.init(0.1, length).err(), Some(ScheduleError::NoMetric));
    }

    #[test]
    fn a_configuration_reads_as_it_is_written() {
        let read = |text| serde_json::from_str::<ScheduleConfig>(text).unwrap();
        assert_eq!(read(r#""constant""#), ScheduleConfig::Constant);
        let steps = ScheduleConfig::MultiStep { milestones: vec![80, 120], gamma: 0.1 };
        assert_eq!(read(r#"{"multi_step": {"milestones": [80, 120], "gamma": 0.1}}"#), steps);
        let cosine = ScheduleConfig::WarmupCosine { warmup_epochs: 5, min_factor: 0.0 };
        assert_eq!(read(r#"{"warmup_cosine": {"warmup_epochs": 5, "min_factor": 0.0}}"#), cosine);
        let plateau = PlateauConfig::new(1.0).with_patience(7);
        assert_eq!(read(r#"{"plateau": {"min_improvement": 1, "patience": 7}}"#), ScheduleConfig::Plateau(plateau));
        assert_eq!(read(&serde_json::to_string(&steps).unwrap()), steps);
        for (text, name) in
            [(r#"{"plateau": {"patience": 7}}"#, "min_improvement"), (r#"{"plateau": {"patient": 7}}"#, "patient")]
        {
            let error = serde_json::from_str::<ScheduleConfig>(text).unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
        }
    }
}
