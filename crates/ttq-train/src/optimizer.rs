//! One optimizer for each group of parameters: latent weights, scales, all others.

use std::collections::HashSet;

use burn::grad_clipping::GradientClipping;
use burn::module::{AutodiffModule, ModuleDisplay, ModuleVisitor, Param, ParamId};
use burn::optim::adaptor::OptimizerAdaptor;
use burn::optim::{GradientsParams, LearningRate, MultiGradientsParams, Optimizer, SimpleOptimizer};
use burn::prelude::*;
use burn::tensor::backend::AutodiffBackend;
#[cfg(feature = "distributed")]
use burn::tensor::backend::distributed::DistributedParamId;
use ttq_core::{ScaleParameter, Ternary};

use crate::TernaryStep;

/// A module that a [`TernaryOptimizer`] trains: a [`Ternary`] in a training loop of your own, or a [`TernaryStep`].
///
/// No other type can implement this trait.
pub trait TernaryModule<B: AutodiffBackend>: AutodiffModule<B> + sealed::Sealed {
    /// The wrapped model.
    type Model: AutodiffModule<B>;

    /// Returns the wrapper.
    fn ternary(&self) -> &Ternary<B, Self::Model>;

    /// Applies `map` to the wrapper.
    #[must_use]
    fn map_ternary(self, map: impl FnOnce(Ternary<B, Self::Model>) -> Ternary<B, Self::Model>) -> Self;
}

mod sealed {
    pub trait Sealed {}
    impl<B: super::Backend, M: super::Module<B>> Sealed for super::Ternary<B, M> {}
    impl<B: super::Backend, M: super::Module<B>> Sealed for super::TernaryStep<B, M> {}
}

impl<B, M> TernaryModule<B> for Ternary<B, M>
where
    B: AutodiffBackend,
    M: AutodiffModule<B> + ModuleDisplay,
    M::InnerModule: ModuleDisplay,
{
    type Model = M;

    fn ternary(&self) -> &Self {
        self
    }

    fn map_ternary(self, map: impl FnOnce(Self) -> Self) -> Self {
        map(self)
    }
}

impl<B, M> TernaryModule<B> for TernaryStep<B, M>
where
    B: AutodiffBackend,
    M: AutodiffModule<B> + ModuleDisplay,
    M::InnerModule: ModuleDisplay,
{
    type Model = M;

    fn ternary(&self) -> &Ternary<B, M> {
        self.ternary()
    }

    fn map_ternary(self, map: impl FnOnce(Ternary<B, M>) -> Ternary<B, M>) -> Self {
        self.map_ternary(map)
    }
}

/// An optimizer with the learning-rate factor and the weight decay of its group.
#[derive(Clone)]
pub struct ParamGroup<O> {
    optimizer: O,
    lr_factor: f64,
    weight_decay: f64,
    /// Taken out of the optimizer by [`with_weight_decay`](Self::with_weight_decay), so that it precedes the decay.
    clipping: Option<GradientClipping>,
}

impl<O> ParamGroup<O> {
    /// Creates a group for any Burn optimizer, with the schedule's learning rate.
    pub fn new(optimizer: O) -> Self {
        Self { optimizer, lr_factor: 1.0, weight_decay: 0.0, clipping: None }
    }

    /// Multiplies the schedule's learning rate by `factor` for this group.
    #[must_use]
    pub fn with_lr_factor(mut self, factor: f64) -> Self {
        self.lr_factor = factor;
        self
    }

    fn step<B, W>(&mut self, lr: LearningRate, module: W, grads: GradientsParams) -> W
    where
        B: AutodiffBackend,
        W: AutodiffModule<B>,
        O: Optimizer<W, B>,
    {
        self.optimizer.step(lr * self.lr_factor, module, grads)
    }
}

