//! The types that products are computed in.

use core::fmt::Debug;

use burn_backend::FloatDType;

/// A float type of 16 bits: [`Bf16`] or [`F16`].
pub trait Half: sealed::Sealed + Debug + Clone + Copy + Default + Send + Sync + 'static {
    /// The type.
    const DTYPE: FloatDType;
    /// Its name.
    const NAME: &'static str;
    /// Is its range narrower than that of float32? Then factors are brought into it.
    const NARROW: bool;
}

/// bfloat16: 8 bits of mantissa, one of them implied, and the range of float32.
#[derive(Debug, Clone, Copy, Default)]
pub struct Bf16;

/// float16: 11 bits of mantissa, one of them implied, from 6e-8 to 65504.
#[derive(Debug, Clone, Copy, Default)]
pub struct F16;

impl Half for Bf16 {
    const DTYPE: FloatDType = FloatDType::BF16;
    const NAME: &'static str = "bf16";
    const NARROW: bool = false;
}

impl Half for F16 {
    const DTYPE: FloatDType = FloatDType::F16;
    const NAME: &'static str = "f16";
    const NARROW: bool = true;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Bf16 {}
    impl Sealed for super::F16 {}
}
