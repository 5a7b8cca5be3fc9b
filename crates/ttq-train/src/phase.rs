//! Training in phases: first in full precision, then with ternary weights.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::config::Config;
use burn::data::dataloader::DataLoader;
use burn::module::{AutodiffModule, Module, ModuleDisplay};
use burn::optim::{LearningRate, Optimizer};
use burn::prelude::*;
use burn::record::{FullPrecisionSettings, NamedMpkFileRecorder, Recorder};
use burn::tensor::backend::AutodiffBackend;
use burn::train::{
    ExecutionStrategy, InferenceStep, Interrupter, ItemLazy, Learner, LearningComponentsMarker, SupervisedTraining,
    TrainStep, TrainingStrategy,
};
use serde::{Deserialize, Serialize};

use crate::{
    AtomicRecorder, EarlyStoppingConfig, EpochLines, EpochMetrics, FlipRatioMetric, History, HistoryError,
    KeepLastAndBest, LayersMetric, MetricGoal, NegativeScaleMetric, PositiveScaleMetric, ProgressLines,
    ReproducibleLoader, Schedule, ScheduleConfig, ScheduleError, SparsityMetric, TernaryStep, TrainingLength,
    latest_checkpoint,
};

/// The weights that a [`TernaryStep`] trains.
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

/// Configuration of a [`PhaseTraining`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
    /// Early stopping. None by default.
    #[serde(default)]
    pub early_stopping: Option<EarlyStoppingConfig>,
    /// Number of batches whose gradients make one update, from 1 to the batches of an epoch. burn-train discards the gradients
    /// of the batches left over at the end of an epoch. 1 by default.
    #[serde(default = "one")]
    pub accumulated_batches: usize,
}

fn one() -> usize {
    1
}

impl Config for PhaseConfig {}

impl PhaseConfig {
    /// Creates the configuration of a phase with a constant learning rate.
    pub fn new(phase: Phase, epochs: usize, learning_rate: LearningRate, goal: MetricGoal) -> Self {
        let (schedule, early_stopping) = (ScheduleConfig::Constant, None);
        Self { phase, epochs, learning_rate, schedule, goal, early_stopping, accumulated_batches: 1 }
    }

    /// Sets the course of the learning rate.
    #[must_use]
    pub fn with_schedule(mut self, schedule: ScheduleConfig) -> Self {
        self.schedule = schedule;
        self
    }

    /// Sets the early stopping.
    #[must_use]
    pub fn with_early_stopping(mut self, early_stopping: Option<EarlyStoppingConfig>) -> Self {
        self.early_stopping = early_stopping;
        self
    }

    /// Sets the number of batches whose gradients make one update.
    #[must_use]
    pub fn with_accumulated_batches(mut self, batches: usize) -> Self {
        self.accumulated_batches = batches;
        self
    }
}

/// burn-train's builder for a [`TernaryStep`] around the model `M`.
pub type TernaryTraining<B, M, O> = SupervisedTraining<LearningComponentsMarker<B, Schedule, TernaryStep<B, M>, O>>;

/// Returns the training loader whose first epoch is the argument.
type TrainLoaderFrom<B, I> = Box<dyn FnOnce(usize) -> Arc<dyn DataLoader<B, I>>>;

/// The data of a phase for the model `M`.
pub struct PhaseData<B: AutodiffBackend, M: TrainStep + AutodiffModule<B>>
where
    M::InnerModule: InferenceStep,
{
    train: TrainLoaderFrom<B, M::Input>,
    valid: Arc<dyn DataLoader<B::InnerBackend, <M::InnerModule as InferenceStep>::Input>>,
    batches_per_epoch: usize,
}

impl<B, M> PhaseData<B, M>
where
    B: AutodiffBackend,
    M: TrainStep + AutodiffModule<B>,
    M::InnerModule: InferenceStep,
{
    /// Creates the data of a phase: a loader of training batches on the autodiff backend, and one of validation batches on the
    /// inner backend. Their batch sizes may differ.
    pub fn new<I: 'static>(
        train: ReproducibleLoader<B, I, M::Input>,
        valid: impl DataLoader<B::InnerBackend, <M::InnerModule as InferenceStep>::Input> + 'static,
    ) -> Self
    where
        M::Input: Send + 'static,
    {
        let batches_per_epoch = train.batches_per_epoch();
        let train = Box::new(|first_epoch| Arc::new(train.first_epoch(first_epoch)) as Arc<dyn DataLoader<_, _>>);
        Self { train, valid: Arc::new(valid), batches_per_epoch }
    }
}