impl<O, M, B> ParamGroup<OptimizerAdaptor<O, M, B>>
where
    O: SimpleOptimizer<B::InnerBackend>,
    M: AutodiffModule<B>,
    B: AutodiffBackend,
{
    /// Adds `weight_decay · w` to the gradients of this group, after the optimizer's gradient clipping and before its
    /// rule (an L2 penalty, as `with_weight_decay` of Burn's SGD and Adam). In the group of all other parameters,
    /// vectors are left out: biases and the scale and shift of normalization layers. In the group of scales, w is a
    /// scale, also where its logarithm is trained.
    ///
    /// For other optimizers than Burn's own, use their setting.
    #[must_use]
    pub fn with_weight_decay(mut self, weight_decay: f64) -> Self {
        self.weight_decay = weight_decay;
        if let Some(clipping) = self.optimizer.grad_clipping() {
            self.clipping = Some(clipping.clone());
            let record = Optimizer::<M, B>::to_record(&self.optimizer);
            let unclipped = OptimizerAdaptor::from(self.optimizer.optim().clone());
            self.optimizer = Optimizer::<M, B>::load_record(unclipped, record);
        }
        self
    }
}

/// The optimizer of a [`TernaryStep`], or of a [`Ternary`] in a loop of your own: one Burn optimizer for each group of
/// parameters. After each step it sets scales below their floor to it: a loop need not call [`Ternary::after_step`].
///
/// | group | parameters | [`with_weight_decay`](ParamGroup::with_weight_decay) | decay of the optimizer itself |
/// |---|---|---|---|
/// | latents | latent weights of ternary layers | as set | as set |
/// | scales | parameters of W_p and W_n | none unless set | none |
/// | rest | all others | as set, for tensors of rank 2 and higher only | as set |
///
/// Decay would pull the logarithms of the scales towards zero, the scales towards 1, and nothing opposes it before a batch
/// normalization. A decay of the optimizer itself, such as AdamW's, is kept from them: their
/// optimizer runs on zeros, and its result is added to their values.
///
/// The record of the optimizer holds the states of all three.
///
/// ```
/// use burn::backend::{Autodiff, Flex};
/// use burn::nn::{Linear, LinearConfig};
/// use burn::optim::{GradientsParams, Optimizer, SgdConfig};
/// use burn::prelude::*;
/// use ttq_core::{Ternary, TernaryConfig};
/// use ttq_train::TernaryOptimizer;
///
/// type B = Autodiff<Flex>;
/// let device = Default::default();
/// let model = vec![LinearConfig::new(8, 8).init(&device), LinearConfig::new(8, 2).init(&device)];
/// let mut ternary = Ternary::<B, Vec<Linear<B>>>::new(model, &TernaryConfig::new())?;
/// let mut optimizer = TernaryOptimizer::uniform(SgdConfig::new().init());
/// for _ in 0..3 {
///     let x = Tensor::<B, 2>::ones([4, 8], &device);
///     let loss = ternary.view().iter().fold(x, |x, layer| layer.forward(x)).powi_scalar(2).mean();
///     let grads = GradientsParams::from_grads(loss.backward(), &ternary);
///     ternary = optimizer.step(0.05, ternary, grads);
/// }
/// # Ok::<(), ttq_core::TernaryError>(())
/// ```
#[derive(Clone)]
pub struct TernaryOptimizer<L, S, R> {
    latents: ParamGroup<L>,
    scales: ParamGroup<S>,
    rest: ParamGroup<R>,
}

impl<L, S, R> TernaryOptimizer<L, S, R> {
    /// Creates an optimizer from one for each group.
    pub fn new(latents: ParamGroup<L>, scales: ParamGroup<S>, rest: ParamGroup<R>) -> Self {
        Self { latents, scales, rest }
    }

    /// Multiplies the learning rate of the scales by `factor`.
    #[must_use]
    pub fn with_scale_lr_factor(mut self, factor: f64) -> Self {
        self.scales = self.scales.with_lr_factor(factor);
        self
    }
}

impl<O: Clone> TernaryOptimizer<O, O, O> {
    /// Creates an optimizer that uses the same rule in every group, each with its own state.
    pub fn uniform(optimizer: O) -> Self {
        let group = ParamGroup::new(optimizer);
        Self { latents: group.clone(), scales: group.clone(), rest: group }
    }
}

impl<O, M, B> TernaryOptimizer<OptimizerAdaptor<O, M, B>, OptimizerAdaptor<O, M, B>, OptimizerAdaptor<O, M, B>>
where
    O: SimpleOptimizer<B::InnerBackend>,
    M: AutodiffModule<B>,
    B: AutodiffBackend,
{
    /// Sets the [weight decay](ParamGroup::with_weight_decay) of latents and the rest. Scales have none.
    #[must_use]
    pub fn with_weight_decay(mut self, weight_decay: f64) -> Self {
        self.latents = self.latents.with_weight_decay(weight_decay);
        self.rest = self.rest.with_weight_decay(weight_decay);
        self
    }
}

