//! Products in 16 bits held against those in float32, everything else against the inner backend, and a training with
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

/// Half a unit in the last place: a rounding to the type is off by so much at most, relative to the number.
fn rounding<P: Half>() -> f64 {
    match P::DTYPE.into() {
        DType::BF16 => 2f64.powi(-9),
        _ => 2f64.powi(-12),
    }
}

/// Every number of `found` is within `tolerance` times its place in `sizes`.
fn assert_within(found: &TensorData, expected: &TensorData, sizes: &TensorData, tolerance: f64, what: &str) {
    assert_eq!((found.dtype, &found.shape), (DType::F32, &expected.shape), "{what}");
    let numbers = found.iter::<f64>().zip(expected.iter::<f64>()).zip(sizes.iter::<f64>());
    for ((found, expected), size) in numbers {
        assert!((found - expected).abs() <= tolerance * size, "{what}: {found} for {expected}, terms {size}");
    }
}
