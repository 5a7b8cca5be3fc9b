//! Leaves of the autodiff graph that replace parameters.

use burn::module::ParamId;
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
