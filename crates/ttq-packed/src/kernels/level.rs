//! Instruction sets and their selection at run time.

use super::KernelError;
#[cfg(all(feature = "std", target_arch = "aarch64"))]
use super::neon::Neon;
#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
use super::portable::Portable;
use super::simd::Simd;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
use super::simd128::Simd128;
#[cfg(all(feature = "std", target_arch = "x86_64"))]
use super::{avx2::Avx2, avx512::Avx512};

/// An instruction set.
///
/// Kernels use the [best](Self::best) one of the machine by default.
/// [`PackedMatrix::with_level`](super::PackedMatrix::with_level) and
/// [`PackedConvolution::with_level`](super::PackedConvolution::with_level) select another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Level {
    /// Plain Rust code, compiled for the baseline of the target (such as SSE2 or NEON, or no vectors).
    ///
    /// Without the feature `std` it is the only level, except for WebAssembly with SIMD.
    Portable,
    /// WebAssembly's fixed-width SIMD, if the target has the feature `simd128` at compile time. It is then the only level,
    /// because a module with such instructions runs nowhere else.
    Simd128,
    /// NEON intrinsics.
    Neon,
    /// NEON intrinsics and the byte dot products of Armv8.2.
    NeonDot,
    /// AVX2 and FMA.
    Avx2,
    /// AVX2, FMA and the byte dot products of AVX-VNNI.
    AvxVnni,
    /// AVX-512 (F, BW, DQ) and its byte dot products (VNNI).
    Avx512,
}

impl Level {
    /// All levels, best first.
    const ALL: [Self; 7] =
        [Self::Avx512, Self::AvxVnni, Self::Avx2, Self::NeonDot, Self::Neon, Self::Simd128, Self::Portable];

    /// The level that needs no detection at run time.
    const BASELINE: Self =
        if cfg!(all(target_arch = "wasm32", target_feature = "simd128")) { Self::Simd128 } else { Self::Portable };

    /// Returns the best level that this machine supports.
    pub fn best() -> Self {
        Self::available().next().unwrap_or(Self::BASELINE)
    }

    /// Returns the levels that this machine supports, best first.
    pub fn available() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|level| level.is_available())
    }

    /// Returns `true` if this machine supports this level.
    pub fn is_available(self) -> bool {
        // The standard library caches the detected features.
        #[cfg(all(feature = "std", target_arch = "x86_64"))]
        {
            let avx2 = || is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            match self {
                Self::Portable => true,
                Self::Neon | Self::NeonDot | Self::Simd128 => false,
                Self::Avx2 => avx2(),
                Self::AvxVnni => avx2() && is_x86_feature_detected!("avxvnni"),
                Self::Avx512 => {
                    avx2()
                        && is_x86_feature_detected!("avx512f")
                        && is_x86_feature_detected!("avx512bw")
                        && is_x86_feature_detected!("avx512dq")
                        && is_x86_feature_detected!("avx512vnni")
                }
            }
        }
        #[cfg(all(feature = "std", target_arch = "aarch64"))]
        {
            let neon = std::arch::is_aarch64_feature_detected!("neon");
            match self {
                Self::Portable => true,
                Self::Neon => neon,
                Self::NeonDot => neon && std::arch::is_aarch64_feature_detected!("dotprod"),
                _ => false,
            }
        }
        #[cfg(not(all(feature = "std", any(target_arch = "x86_64", target_arch = "aarch64"))))]
        {
            self == Self::BASELINE
        }
    }

    /// Returns the level itself, or an error if this machine does not support it.
    pub(crate) fn checked(self) -> Result<Self, KernelError> {
        if self.is_available() { Ok(self) } else { Err(KernelError::Unavailable { level: self }) }
    }

    /// Returns `true` if the level has an instruction that looks up a vector of floats in a table.
    pub(crate) fn permutes(self) -> bool {
        !matches!(self, Self::Portable | Self::Simd128)
    }

    /// Returns `true` if lookups of floats are faster than products for any number of rows of activations.
    pub(crate) fn looks_up_many(self) -> bool {
        self == Self::Avx512
    }

    /// Returns `true` if a byte dot product accepts weights other than -1, 0 and 1.
    pub(crate) fn has_any_bytes(self) -> bool {
        matches!(self, Self::AvxVnni | Self::Avx512)
    }

    /// Returns `true` if int8 kernels with two sums use lookup tables of bytes.
    pub(crate) fn has_byte_tables(self) -> bool {
        matches!(self, Self::Avx2 | Self::AvxVnni)
    }

    /// Runs the kernel as compiled for this instruction set.
    ///
    /// # Safety
    /// The level must be [available](Self::is_available).
    pub(crate) unsafe fn run<K: Kernel>(self, kernel: K) {
        match self {
            #[cfg(all(feature = "std", target_arch = "x86_64"))]
            // SAFETY: the caller guarantees the instructions.
            Self::Avx2 => unsafe { run_avx2(kernel) },
            #[cfg(all(feature = "std", target_arch = "x86_64"))]
            // SAFETY: as above.
            Self::AvxVnni if K::DOTS => unsafe { run_avx_vnni(kernel) },
            #[cfg(all(feature = "std", target_arch = "x86_64"))]
            // SAFETY: AVX-VNNI is an addition to AVX2.
            Self::AvxVnni => unsafe { run_avx2(kernel) },
            #[cfg(all(feature = "std", target_arch = "x86_64"))]
            // SAFETY: as above.
            Self::Avx512 => unsafe { run_avx512(kernel) },
            #[cfg(all(feature = "std", target_arch = "aarch64"))]
            // SAFETY: as above.
            Self::Neon => unsafe { run_neon(kernel) },
            #[cfg(all(feature = "std", target_arch = "aarch64"))]
            // SAFETY: as above.
            Self::NeonDot if K::DOTS => unsafe { run_neon_dot(kernel) },
            #[cfg(all(feature = "std", target_arch = "aarch64"))]
            // SAFETY: the byte dot products are an addition to NEON.
            Self::NeonDot => unsafe { run_neon(kernel) },
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            // SAFETY: the module has been compiled for these instructions.
            _ => unsafe { kernel.run::<Simd128>() },
            #[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
            // SAFETY: the portable level uses no special instructions.
            _ => unsafe { kernel.run::<Portable>() },
        }
    }
}