/// The result of a [`PhaseTraining`].
#[derive(Debug)]
#[non_exhaustive]
pub enum PhaseOutcome<M> {
    /// All epochs are trained, or early stopping ended the training.
    Completed {
        /// The model of the epoch with the best validation metric, in the phase that was trained.
        model: M,
        /// That epoch, from 1.
        best_epoch: usize,
        /// Its metrics.
        metrics: EpochMetrics,
    },
    /// The interrupter stopped the training. Run the phase again in the same directory to continue.
    Stopped {
        /// Number of epochs in the newest checkpoint.
        saved_epochs: usize,
        /// The reason that the interrupter was given.
        reason: String,
    },
}

/// An error of a [`PhaseTraining`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PhaseError {
    /// The history of the run to resume cannot be read.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// The schedule is invalid.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// A loader yields no batch.
    #[error(
        "there are {train} training batches and {valid} validation items: both need at least one, use more data or smaller batches"
    )]
    NoData {
        /// Training batches per epoch.
        train: usize,
        /// Validation items.
        valid: usize,
    },
    /// The number of accumulated batches does not fit an epoch.
    #[error("{found} batches cannot be accumulated: an epoch has {batches}, choose 1 to {batches}")]
    AccumulatedBatches {
        /// The number in the configuration.
        found: usize,
        /// Batches per epoch.
        batches: usize,
    },
    /// No epoch has the metric that chooses the best one.
    #[error(
        "no epoch in {} has a finite validation metric `{metric}`: register it in `metrics`, correct the name of the goal, or lower the \
         learning rate; the metrics are: {}", directory.display(), found.join(", ")
    )]
    NoMetric {
        /// Directory of the phase.
        directory: PathBuf,
        /// Name of the metric.
        metric: String,
        /// Names of the metrics that are logged.
        found: Vec<String>,
    },
    /// A checkpoint cannot be read.
    #[error("cannot read the checkpoint {}: {reason}; restore the file or start a new run", path.display())]
    Checkpoint {
        /// Path of the file without its extension.
        path: PathBuf,
        /// Burn's message.
        reason: String,
    },
}

/// The recorder of checkpoints.
type Checkpoints = AtomicRecorder<NamedMpkFileRecorder<FullPrecisionSettings>>;

/// One phase of training with burn-train. It combines checkpoints, resume, schedule, history, early stopping, metrics of the
/// ternary weights and progress lines.
///
/// A run of the same phase in the same directory continues after its newest checkpoint. On a CPU the result equals that of an
/// uninterrupted run bit for bit, provided that items depend on their [`ItemKey`](crate::ItemKey) alone.
///
/// TTQ trains in two phases (paper, section 4): in full precision, then, wrapped anew so that the scales start from the
/// trained weights, with ternary ones:
///
/// ```ignore
/// let first = PhaseTraining::new("run/full-precision", config.clone(), execution);
/// let step = TernaryStep::new(Ternary::new(model, &ternary)?);
/// let PhaseOutcome::Completed { model, .. } = first.run(step, optimizer(), data, metrics)? else { return Ok(()) };
/// let step = TernaryStep::new(Ternary::new(model.into_ternary().into_latent(), &ternary)?);
/// // … and a second `PhaseTraining` with `Phase::Ternary`.
/// ```
pub struct PhaseTraining<B: AutodiffBackend> {
    directory: PathBuf,
    config: PhaseConfig,
    execution: ExecutionStrategy<B>,
    interrupter: Interrupter,
    lines: bool,
}

impl<B: AutodiffBackend> PhaseTraining<B> {
    /// Creates the training of a phase that logs and saves to `directory` and computes on the devices of `execution`.
    pub fn new(directory: impl Into<PathBuf>, config: PhaseConfig, execution: ExecutionStrategy<B>) -> Self {
        Self { directory: directory.into(), config, execution, interrupter: Interrupter::new(), lines: true }
    }

