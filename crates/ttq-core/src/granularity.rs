//! How many weights share a threshold and a pair of scales.
//!
//! Everything in this crate computes on a weight in *group layout*, `[groups, n]`: one row of `n` weights for each pair
//! of scales. A tensor is one group; per output channel, each channel is one.

use burn::prelude::*;
use serde::{Deserialize, Serialize};

/// The set of weights that share a threshold and a pair of scales.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Granularity {
    /// One threshold and one pair of scales for the whole weight (the paper).
    #[default]
    Tensor,
    /// One threshold and one pair of scales per output channel.
    Channel,
}

impl Granularity {
    /// Number of groups of a weight with these dimensions, whose output channels lie along `channel_axis`.
    pub fn groups(self, dims: &[usize], channel_axis: usize) -> usize {
        match self {
            Self::Tensor => 1,
            Self::Channel => dims[channel_axis],
        }
    }

    /// The weight as `[groups, n]`.
    pub(crate) fn split<B: Backend, const D: usize>(self, weight: Tensor<B, D>, channel_axis: usize) -> Tensor<B, 2> {
        let dims = weight.dims();
        let groups = self.groups(&dims, channel_axis);
        let n = dims.iter().product::<usize>() / groups.max(1);
        match self {
            Self::Tensor => weight.reshape([groups, n]),
            Self::Channel => weight.swap_dims(0, channel_axis).reshape([groups, n]),
        }
    }

    /// The inverse of [`Granularity::split`] for a weight of dimensions `dims`.
    pub(crate) fn join<B: Backend, const D: usize>(
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
