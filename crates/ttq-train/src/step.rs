//! The learner step that burn-train calls for each batch.

use std::any::Any;
use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};

use burn::module::{AutodiffModule, ModuleDisplay, ModuleVisitor, Param};
use burn::optim::{GradientsParams, LearningRate, MultiGradientsParams, Optimizer};
use burn::prelude::*;
use burn::tensor::backend::AutodiffBackend;
use burn::train::{InferenceStep, TrainOutput, TrainStep};
use ttq_core::{ConfigError, RecordError, Ternary, TernarySnapshot, Threshold};

use crate::averaging::with_values_of;
use crate::divergence::{Parameters, Watch, first_not_finite};
use crate::oscillation::FreezingCourse;
use crate::threshold_schedule::ThresholdCourse;
use crate::training_state::TrainingState;
use crate::{Averaging, OscillationFreezing, Oscillations, Phase, TernaryOutput};

/// A model for burn-train that trains with ternary weights.
///
/// The wrapped model keeps its own [`TrainStep`] and [`InferenceStep`]. In each training step:
///
/// 1. the model's step runs on a view whose selected weights are ternary;
/// 2. the gradients of the ternary weights are turned into those of the latent weights and the scales in closed form
///    ([`LeafView::pull_back`](ttq_core::LeafView::pull_back));
/// 3. the model's own [`TrainStep::optimize`] updates the parameters, and scales below their floor are set to it,
///    whatever the optimizer is.
///
/// This is `optimization_step` of the PyTorch port of TTQ.
///
/// ```ignore
/// // before
/// Learner::new(model, SgdConfig::new().init(), schedule)
/// // after
/// let ternary = Ternary::new(model, &TernaryConfig::default())?;
/// Learner::new(TernaryStep::new(ternary), TernaryOptimizer::uniform(SgdConfig::new().init()), schedule)
/// ```
#[derive(Module, Debug)]
pub struct TernaryStep<B: Backend, M: Module<B>> {
    ternary: Ternary<B, M>,
    /// Flip ratio of the last update, `[1]`. A constant that is saved in checkpoints.
    flip_ratio: Param<Tensor<B, 1>>,
    /// The averaged network, which shares nothing with the one that trains.
    average: TrainingState<Ternary<B, M>>,
    oscillations: TrainingState<Oscillations<B>>,
    /// The number of finished updates is not saved.
    #[module(skip)]
    averaging: Option<(Averaging, usize)>,
    #[module(skip)]
    phase: Phase,
    #[module(skip)]
    gradient_factor: f64,
    #[module(skip)]
    watch: Option<Watch>,
    #[module(skip)]
    threshold: Option<ThresholdCourse>,
    #[module(skip)]
    freezing: Option<FreezingCourse>,
    #[module(skip)]
    computes_flip_ratio: bool,
    /// Whether the last `optimize` updated the parameters: its optimizer was called and did not only accumulate
    /// gradients.
    #[module(skip)]
    updated: bool,
    #[module(skip)]
    model_step: Option<ModelStep>,
}

impl<B: Backend, M: Module<B>> TernaryStep<B, M> {
    /// Creates the step, in [`Phase::Ternary`].
    pub fn new(ternary: Ternary<B, M>) -> Self {
        let device = ternary.latent().devices().into_iter().next().unwrap_or_default();
        let flip_ratio = Param::from_tensor(Tensor::zeros([1], &device)).set_require_grad(false);
        Self {
            ternary,
            flip_ratio,
            average: TrainingState(None),
            oscillations: TrainingState(None),
            averaging: None,
            phase: Phase::Ternary,
            gradient_factor: 1.0,
            watch: None,
            threshold: None,
            freezing: None,
            computes_flip_ratio: false,
            updated: true,
            model_step: None,
        }
    }

    /// Sets the phase. A change from full precision to ternary fits the scales to the weights ([`Ternary::refit`]),
    /// which were trained without them. An average and the count of oscillations start anew.
    #[must_use]
    pub fn with_phase(mut self, phase: Phase) -> Self {
        if (self.phase, phase) == (Phase::FullPrecision, Phase::Ternary) {
            self.ternary = self.ternary.refit();
            (self.average, self.oscillations) = (TrainingState(None), TrainingState(None));
        }
        self.phase = phase;
        self
    }

