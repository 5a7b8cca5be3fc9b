//! Checks of the first training step of a wrapper and its copies.
//!
//! - A latent weight that should train must be a leaf of the autodiff graph.
//! - A view notes the order in which its forward pass uses the weights.
//!   [`Ternary::pull_back`](crate::Ternary::pull_back) and [`Ternary::after_step`](crate::Ternary::after_step) compare it
//!   with the selection.
//! - [`Ternary::view`](crate::Ternary::view) remembers which tensors the parameters are. `after_step` checks that the
//!   optimizer has replaced those of ternary weights.

use std::any::Any;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};

use burn::module::{AutodiffModule, Module, ModuleVisitor, Param, ParamId};
use burn::optim::GradientsParams;
use burn::prelude::*;
use burn::tensor::DType;
use burn::tensor::backend::AutodiffBackend;

use crate::learned_scales::LearnedScales;
use crate::module_path::ModulePath;
use crate::order_of_use::UseLog;
use crate::plan::Plan;
use crate::selected::{LayerVisitor, visit_selected};
use crate::selection::{Selection, first_and_last_used};
use crate::{Choice, KeepReason, LayerOrder, SelectionConfig};

/// The state of the checks.
#[derive(Debug, Default)]
pub(crate) struct FirstStep {
    order: Mutex<Order>,
    update: Mutex<Update>,
}

#[derive(Debug, Default)]
enum Order {
    #[default]
    Unknown,
    /// A view of this thread notes the order.
    Noting(ThreadId, Arc<UseLog>),
    Checked,
}

