//! Learning-rate schedules that count in epochs and survive a resume.

use burn::lr_scheduler::LrScheduler;
use burn::lr_scheduler::cosine::{CosineAnnealingLrScheduler, CosineAnnealingLrSchedulerConfig};
use burn::lr_scheduler::linear::{LinearLrScheduler, LinearLrSchedulerConfig};
use burn::optim::LearningRate;
use burn::prelude::*;
use serde::{Deserialize, Serialize};

use crate::History;

/// How the learning rate goes, for all optimizer groups alike.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScheduleConfig {
    /// The base rate throughout.
    #[default]
    Constant,
    /// The base rate times `gamma` to the number of milestones that lie behind: after `m` epochs have been trained, the
    /// milestone `m` does.
    MultiStep {
        /// Numbers of epochs.
        milestones: Vec<usize>,
        /// Factor at each.
        gamma: f64,
    },
    /// From a tenth of the base rate up to it over the warm-up, then along a cosine down to `min_factor` times it.
    WarmupCosine {
        /// Epochs of warm-up.
        warmup_epochs: usize,
        /// Where the cosine ends, as a factor of the base rate.
        min_factor: f64,
    },
    /// Down when validation accuracy rests.
    Plateau(PlateauConfig),
}

/// PyTorch's `ReduceLROnPlateau(mode="max", threshold_mode="abs")`, with the port's numbers.
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
    #[error("the learning rate {0} is out of range: take one above 0 and at most 1")]
    LearningRate(f64),
    /// The length.
    #[error("a schedule needs at least one step in an epoch, found {0}: take more data or smaller batches")]
    StepsPerEpoch(usize),
    /// A factor.
    #[error("the schedule's {name} {value} is out of range: take one from 0 to 1")]
    Factor {
        /// Which.
        name: &'static str,
        /// Its value.
        value: f64,
    },
    /// What Burn's own schedule refused.
    #[error("the learning-rate schedule cannot be made: {0}")]
    Burn(String),
}

impl ScheduleConfig {
    /// The schedule for a training of `epochs` epochs of `steps_per_epoch` iterations. A plateau reads the validation
    /// metric `metric`, in percent, from `history`.
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
            return Err(ScheduleError::LearningRate(base));
        }
        if steps_per_epoch == 0 {
            return Err(ScheduleError::StepsPerEpoch(0));
        }
        let factor = |name, value: f64| {
            if (0.0..=1.0).contains(&value) { Ok(value) } else { Err(ScheduleError::Factor { name, value }) }
        };
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
                    warmup: warmup.init().map_err(ScheduleError::Burn)?,
                    cosine: cosine.init().map_err(ScheduleError::Burn)?,
                }
            }
            Self::Plateau(config) => {
                factor("factor", config.factor)?;
                Kind::Plateau { config: *config, history: history.clone(), metric: metric.into() }
            }
        };
        Ok(Schedule { kind, base, steps_per_epoch, step: 0, plateau: Plateau::default() })
    }
}

/// A learning-rate schedule for burn-train. Its state, saved in every checkpoint, is the number of steps taken and what the
/// plateau has seen.
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

impl Plateau {
    /// One validation accuracy, a fraction of 1.
    fn observe(&mut self, accuracy: f64, config: &PlateauConfig) {
        if self.best.is_none_or(|best| accuracy > best + config.threshold) {
            self.best = Some(accuracy);
            self.bad_epochs = 0;
        } else {
            self.bad_epochs += 1;
        }
        if self.bad_epochs > config.patience {
            self.reductions += 1;
            self.bad_epochs = 0;
        }
    }

    fn rate(&self, base: LearningRate, config: &PlateauConfig) -> LearningRate {
        (base * config.factor.powi(self.reductions as i32)).max(config.min_lr)
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
                        Some(percent) => self.plateau.observe(percent / 100.0, config),
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

    fn build(config: &ScheduleConfig, steps: usize, epochs: usize, accuracies: &[f64]) -> Schedule {
        let directory = tempfile::tempdir().unwrap();
        let history = with_accuracies(directory.path(), accuracies);
        config.build(0.1, steps, epochs, &history, "Accuracy").unwrap()
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
        assert_close(&epochs(build(&config, 5, 5, &[]), 5, 5), &[0.1, 0.1, 0.01, 0.001, 0.001]);
    }

    #[test]
    fn warm_up_rises_to_the_base_and_the_cosine_falls_from_it() {
        let config = ScheduleConfig::WarmupCosine { warmup_epochs: 1, min_factor: 0.0 };
        let mut schedule = build(&config, 10, 3, &[]);
        let rates: Vec<f64> = (0..30).map(|_| schedule.step()).collect();
        assert!(rates[..11].windows(2).all(|pair| pair[0] < pair[1]));
        assert_close(&[rates[0], rates[10]], &[0.01, 0.1]);
        assert!(rates[10..].windows(2).all(|pair| pair[0] > pair[1]) && rates[29] < 0.001);
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
                lr = f64::max(lr * config.factor, config.min_lr);
                bad = 0;
            }
            rates.push(lr);
        }
        rates
    }

    #[test]
    fn a_plateau_lowers_the_rate_as_pytorch_does() {
        let percents = [50.0, 60.0, 60.5, 61.5, 61.9, 62.0, 62.1, 62.2, 70.0, 70.0, 70.0, 70.0, 70.9, 71.5];
        let fractions = percents.map(|percent| percent / 100.0);
        for patience in [0, 1, 2, 4] {
            let config = PlateauConfig { patience, min_lr: 1e-4, ..PlateauConfig::default() };
            let schedule = build(&ScheduleConfig::Plateau(config), 3, 20, &percents);
            assert_close(&epochs(schedule, 3, 15), &pytorch(&config, &fractions));
        }
    }

    #[test]
    fn a_saved_schedule_goes_on_where_it_was() {
        let plateau = PlateauConfig { patience: 1, ..PlateauConfig::default() };
        for config in [
            ScheduleConfig::Constant,
            ScheduleConfig::MultiStep { milestones: vec![1, 3], gamma: 0.5 },
            ScheduleConfig::WarmupCosine { warmup_epochs: 2, min_factor: 0.01 },
            ScheduleConfig::Plateau(plateau),
        ] {
            for stop in [0, 5, 12, 20] {
                let mut whole = build(&config, 6, 5, &[50.0, 50.1, 50.2, 50.3]);
                let resumed = whole.clone();
                for _ in 0..stop {
                    whole.step();
                }
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
        assert_eq!(build(ScheduleConfig::Constant, -0.1, 5), Some(ScheduleError::LearningRate(-0.1)));
        assert_eq!(build(ScheduleConfig::Constant, 0.1, 0), Some(ScheduleError::StepsPerEpoch(0)));
        let config = ScheduleConfig::MultiStep { milestones: vec![], gamma: 2.0 };
        assert_eq!(build(config, 0.1, 5), Some(ScheduleError::Factor { name: "gamma", value: 2.0 }));
    }
}
