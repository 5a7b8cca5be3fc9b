//! Leaves of the autodiff graph that replace parameters.

use burn::module::{Module, ModuleMapper, Param, ParamId};
use burn::prelude::*;
use burn::tensor::backend::AutodiffBackend;
#[cfg(feature = "distributed")]
use burn::tensor::backend::distributed::DistributedParamId;

/// Creates a leaf of the autodiff graph with the given value, to replace `parameter`.
///
/// If the parameter takes part in all-reduce, so does the leaf: Burn marks such tensors, and a new tensor has no mark.
pub(crate) fn leaf<B: AutodiffBackend, const D: usize>(
    value: Tensor<B::InnerBackend, D>,
    tracked: bool,
    id: ParamId,
    parameter: &Tensor<B, D>,
) -> Tensor<B, D> {
    let leaf = Tensor::from_inner(value).set_require_grad(tracked);
    #[cfg(feature = "distributed")]
    if parameter.is_distributed() {
        return leaf.set_distributed(DistributedParamId::from(id.val()));
    }
    #[cfg(not(feature = "distributed"))]
    let _ = (id, parameter);
    leaf
}

/// Initializes the lazy float parameters of a module as leaves of the autodiff graph.
///
/// Burn initializes the weight of a layer of `LinearLayout::Col` as the transpose of a leaf, which does not train.
pub(crate) fn initialize_as_leaves<B: Backend, M: Module<B>>(module: M) -> M {
    module.map(&mut InitializeAsLeaves)
}

struct InitializeAsLeaves;

impl<B: Backend> ModuleMapper<B> for InitializeAsLeaves {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        if param.is_initialized() {
            return param;
        }
        // Only the lazy parameter knows whether it trains.
        let lazy = param.clone();
        lazy.transform_for_load(param.transform_for_save().val().detach(), param.id)
    }
}
