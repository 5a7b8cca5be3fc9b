//! The arithmetic of a network: what a ternary weight saves.
//!
//! A layer with `n` weights of which each output channel uses `n / outputs`, computed at `P` positions, takes
//!
//! | | multiplications | additions |
//! |---|---|---|
//! | dense | `P n` | `P n` |
//! | ternary | `2 P outputs` | `P (n_p + n_n) + P outputs` |
//!
//! because a ternary output is `W_p Σ_{I_p} x - W_n Σ_{I_n} x`: one addition for each weight that is not zero, then two
//! products and their difference. The `P n_0` terms of the zeros are skipped. Bias, normalization, activation and pooling
//! are the same on both sides and not counted.

use std::iter::Sum;
use std::ops::Add;

use crate::record::{DenseLayer, Layer};

/// Operations for one item.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Operations {
    /// Products.
    pub multiplications: u64,
    /// Sums and differences.
    pub additions: u64,
    /// Terms left out because their weight is zero.
    pub skipped: u64,
}

impl Add for Operations {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            multiplications: self.multiplications + other.multiplications,
            additions: self.additions + other.additions,
            skipped: self.skipped + other.skipped,
        }
    }
}

impl Sum for Operations {
    fn sum<I: Iterator<Item = Self>>(operations: I) -> Self {
        operations.fold(Self::default(), Add::add)
    }
}

/// Of a dense layer with `weights` weights at `positions` positions.
pub fn dense(weights: usize, positions: usize) -> Operations {
    let products = (weights * positions) as u64;
    Operations { multiplications: products, additions: products, skipped: 0 }
}

/// Of a ternary layer with so many weights in all, that are not zero, and output channels.
pub fn ternary(weights: usize, nonzero: usize, outputs: usize, positions: usize) -> Operations {
    let times = |count: usize| (count * positions) as u64;
    Operations {
        multiplications: 2 * times(outputs),
        additions: times(nonzero) + times(outputs),
        skipped: times(weights - nonzero),
    }
}

/// Of a recorded ternary layer; `None` where its positions or codes are not known.
pub fn of_layer(layer: &Layer) -> Option<Operations> {
    let codes = layer.unpacked();
    let nonzero = codes.iter().filter(|code| **code != 0).count();
    let known = codes.len() == layer.weights() && !codes.is_empty();
    known.then_some(layer.positions).flatten().map(|p| ternary(layer.weights(), nonzero, layer.outputs(), p))
}

/// Of a whole network, in full precision and with its ternary layers; `None` where a layer's positions are not known.
pub fn of_network(layers: &[Layer], rest: &[DenseLayer]) -> Option<(Operations, Operations)> {
    let kept = rest.iter().map(|layer| Some(dense(layer.weights(), layer.positions?))).sum::<Option<Operations>>()?;
    let before =
        layers.iter().map(|layer| Some(dense(layer.weights(), layer.positions?))).sum::<Option<Operations>>()?;
    let after = layers.iter().map(of_layer).sum::<Option<Operations>>()?;
    (!layers.is_empty()).then_some((kept + before, kept + after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_convolution_counts_by_hand() {
        // 2 output channels, 9 weights each, 16 positions; 5 of 18 weights are zero.
        assert_eq!(dense(18, 16), Operations { multiplications: 288, additions: 288, skipped: 0 });
        let expected = Operations { multiplications: 2 * 2 * 16, additions: 13 * 16 + 2 * 16, skipped: 5 * 16 };
        assert_eq!(ternary(18, 13, 2, 16), expected);
    }

    #[test]
    fn a_network_is_the_sum_of_its_layers() {
        let layer = Layer::new("a", &[2, 2], 0, &[1.0, 0.0, -1.0, 1.0], &[0.5], &[1, 0, -1, 1]);
        let layer = Layer { positions: Some(4), ..layer };
        let rest = DenseLayer { path: "b".into(), shape: vec![2, 5], positions: Some(1) };
        let (before, after) = of_network(std::slice::from_ref(&layer), std::slice::from_ref(&rest)).unwrap();
        assert_eq!(before, dense(4, 4) + dense(10, 1));
        assert_eq!(after, ternary(4, 3, 2, 4) + dense(10, 1));
        let unknown = DenseLayer { positions: None, ..rest };
        assert_eq!(of_network(&[layer], &[unknown]), None);
    }
}