impl<B, W, L, S, R> Optimizer<W, B> for TernaryOptimizer<L, S, R>
where
    B: AutodiffBackend,
    W: TernaryModule<B>,
    L: Optimizer<W, B>,
    S: Optimizer<W, B>,
    R: Optimizer<W, B>,
{
    type Record = (L::Record, S::Record, R::Record);

    fn step(&mut self, lr: LearningRate, module: W, grads: GradientsParams) -> W {
        let [latents, scales, rest] = self.split(&module, grads);
        let module = self.latents.step(lr, module, latents);
        let module = step_without_decay(module, scales, |module, grads| self.scales.step(lr, module, grads));
        self.rest.step(lr, module, rest).map_ternary(Ternary::after_step)
    }

    fn step_multi(&mut self, lr: LearningRate, module: W, grads: MultiGradientsParams) -> W {
        let grads = sum(&module, grads);
        self.step(lr, module, grads)
    }

    fn to_record(&self) -> Self::Record {
        (self.latents.optimizer.to_record(), self.scales.optimizer.to_record(), self.rest.optimizer.to_record())
    }

    fn load_record(mut self, (latents, scales, rest): Self::Record) -> Self {
        self.latents.optimizer = self.latents.optimizer.load_record(latents);
        self.scales.optimizer = self.scales.optimizer.load_record(scales);
        self.rest.optimizer = self.rest.optimizer.load_record(rest);
        self
    }
}

impl<L, S, R> TernaryOptimizer<L, S, R> {
    /// Splits gradients into those of latents, scales and the rest, clipped and with weight decay.
    fn split<B: AutodiffBackend, W: TernaryModule<B>>(
        &self,
        module: &W,
        grads: GradientsParams,
    ) -> [GradientsParams; 3] {
        let (latents, scales) = module.ternary().parameter_groups();
        let mut split = Split {
            ids: [latents.into_iter().collect(), scales.into_iter().collect()],
            weight_decay: [self.latents.weight_decay, self.scales.weight_decay, self.rest.weight_decay],
            clipping: [&self.latents.clipping, &self.scales.clipping, &self.rest.clipping],
            scale_parameter: module.ternary().config().quantizer.scale_parameter,
            grads,
            groups: Default::default(),
        };
        module.visit(&mut split);
        split.groups
    }
}

const SCALES: usize = 1;
const REST: usize = 2;

struct Split<'a> {
    ids: [HashSet<ParamId>; 2],
    weight_decay: [f64; 3],
    clipping: [&'a Option<GradientClipping>; 3],
    scale_parameter: ScaleParameter,
    grads: GradientsParams,
    groups: [GradientsParams; 3],
}

impl<B: AutodiffBackend> ModuleVisitor<B> for Split<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        let Some(mut grad) = self.grads.remove::<B::InnerBackend, D>(param.id) else { return };
        let group = self.ids.iter().position(|ids| ids.contains(&param.id)).unwrap_or(REST);
        if let Some(clipping) = self.clipping[group] {
            grad = clipping.clip_gradient(grad);
        }
        let weight_decay = self.weight_decay[group];
        if weight_decay != 0.0 && (group != REST || D >= 2) {
            let weight = param.val().inner().to_device(&grad.device());
            let weight = match self.scale_parameter {
                // The penalty is W² / 2 with W = exp(ρ).
                ScaleParameter::Logarithm if group == SCALES => weight.mul_scalar(2.0).exp(),
                _ => weight,
            };
            grad = weight.mul_scalar(weight_decay).add(grad);
        }
        self.groups[group].register(param.id, grad);
    }
}

/// Adds the gradients of several devices, each on the device that Burn assigns to the parameter.
pub(crate) fn sum<B: AutodiffBackend, W: Module<B>>(module: &W, grads: MultiGradientsParams) -> GradientsParams {
    struct Sum {
        grads: MultiGradientsParams,
        sums: GradientsParams,
    }
    impl<B: AutodiffBackend> ModuleVisitor<B> for Sum {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
            if let Some((grad, _)) = self.grads.remove::<B::InnerBackend, D>(param.id) {
                self.sums.register(param.id, grad);
            }
        }
    }
    let mut sum = Sum { grads, sums: GradientsParams::new() };
    module.visit(&mut sum);
    sum.sums
}

