//! The view for training without a graph through the quantizer.

use std::ops::Deref;

use burn::module::{AutodiffModule, Param};
use burn::optim::GradientsParams;
use burn::prelude::*;
use burn::tensor::backend::AutodiffBackend;

use crate::selected::{LayerVisitor, visit_selected};
use crate::{Ternary, TernaryQuantizer};

/// A module whose selected weights are ternary leaves of the autodiff graph ([`Ternary::leaf_view`]). It is used as the
/// module `M` that it contains.
///
/// ```ignore
/// let view = ternary.leaf_view();
/// let loss = view.forward(x);
/// let grads = view.pull_back(GradientsParams::from_grads(loss.backward(), &*view));
/// let ternary = optimizer.step(lr, ternary, grads);
/// ```
#[derive(Debug)]
pub struct LeafView<'a, B: AutodiffBackend, M: Module<B>> {
    pub(crate) ternary: &'a Ternary<B, M>,
    pub(crate) module: M,
    /// The scales of the ternary weights, `[groups, 2]` each.
    pub(crate) scales: Vec<Tensor<B::InnerBackend, 2>>,
}

impl<B: AutodiffBackend, M: Module<B>> Deref for LeafView<'_, B, M> {
    type Target = M;

    fn deref(&self) -> &M {
        &self.module
    }
}

impl<B: AutodiffBackend, M: AutodiffModule<B>> LeafView<'_, B, M> {
    /// Converts the gradients of this view to gradients of the wrapper that it is of.
    ///
    /// For each ternary weight q with a gradient ∂L/∂q, the gradients of its latent weight and scales are computed in
    /// closed form ([`TernaryQuantizer::gradients`]). All other gradients are returned unchanged.
    pub fn pull_back(&self, mut grads: GradientsParams) -> GradientsParams {
        let ternary = self.ternary;
        ternary.plan().first_step.check_order(ternary.latent(), ternary.plan(), Some(&grads));
        let mut visitor = PullBack {
            quantizer: &ternary.quantizer().on::<B::InnerBackend>(),
            parameters: ternary.scales(),
            scales: self.scales.iter(),
            index: 0,
            grads: &mut grads,
        };
        visit_selected(&self.module, ternary.layers(), &mut visitor);
        grads
    }
}

struct PullBack<'a, B: AutodiffBackend> {
    quantizer: &'a TernaryQuantizer<B::InnerBackend>,
    /// The parameters of the learned scales; empty if the scales are not learned.
    parameters: &'a [Param<Tensor<B, 2>>],
    scales: std::slice::Iter<'a, Tensor<B::InnerBackend, 2>>,
    index: usize,
    grads: &'a mut GradientsParams,
}

impl<B: AutodiffBackend> LayerVisitor<B> for PullBack<'_, B> {
    fn visit<const D: usize>(&mut self, ternary: &Param<Tensor<B, D>>, channel_axis: usize) {
        let (scales, learned) = (self.scales.next(), self.parameters.get(self.index));
        self.index += 1;
        let Some(grad) = self.grads.remove::<B::InnerBackend, D>(ternary.id) else { return };
        let Some(scales) = scales.filter(|_| ternary.is_require_grad()) else { return };
        let gradients = self.quantizer.gradients(grad, ternary.val().inner(), scales.clone(), channel_axis);
        self.grads.register(ternary.id, gradients.latent);
        if let Some(param) = learned.filter(|param| param.is_require_grad()) {
            let parameter = self.quantizer.config().scale_parameter;
            self.grads.register(param.id, parameter.gradient(scales.clone(), gradients.scales));
        }
    }
}
