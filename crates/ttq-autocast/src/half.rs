//! The 16-bit types that products are computed in.

use core::fmt::Debug;

use burn_backend::FloatDType;

/// A 16-bit float type: [`Bf16`] or [`F16`]. The trait is sealed.
pub trait Half: sealed::Sealed + Debug + Clone + Copy + Default + Send + Sync + 'static {
    /// Burn's data type.
    const DTYPE: FloatDType;
    /// Name of the type in the backend's name: `bf16` or `f16`.
    const NAME: &'static str;
    /// Whether factors are scaled before the cast, because the range of the type is smaller than that of float32.
    const NEEDS_SCALING: bool;
}

/// bfloat16: 8 bits of significand, including the implicit one, and the range of float32. Factors are cast without
/// scaling.
#[derive(Debug, Clone, Copy, Default)]
pub struct Bf16;

/// float16: 11 bits of significand, including the implicit one, and magnitudes from 6e-8 to 65504. Factors are scaled
/// before the cast.
#[derive(Debug, Clone, Copy, Default)]
pub struct F16;

impl Half for Bf16 {
    const DTYPE: FloatDType = FloatDType::BF16;
    const NAME: &'static str = "bf16";
    const NEEDS_SCALING: bool = false;
}

impl Half for F16 {
    const DTYPE: FloatDType = FloatDType::F16;
    const NAME: &'static str = "f16";
    const NEEDS_SCALING: bool = true;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Bf16 {}
    impl Sealed for super::F16 {}
}
