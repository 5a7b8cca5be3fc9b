//! Learning-rate schedules that count in epochs and survive a resume.

use burn::lr_scheduler::LrScheduler;
use burn::lr_scheduler::cosine::{CosineAnnealingLrScheduler, CosineAnnealingLrSchedulerConfig};
use burn::lr_scheduler::linear::{LinearLrScheduler, LinearLrSchedulerConfig};
use burn::optim::LearningRate;
use burn::prelude::*;
use serde::{Deserialize, Serialize};

use crate::History;

/// How the learning rate goes. It is one rate, to which the optimizer's groups apply their own factors.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScheduleConfig {
    /// The base rate throughout.
    #[default]
    Constant,
    /// After `e` trained epochs
    ///
    /// ```text
    /// lr = base * gamma ^ (number of milestones m with e >= m)
    /// ```
    ///
    /// so that the milestones 80 and 120 with `gamma` 0.1 are the TTQ paper's "divided by ten at epochs 80, 120": epochs 1
    /// to 80 run at the base rate.
    MultiStep {
        /// Numbers of epochs.
        milestones: Vec<usize>,
        /// Factor at each.
        gamma: f64,
    },
    /// With `w` steps of warm-up out of `n`, step `t` (from 0) runs at
    ///
    /// ```text
    /// base * (0.1 + 0.9 t / w)                                                                    t <  w
    /// base * (min_factor + (1 - min_factor) (1 + cos(pi (t - w) / (n - w))) / 2)                  t >= w
    /// ```
    ///
    /// by Burn's linear and cosine schedulers, one after the other. (The linear one cannot begin at 0.)
    WarmupCosine {
        /// Epochs of warm-up.
        warmup_epochs: usize,
        /// Where the cosine ends, as a factor of the base rate.
        min_factor: f64,
    },
    /// Down when validation accuracy no longer rises.
    Plateau(PlateauConfig),
}

/// PyTorch's `ReduceLROnPlateau(mode="max", threshold_mode="abs")`, with the port's numbers. After every epoch:
///
/// ```text
/// accuracy > best + threshold:  best = accuracy, bad = 0        otherwise:  bad = bad + 1
/// bad > patience:               lr = max(lr * factor, min_lr), bad = 0
/// ```
///
/// As in PyTorch, a step of the rate that is not above 1e-8 is left out. Accuracy counts as a fraction of 1, while Burn's
/// metrics are percents: the schedule divides by 100.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PlateauConfig {
    /// Factor on the learning rate.
    pub factor: f64,
    /// Epochs without improvement that are tolerated.
    pub patience: usize,
    /// What counts as an improvement, as a fraction of 1: 0.01 is one point of percent.
    pub threshold: f64,
    /// The learning rate does not fall below this.
    pub min_lr: f64,
}

impl Default for PlateauConfig {
    fn default() -> Self {
        Self { factor: 0.1, patience: 4, threshold: 0.01, min_lr: 0.0 }
    }
}

/// A schedule that makes no sense.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ScheduleError {
    /// The learning rate.
    #[error("the learning rate {value} is out of range: take one above 0 and at most 1")]
    LearningRate {
        /// Its value.
        value: LearningRate,
    },
    /// The length.
    #[error("a schedule needs at least one step in an epoch, found {found}: take more data or smaller batches")]
    StepsPerEpoch {
        /// What was given.
        found: usize,
    },
    /// A number of the configuration.
    #[error("the schedule's {name} {value} is out of range: take one from 0 to 1")]
    Factor {
        /// Which.
        name: &'static str,
        /// Its value.
        value: f64,
    },
    /// What Burn's own schedule refused.
    #[error("Burn refuses the schedule, change the learning rate or the number of epochs: {reason}")]
    Burn {
        /// Why.
        reason: String,
    },
}

impl ScheduleConfig {
    /// The schedule for a training of `epochs` epochs of `steps_per_epoch` iterations: the number of batches that the
    /// training's loader yields in an epoch, for epochs are counted by it. (Several devices take a batch together, and
    /// accumulated batches count one by one.) A plateau reads the validation metric `metric`, in percent, from `history`.
    ///
    /// # Errors
    /// [`ScheduleError`] where a number is out of range.
    pub fn build(
        &self,
        base: LearningRate,
        steps_per_epoch: usize,
        epochs: usize,
        history: &History,
        metric: &str,
    ) -> Result<Schedule, ScheduleError> {
        if !(base > 0.0 && base <= 1.0) {
            return Err(ScheduleError::LearningRate { value: base });
        }
        if steps_per_epoch == 0 {
            return Err(ScheduleError::StepsPerEpoch { found: steps_per_epoch });
        }
        let factor = |name, value: f64| {
            if (0.0..=1.0).contains(&value) { Ok(value) } else { Err(ScheduleError::Factor { name, value }) }
        };
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
                factor("threshold", config.threshold)?;
                factor("min_lr", config.min_lr)?;
                Kind::Plateau { config: *config, history: history.clone(), metric: metric.into() }
            }
        };
        Ok(Schedule { kind, base, steps_per_epoch, step: 0, plateau: Plateau::default() })
    }
}

/// A learning-rate schedule for burn-train, which asks for one rate per iteration. Its state, saved in every checkpoint, is
/// the number of steps taken and what the plateau has seen; loaded at any step, it goes on with exactly the rates that were
/// to come.
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
    Plateau { config: PlateauConfig, history: History, metric: String },
}