    /// Multiplies every gradient by `factor`. burn-train adds the gradients of all devices and of all accumulated
    /// batches: the factor `1 / (devices · accumulated batches)` turns the sum into the mean, the gradient of one large
    /// batch if its parts have equally many items.
    #[must_use]
    pub fn with_gradient_factor(mut self, factor: f64) -> Self {
        self.gradient_factor = factor;
        self
    }

    /// Runs `step` instead of the model's own [`TrainStep::step`], on the same (ternary) view of the model: a training
    /// with another loss, such as [`Distillation`](crate::Distillation). The function is no part of records.
    #[must_use]
    pub fn with_model_step(
        mut self,
        step: impl Fn(&M, M::Input) -> TrainOutput<M::Output> + Send + Sync + 'static,
    ) -> Self
    where
        M: TrainStep + 'static,
    {
        let step: StepFunction<M> = Box::new(step);
        self.model_step = Some(ModelStep(Arc::new(step)));
        self
    }

    /// Moves the threshold from `start` to that of the configuration along a half cosine over `steps` batches, of which
    /// `finished` are done ([`Threshold::toward`]). It changes with updates alone, not between accumulated batches.
    /// ([`PhaseTraining`](crate::PhaseTraining) sets it by [`ThresholdSchedule`](crate::ThresholdSchedule).)
    ///
    /// The number of batches is not part of a record: a training that resumes passes it.
    ///
    /// # Errors
    /// Returns [`ConfigError`] if the two thresholds have different rules or a number is out of range.
    pub fn with_threshold_schedule(
        mut self,
        start: Threshold,
        steps: usize,
        finished: usize,
    ) -> Result<Self, ConfigError> {
        self.threshold = Some(ThresholdCourse { start, steps, finished });
        self.with_scheduled_threshold()
    }

    /// Ends the schedule of the threshold: it is that of the configuration.
    pub(crate) fn with_final_threshold(mut self) -> Result<Self, ConfigError> {
        let end = self.ternary.config().quantizer.threshold;
        (self.threshold, self.ternary) = (None, self.ternary.with_threshold(end)?);
        Ok(self)
    }

    fn with_scheduled_threshold(mut self) -> Result<Self, ConfigError> {
        if let Some(course) = self.threshold {
            let end = self.ternary.config().quantizer.threshold;
            self.ternary = self.ternary.with_threshold(course.threshold(end)?)?;
        }
        Ok(self)
    }

    /// Shows the weights of every step to `watch`.
    pub(crate) fn with_watch(mut self, watch: Watch) -> Self {
        self.watch = Some(watch);
        self
    }

    /// Computes the flip ratio of each update, which [`FlipRatioMetric`](crate::FlipRatioMetric) shows. It costs the
    /// codes of all weights before and after the update. Off by default.
    #[must_use]
    pub fn with_flip_ratio(mut self, computed: bool) -> Self {
        self.computes_flip_ratio = computed;
        self
    }

    pub(crate) fn with_updated(mut self, updated: bool) -> Self {
        self.updated = updated;
        self
    }

    /// Returns the phase.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Returns the wrapped module with its scales.
    pub fn ternary(&self) -> &Ternary<B, M> {
        &self.ternary
    }

    /// Returns the averaged network ([`with_averaging`](Self::with_averaging)). It is the one that validates.
    pub fn average(&self) -> Option<&Ternary<B, M>> {
        self.average.0.as_ref()
    }

    /// Returns the wrapped module with its scales by value.
    pub fn into_ternary(self) -> Ternary<B, M> {
        self.ternary
    }

    /// Applies `map` to the wrapped module with its scales.
    #[must_use]
    pub fn map_ternary(mut self, map: impl FnOnce(Ternary<B, M>) -> Ternary<B, M>) -> Self {
        self.ternary = map(self.ternary);
        self
    }
}

