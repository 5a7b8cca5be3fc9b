//! Random weights, the same in every run, and reference implementations as loops.

use ttq_core::{Granularity, QuantizerConfig, Threshold};

/// `n` numbers between -1 and 1, denser near zero, that depend on the seed alone.
pub(crate) fn random(n: usize, seed: u64) -> Vec<f32> {
    ttq_testing::uniform(&[n], seed).iter::<f32>().map(|x| x * x.abs()).collect()
}

/// The groups of a weight, as lists of flat indices.
pub(crate) fn groups(granularity: Granularity, dims: &[usize], channel_axis: usize) -> Vec<Vec<usize>> {
    let total: usize = dims.iter().product();
    match granularity {
        Granularity::Tensor => vec![(0..total).collect()],
        Granularity::Channel => {
            let stride: usize = dims[channel_axis + 1..].iter().product();
            let mut groups = vec![Vec::new(); dims[channel_axis]];
            (0..total).for_each(|flat| groups[flat / stride % dims[channel_axis]].push(flat));
            groups
        }
        other => panic!("{other:?} has no definition in this test"),
    }
}

/// Threshold Δ of a group.
pub(crate) fn threshold(config: &QuantizerConfig, members: &[f32]) -> f64 {
    let mut magnitudes: Vec<f64> = members.iter().map(|w| f64::from(w.abs())).collect();
    magnitudes.sort_by(f64::total_cmp);
    match config.threshold {
        Threshold::MaxFraction(t) => f64::from(t as f32) * magnitudes[magnitudes.len() - 1],
        Threshold::MeanFraction(f) => f * magnitudes.iter().sum::<f64>() / magnitudes.len() as f64,
        Threshold::Sparsity(r) => match (r * magnitudes.len() as f64 + 0.5).floor() as usize {
            0 => 0.0,
            zeros => magnitudes[zeros - 1],
        },
        other => panic!("{other} has no definition in this test"),
    }
}

/// Code of a weight: -1, 0 or +1.
pub(crate) fn code(weight: f32, threshold: f32) -> i32 {
    i32::from(weight > threshold) - i32::from(weight < -threshold)
}

/// Asserts that the error is at most `1e-5 * size`.
pub(crate) fn assert_near(found: f32, expected: f64, size: f64, what: &str) {
    assert!((f64::from(found) - expected).abs() <= 1e-5 * size + 1e-30, "{what}: found {found}, expected {expected}");
}