/// The state of PyTorch's `ReduceLROnPlateau`.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct Plateau {
    best: Option<f64>,
    bad_epochs: usize,
    reductions: usize,
}

/// PyTorch's `eps`: the least step of the rate.
const LEAST_STEP: f64 = 1e-8;

impl Plateau {
    /// One validation accuracy, a fraction of 1.
    fn observe(&mut self, accuracy: f64, base: LearningRate, config: &PlateauConfig) {
        if accuracy > self.best.unwrap_or(f64::NEG_INFINITY) + config.threshold {
            self.best = Some(accuracy);
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

    /// Multiplied one by one, which rounds as PyTorch does.
    fn rate(&self, base: LearningRate, config: &PlateauConfig) -> LearningRate {
        (0..self.reductions).fold(base, |lr, _| f64::max(lr * config.factor, config.min_lr))
    }
}

impl LrScheduler for Schedule {
    /// Steps taken, state of Burn's two schedules; best accuracy, epochs without improvement, reductions of a plateau.
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
            Kind::Plateau { config, history, metric } => {
                if finished > 0 && step.is_multiple_of(self.steps_per_epoch) {
                    match history.wait_valid(finished, metric) {
                        Some(percent) => self.plateau.observe(percent / 100.0, self.base, config),
                        None => log::warn!("epoch {finished} has no metric `{metric}`: the learning rate stays"),
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

    /// A complete history; its files go, for nothing is logged any more.
    fn history(accuracies: &[f64]) -> History {
        with_accuracies(tempfile::tempdir().unwrap().path(), accuracies)
    }

    fn build(config: &ScheduleConfig, steps: usize, epochs: usize, history: &History) -> Schedule {
        config.build(0.1, steps, epochs, history, "Accuracy").unwrap()
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

    /// `ReduceLROnPlateau(mode="max", threshold_mode="abs")`, transcribed from PyTorch.
    fn pytorch(config: &PlateauConfig, accuracies: &[f64]) -> Vec<f64> {
        let (mut lr, mut best, mut bad) = (0.1, f64::NEG_INFINITY, 0);
        let mut rates = vec![lr];
        for accuracy in accuracies {
            if *accuracy > best + config.threshold {
                best = *accuracy;
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

    /// Compares bit for bit.
    fn assert_as_pytorch(config: PlateauConfig, percents: &[f64], history: &History) -> Vec<f64> {
        let fractions: Vec<f64> = percents.iter().map(|percent| percent / 100.0).collect();
        let n = percents.len() + 1;
        let schedule = build(&ScheduleConfig::Plateau(config), 3, n, history);
        let rates = epochs(schedule, 3, n);
        assert_eq!(rates, pytorch(&config, &fractions), "{config:?} on {percents:?}");
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
                    let config = PlateauConfig { patience, factor, min_lr, ..Default::default() };
                    assert_as_pytorch(config, percents, &history);
                }
            }
        }
    }

    #[test]
    fn a_plateau_stops_at_steps_too_small_for_pytorch() {
        let rates =
            assert_as_pytorch(PlateauConfig { patience: 0, ..Default::default() }, &[50.0; 12], &history(&[50.0; 12]));
        assert!(rates[11] > 0.9e-8, "{rates:?}");
    }

    #[test]
    fn a_saved_schedule_goes_on_where_it_was() {
        let plateau = PlateauConfig { patience: 1, ..PlateauConfig::default() };
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
        let build = |config: ScheduleConfig, base, steps| config.build(base, steps, 2, &history, "Accuracy").err();
        assert_eq!(build(ScheduleConfig::Constant, -0.1, 5), Some(ScheduleError::LearningRate { value: -0.1 }));
        assert_eq!(build(ScheduleConfig::Constant, 0.1, 0), Some(ScheduleError::StepsPerEpoch { found: 0 }));
        let config = ScheduleConfig::MultiStep { milestones: vec![], gamma: 2.0 };
        assert_eq!(build(config, 0.1, 5), Some(ScheduleError::Factor { name: "gamma", value: 2.0 }));
        let plateau = PlateauConfig { threshold: f64::NAN, ..PlateauConfig::default() };
        let error = build(ScheduleConfig::Plateau(plateau), 0.1, 5).unwrap();
        assert!(error.to_string().contains("threshold NaN"), "{error}");
    }

    #[test]
    fn a_configuration_reads_as_it_is_written() {
        let read = |text| serde_json::from_str::<ScheduleConfig>(text).unwrap();
        assert_eq!(read(r#""constant""#), ScheduleConfig::Constant);
        let steps = ScheduleConfig::MultiStep { milestones: vec![80, 120], gamma: 0.1 };
        assert_eq!(read(r#"{"multi_step": {"milestones": [80, 120], "gamma": 0.1}}"#), steps);
        let cosine = ScheduleConfig::WarmupCosine { warmup_epochs: 5, min_factor: 0.0 };
        assert_eq!(read(r#"{"warmup_cosine": {"warmup_epochs": 5, "min_factor": 0.0}}"#), cosine);
        let plateau = PlateauConfig { patience: 7, ..PlateauConfig::default() };
        assert_eq!(read(r#"{"plateau": {"patience": 7}}"#), ScheduleConfig::Plateau(plateau));
        assert_eq!(read(&serde_json::to_string(&steps).unwrap()), steps);
    }
}
