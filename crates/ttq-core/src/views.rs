//! Views of a wrapper: modules whose selected weights are ternary.

use std::sync::Arc;

use burn::module::{Module, ModuleMapper, Param, ParamId};
use burn::prelude::*;
use burn::tensor::backend::AutodiffBackend;

use crate::TernaryQuantizer;
use crate::leaf::leaf;
use crate::learned_scales::LearnedScales;
use crate::module_path::ModulePath;
use crate::order_of_use::UseLog;

/// Computes the replacement of a selected weight from its latent weight and scales.
pub(crate) trait LayerMapper<B: Backend> {
    fn map<const D: usize>(
        &mut self,
        quantizer: &TernaryQuantizer<B>,
        id: ParamId,
        latent: Tensor<B, D>,
        scales: Tensor<B, 2>,
        channel_axis: usize,
    ) -> Tensor<B, D>;
}

/// Ternary weights that are differentiable in latents and scales.
pub(crate) struct Tracked;
/// Ternary weights that are leaves of the autodiff graph.
pub(crate) struct Leaf<B: AutodiffBackend> {
    /// The scales of the weights, `[groups, 2]` each.
    pub(crate) scales: Vec<Tensor<B::InnerBackend, 2>>,
}
/// Ternary weights without a gradient.
pub(crate) struct Constant;

impl<B: Backend> LayerMapper<B> for Tracked {
    fn map<const D: usize>(
        &mut self,
        quantizer: &TernaryQuantizer<B>,
        _id: ParamId,
        latent: Tensor<B, D>,
        scales: Tensor<B, 2>,
        channel_axis: usize,
    ) -> Tensor<B, D> {
        // A frozen latent weight freezes its scales.
        let scales = if latent.is_require_grad() { scales } else { scales.detach() };
        quantizer.ternarize(latent, scales, channel_axis)
    }
}

impl<B: AutodiffBackend> LayerMapper<B> for Leaf<B> {
    fn map<const D: usize>(
        &mut self,
        quantizer: &TernaryQuantizer<B>,
        id: ParamId,
        latent: Tensor<B, D>,
        scales: Tensor<B, 2>,
        channel_axis: usize,
    ) -> Tensor<B, D> {
        let quantizer = quantizer.on::<B::InnerBackend>();
        let scales = scales.inner();
        let ternary = quantizer.ternarize(latent.clone().inner(), scales.clone(), channel_axis);
        self.scales.push(scales);
        leaf(ternary, latent.is_require_grad(), id, &latent)
    }
}

impl<B: Backend> LayerMapper<B> for Constant {
    fn map<const D: usize>(
        &mut self,
        quantizer: &TernaryQuantizer<B>,
        _id: ParamId,
        latent: Tensor<B, D>,
        scales: Tensor<B, 2>,
        channel_axis: usize,
    ) -> Tensor<B, D> {
        quantizer.ternarize(latent.detach(), scales.detach(), channel_axis).detach()
    }
}

/// Returns the module with its selected weights replaced. `log` notes the order in which the view's weights are used.
pub(crate) fn replace_selected<B: Backend, M: Module<B>, F: LayerMapper<B>>(
    model: M,
    scales: &LearnedScales<B>,
    quantizer: TernaryQuantizer<B>,
    map: &mut F,
    log: Option<Arc<UseLog>>,
) -> M {
    let path = ModulePath::default();
    let mut mapper = ReplaceSelected { quantizer, scales, path, choice: 0, layer: 0, map, log: log.clone() };
    let view = model.map(&mut mapper);
    if let Some(log) = log {
        log.start();
    }
    view
}

/// Replaces the selected weights of a module.
struct ReplaceSelected<'a, B: Backend, F> {
    quantizer: TernaryQuantizer<B>,
    scales: &'a LearnedScales<B>,
    path: ModulePath,
    /// Index of the next weight in [`Selection::choices`](crate::Selection::choices).
    choice: usize,
    /// Index of the next selected weight.
    layer: usize,
    map: &'a mut F,
    log: Option<Arc<UseLog>>,
}

impl<B: Backend, F: LayerMapper<B>> ModuleMapper<B> for ReplaceSelected<'_, B, F> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn map_float<const D: usize>(&mut self, mut param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let choices = self.scales.plan.selection.choices();
        let Some(choice) = choices.get(self.choice).filter(|choice| choice.path == self.path.joined()) else {
            return param;
        };
        self.choice += 1;
        if choice.kept.is_none() {
            let (id, latent, mapper) = param.consume();
            let axis = choice.axis();
            let scales = self.scales.of_layer(&self.quantizer, self.layer, &latent, axis);
            let ternary = self.map.map(&self.quantizer, id, latent, scales, axis);
            param = Param::from_mapped_value(id, ternary, mapper);
            self.layer += 1;
        }
        match &self.log {
            Some(log) => log.watch(self.choice - 1, param),
            None => param,
        }
    }
}
