//! The order in which a forward pass uses the weights of a module.
//!
//! A lazy parameter runs a function at its first use. So a copy of the module whose weights are lazy, and whose functions
//! note the index of the weight before they return it, tells the order on any backend.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use burn::module::{ModuleMapper, Param};
use burn::prelude::*;

use crate::module_path::ModulePath;

/// Indices of weights in the order of their first use.
#[derive(Debug, Default)]
pub(crate) struct UseLog {
    started: AtomicBool,
    used: Mutex<Vec<usize>>,
}

impl UseLog {
    /// Starts the log, after the module is complete: Burn reads running states while it maps a module.
    pub(crate) fn start(&self) {
        self.started.store(true, Ordering::Relaxed);
    }

    /// Appends the index of a weight, if it is new.
    fn add(&self, index: usize) {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if self.started.load(Ordering::Relaxed) && !used.contains(&index) {
            used.push(index);
        }
    }

    /// Returns the indices so far.
    pub(crate) fn used(&self) -> Vec<usize> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces an initialized parameter by a lazy one of the same value, whose first use is noted.
    pub(crate) fn watch<B: Backend, const D: usize>(
        self: &Arc<Self>,
        index: usize,
        param: Param<Tensor<B, D>>,
    ) -> Param<Tensor<B, D>> {
        let (id, value, _) = param.consume();
        let (log, device, shape, tracked) = (self.clone(), value.device(), value.shape(), value.is_require_grad());
        let init = move |_: &B::Device, _: bool| {
            log.add(index);
            value.clone()
        };
        Param::uninitialized(id, init, device, tracked, shape)
    }
}

/// Runs `forward` on a copy of `module` and returns the indices of the weights with these paths, in the order of their
/// first use. The paths must be in the order of the module.
pub(crate) fn order_of_use<B: Backend, M: Module<B>, T>(
    module: &M,
    paths: Vec<String>,
    forward: impl FnOnce(&M) -> T,
) -> Vec<usize> {
    let log = Arc::new(UseLog::default());
    let mut watch = Watch { path: ModulePath::default(), paths, next: 0, log: log.clone() };
    let watched = module.clone().map(&mut watch);
    log.start();
    forward(&watched);
    log.used()
}

struct Watch {
    path: ModulePath,
    paths: Vec<String>,
    next: usize,
    log: Arc<UseLog>,
}

impl<B: Backend> ModuleMapper<B> for Watch {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        if self.paths.get(self.next).is_none_or(|path| *path != self.path.joined()) {
            return param;
        }
        self.next += 1;
        self.log.watch(self.next - 1, param)
    }
}
