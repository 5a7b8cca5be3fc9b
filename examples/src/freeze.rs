//! Weights that do not train.

use burn::module::{Module, ModuleMapper, Param};
use burn::prelude::*;
use ttq_core::{KeepReason, Selection};

/// Takes the first convolution, if `selection` keeps it in full precision, out of the training.
pub(crate) fn freeze_first_convolution<B: Backend, M: Module<B>>(module: M, selection: &Selection) -> M {
    let first = selection.choices().iter().find(|choice| choice.kept == Some(KeepReason::FirstConvolution));
    match first {
        Some(choice) => module.map(&mut Freeze { path: &choice.path, names: Vec::new() }),
        None => module,
    }
}

struct Freeze<'a> {
    path: &'a str,
    names: Vec<String>,
}

impl<B: Backend> ModuleMapper<B> for Freeze<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.names.push(name.into());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.names.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        if self.names.join(".") == self.path { param.set_require_grad(false) } else { param }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Network, ResNet};
    use burn::backend::{Autodiff, Flex};
    use burn::optim::GradientsParams;
    use ttq_core::SelectionConfig;

    #[test]
    fn a_frozen_convolution_has_no_gradient_and_all_others_have_one() {
        type B = Autodiff<Flex>;
        let device = Default::default();
        let network = ResNet::<B>::new(8, 10, &device);
        let gradients = |network: &ResNet<B>| {
            let loss = network.forward(Tensor::ones([2, 3, 32, 32], &device)).powf_scalar(2.0).sum();
            GradientsParams::from_grads(loss.backward(), network).len()
        };
        let before = gradients(&network);
        let selection = Selection::of(&network, &SelectionConfig::default()).unwrap();
        assert_eq!(gradients(&freeze_first_convolution(network.clone(), &selection)), before - 1);
        let all = SelectionConfig { keep_first_convolution: false, ..Default::default() };
        let selection = Selection::of(&network, &all).unwrap();
        assert_eq!(gradients(&freeze_first_convolution(network, &selection)), before);
    }
}
