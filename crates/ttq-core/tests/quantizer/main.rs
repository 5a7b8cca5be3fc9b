//! Rules that the quantizer keeps on every backend and for every type of weights.

mod granularity;
mod not_finite;
mod scale_free;
mod share_of_zeros;
mod types;

use burn::prelude::*;
use burn::tensor::{DType, TensorData};
use ttq_core::{Granularity, QuantizerConfig, Threshold};

/// The granularities of threshold and scales.
const GRANULARITIES: [[Granularity; 2]; 4] = [
    [Granularity::Tensor, Granularity::Tensor],
    [Granularity::Channel, Granularity::Channel],
    [Granularity::Tensor, Granularity::Channel],
    [Granularity::Channel, Granularity::Tensor],
];

const THRESHOLDS: [Threshold; 4] =
    [Threshold::MaxFraction(0.05), Threshold::MeanFraction(0.7), Threshold::Sparsity(0.5), Threshold::Sparsity(0.0)];

/// Returns every combination of threshold and granularities.
fn configs() -> impl Iterator<Item = QuantizerConfig> {
    THRESHOLDS.into_iter().flat_map(|threshold| {
        GRANULARITIES.into_iter().map(move |[of_threshold, of_scales]| {
            QuantizerConfig::ttq()
                .with_threshold(threshold)
                .with_threshold_granularity(of_threshold)
                .with_scale_granularity(of_scales)
        })
    })
}

/// Creates a tensor of the given type.
fn typed<B: Backend, const D: usize>(data: &TensorData, dtype: DType) -> Tensor<B, D> {
    Tensor::from_data(data.clone(), (&Default::default(), dtype))
}

fn floats<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Vec<f64> {
    tensor.into_data().iter().collect()
}

/// Returns the group of each element of a weight in row-major order, and the number of groups.
fn group_of(granularity: Granularity, dims: &[usize], channel_axis: usize) -> (Vec<usize>, usize) {
    let stride: usize = dims[channel_axis + 1..].iter().product();
    let groups = granularity.groups(dims, channel_axis);
    let total: usize = dims.iter().product();
    ((0..total).map(|flat| flat / stride % dims[channel_axis] % groups).collect(), groups)
}
