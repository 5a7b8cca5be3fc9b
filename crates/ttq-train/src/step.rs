//! The learner step that burn-train calls for each batch.

use burn::module::{AutodiffModule, ModuleDisplay, ModuleVisitor, Param};
use burn::optim::{GradientsParams, MultiGradientsParams, Optimizer};
use burn::prelude::*;
use burn::tensor::backend::AutodiffBackend;
use burn::train::{InferenceStep, TrainOutput, TrainStep};
use ttq_core::Ternary;

use crate::divergence::{Watch, first_not_finite};
use crate::{Phase, TernaryOutput};

/// A model for burn-train that trains with ternary weights.
///
/// The wrapped model keeps its own [`TrainStep`] and [`InferenceStep`]. In each training step:
///
/// 1. the model's step runs on a view whose selected weights are ternary;
/// 2. the gradients of the ternary weights are turned into those of the latent weights and the scales in closed form
///    ([`Ternary::pull_back`]);
/// 3. the optimizer updates the parameters, and scales below their floor are set to it.
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
    #[module(skip)]
    phase: Phase,
    #[module(skip)]
    gradient_factor: f64,
    #[module(skip)]
    watch: Option<Watch>,
}

impl<B: Backend, M: Module<B>> TernaryStep<B, M> {
    /// Creates the step, in [`Phase::Ternary`].
    pub fn new(ternary: Ternary<B, M>) -> Self {
        let device = ternary.latent().devices().into_iter().next().unwrap_or_default();
        let flip_ratio = Param::from_tensor(Tensor::zeros([1], &device)).set_require_grad(false);
        Self { ternary, flip_ratio, phase: Phase::Ternary, gradient_factor: 1.0, watch: None }
    }

    /// Sets the phase.
    #[must_use]
    pub fn with_phase(mut self, phase: Phase) -> Self {
        self.phase = phase;
        self
    }

    /// Multiplies every gradient by `factor`. burn-train adds the gradients of all devices and of all accumulated batches:
    /// the factor `1 / (devices · accumulated batches)` turns the sum into the mean, the gradient of one large batch.
    #[must_use]
    pub fn with_gradient_factor(mut self, factor: f64) -> Self {
        self.gradient_factor = factor;
        self
    }

    /// Shows the weights of every step to `watch`.
    pub(crate) fn with_watch(mut self, watch: Watch) -> Self {
        self.watch = Some(watch);
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

    /// Returns the wrapped module with its scales by value.
    pub fn into_ternary(self) -> Ternary<B, M> {
        self.ternary
    }
}

impl<B, M> TernaryStep<B, M>
where
    B: AutodiffBackend,
    M: AutodiffModule<B> + ModuleDisplay,
    M::InnerModule: ModuleDisplay,
{
    /// Clamps the scales and counts changed codes, after each optimizer step.
    fn after_update(mut self, before: Option<Ternary<B, M>>) -> Self {
        self.ternary = self.ternary.clamp_scales();
        if let Some(before) = before {
            let ratio = self.ternary.valid().flip_ratio(&before.valid());
            self.flip_ratio = self.flip_ratio.map(|_| Tensor::from_inner(ratio));
        }
        self
    }

    fn before_update(&self) -> Option<Ternary<B, M>> {
        (self.phase == Phase::Ternary).then(|| self.ternary.clone())
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
        let (output, item) = match self.phase {
            Phase::FullPrecision => {
                let output = self.ternary.latent().step(item);
                (output.grads, TernaryOutput::full_precision(output.item))
            }
            Phase::Ternary => {
                let output = self.ternary.leaf_view().step(item);
                let ternary = self.ternary.valid();
                let flip_ratio = self.flip_ratio.val().inner();
                (self.ternary.pull_back(output.grads), TernaryOutput::new(output.item, &ternary, flip_ratio))
            }
        };
        let item = match self.watch.clone() {
            Some(watch) => {
                let ternary = self.ternary.clone();
                item.watched(watch, Box::new(move || first_not_finite(&ternary, true)))
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
        optim.step(lr, self, grads).after_update(before)
    }

    fn optimize_multi<B2, O>(self, optim: &mut O, lr: f64, grads: MultiGradientsParams) -> Self
    where
        B2: AutodiffBackend,
        O: Optimizer<Self, B2>,
        Self: AutodiffModule<B2>,
    {
        let before = self.before_update();
        optim.step_multi(lr, self, grads).after_update(before)
    }
}

impl<B: Backend, M: Module<B> + InferenceStep> InferenceStep for TernaryStep<B, M> {
    type Input = M::Input;
    type Output = M::Output;

    fn step(&self, item: Self::Input) -> Self::Output {
        match self.phase {
            Phase::FullPrecision => self.ternary.latent().step(item),
            Phase::Ternary => self.ternary.view().step(item),
        }
    }
}

fn multiply<B: AutodiffBackend, M: Module<B>>(module: &M, mut grads: GradientsParams, factor: f64) -> GradientsParams {
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
