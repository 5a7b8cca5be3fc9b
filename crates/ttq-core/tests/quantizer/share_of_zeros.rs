//! The share of zeros as a threshold.

use burn::backend::Flex;
use burn::prelude::*;
use burn::tensor::DType;
use burn_ndarray::NdArray;
use ttq_core::{Granularity, QuantizerConfig, Threshold};
use ttq_cpu::Cpu;
use ttq_testing::normal;

use crate::{floats, typed};

#[test]
fn every_group_has_exactly_the_share_of_zeros_if_its_magnitudes_differ() {
    for dtype in [DType::F32, DType::F64] {
        exact::<Flex>(dtype);
        exact::<NdArray>(dtype);
    }
    exact::<Cpu>(DType::F32);
}

fn exact<B: Backend>(dtype: DType) {
    for (granularity, dims) in [(Granularity::Tensor, [7, 5, 3, 3]), (Granularity::Channel, [4, 9, 3, 3])] {
        let groups = granularity.groups(&dims, 0);
        let n = dims.iter().product::<usize>() / groups;
        for share in [0.0, 0.001, 0.1, 1.0 / 3.0, 0.5, 0.77, 0.999, 1.0] {
            let config =
                QuantizerConfig::ttq().with_threshold(Threshold::Sparsity(share)).with_granularity(granularity);
            let quantizer = config.init::<B>().unwrap();
            let latent = typed::<B, 4>(&normal(&dims, 5), dtype);
            let codes: Vec<f64> = quantizer.codes(latent.clone(), 0).into_data().iter().collect();
            let magnitudes: Vec<f64> = floats(latent).into_iter().map(f64::abs).collect();
            for (codes, magnitudes) in codes.chunks(n).zip(magnitudes.chunks(n)) {
                let zeros = codes.iter().filter(|code| **code == 0.0).count();
                assert_eq!(zeros, (share * n as f64 + 0.5).floor() as usize, "{share} of {n}, {dtype:?}");
                let ends = |zero: bool| {
                    let ends = (f64::INFINITY, 0.0f64);
                    let chosen = codes.iter().zip(magnitudes).filter(|(code, _)| (**code == 0.0) == zero);
                    chosen.fold(ends, |(low, high), (_, w)| (low.min(*w), high.max(*w)))
                };
                assert!(ends(true).1 < ends(false).0, "the smallest are zero");
            }
        }
    }
}