#[derive(Debug, Default)]
enum Update {
    #[default]
    None,
    /// A tracked tensor `[1]` that depends on all trainable parameters at the time of a view, and the weights that the view
    /// uses.
    Viewed(Box<dyn Any + Send>, Arc<UseLog>),
    Checked,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FirstStep {
    /// Returns the log for a view of the current thread, or `None` if the order is known or another thread notes it.
    pub(crate) fn note_order(&self) -> Option<Arc<UseLog>> {
        let mut order = lock(&self.order);
        match &*order {
            Order::Checked => return None,
            Order::Noting(id, _) if *id != thread::current().id() => return None,
            _ => {}
        }
        let log = Arc::new(UseLog::default());
        *order = Order::Noting(thread::current().id(), log.clone());
        Some(log)
    }

    /// Compares the order that a view of the current thread noted with the selection, once, and logs the findings. With the
    /// gradients of the view, weights without one are among them.
    pub(crate) fn check_order<B: AutodiffBackend, M: AutodiffModule<B>>(
        &self,
        model: &M,
        plan: &Plan,
        grads: Option<&GradientsParams>,
    ) {
        let Some(used) = self.noted_order() else { return };
        visit_selected(model, &plan.layers, &mut RequireLeaves { layers: plan.layers.iter() });
        let mut unused = Vec::new();
        if let Some(grads) = grads {
            let choices = plan.selection.choices();
            model.visit(&mut FindUnused { path: ModulePath::default(), choices, next: 0, grads, unused: &mut unused });
        }
        for finding in findings(&plan.selection, &plan.config.selection, &used, &unused) {
            log::warn!("{finding}");
        }
    }

    /// Returns the order that a view of the current thread noted, once.
    fn noted_order(&self) -> Option<Vec<usize>> {
        let mut order = lock(&self.order);
        let used = match &*order {
            Order::Noting(id, log) if *id == thread::current().id() => log.used(),
            _ => return None,
        };
        *order = Order::Checked;
        Some(used)
    }

    /// Remembers the parameters of the first view, and returns the log for the order in which it uses its weights. Does
    /// nothing on a backend without autodiff.
    pub(crate) fn watch_view<B: Backend, M: Module<B>>(
        &self,
        model: &M,
        scales: &LearnedScales<B>,
    ) -> Option<Arc<UseLog>> {
        let device = scales.params.first().map(|scales| scales.val().device());
        if !B::ad_enabled(&device.unwrap_or_default()) {
            return None;
        }
        let log = self.note_order();
        let mut update = lock(&self.update);
        if matches!(*update, Update::None) {
            let mut probes = Probes { scales: scales.params.iter(), tracked: Vec::new() };
            visit_selected(model, &scales.plan.layers, &mut probes);
            model.visit(&mut probes);
            let sum = probes.tracked.into_iter().reduce(|sum, probe| {
                let device = sum.device();
                sum + probe.to_device(&device)
            });
            if let Some(sum) = sum {
                let log = log.unwrap_or_default();
                *update = Update::Viewed(Box::new(sum), log.clone());
                return Some(log);
            }
        }
        log
    }

    /// Checks that the first optimizer step after a view replaced ternary weights too. Waits if it has replaced nothing, or if
    /// the view has used no ternary weight: a forward pass can leave out layers at random.
    pub(crate) fn check_update<B: AutodiffBackend, M: AutodiffModule<B>>(&self, model: &M, scales: &LearnedScales<B>) {
        let Some((sum, log)) = self.remembered_view::<B>() else { return };
        let choices = scales.plan.selection.choices();
        if log.used().iter().all(|index| choices[*index].kept.is_some()) {
            *lock(&self.update) = Update::None;
            return;
        }
        let grads = sum.backward();
        let mut find = FindReplaced::<B> {
            grads: &grads,
            scales: scales.params.iter(),
            latents: HashSet::new(),
            ternary: Replaced::default(),
            others: Replaced::default(),
        };
        visit_selected(model, &scales.plan.layers, &mut find);
        model.visit(&mut find);
        let (ternary, others) = (find.ternary, find.others);
        if !ternary.any && !others.any {
            *lock(&self.update) = Update::None;
            return;
        }
        assert!(
            ternary.any || !ternary.any_kept || others.any_kept,
            "Ternary::after_step: the optimizer step changed no ternary weight and no scale: take the gradients of a \
             view by `GradientsParams::from_grads(grads, &wrapper)`, with the wrapper and not the view (to train the other \
             parameters alone, freeze the ternary weights)"
        );
    }

    /// Returns the tensor that depends on the parameters of the first view, and the weights that it uses, once.
    fn remembered_view<B: Backend>(&self) -> Option<(Tensor<B, 1>, Arc<UseLog>)> {
        let mut update = lock(&self.update);
        match std::mem::replace(&mut *update, Update::Checked) {
            Update::Viewed(dependent, log) => dependent.downcast().ok().map(|dependent| (*dependent, log)),
            other => {
                *update = other;
                None
            }
        }
    }
}

/// Compares the order of use with a selection and returns a sentence for every weight with the wrong role.
///
/// `used` are indices of [`Selection::choices`]; `unused` are those of weights that certainly have no part in the loss.
fn findings(selection: &Selection, config: &SelectionConfig, used: &[usize], unused: &[usize]) -> Vec<String> {
    let choices = selection.choices();
    let mut findings = Vec::new();
    let used: Vec<usize> = used.iter().copied().filter(|index| !unused.contains(index)).collect();
    if selection.order() == LayerOrder::Declaration {
        let (first, last) = first_and_last_used(choices, &used);
        let roles = [
            (config.keep_first_convolution, first, KeepReason::FirstConvolution, "is the first convolution"),
            (config.keep_last_layer, last, KeepReason::LastLayer, "is the last layer"),
        ];
        for (wanted, found, reason, role) in roles {
            let Some(found) = found.map(|index| &choices[index]).filter(|choice| wanted && choice.kept.is_none())
            else {
                continue;
            };
            let kept = choices.iter().find(|choice| choice.kept.as_ref() == Some(&reason));
            let kept = kept.map_or("no weight".into(), |choice| format!("`{}`", choice.path));
            findings.push(format!(
                "`{}` {role} that the forward pass uses, but it is ternary, and {kept} is kept in its place, by \
                 declaration: select by `Selection::traced`, or name the weight in `SelectionConfig::exclude`",
                found.path
            ));
        }
    }
    for choice in unused.iter().map(|index| &choices[*index]).filter(|choice| choice.kept.is_none()) {
        findings.push(format!(
            "`{}` is ternary, but received no gradient in the first training step: the forward pass does not use it, or \
             its gradients were not taken from the view",
            choice.path
        ));
    }
    findings
}

/// Collects a tensor `[1]` of each trainable parameter, which depends on it. A frozen latent weight freezes its scales.
struct Probes<'a, B: Backend> {
    scales: std::slice::Iter<'a, Param<Tensor<B, 2>>>,
    tracked: Vec<Tensor<B, 1>>,
}