type StepFunction<M> = Box<dyn Fn(&M, <M as TrainStep>::Input) -> TrainOutput<<M as TrainStep>::Output> + Send + Sync>;

/// A [`StepFunction`]. Its type is erased: the same field is in the step on the inner backend, whose model does not train.
#[derive(Clone)]
struct ModelStep(Arc<dyn Any + Send + Sync>);

impl fmt::Debug for ModelStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelStep").finish_non_exhaustive()
    }
}

impl<B: Backend, M: Module<B> + ModuleDisplay> TernaryStep<B, M> {
    /// Checks that a record has the selection and the quantizer of this step, so that `load_record` does not panic.
    pub(crate) fn check_record(&self, record: &<Self as Module<B>>::Record) -> Result<(), RecordError> {
        self.ternary.check_record(&record.ternary)
    }
}

impl<B, M> TernaryStep<B, M>
where
    B: AutodiffBackend,
    M: AutodiffModule<B> + ModuleDisplay,
    M::InnerModule: ModuleDisplay,
{
    /// Averages the parameters over updates, of which `updates` are done: validation uses the average.
    ///
    /// The average is part of records; the number of updates is not: a training that resumes passes it. Call it after
    /// [`with_phase`](Self::with_phase). A record without an average loads too: the average begins with the next update.
    #[must_use]
    pub fn with_averaging(mut self, averaging: Averaging, updates: usize) -> Self {
        self.averaging = Some((averaging, updates));
        self.with_average()
    }

    fn with_average(mut self) -> Self {
        self.average = TrainingState(Some(Ternary::from_inner(self.ternary.valid())));
        self
    }

    /// Freezes codes that oscillate, over `steps` batches, of which `finished` are done. Updates alone count, not accumulated
    /// batches.
    ///
    /// Frequencies and frozen codes are part of records; the number of batches is not: a training that resumes passes it. A
    /// record without them loads too: counting begins with the next update.
    #[must_use]
    pub fn with_oscillation_freezing(mut self, freezing: OscillationFreezing, steps: usize, finished: usize) -> Self {
        self.freezing = Some(FreezingCourse { freezing, steps, finished });
        self.oscillations = TrainingState(Some(Oscillations::new(&self.ternary)));
        self
    }

    /// Loads a record with an average or without one, as the network that validated: the average replaces the parameters.
    pub(crate) fn load_validated(self, record: <Self as Module<B>>::Record) -> Self {
        let step = if record.average.is_some() { self.with_average() } else { self };
        let mut step = step.load_record(record);
        if let Some(average) = step.average.0.take() {
            step.ternary = with_values_of(step.ternary, &average);
        }
        step
    }

    fn has_flip_ratio(&self) -> bool {
        self.phase == Phase::Ternary && self.computes_flip_ratio
    }

    fn before_update(&self) -> Option<TernarySnapshot<B::InnerBackend>> {
        self.has_flip_ratio().then(|| self.ternary.snapshot())
    }

    /// Clamps the scales, moves the threshold, freezes codes, averages and counts changed codes, if the parameters were
    /// updated.
    fn after_update(mut self, before: Option<TernarySnapshot<B::InnerBackend>>) -> Self {
        if let (Phase::Ternary, Some(course)) = (self.phase, &mut self.threshold) {
            course.finished += 1;
        }
        if let Some(course) = &mut self.freezing {
            course.finished += 1;
        }
        if !self.updated {
            return self;
        }
        // A `TernaryOptimizer` has clamped them; other optimizers know no scales.
        self.ternary = self.ternary.after_step();
        // `with_threshold_schedule` has checked both ends.
        self = self.with_scheduled_threshold().unwrap_or_else(|error| unreachable!("{error}"));
        if let (Phase::Ternary, Some(FreezingCourse { freezing, steps, finished })) = (self.phase, self.freezing) {
            let oscillations = self.oscillations.0.take().unwrap_or_else(|| Oscillations::new(&self.ternary));
            let progress = finished as f64 / steps.max(1) as f64;
            let (oscillations, ternary) = oscillations.freeze(self.ternary, freezing, progress);
            (self.oscillations, self.ternary) = (TrainingState(Some(oscillations)), ternary);
        }
        if let Some((averaging, updates)) = &mut self.averaging {
            *updates += 1;
            let average = match self.average.0.take() {
                Some(average) => averaging.update(average.valid(), &self.ternary, *updates),
                None => self.ternary.valid(),
            };
            let average = average.with_threshold(self.ternary.quantizer().config().threshold);
            let average = average.unwrap_or_else(|error| unreachable!("{error}"));
            self.average = TrainingState(Some(Ternary::from_inner(average)));
        }
        if let Some(before) = before {
            let ratio = self.ternary.snapshot().flip_ratio(&before);
            self.flip_ratio = self.flip_ratio.map(|old| Tensor::from_inner(ratio.to_device(&old.device())));
        }
        self
    }
}

