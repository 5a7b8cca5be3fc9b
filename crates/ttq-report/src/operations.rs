//! Numbers of multiplications and additions of a network, dense and ternary.
//!
//! A layer has `n` weights, of which each of its `c` output channels uses `n / c`. At `P` output positions it takes
//!
//! | | multiplications | additions | skipped |
//! |---|---|---|---|
//! | dense | `P n` | `P n` | 0 |
//! | ternary | `2 P c` | `P (n_p + n_n) + P c` | `P n_0` |
//!
//! where `n_p`, `n_n` and `n_0` are the numbers of positive, negative and zero weights. A ternary output is
//! `W_p Σ_{I_p} x - W_n Σ_{I_n} x`: one addition per nonzero weight, then two multiplications and one subtraction. Terms
//! with zero weights are skipped. Bias, normalization, activation and pooling are the same in both networks and are not
//! counted.

use std::iter::Sum;
use std::ops::Add;

use crate::record::{DenseLayer, Layer};

/// Numbers of operations for one input.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Operations {
    /// Number of multiplications.
    pub multiplications: u64,
    /// Number of additions and subtractions.
    pub additions: u64,
    /// Number of terms skipped because their weight is zero.
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

/// Counts the operations of a dense layer with `weights` weights at `positions` output positions.
pub fn dense(weights: usize, positions: usize) -> Operations {
    let products = (weights * positions) as u64;
    Operations { multiplications: products, additions: products, skipped: 0 }
}

/// Counts the operations of a ternary layer with `weights` weights, of which `nonzero` are not zero, and
/// `output_channels` output channels at `positions` output positions. `nonzero` is at most `weights`.
pub fn ternary(weights: usize, nonzero: usize, output_channels: usize, positions: usize) -> Operations {
    let per_position = |count: usize| (count * positions) as u64;
    Operations {
        multiplications: 2 * per_position(output_channels),
        additions: per_position(nonzero) + per_position(output_channels),
        skipped: per_position(weights - nonzero),
    }
}

/// Counts the operations of a recorded ternary layer.
///
/// Returns `None` if the number of output positions is not recorded or the codes are damaged.
pub fn of_layer(layer: &Layer) -> Option<Operations> {
    let codes = layer.unpack_codes();
    let nonzero = codes.iter().filter(|code| **code != 0).count();
    let known = codes.len() == layer.weights() && !codes.is_empty();
    known.then_some(layer.positions).flatten().map(|p| ternary(layer.weights(), nonzero, layer.output_channels(), p))
}

/// Counts the operations of a network, first with all layers dense, then with its ternary layers.
///
/// `dense_layers` are the layers that stay in full precision. Returns `None` if there is no ternary layer or the output
/// positions of a layer are not recorded.
pub fn of_network(ternary_layers: &[Layer], dense_layers: &[DenseLayer]) -> Option<(Operations, Operations)> {
    let kept =
        dense_layers.iter().map(|layer| Some(dense(layer.weights(), layer.positions?))).sum::<Option<Operations>>()?;
    let before = ternary_layers
        .iter()
        .map(|layer| Some(dense(layer.weights(), layer.positions?)))
        .sum::<Option<Operations>>()?;
    let after = ternary_layers.iter().map(of_layer).sum::<Option<Operations>>()?;
    (!ternary_layers.is_empty()).then_some((kept + before, kept + after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operations_of_a_small_convolution_equal_a_manual_count() {
        // 2 output channels, 9 weights each, 16 positions; 5 of 18 weights are zero.
        assert_eq!(dense(18, 16), Operations { multiplications: 288, additions: 288, skipped: 0 });
        let expected = Operations { multiplications: 2 * 2 * 16, additions: 13 * 16 + 2 * 16, skipped: 5 * 16 };
        assert_eq!(ternary(18, 13, 2, 16), expected);
    }

    #[test]
    fn the_operations_of_a_network_are_the_sum_over_its_layers() {
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