    /// Stops when `interrupter` is stopped. Stop it with a reason, and use a new one for each run: its reason is not cleared.
    #[must_use]
    pub fn with_interrupter(mut self, interrupter: Interrupter) -> Self {
        self.interrupter = interrupter;
        self
    }

    /// Shows burn-train's own renderer (the dashboard, with Burn's feature `tui`) instead of plain lines.
    #[must_use]
    pub fn with_dashboard(mut self) -> Self {
        self.lines = false;
        self
    }

    /// Returns the epoch of the newest checkpoint in a phase's directory, after which [`run`](Self::run) continues.
    pub fn resumes_after(&self) -> Option<usize> {
        latest_checkpoint(&self.directory)
    }

    /// Trains, from the newest checkpoint in the directory if there is one.
    ///
    /// `metrics` registers the metrics of the model's own output, the one of [`PhaseConfig::goal`] among them; those of the
    /// ternary weights are added in [`Phase::Ternary`]. The phase and the gradient factor of `step` and the first epoch of the
    /// training loader are set from the configuration, the devices and the checkpoint.
    ///
    /// # Errors
    /// [`PhaseError`] if there is no data, the schedule is invalid, no epoch has the metric of the goal, or the history or a
    /// checkpoint cannot be read.
    pub fn run<M, O>(
        self,
        step: TernaryStep<B, M>,
        optimizer: O,
        data: PhaseData<B, M>,
        metrics: impl FnOnce(TernaryTraining<B, M, O>) -> TernaryTraining<B, M, O>,
    ) -> Result<PhaseOutcome<TernaryStep<B, M>>, PhaseError>
    where
        M: TrainStep + AutodiffModule<B> + ModuleDisplay + 'static,
        M::Output: ItemLazy + 'static,
        M::InnerModule: InferenceStep + ModuleDisplay,
        O: Optimizer<TernaryStep<B, M>, B> + 'static,
    {
        let step = step.with_phase(self.config.phase);
        let (directory, goal) = (self.directory.clone(), self.config.goal.clone());
        let (interrupter, device) = (self.interrupter.clone(), self.execution.main_device().clone());
        let checkpoint = self.resumes_after();
        let history = match checkpoint {
            Some(epoch) => History::resume(&directory, epoch)?,
            None => History::new(&directory),
        };
        let met = |config: EarlyStoppingConfig| config.init(history.clone(), goal.clone()).is_met();
        let is_over = checkpoint.is_some_and(|epoch| epoch >= self.config.epochs);
        if !is_over && !self.config.early_stopping.is_some_and(met) {
            self.launch(step.clone(), optimizer, data, metrics, checkpoint, &history)?;
            let metrics = history.valid_metrics();
            if !metrics.is_empty() && !metrics.iter().any(|name| name == goal.metric()) {
                return Err(PhaseError::NoMetric { directory, metric: goal.metric().into(), found: metrics });
            }
            // Burn's dashboard resets the state of the interrupter at the end, but not its message.
            let unnamed = || interrupter.should_stop().then(|| "interrupted, without a reason".to_owned());
            if let Some(reason) = interrupter.get_message().or_else(unnamed) {
                return Ok(PhaseOutcome::Stopped { saved_epochs: latest_checkpoint(&directory).unwrap_or(0), reason });
            }
        }
        let best_epoch = history.best_epoch(&goal).ok_or_else(|| PhaseError::NoMetric {
            directory: directory.clone(),
            metric: goal.metric().into(),
            found: history.valid_metrics(),
        })?;
        let model = step.load_record(load_checkpoint::<B, _>(&directory, best_epoch, &device)?);
        let metrics = history.epoch(best_epoch).unwrap_or_default();
        Ok(PhaseOutcome::Completed { model, best_epoch, metrics })
    }

