//! Parameters that do not train.

use burn::module::{Module, ModuleMapper, Param};
use burn::prelude::*;
use ttq_core::ModulePath;

/// Returns the module with every float parameter frozen (`require_grad` off) whose path satisfies `frozen`, such as
/// `blocks.0.conv1.weight`.
///
/// The PyTorch port of TTQ, for example, freezes the first convolution while the other weights are ternary:
///
/// ```ignore
/// let first = selection.choices().iter().find(|choice| choice.kept == Some(KeepReason::FirstConvolution));
/// let model = freeze(model, |path| first.is_some_and(|choice| choice.path == path));
/// ```
pub fn freeze<B: Backend, M: Module<B>>(module: M, frozen: impl Fn(&str) -> bool) -> M {
    module.map(&mut Freeze { frozen, path: ModulePath::default() })
}

struct Freeze<F> {
    frozen: F,
    path: ModulePath,
}

impl<B: Backend, F: Fn(&str) -> bool> ModuleMapper<B> for Freeze<F> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        if (self.frozen)(&self.path.joined()) { param.set_require_grad(false) } else { param }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::backend::{Autodiff, Flex};
    use burn::optim::GradientsParams;
    use burn::train::TrainStep;
    use ttq_testing::points::{Net, PointBatcher, point};

    #[test]
    fn a_frozen_parameter_has_no_gradient_and_all_others_have_one() {
        use burn::data::dataloader::batcher::Batcher;
        type B = Autodiff<Flex>;
        let points = (0..8).map(|index| point(index, 1)).collect();
        let batch = Batcher::<B, _, _>::batch(&PointBatcher, points, &Default::default());
        let gradients = |net: Net<B>| -> GradientsParams { TrainStep::step(&net, batch.clone()).grads };
        let all = gradients(Net::new(true)).len();
        assert_eq!(gradients(freeze(Net::new(true), |path| path == "first.weight")).len(), all - 1);
        assert_eq!(gradients(freeze(Net::new(true), |path| path.starts_with("norm."))).len(), all - 2);
        assert_eq!(gradients(freeze(Net::new(true), |_| false)).len(), all);
    }
}
