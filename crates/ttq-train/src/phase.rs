//! Training in phases: first in full precision, then with ternary weights.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

use burn::data::dataloader::DataLoader;
use burn::lr_scheduler::LrScheduler;
use burn::module::{AutodiffModule, Module, ModuleDisplay};
use burn::optim::Optimizer;
use burn::record::FullPrecisionSettings;
use burn::tensor::backend::AutodiffBackend;
use burn::train::{
    ExecutionStrategy, InferenceStep, Interrupter, ItemLazy, Learner, LearningComponentsMarker, SupervisedTraining,
    TrainStep, TrainingStrategy,
};

use ttq_core::Ternary;

use crate::averaging::first_in_16_bits;
use crate::checkpoint::{complete_checkpoints, delete_after};
use crate::devices::{devices, is_distributed, steps_per_epoch};
use crate::divergence::{Divergence, EndOfEpoch, Watch, WatchLogger};
use crate::phase_directory::{
    PhaseFile, broadcast_checkpoint, create_files, load_checkpoint, load_model, require_finite, require_readable,
};
use crate::progress::print_line;
use crate::rank_strategy::RankStrategy;
use crate::rank_tensors::from_bytes;
use crate::{
    Accumulated, AtomicRecorder, EarlyStoppingConfig, EpochLines, EpochMetrics, FlipRatioMetric, FrozenMetric, History,
    KeepLastAndBest, KeptEpoch, LayersMetric, MetricGoal, NegativeScaleMetric, NotFinite, OscillatingMetric, Phase,
    PhaseConfig, PhaseError, PositiveScaleMetric, ProgressLines, Ranks, ReproducibleLoader, Schedule, SparsityMetric,
    TernaryStep, TrainingLength, latest_checkpoint,
};

/// burn-train's builder for a [`TernaryStep`] around the model `M`.
pub type TernaryTraining<B, M, O> =
    SupervisedTraining<LearningComponentsMarker<B, Schedule, TernaryStep<B, M>, Accumulated<O>>>;

/// Returns the loader whose first epoch is the argument.
type LoaderFrom<B, I> = Box<dyn FnOnce(usize) -> Arc<dyn DataLoader<B, I>>>;

/// The data of a phase for the model `M`.
pub struct PhaseData<B: AutodiffBackend, M: TrainStep + AutodiffModule<B>>
where
    M::InnerModule: InferenceStep,
{
    train: LoaderFrom<B, M::Input>,
    valid: LoaderFrom<B::InnerBackend, <M::InnerModule as InferenceStep>::Input>,
    /// The numbers of items of an epoch's training batches.
    batch_sizes: Vec<usize>,
    /// The number of validation items.
    valid_items: usize,
}

impl<B, M> PhaseData<B, M>
where
    B: AutodiffBackend,
    M: TrainStep + AutodiffModule<B>,
    M::InnerModule: InferenceStep,
{
    /// Creates the data of a phase: a loader of training batches on the autodiff backend, and one of validation batches
    /// on the inner backend. Their batch sizes may differ.
    pub fn new<I: 'static, J: 'static>(
        train: ReproducibleLoader<B, I, M::Input>,
        valid: ReproducibleLoader<B::InnerBackend, J, <M::InnerModule as InferenceStep>::Input>,
    ) -> Self
    where
        M::Input: Send + 'static,
        <M::InnerModule as InferenceStep>::Input: Send + 'static,
    {
        let (batch_sizes, valid_items) = (train.batch_sizes(), valid.num_items());
        let train: LoaderFrom<_, _> = Box::new(|epoch| Arc::new(train.first_epoch(epoch).seeding_backend()));
        Self { train, valid: Box::new(|epoch| Arc::new(valid.first_epoch(epoch))), batch_sizes, valid_items }
    }

    fn batches_per_epoch(&self) -> usize {
        self.batch_sizes.len()
    }
}