impl<B: Backend> Probes<'_, B> {
    fn add<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        if is_trainable(param) {
            let first: [_; D] = std::array::from_fn(|_| 0..1);
            // Parameters can have several float types.
            self.tracked.push(param.val().slice(first).reshape([1]).cast(DType::F32));
        }
    }
}

impl<B: Backend> LayerVisitor<B> for Probes<'_, B> {
    fn visit<const D: usize>(&mut self, latent: &Param<Tensor<B, D>>, _channel_axis: usize) {
        if let Some(scales) = self.scales.next().filter(|_| latent.is_require_grad()) {
            self.add(scales);
        }
    }
}

impl<B: Backend> ModuleVisitor<B> for Probes<'_, B> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        self.add(param);
    }
}

fn is_trainable<B: Backend, const D: usize>(param: &Param<Tensor<B, D>>) -> bool {
    param.is_require_grad() && param.lazy_shape().num_elements() > 0
}

/// Whether some parameters of a kind were replaced, and whether some were not.
#[derive(Default)]
struct Replaced {
    any: bool,
    any_kept: bool,
}

/// Finds out which trainable parameters are no longer the tensors on which the gradients depend: first those of ternary
/// weights, by `visit_selected`, then the others.
struct FindReplaced<'a, B: AutodiffBackend> {
    grads: &'a B::Gradients,
    scales: std::slice::Iter<'a, Param<Tensor<B, 2>>>,
    latents: HashSet<ParamId>,
    ternary: Replaced,
    others: Replaced,
}

impl<B: AutodiffBackend> FindReplaced<'_, B> {
    fn is_replaced<const D: usize>(&self, param: &Param<Tensor<B, D>>) -> Option<bool> {
        is_trainable(param).then(|| param.val().grad(self.grads).is_none())
    }
}

impl Replaced {
    fn add(&mut self, replaced: Option<bool>) {
        match replaced {
            Some(true) => self.any = true,
            Some(false) => self.any_kept = true,
            None => {}
        }
    }
}

impl<B: AutodiffBackend> LayerVisitor<B> for FindReplaced<'_, B> {
    fn visit<const D: usize>(&mut self, latent: &Param<Tensor<B, D>>, _channel_axis: usize) {
        self.latents.insert(latent.id);
        self.ternary.add(self.is_replaced(latent));
        if let Some(scales) = self.scales.next().filter(|_| latent.is_require_grad()) {
            self.ternary.add(self.is_replaced(scales));
        }
    }
}

impl<B: AutodiffBackend> ModuleVisitor<B> for FindReplaced<'_, B> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        if !self.latents.contains(&param.id) {
            self.others.add(self.is_replaced(param));
        }
    }
}

/// Panics at a latent weight that should train and is no leaf of the autodiff graph, which would be taken for frozen.
struct RequireLeaves<'a> {
    layers: std::slice::Iter<'a, Choice>,
}

impl<B: AutodiffBackend> LayerVisitor<B> for RequireLeaves<'_> {
    fn visit<const D: usize>(&mut self, latent: &Param<Tensor<B, D>>, _channel_axis: usize) {
        let path = self.layers.next().map_or("", |choice| &choice.path);
        // A parameter knows apart from its tensor whether it trains; this conversion makes the tensor follow.
        let should_train = <Param<Tensor<B, D>> as AutodiffModule<B>>::from_inner(latent.valid()).is_require_grad();
        assert!(
            latent.is_require_grad() || !should_train,
            "Ternary: `{path}` should train, but its tensor is no leaf of the autodiff graph, as Burn initializes \
             `LinearLayout::Col`: wrap the model before its first use, or wrap `AutodiffModule::from_inner(model.valid())`"
        );
    }
}

/// Collects the trainable weights without a gradient.
struct FindUnused<'a> {
    path: ModulePath,
    choices: &'a [Choice],
    next: usize,
    grads: &'a GradientsParams,
    unused: &'a mut Vec<usize>,
}

impl<B: AutodiffBackend> ModuleVisitor<B> for FindUnused<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        if self.choices.get(self.next).is_none_or(|choice| choice.path != self.path.joined()) {
            return;
        }
        if param.is_require_grad() && self.grads.get::<B::InnerBackend, D>(param.id).is_none() {
            self.unused.push(self.next);
        }
        self.next += 1;
    }
}
