//! Leaves of the autodiff graph in the place of parameters.

use burn::module::ParamId;
use burn::prelude::*;
use burn::tensor::backend::AutodiffBackend;
#[cfg(feature = "distributed")]
use burn::tensor::backend::distributed::DistributedParamId;

/// `value` as a leaf in the place of `parameter`. Where gradients of that are summed over devices within the backward pass, those of the leaf
/// are: Burn goes by a mark on the tensor, and a new tensor has none.
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
