//! Which weights share a threshold and a pair of scales.
//!
//! All arithmetic of this crate runs on weights in *group layout*, `[groups, n]`: one row of `n` weights for each pair
//! of scales. The whole tensor is one group, or each output channel is one.

use burn::prelude::*;
use serde::{Deserialize, Serialize};

/// The set of weights that share a threshold and a pair of scales.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Granularity {
    /// One threshold and one pair of scales for the whole weight (the paper).
    #[default]
    Tensor,
    /// One threshold and one pair of scales for each output channel.
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

    /// Converts a weight to group layout, `[groups, n]`.
    pub(crate) fn to_groups<B: Backend, const D: usize>(
        self,
        weight: Tensor<B, D>,
        channel_axis: usize,
    ) -> Tensor<B, 2> {
        let dims = weight.dims();
        let groups = self.groups(&dims, channel_axis);
        let n = dims.iter().product::<usize>() / groups.max(1);
        match self {
            Self::Tensor => weight.reshape([groups, n]),
            Self::Channel => weight.swap_dims(0, channel_axis).reshape([groups, n]),
        }
    }

    /// Converts a weight in group layout back to the shape `dims`: the inverse of [`Granularity::to_groups`].
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