/// The result of a [`PhaseTraining`].
#[derive(Debug)]
#[non_exhaustive]
pub enum PhaseOutcome<M> {
    /// All epochs are trained, or early stopping ended the training.
    Completed {
        /// The model of the [kept epoch](PhaseConfig::kept_epoch), in the phase that was trained: its average if the phase
        /// [averages](PhaseConfig::averaging).
        model: M,
        /// That epoch, from 1.
        epoch: usize,
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

/// Whether all epochs are trained, the epoch to continue after, the metrics until then.
type Begin = (bool, Option<usize>, Vec<EpochMetrics>);

/// The recorder of checkpoints.
pub(crate) type Checkpoints = AtomicRecorder<FullPrecisionSettings>;

/// One phase of training with burn-train. It combines checkpoints, resume, schedule, history, early stopping, metrics
/// of the ternary weights and progress lines.
///
/// A run of the same phase in the same directory continues after its newest checkpoint. On a CPU the result equals that
/// of an uninterrupted run bit for bit, provided that items depend on their [`ItemKey`](crate::ItemKey) alone. What the
/// model draws from the generator of its backend, such as dropout, repeats too on one device: every epoch seeds the generator.
///
/// TTQ trains in two phases (paper, section 4): in full precision, then with ternary weights. The second phase starts
/// from the model of the first one and fits the scales to its weights:
///
/// ```ignore
/// let first = PhaseTraining::new("run/full-precision", config.clone(), execution);
/// let step = TernaryStep::new(Ternary::new(model, &ternary)?);
/// let PhaseOutcome::Completed { model, .. } = first.run(step, optimizer(), data, metrics)? else { return Ok(()) };
/// let second = PhaseTraining::new("run/ternary", PhaseConfig { phase: Phase::Ternary, ..config }, execution);
/// second.run(model, optimizer(), data, metrics)?
/// ```
pub struct PhaseTraining<B: AutodiffBackend> {
    directory: PathBuf,
    config: PhaseConfig,
    execution: ExecutionStrategy<B>,
    interrupter: Interrupter,
    lines: bool,
    ranks: Ranks,
}

impl<B: AutodiffBackend> PhaseTraining<B> {
    /// Creates the training of a phase that logs and saves to `directory` and computes on the devices of `execution`.
    pub fn new(directory: impl Into<PathBuf>, config: PhaseConfig, execution: ExecutionStrategy<B>) -> Self {
        Self {
            directory: directory.into(),
            config,
            execution,
            interrupter: Interrupter::new(),
            lines: true,
            ranks: Ranks::default(),
        }
    }

    /// Stops when `interrupter` is stopped. Stop it with a reason, and use a new one for each run: its reason is not
    /// cleared. Workers of Burn's distributed strategy do not agree on the batch after which they stop: the run can end with
    /// a panic, and continues after its last epoch.
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

    /// Trains together with other processes, of which each is given the same data and configuration and one device.
    ///
    /// - The parameters are those of process 0. Their equality in all processes is checked by checksums before the first
    ///   step and after every epoch.
    /// - Each batch is shared out, and the gradients of the shares are summed before every update, weighted by the items of
    ///   each: the update is that of the whole batch, whatever the number of processes, if the loss is a mean over items.
    /// - Batch normalization uses the statistics of a share. Its running statistics are averaged at the end of each epoch.
    /// - Validation is shared out; metrics are means over all processes, weighted by what each counts: items, but batches in
    ///   Burn's `LossMetric`.
    /// - Process 0 alone writes the directory and reads checkpoints. An interrupter of any process stops all after the same batch.
    /// - A run can continue with another number of processes.
    #[must_use]
    pub fn with_ranks(mut self, ranks: Ranks) -> Self {
        self.ranks = ranks;
        self
    }

    /// Returns the epoch of the newest checkpoint in a phase's directory, after which [`run`](Self::run) continues.
    pub fn resumes_after(&self) -> Option<usize> {
        latest_checkpoint(&self.directory)
    }

    /// Trains, from the newest checkpoint in the directory if there is one.
    ///
    /// `metrics` registers the metrics of the model's own output, the one of [`PhaseConfig::goal`] among them; those of
    /// the ternary weights are added in [`Phase::Ternary`] unless the configuration leaves them out. The phase and the gradient factor of `step` and the first
    /// epoch of the loaders are set from the configuration, the devices and the checkpoint.
    ///
    /// A damaged checkpoint is replaced by the one before it, if there is one; a line says so.
    ///
    /// A run can continue with more epochs, unless a cosine schedule, a schedule of the threshold or the freezing of
    /// oscillations spans them: what is trained followed the shorter course.
    ///
    /// # Errors
    /// [`PhaseError`] if there is no data, the schedule is invalid, a weight is not finite, the training diverges, no
    /// epoch has the metric of the goal, a file cannot be written, the history or all checkpoints cannot be read, or
    /// they are those of another phase, number of epochs, selection, quantizer or shape of a parameter.
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
        let ranks = self.ranks.clone();
        ranks.agree(self.check(&step, &data))?;
        let mut step = self.with_threshold(step, data.batches_per_epoch(), 0)?.with_phase(self.config.phase);
        if self.config.threshold_schedule.is_some() && self.config.phase == Phase::Ternary {
            // The scales were those of another threshold.
            step = step.map_ternary(Ternary::refit);
        }
        let (directory, goal) = (self.directory.clone(), self.goal(data.batches_per_epoch())?);
        let (interrupter, kept_epoch) = (self.interrupter.clone(), self.config.kept_epoch);
        let device = self.execution.main_device().clone();
        let batches = data.batches_per_epoch();
        let (is_over, checkpoint, epochs) = ranks.of_first(|| self.begin(&step, &optimizer, &device, batches))?;
        let history = History::over(&ranks, &directory, epochs);
        let met = |config: EarlyStoppingConfig| config.init(history.clone(), goal.clone()).is_met();
        if !is_over && !self.config.early_stopping.is_some_and(met) {
            if let Some(epoch) = checkpoint.filter(|_| ranks.is_first()) {
                print_line(&format!("{}: continues after epoch {epoch}", self.config.phase));
            }
            self.launch(step.clone(), optimizer, data, metrics, checkpoint, &history)?;
            let metrics = history.valid_metrics();
            if !metrics.is_empty() && !metrics.iter().any(|name| name == goal.metric()) {
                return Err(PhaseError::NoMetric { directory, metric: goal.metric().into(), found: metrics });
            }
            // Burn's dashboard resets the state of the interrupter at the end, but not its message.
            let unnamed = || interrupter.should_stop().then(|| "interrupted, without a reason".to_owned());
            if let Some(reason) = ranks.first_reason(interrupter.get_message().or_else(unnamed)) {
                let saved_epochs = ranks.of_first(|| Ok(latest_checkpoint(&directory).unwrap_or(0)))?;
                return Ok(PhaseOutcome::Stopped { saved_epochs, reason });
            }
        }
        let saved = ranks.of_first(|| Ok(complete_checkpoints(&directory)))?;
        let kept = match kept_epoch {
            KeptEpoch::Best => history.best_epoch_of(&goal, &saved),
            KeptEpoch::Last => history.epochs().last().map(|last| last.epoch),
        };
        let epoch = kept.ok_or_else(|| PhaseError::NoMetric {
            directory: directory.clone(),
            metric: goal.metric().into(),
            found: history.valid_metrics(),
        })?;
        let step = step.with_final_threshold()?;
        let load = |step| {
            let model = load_model(step, &directory, epoch, &device)?;
            require_finite(&model, NotFinite::Epoch(epoch)).map(|()| model)
        };
        let model = ranks.agree(if ranks.is_first() { load(step) } else { Ok(step) })?;
        let metrics = history.epoch(epoch).unwrap_or_default();
        Ok(PhaseOutcome::Completed { model: ranks.broadcast(model, &device), epoch, metrics })
    }

    /// Returns whether the directory has all epochs, the epoch after which the training continues, and the metrics until
    /// then. Deletes what comes after it, and creates the files that burn-train expects.
    fn begin<M, O>(
        &self,
        step: &TernaryStep<B, M>,
        optimizer: &O,
        device: &B::Device,
        batches: usize,
    ) -> Result<Begin, PhaseError>
    where
        M: TrainStep + AutodiffModule<B> + ModuleDisplay + 'static,
        M::InnerModule: InferenceStep + ModuleDisplay,
        O: Optimizer<TernaryStep<B, M>, B> + 'static,
    {
        let newest = self.resumes_after();
        if let Some(newest) = newest {
            PhaseFile::check(&self.directory, &self.config, newest)?;
        }
        let is_over = newest.is_some_and(|epoch| epoch >= self.config.epochs);
        let checkpoint = if is_over { newest } else { self.readable_checkpoint(step, optimizer, device, batches)? };
        let epochs = match checkpoint {
            Some(epoch) => History::resume(&self.directory, epoch)?.epochs(),
            None => Vec::new(),
        };
        delete_after(&self.directory, checkpoint.unwrap_or(0));
        if !is_over {
            create_files(&self.directory, &self.config)?;
        }
        Ok((is_over, checkpoint, epochs))
    }

    /// Checks the model, the data and the configuration. It writes nothing. [`run`](Self::run) begins with it.
    ///
    /// # Errors
    /// [`PhaseError`] if a weight of a model that does not resume is not finite, there is no data, a batch has fewer items
    /// than there are devices, more batches are accumulated than an epoch has, or a number of the configuration is invalid.
    pub fn check<M>(&self, step: &TernaryStep<B, M>, data: &PhaseData<B, M>) -> Result<(), PhaseError>
    where
        M: TrainStep + AutodiffModule<B>,
        M::InnerModule: InferenceStep,
    {
        if self.resumes_after().is_none() {
            require_finite(step, NotFinite::Start)?;
        }
        let (train, valid) = (data.batches_per_epoch(), data.valid_items);
        if train == 0 || valid == 0 {
            return Err(PhaseError::NoData { train, valid });
        }
        let processes = self.ranks.size();
        if let Some(items) =
            data.batch_sizes.iter().rev().skip(1).find(|items| processes > 1 && **items < 2 * processes)
        {
            return Err(PhaseError::BatchOverRanks { items: *items, processes });
        }
        let devices = devices(&self.execution);
        if processes > 1 && devices > 1 {
            return Err(PhaseError::DevicesOfRank { devices });
        }
        // The gradient of a device without a part of a batch would be missing from the mean. A worker of the distributed
        // strategy would do fewer steps than the others, which then wait for it.
        if let Some(items) = data.batch_sizes.iter().find(|items| **items < devices) {
            return Err(PhaseError::BatchOverDevices { items: *items, devices });
        }
        let found = self.config.accumulated_batches;
        if !(1..=train).contains(&found) {
            return Err(PhaseError::AccumulatedBatches { found, batches: train });
        }
        self.config.check()?;
        if let Some(averaging) = self.config.averaging {
            averaging.check()?;
            if let Some(weight) = first_in_16_bits(step.ternary().latent()) {
                return Err(PhaseError::AverageIn16Bits { weight });
            }
        }
        if let Some(freezing) = self.config.oscillation_freezing {
            freezing.check()?;
        }
        if let Some((schedule, _)) = self.config.threshold_course(train)? {
            schedule.start.toward(step.ternary().config().quantizer.threshold, 0.0)?;
        }
        self.schedule(train, &History::new(&self.directory)).map(|_| ())
    }

    /// Returns the goal, which leaves out the epochs before the threshold's schedule ends.
    fn goal(&self, batches: usize) -> Result<MetricGoal, PhaseError> {
        let course = self.config.threshold_course(batches)?;
        let goal = self.config.goal.clone();
        Ok(course.map_or(goal.clone(), |(_, steps)| goal.from_epoch(steps.div_ceil(batches))))
    }

    /// Sets the threshold of a step that begins after `epochs` epochs.
    fn with_threshold<M: Module<B>>(
        &self,
        step: TernaryStep<B, M>,
        batches: usize,
        epochs: usize,
    ) -> Result<TernaryStep<B, M>, PhaseError> {
        Ok(match self.config.threshold_course(batches)? {
            Some((schedule, steps)) => step.with_threshold_schedule(schedule.start, steps, epochs * batches)?,
            None => step,
        })
    }

    fn schedule(&self, batches: usize, history: &History) -> Result<Schedule, PhaseError> {
        let config = &self.config;
        let length =
            TrainingLength { epochs: config.epochs, steps_per_epoch: steps_per_epoch(batches, &self.execution) };
        Ok(config.schedule.init_with_metric(config.learning_rate, length, history, &config.goal)?)
    }

    /// Returns the epoch of the newest checkpoint whose files can all be read.
    fn readable_checkpoint<M, O>(
        &self,
        step: &TernaryStep<B, M>,
        _: &O,
        device: &B::Device,
        batches: usize,
    ) -> Result<Option<usize>, PhaseError>
    where
        M: TrainStep + AutodiffModule<B> + ModuleDisplay + 'static,
        M::InnerModule: InferenceStep + ModuleDisplay,
        O: Optimizer<TernaryStep<B, M>, B> + 'static,
    {
        let directory = &self.directory;
        let read = |epoch| {
            require_readable(directory, epoch)?;
            let model = load_model(step.clone(), directory, epoch, device)?;
            load_checkpoint::<B, O::Record>(directory, "optim", epoch, device)?;
            let ((steps, _, _), _) =
                load_checkpoint::<B, <Schedule as LrScheduler>::Record<B>>(directory, "scheduler", epoch, device)?;
            if steps != epoch * steps_per_epoch(batches, &self.execution) {
                return Err(PhaseError::EpochLength { epoch, found: steps / epoch.max(1), batches });
            }
            require_finite(&model, NotFinite::Epoch(epoch))
        };
        let mut first_error = None;
        for epoch in complete_checkpoints(directory) {
            match read(epoch) {
                Ok(()) => {
                    match first_error {
                        Some(PhaseError::Checkpoint { path, reason }) => print_line(&format!(
                            "the checkpoint {} cannot be read ({reason}): that of epoch {epoch} is used",
                            path.display()
                        )),
                        Some(error) => print_line(&format!("{error}: epoch {epoch} is used")),
                        None => {}
                    }
                    return Ok(Some(epoch));
                }
                // The checkpoints are those of another training, or whole.
                Err(
                    error @ (PhaseError::Record { .. }
                    | PhaseError::ParameterShape { .. }
                    | PhaseError::EpochLength { .. }
                    | PhaseError::Unreadable { .. }),
                ) => return Err(error),
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        first_error.map_or(Ok(None), Err)
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
        let (batches, batch_sizes) = (data.batches_per_epoch(), data.batch_sizes);
        let (schedule, goal) = (self.schedule(batches, history)?, self.goal(batches)?);
        let step = self.with_threshold(step, batches, checkpoint.unwrap_or(0))?;
        let Self { directory, config, execution, interrupter, lines, ranks } = self;
        let device = execution.main_device().clone();
        let step = if checkpoint.is_none() { ranks.broadcast(step, &device) } else { step };
        let ternary_metrics = config.ternary_metrics && config.phase == Phase::Ternary;
        let distributed = is_distributed(&execution);
        let watch = Watch::new(history.clone(), (!distributed).then(|| interrupter.clone()), devices(&execution));
        let mut step = step
            .with_phase(config.phase)
            .with_flip_ratio(ternary_metrics)
            .with_gradient_factor(1.0 / (devices(&execution) * config.accumulated_batches) as f64)
            .with_watch(watch.clone());
        if let Some(averaging) = config.averaging {
            let updates = batches.div_ceil(config.accumulated_batches);
            step = step.with_averaging(averaging, checkpoint.unwrap_or(0) * updates);
        }
        let freezing = config.oscillation_freezing.filter(|_| config.phase == Phase::Ternary);
        if let Some(freezing) = freezing {
            let [steps, finished] = [config.epochs, checkpoint.unwrap_or(0)].map(|epochs| epochs * batches);
            step = step.with_oscillation_freezing(freezing, steps, finished);
        }
        let first_epoch = checkpoint.unwrap_or(0) + 1;
        let (mut train, mut valid) = ((data.train)(first_epoch), (data.valid)(first_epoch));
        if ranks.are_several() {
            let ((start, end), (first, last)) = (ranks.share(train.num_items()), ranks.share(valid.num_items()));
            (train, valid) = (train.slice(start, end), valid.slice(first, last));
        }
        let recorder = Checkpoints::default();
        let strategy = KeepLastAndBest::new(history.clone(), goal.clone())
            .with_interrupter(interrupter.clone())
            .with_watch(watch.clone());
        let mut training = metrics(SupervisedTraining::new(&directory, train, valid))
            .num_epochs(config.epochs)
            .with_interrupter(interrupter);
        if ranks.is_first() {
            training = training.with_file_checkpointer(recorder.clone()).with_checkpointing_strategy(strategy);
        } else {
            training = training.with_application_logger(None);
        }
        let failure = Arc::default();
        training = training.with_training_strategy(if ranks.are_several() {
            let (ranks, history, failure) = (ranks.clone(), history.clone(), Arc::clone(&failure));
            TrainingStrategy::Custom(Arc::new(RankStrategy {
                ranks,
                device: device.clone(),
                batch_sizes,
                history,
                failure,
            }))
        } else {
            TrainingStrategy::Default(execution)
        });
        if ternary_metrics {
            training = training
                .metric_train_numeric(SparsityMetric::new())
                .metric_train_numeric(PositiveScaleMetric::new())
                .metric_train_numeric(NegativeScaleMetric::new())
                .metric_train_numeric(FlipRatioMetric::new())
                .metric_train(LayersMetric::new());
        }
        if freezing.is_some() {
            training =
                training.metric_train_numeric(OscillatingMetric::new()).metric_train_numeric(FrozenMetric::new());
        }
        let early_stopping = config.early_stopping.map(|rule| rule.init(history.clone(), goal.clone()));
        if distributed {
            let (watch, metric) = (watch.clone(), goal.metric().to_owned());
            training = training.early_stopping(EndOfEpoch { watch, metric, early_stopping });
        } else if let Some(early_stopping) = early_stopping {
            training = training.early_stopping(early_stopping);
        }
        if let Some(epoch) = checkpoint {
            training = training.checkpoint(epoch);
        }
        let label = config.phase.to_string();
        training = if !ranks.is_first() {
            let logger = WatchLogger { inner: history.clone(), watch: watch.clone() };
            training.with_metric_logger(logger).renderer(ProgressLines::silent())
        } else if lines {
            let inner = EpochLines::new(history.clone(), &label, config.epochs);
            training.with_metric_logger(WatchLogger { inner, watch: watch.clone() }).renderer(ProgressLines::new(label))
        } else {
            training.with_metric_logger(WatchLogger { inner: history.clone(), watch: watch.clone() })
        };
        let optimizer = Accumulated::new(optimizer, config.accumulated_batches, batches).with_ranks(ranks.clone());
        let mut learner = Learner::new(step, optimizer, schedule);
        if let Some(epoch) = checkpoint.filter(|_| ranks.are_several()) {
            let bytes = |part| broadcast_checkpoint(&ranks, &directory, part, epoch);
            let [model, optimizer, schedule] = [bytes("model")?, bytes("optim")?, bytes("scheduler")?];
            learner.load_model(from_bytes::<B, _>(model, &device));
            learner.load_optim(from_bytes::<B, _>(optimizer, &device));
            learner.load_scheduler(from_bytes::<B, _>(schedule, &device));
        }
        drop(training.launch(learner));
        let failed = || {
            if let Some(error) = failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
                return Err(error.into());
            }
            if let Some(Divergence { epoch, batch, metric, weight }) = watch.found() {
                return Err(PhaseError::Diverged { epoch, batch, metric, weight });
            }
            match recorder.take_failure().or_else(|| history.take_failure()) {
                Some((path, source)) => Err(PhaseError::Write { path, source }),
                None => Ok(()),
            }
        };
        ranks.agree(failed())
    }
}