impl<B, M> TrainStep for TernaryStep<B, M>
where
    B: AutodiffBackend,
    M: TrainStep + AutodiffModule<B> + ModuleDisplay + 'static,
    M::InnerModule: ModuleDisplay,
{
    type Input = M::Input;
    type Output = TernaryOutput<B::InnerBackend, M::Output>;

    fn step(&self, item: Self::Input) -> TrainOutput<Self::Output> {
        let replaced = self.model_step.as_ref().and_then(|step| step.0.downcast_ref::<StepFunction<M>>());
        let step = |model: &M, item| match replaced {
            Some(step) => step(model, item),
            None => model.step(item),
        };
        let (output, item) = match self.phase {
            Phase::FullPrecision => {
                let output = step(self.ternary.latent(), item);
                (output.grads, TernaryOutput::full_precision(output.item))
            }
            Phase::Ternary => {
                let view = self.ternary.leaf_view();
                let output = step(&view, item);
                let flip_ratio = self.has_flip_ratio().then(|| self.flip_ratio.val().inner());
                let frequencies = self.oscillations.0.as_ref().map(Oscillations::frequencies);
                let item = TernaryOutput::new(output.item, self.ternary.snapshot(), flip_ratio, frequencies);
                (view.pull_back(output.grads), item)
            }
        };
        let item = match self.watch.clone() {
            Some(watch) => {
                let ternary = self.ternary.clone();
                item.watched(watch, Box::new(move || first_not_finite(&ternary, Parameters::Trained)))
            }
            None => item,
        };
        TrainOutput { grads: multiply::<B, Self>(self, output, self.gradient_factor), item }
    }

    fn optimize<B2, O>(self, optim: &mut O, lr: f64, grads: GradientsParams) -> Self
    where
        B2: AutodiffBackend,
        O: Optimizer<Self, B2>,
        Self: AutodiffModule<B2>,
    {
        let before = self.before_update();
        let step = by_model(self, optim, |model, optim| M::optimize::<B, _>(model, optim, lr, grads));
        step.after_update(before)
    }

    fn optimize_multi<B2, O>(self, optim: &mut O, lr: f64, grads: MultiGradientsParams) -> Self
    where
        B2: AutodiffBackend,
        O: Optimizer<Self, B2>,
        Self: AutodiffModule<B2>,
    {
        let before = self.before_update();
        let step = by_model(self, optim, |model, optim| M::optimize_multi::<B, _>(model, optim, lr, grads));
        step.after_update(before)
    }
}

impl<B: Backend, M: Module<B> + InferenceStep> InferenceStep for TernaryStep<B, M> {
    type Input = M::Input;
    type Output = M::Output;

    fn step(&self, item: Self::Input) -> Self::Output {
        let ternary = self.average().unwrap_or(&self.ternary);
        match self.phase {
            Phase::FullPrecision => ternary.latent().step(item),
            Phase::Ternary => ternary.view().step(item),
        }
    }
}