/// Code that is compiled once per instruction set.
///
/// `run` and every function that it calls must be `#[inline(always)]`, and it must not pass a closure to another
/// thread: code in a function of its own is compiled without the instructions.
pub(crate) trait Kernel {
    /// `true` if the kernel multiplies bytes. Others are not compiled for instruction sets that only add such products.
    #[allow(dead_code, reason = "read where the machine decides at run time")]
    const DOTS: bool = false;

    /// Runs the kernel with the vectors of `V`.
    ///
    /// # Safety
    /// The processor must support the instructions of `V`.
    unsafe fn run<V: Simd>(self);
}

#[cfg(all(feature = "std", target_arch = "x86_64"))]
#[target_feature(enable = "avx2,fma")]
unsafe fn run_avx2<K: Kernel>(kernel: K) {
    // SAFETY: compiled for these instructions; the caller guarantees that the processor supports them.
    unsafe { kernel.run::<Avx2<false>>() }
}

#[cfg(all(feature = "std", target_arch = "x86_64"))]
#[target_feature(enable = "avx2,fma,avxvnni")]
unsafe fn run_avx_vnni<K: Kernel>(kernel: K) {
    // SAFETY: as in `run_avx2`.
    unsafe { kernel.run::<Avx2<true>>() }
}

#[cfg(all(feature = "std", target_arch = "x86_64"))]
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vnni")]
unsafe fn run_avx512<K: Kernel>(kernel: K) {
    // SAFETY: as in `run_avx2`.
    unsafe { kernel.run::<Avx512>() }
}

#[cfg(all(feature = "std", target_arch = "aarch64"))]
#[target_feature(enable = "neon")]
unsafe fn run_neon<K: Kernel>(kernel: K) {
    // SAFETY: as in `run_avx2`.
    unsafe { kernel.run::<Neon<false>>() }
}

#[cfg(all(feature = "std", target_arch = "aarch64"))]
#[target_feature(enable = "neon,dotprod")]
unsafe fn run_neon_dot<K: Kernel>(kernel: K) {
    // SAFETY: as in `run_avx2`.
    unsafe { kernel.run::<Neon<true>>() }
}
