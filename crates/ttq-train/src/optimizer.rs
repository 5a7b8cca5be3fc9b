//! One optimizer for each group of parameters: latent weights, scales, all others.

use std::collections::HashSet;

use burn::module::{AutodiffModule, ModuleDisplay, ModuleVisitor, Param, ParamId};
use burn::optim::{GradientsParams, LearningRate, MultiGradientsParams, Optimizer};
use burn::prelude::*;
use burn::tensor::backend::{AutodiffBackend, DeviceId};

use crate::TernaryStep;

/// An optimizer with the learning-rate factor and the weight decay of its group.
#[derive(Debug, Clone)]
pub struct ParamGroup<O> {
    optimizer: O,
    lr_factor: f64,
    weight_decay: f64,
}

impl<O> ParamGroup<O> {
    /// Creates a group for any Burn optimizer, with the schedule's learning rate and without weight decay.
    pub fn new(optimizer: O) -> Self {
        Self { optimizer, lr_factor: 1.0, weight_decay: 0.0 }
    }

    /// Multiplies the schedule's learning rate by `factor` for this group.
    #[must_use]
    pub fn with_lr_factor(mut self, factor: f64) -> Self {
        self.lr_factor = factor;
        self
    }

    /// Adds `weight_decay · w` to the gradients of this group before its optimizer runs (an L2 penalty, as in PyTorch's SGD
    /// and Adam). In the group of all other parameters, vectors are left out: biases and the scale and shift of
    /// normalization layers.
    #[must_use]
    pub fn with_weight_decay(mut self, weight_decay: f64) -> Self {
        self.weight_decay = weight_decay;
        self
    }
}

/// The optimizer of a [`TernaryStep`]: one Burn optimizer for each group of parameters.
///
/// | group | parameters | weight decay |
/// |---|---|---|
/// | latents | latent weights of ternary layers | as set |
/// | scales | W_p and W_n | none unless set: decay pulls both towards zero |
/// | rest | all others | as set, for tensors of rank 2 and higher only |
///
/// The record of the optimizer holds the states of all three.
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
}

impl<O: Clone> TernaryOptimizer<O, O, O> {
    /// Creates an optimizer that uses the same rule in every group, each with its own state.
    pub fn uniform(optimizer: O) -> Self {
        let group = ParamGroup::new(optimizer);
        Self { latents: group.clone(), scales: group.clone(), rest: group }
    }

    /// Sets the weight decay of latents and the rest. Scales have none.
    #[must_use]
    pub fn with_weight_decay(mut self, weight_decay: f64) -> Self {
        self.latents = self.latents.with_weight_decay(weight_decay);
        self.rest = self.rest.with_weight_decay(weight_decay);
        self
    }
}

impl<B, M, L, S, R> Optimizer<TernaryStep<B, M>, B> for TernaryOptimizer<L, S, R>
where
    B: AutodiffBackend,
    M: AutodiffModule<B> + ModuleDisplay,
    M::InnerModule: ModuleDisplay,
    L: Optimizer<TernaryStep<B, M>, B>,
    S: Optimizer<TernaryStep<B, M>, B>,
    R: Optimizer<TernaryStep<B, M>, B>,
{
    type Record = (L::Record, S::Record, R::Record);

    fn step(&mut self, lr: LearningRate, module: TernaryStep<B, M>, grads: GradientsParams) -> TernaryStep<B, M> {
        let [latents, scales, rest] = self.split(&module, &mut HashSet::new(), grads);
        let module = self.latents.optimizer.step(lr * self.latents.lr_factor, module, latents);
        let module = self.scales.optimizer.step(lr * self.scales.lr_factor, module, scales);
        self.rest.optimizer.step(lr * self.rest.lr_factor, module, rest)
    }

    fn step_multi(
        &mut self,
        lr: LearningRate,
        module: TernaryStep<B, M>,
        grads: MultiGradientsParams,
    ) -> TernaryStep<B, M> {
        let mut decayed = HashSet::new();
        let mut groups: [Vec<(GradientsParams, DeviceId)>; 3] = Default::default();
        for (grads, device) in grads.grads {
            let parts = self.split(&module, &mut decayed, grads);
            groups.iter_mut().zip(parts).for_each(|(group, part)| group.push((part, device)));
        }
        let [latents, scales, rest] = groups.map(|grads| MultiGradientsParams { grads });
        let module = self.latents.optimizer.step_multi(lr * self.latents.lr_factor, module, latents);
        let module = self.scales.optimizer.step_multi(lr * self.scales.lr_factor, module, scales);
        self.rest.optimizer.step_multi(lr * self.rest.lr_factor, module, rest)
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
    /// Splits gradients into those of latents, scales and the rest, with weight decay added once for each parameter.
    fn split<B, M>(
        &self,
        module: &TernaryStep<B, M>,
        decayed: &mut HashSet<ParamId>,
        grads: GradientsParams,
    ) -> [GradientsParams; 3]
    where
        B: AutodiffBackend,
        M: AutodiffModule<B> + ModuleDisplay,
        M::InnerModule: ModuleDisplay,
    {
        let (latents, scales) = module.ternary().parameter_groups();
        let mut split = Split {
            ids: [latents.into_iter().collect(), scales.into_iter().collect()],
            weight_decay: [self.latents.weight_decay, self.scales.weight_decay, self.rest.weight_decay],
            decayed,
            grads,
            groups: Default::default(),
        };
        module.visit(&mut split);
        split.groups
    }
}

const REST: usize = 2;

struct Split<'a> {
    ids: [HashSet<ParamId>; 2],
    weight_decay: [f64; 3],
    decayed: &'a mut HashSet<ParamId>,
    grads: GradientsParams,
    groups: [GradientsParams; 3],
}

impl<B: AutodiffBackend> ModuleVisitor<B> for Split<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        let Some(mut grad) = self.grads.remove::<B::InnerBackend, D>(param.id) else { return };
        let group = self.ids.iter().position(|ids| ids.contains(&param.id)).unwrap_or(REST);
        let weight_decay = self.weight_decay[group];
        let takes_decay = weight_decay != 0.0 && (group != REST || D >= 2);
        if takes_decay && self.decayed.insert(param.id) {
            let weight = param.val().inner().to_device(&grad.device());
            grad = grad + weight.mul_scalar(weight_decay);
        }
        self.groups[group].register(param.id, grad);
    }
}
