//! Compares products in 16 bits with float32 and all other operations with the inner backend, and trains a network with
//! ternary weights.

mod products;
mod range;
mod training;
mod unchanged;

use burn::backend::Flex;
use burn::tensor::{DType, TensorData};
use ttq_autocast::{Autocast, Half};

/// The backend under test.
type On<P> = Autocast<Flex, P>;

/// Half a unit in the last place: the largest relative error of a rounding to the type.
fn rounding<P: Half>() -> f64 {
    match P::DTYPE.into() {
        DType::BF16 => 2f64.powi(-8),
        _ => 2f64.powi(-11),
    }
}

/// Asserts that every element of `found` differs from `expected` by at most `tolerance` times the same element of
/// `sizes`.
fn assert_within(found: &TensorData, expected: &TensorData, sizes: &TensorData, tolerance: f64, what: &str) {
    assert_eq!((found.dtype, &found.shape), (DType::F32, &expected.shape), "{what}");
    let numbers = found.iter::<f64>().zip(expected.iter::<f64>()).zip(sizes.iter::<f64>());
    for ((found, expected), size) in numbers {
        assert!(
            (found - expected).abs() <= tolerance * size,
            "{what}: found {found}, expected {expected}, sum of magnitudes {size}"
        );
    }
}
