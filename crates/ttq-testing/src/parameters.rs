//! The float parameters of a module.

use burn::module::{ModuleVisitor, Param};
use burn::prelude::*;
use burn::tensor::TensorData;

/// Returns the float parameters of a module with their paths, in the order in which the module visits them.
pub fn parameters<B: Backend>(module: &impl Module<B>) -> Vec<(String, TensorData)> {
    let mut collect = Collect::default();
    module.visit(&mut collect);
    collect.parameters
}

/// Returns the elements of all float parameters of a module, one parameter after the other.
pub fn elements<B: Backend>(module: &impl Module<B>) -> Vec<f32> {
    parameters(module).into_iter().flat_map(|(_, data)| data.iter::<f32>().collect::<Vec<_>>()).collect()
}

#[derive(Default)]
struct Collect {
    path: Vec<String>,
    parameters: Vec<(String, TensorData)>,
}

impl<B: Backend> ModuleVisitor<B> for Collect {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        self.parameters.push((self.path.join("."), param.val().into_data()));
    }
}
