//! Which weights share a threshold, and which share a pair of scales.
//!
//! All arithmetic of this crate runs on weights in *group layout*, `[groups, n]`: one row of `n` weights for each group.
//! The whole tensor is one group, or each output channel is one. Sums need at least float32, so weights of 16 bits are
//! converted to it.

use burn::prelude::*;
use burn::tensor::{DType, FloatDType};
use serde::{Deserialize, Serialize};

/// The set of weights that share a threshold, or a pair of scales.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Granularity {
    /// One group: the whole weight (the paper).
    #[default]
    Tensor,
    /// One group for each output channel.
    Channel,
}

impl Granularity {
    /// Returns the number of groups of a weight of shape `dims` with its output channels along `channel_axis`.
    ///
    /// # Panics
    /// For [`Granularity::Channel`], panics if `channel_axis` is not less than the number of dimensions.
    pub fn groups(self, dims: &[usize], channel_axis: usize) -> usize {
        match self {
            Self::Tensor => 1,
            Self::Channel => dims[channel_axis],
        }
    }

    /// Returns the granularity with more groups.
    pub(crate) fn finer(self, other: Self) -> Self {
        if self == Self::Tensor { other } else { self }
    }

    /// Converts a weight to group layout, `[groups, n]`, in float32 if its type has 16 bits.
    pub(crate) fn to_groups<B: Backend, const D: usize>(
        self,
        weight: Tensor<B, D>,
        channel_axis: usize,
    ) -> Tensor<B, 2> {
        let weight = widen(weight);
        match self {
            Self::Tensor => regroup(weight, 1),
            Self::Channel => {
                let channels = weight.dims()[channel_axis];
                regroup(weight.swap_dims(0, channel_axis), channels)
            }
        }
    }

    /// Converts a weight in group layout back to the shape `dims`: the inverse of [`Granularity::to_groups`], but for
    /// the type.
    pub(crate) fn ungroup<B: Backend, const D: usize>(
        self,
        groups: Tensor<B, 2>,
        dims: [usize; D],
        channel_axis: usize,
    ) -> Tensor<B, D> {
        match self {
            Self::Tensor => groups.reshape(dims),
            Self::Channel => {
                let mut swapped = dims;
                swapped.swap(0, channel_axis);
                groups.reshape(swapped).swap_dims(0, channel_axis)
            }
        }
    }
}

/// Divides the elements of a tensor, in their order, into `groups` equal rows.
pub(crate) fn regroup<B: Backend, const D: usize>(tensor: Tensor<B, D>, groups: usize) -> Tensor<B, 2> {
    let n = tensor.shape().num_elements() / groups.max(1);
    tensor.reshape([groups, n])
}

/// Converts float16 and bfloat16 to float32, the type of sums and counts.
pub(crate) fn widen<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Tensor<B, D> {
    match tensor.dtype() {
        DType::F16 | DType::BF16 => tensor.cast(FloatDType::F32),
        _ => tensor,
    }
}
