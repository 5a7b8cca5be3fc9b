//! Visits the selected weights of a module.

use burn::module::{ModuleVisitor, Param};
use burn::prelude::*;

use crate::Choice;
use crate::module_path::ModulePath;

/// A visitor of the selected weights of a module.
pub(crate) trait LayerVisitor<B: Backend> {
    fn visit<const D: usize>(&mut self, param: &Param<Tensor<B, D>>, channel_axis: usize);
}

/// Visits the selected weights of a module in order.
///
/// # Panics
/// Panics if the module lacks one of them.
pub(crate) fn visit_selected<B: Backend, M: Module<B>, V: LayerVisitor<B>>(
    model: &M,
    layers: &[Choice],
    visitor: &mut V,
) {
    let mut visit = VisitSelected { path: ModulePath::default(), layers, next: 0, visitor };
    model.visit(&mut visit);
    if let Some(missing) = layers.get(visit.next) {
        panic!("Ternary: the module lacks `{}`, which was selected when it was wrapped", missing.path);
    }
}

/// Position in the list of selected layers while Burn visits a module. Both have the same order.
struct VisitSelected<'a, V> {
    path: ModulePath,
    layers: &'a [Choice],
    next: usize,
    visitor: &'a mut V,
}

impl<B: Backend, V: LayerVisitor<B>> ModuleVisitor<B> for VisitSelected<'_, V> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        if let Some(layer) = self.layers.get(self.next).filter(|layer| layer.path == self.path.joined()) {
            self.next += 1;
            self.visitor.visit(param, layer.axis());
        }
    }
}
