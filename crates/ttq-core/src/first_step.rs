//! Checks of the first training step of a wrapper and its copies.
//!
//! - [`Ternary::leaf_view`](crate::Ternary::leaf_view) notes the order in which the forward pass uses the weights;
//!   [`Ternary::pull_back`](crate::Ternary::pull_back) compares it with the selection.
//! - [`Ternary::view`](crate::Ternary::view) remembers which tensors the weights are;
//!   [`Ternary::clamp_scales`](crate::Ternary::clamp_scales) checks that the optimizer has replaced them.

use std::any::Any;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};

use burn::prelude::*;

use crate::order_of_use::UseLog;
use crate::selection::{Selection, first_and_last_used};
use crate::{KeepReason, LayerOrder, SelectionConfig};

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
    /// A tracked tensor `[1]` that depends on the latent weights and the scales of the first view.
    Viewed(Box<dyn Any + Send>),
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

    /// Returns the order that a view of the current thread noted, once.
    pub(crate) fn noted_order(&self) -> Option<Vec<usize>> {
        let mut order = lock(&self.order);
        let used = match &*order {
            Order::Noting(id, log) if *id == thread::current().id() => log.used(),
            _ => return None,
        };
        *order = Order::Checked;
        Some(used)
    }

    /// Returns whether a view must be remembered.
    pub(crate) fn awaits_view(&self) -> bool {
        matches!(*lock(&self.update), Update::None)
    }

    /// Remembers the weights of a view by a tensor that depends on them.
    pub(crate) fn remember_view<B: Backend>(&self, dependent: Tensor<B, 1>) {
        *lock(&self.update) = Update::Viewed(Box::new(dependent));
    }

    /// Returns the tensor that depends on the weights of the first view, once.
    pub(crate) fn remembered_view<B: Backend>(&self) -> Option<Tensor<B, 1>> {
        let mut update = lock(&self.update);
        match std::mem::replace(&mut *update, Update::Checked) {
            Update::Viewed(dependent) => dependent.downcast().ok().map(|dependent| *dependent),
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
pub(crate) fn findings(
    selection: &Selection,
    config: &SelectionConfig,
    used: &[usize],
    unused: &[usize],
) -> Vec<String> {
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