    fn launch<M, O>(
        self,
        step: TernaryStep<B, M>,
        optimizer: O,
        data: PhaseData<B, M>,
        metrics: impl FnOnce(TernaryTraining<B, M, O>) -> TernaryTraining<B, M, O>,
        checkpoint: Option<usize>,
        history: &History,
    ) -> Result<(), PhaseError>
    where
        M: TrainStep + AutodiffModule<B> + ModuleDisplay + 'static,
        M::Output: ItemLazy + 'static,
        M::InnerModule: InferenceStep + ModuleDisplay,
        O: Optimizer<TernaryStep<B, M>, B> + 'static,
    {
        let Self { directory, config, execution, interrupter, lines } = self;
        let (train, valid) = (data.batches_per_epoch, data.valid.num_items());
        if train == 0 || valid == 0 {
            return Err(PhaseError::NoData { train, valid });
        }
        if !(1..=train).contains(&config.accumulated_batches) {
            return Err(PhaseError::AccumulatedBatches { found: config.accumulated_batches, batches: train });
        }
        let length = TrainingLength {
            epochs: config.epochs,
            steps_per_epoch: steps_per_epoch(data.batches_per_epoch, &execution),
        };
        let schedule = config.schedule.init_with_metric(config.learning_rate, length, history, &config.goal)?;
        let step = step
            .with_phase(config.phase)
            .with_gradient_factor(1.0 / (devices(&execution) * config.accumulated_batches) as f64);
        let strategy = KeepLastAndBest::new(history.clone(), config.goal.clone()).with_interrupter(interrupter.clone());
        let mut training =
            metrics(SupervisedTraining::new(&directory, (data.train)(checkpoint.unwrap_or(0) + 1), data.valid))
                .num_epochs(config.epochs)
                .with_interrupter(interrupter)
                .with_file_checkpointer(Checkpoints::default())
                .with_checkpointing_strategy(strategy)
                .with_training_strategy(TrainingStrategy::Default(execution));
        if config.phase == Phase::Ternary {
            training = training
                .metric_train_numeric(SparsityMetric::new())
                .metric_train_numeric(PositiveScaleMetric::new())
                .metric_train_numeric(NegativeScaleMetric::new())
                .metric_train_numeric(FlipRatioMetric::new())
                .metric_train(LayersMetric::new());
        }
        if let Some(early_stopping) = config.early_stopping {
            training = training.early_stopping(early_stopping.init(history.clone(), config.goal));
        }
        if let Some(epoch) = checkpoint {
            training = training.checkpoint(epoch);
        }
        if config.accumulated_batches > 1 {
            training = training.grads_accumulation(config.accumulated_batches);
        }
        let label = config.phase.to_string();
        training = if lines {
            training
                .with_metric_logger(EpochLines::new(history.clone(), &label, config.epochs))
                .renderer(ProgressLines::new(label))
        } else {
            training.with_metric_logger(history.clone())
        };
        drop(training.launch(Learner::new(step, optimizer, schedule)));
        Ok(())
    }
}

fn load_checkpoint<B: AutodiffBackend, R: burn::record::Record<B>>(
    directory: &Path,
    epoch: usize,
    device: &B::Device,
) -> Result<R, PhaseError> {
    let path = directory.join("checkpoint").join(format!("model-{epoch}"));
    Recorder::<B>::load(&Checkpoints::default(), path.clone(), device)
        .map_err(|error| PhaseError::Checkpoint { path, reason: error.to_string() })
}

/// Returns the number of times that burn-train asks a schedule for a rate in an epoch of `batches` batches: once per batch,
/// except under Burn's distributed strategy, where each device counts the steps of all devices.
pub fn steps_per_epoch<B: Backend>(batches: usize, execution: &ExecutionStrategy<B>) -> usize {
    match execution {
        #[cfg(feature = "distributed")]
        ExecutionStrategy::DistributedDataParallel { devices, .. } => batches * devices.len(),
        _ => batches,
    }
}

fn devices<B: Backend>(execution: &ExecutionStrategy<B>) -> usize {
    match execution {
        ExecutionStrategy::MultiDevice(devices, _) => devices.len(),
        #[cfg(feature = "distributed")]
        ExecutionStrategy::DistributedDataParallel { devices, .. } => devices.len(),
        _ => 1,
    }
}