/// Updates the scales that have a gradient as if they were zero and adds the result to their values: every rule that
/// multiplies a parameter by a decay then leaves it as it is, and all others compute the same.
fn step_without_decay<B: AutodiffBackend, W: TernaryModule<B>>(
    module: W,
    grads: GradientsParams,
    step: impl FnOnce(W, GradientsParams) -> W,
) -> W {
    if grads.is_empty() {
        return module;
    }
    let mut values = GradientsParams::new();
    let set_to_zero = |param: Param<Tensor<B, 2>>| {
        if grads.get::<B::InnerBackend, 2>(param.id).is_none() {
            return param;
        }
        let value = param.val().inner();
        values.register(param.id, value.clone());
        with_value(param, value.zeros_like())
    };
    let module = module.map_ternary(|ternary| ternary.map_scales(set_to_zero));
    let add_value = |param: Param<Tensor<B, 2>>| {
        let Some(value) = values.remove::<B::InnerBackend, 2>(param.id) else { return param };
        let change = param.val().inner();
        let value = value.to_device(&change.device());
        with_value(param, value + change)
    };
    step(module, grads).map_ternary(|ternary| ternary.map_scales(add_value))
}

/// Replaces the value of a parameter, which stays a leaf with its properties.
pub(crate) fn with_value<B: AutodiffBackend, const D: usize>(
    param: Param<Tensor<B, D>>,
    value: Tensor<B::InnerBackend, D>,
) -> Param<Tensor<B, D>> {
    let (id, old, mapper) = param.consume();
    let tensor = Tensor::from_inner(value).set_require_grad(old.is_require_grad());
    #[cfg(feature = "distributed")]
    let tensor = if old.is_distributed() { tensor.set_distributed(DistributedParamId::from(id.val())) } else { tensor };
    Param::from_mapped_value(id, tensor, mapper)
}

/// An optimizer for matrices, parameters of rank 2, and another for all other parameters.
///
/// Muon, for example, is defined for matrices only:
///
/// ```ignore
/// let latents = ParamGroup::new(ByRank::new(MuonConfig::new().init(), SgdConfig::new().init()));
/// ```
#[derive(Debug, Clone)]
pub struct ByRank<M, O> {
    matrices: M,
    others: O,
}

impl<M, O> ByRank<M, O> {
    /// Creates an optimizer from one for matrices and one for all other parameters.
    pub fn new(matrices: M, others: O) -> Self {
        Self { matrices, others }
    }
}

impl<B, W, M, O> Optimizer<W, B> for ByRank<M, O>
where
    B: AutodiffBackend,
    W: AutodiffModule<B>,
    M: Optimizer<W, B>,
    O: Optimizer<W, B>,
{
    type Record = (M::Record, O::Record);

    fn step(&mut self, lr: LearningRate, module: W, grads: GradientsParams) -> W {
        let [matrices, others] = split_by_rank(&module, grads);
        let module = self.matrices.step(lr, module, matrices);
        self.others.step(lr, module, others)
    }

    fn step_multi(&mut self, lr: LearningRate, module: W, grads: MultiGradientsParams) -> W {
        let grads = sum(&module, grads);
        self.step(lr, module, grads)
    }

    fn to_record(&self) -> Self::Record {
        (self.matrices.to_record(), self.others.to_record())
    }

    fn load_record(mut self, (matrices, others): Self::Record) -> Self {
        self.matrices = self.matrices.load_record(matrices);
        self.others = self.others.load_record(others);
        self
    }
}

fn split_by_rank<B: AutodiffBackend, W: Module<B>>(module: &W, grads: GradientsParams) -> [GradientsParams; 2] {
    struct Ranks {
        grads: GradientsParams,
        groups: [GradientsParams; 2],
    }
    impl<B: AutodiffBackend> ModuleVisitor<B> for Ranks {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
            if let Some(grad) = self.grads.remove::<B::InnerBackend, D>(param.id) {
                self.groups[usize::from(D != 2)].register(param.id, grad);
            }
        }
    }
    let mut ranks = Ranks { grads, groups: Default::default() };
    module.visit(&mut ranks);
    ranks.groups
}