/// Calls the model's own `optimize` with an optimizer of models that steps the whole `step`.
///
/// While that optimizer steps, `step` holds the only handles of the parameters, so that they are updated in place.
fn by_model<B, B2, M, O>(
    step: TernaryStep<B, M>,
    optimizer: &mut O,
    optimize: impl FnOnce(M, &mut ModelOptimizer<'_, O, TernaryStep<B, M>, B2>) -> M,
) -> TernaryStep<B, M>
where
    B: AutodiffBackend,
    M: AutodiffModule<B> + ModuleDisplay,
{
    let model = step.ternary.latent().clone();
    let step = Some(step.with_updated(false));
    let shared = Arc::new(Mutex::new(Shared { optimizer, step }));
    let model = optimize(model, &mut ModelOptimizer { shared: shared.clone(), backend: PhantomData });
    let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
    shared.take_around(model)
}

/// An optimizer of the wrapped model for its [`TrainStep::optimize`]: it steps the [`TernaryStep`] around that model.
struct ModelOptimizer<'a, O, S, B2> {
    shared: Arc<Mutex<Shared<'a, O, S>>>,
    backend: PhantomData<fn() -> B2>,
}

struct Shared<'a, O, S> {
    optimizer: &'a mut O,
    /// `None` while the optimizer steps.
    step: Option<S>,
}

impl<B: Backend, M: Module<B>, O> Shared<'_, O, TernaryStep<B, M>> {
    /// Takes the step out, around `model`. Its own handles of the model are dropped.
    fn take_around(&mut self, model: M) -> TernaryStep<B, M> {
        let Some(step) = self.step.take() else { panic!("{PANICKED}") };
        step.map_ternary(|ternary| ternary.map_latent(|_| model))
    }
}

impl<O, S, B2> Clone for ModelOptimizer<'_, O, S, B2> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone(), backend: PhantomData }
    }
}

impl<B, B2, M, O> ModelOptimizer<'_, O, TernaryStep<B, M>, B2>
where
    B: AutodiffBackend,
    M: AutodiffModule<B> + ModuleDisplay,
{
    fn update(&self, model: M, update: impl FnOnce(&mut O, TernaryStep<B, M>) -> TernaryStep<B, M>) -> M {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let step = shared.take_around(model);
        let updated = step.updated;
        let step = update(shared.optimizer, step.with_updated(true));
        let model = step.ternary.latent().clone();
        let updated = updated || step.updated;
        shared.step = Some(step.with_updated(updated));
        model
    }
}

impl<B, B2, M, O> Optimizer<M, B> for ModelOptimizer<'_, O, TernaryStep<B, M>, B2>
where
    B: AutodiffBackend,
    B2: AutodiffBackend,
    M: AutodiffModule<B> + ModuleDisplay,
    TernaryStep<B, M>: AutodiffModule<B2>,
    O: Optimizer<TernaryStep<B, M>, B2>,
{
    type Record = ();

    fn step(&mut self, lr: LearningRate, module: M, grads: GradientsParams) -> M {
        self.update(module, |optimizer, step| optimizer.step(lr, step, grads))
    }

    fn step_multi(&mut self, lr: LearningRate, module: M, grads: MultiGradientsParams) -> M {
        self.update(module, |optimizer, step| optimizer.step_multi(lr, step, grads))
    }

    fn to_record(&self) {
        panic!("{NO_RECORD}");
    }

    fn load_record(self, (): ()) -> Self {
        panic!("{NO_RECORD}");
    }
}

const PANICKED: &str = "TernaryStep: the optimizer that `TrainStep::optimize` is given panicked in an earlier step";

const NO_RECORD: &str = "TernaryStep: the optimizer that `TrainStep::optimize` is given has no record: take the record \
                         of the optimizer that was passed to the learner";

pub(crate) fn multiply<B: AutodiffBackend, M: Module<B>>(
    module: &M,
    mut grads: GradientsParams,
    factor: f64,
) -> GradientsParams {
    if factor != 1.0 {
        module.visit(&mut Multiply { grads: &mut grads, factor });
    }
    grads
}

struct Multiply<'a> {
    grads: &'a mut GradientsParams,
    factor: f64,
}

impl<B: AutodiffBackend> ModuleVisitor<B> for Multiply<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        if let Some(grad) = self.grads.remove::<B::InnerBackend, D>(param.id) {
            self.grads.register(param.id, grad.mul_scalar(self.factor));
        }
    }
}
