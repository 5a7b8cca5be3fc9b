//! The learner step: what burn-train calls for every batch.

use burn::module::{AutodiffModule, ModuleDisplay, ModuleVisitor, Param};
use burn::optim::{GradientsParams, MultiGradientsParams, Optimizer};
use burn::prelude::*;
use burn::tensor::backend::AutodiffBackend;
use burn::train::{InferenceStep, TrainOutput, TrainStep};
use serde::{Deserialize, Serialize};
use ttq_core::Ternary;

use crate::TernaryOutput;

/// What a [`TernaryStep`] trains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The wrapped model as it is, all weights in full precision; scales rest.
    FullPrecision,
    /// The ternary view: latent weights, scales and everything else.
    #[default]
    Ternary,
}

/// A model for burn-train that trains with ternary weights.
///
/// A model that already implements Burn's [`TrainStep`] and [`InferenceStep`] stays as it is: its own step runs on a view
/// whose chosen weights are ternary, and the gradients of those weights are carried on to the latent weights and the
/// scales in closed form ([`Ternary::pull_back`]). Then the optimizer steps, and scales are kept positive. This is the
/// port's `optimization_step`.
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
    /// Flip ratio of the last update, a constant that travels with the checkpoint. `[1]`
    flip_ratio: Param<Tensor<B, 1>>,
    #[module(skip)]
    phase: Phase,
    #[module(skip)]
    gradient_factor: f64,
}

impl<B: Backend, M: Module<B>> TernaryStep<B, M> {
    /// Trains `ternary` in [`Phase::Ternary`].
    pub fn new(ternary: Ternary<B, M>) -> Self {
        let device = ternary.latent().devices().into_iter().next().unwrap_or_default();
        let flip_ratio = Param::from_tensor(Tensor::zeros([1], &device)).set_require_grad(false);
        Self { ternary, flip_ratio, phase: Phase::Ternary, gradient_factor: 1.0 }
    }

    /// Sets the phase.
    #[must_use]
    pub fn with_phase(mut self, phase: Phase) -> Self {
        self.phase = phase;
        self
    }

    /// Multiplies every gradient by `factor`. Burn adds the gradients of all devices and of all accumulated batches, so
    /// `1 / (devices · accumulated batches)` makes their mean: the gradient of one large batch.
    #[must_use]
    pub fn with_gradient_factor(mut self, factor: f64) -> Self {
        self.gradient_factor = factor;
        self
    }

    /// The phase.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// The wrapped module and its scales.
    pub fn ternary(&self) -> &Ternary<B, M> {
        &self.ternary
    }

    /// The wrapped module and its scales by value.
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
    /// What must happen after every optimizer step: scales stay positive, changed codes are counted.
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
    M: TrainStep + AutodiffModule<B> + ModuleDisplay,
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
