//! The choice of an instruction set at run time.

use super::KernelError;
#[cfg(all(feature = "std", target_arch = "aarch64"))]
use super::neon::Neon;
use super::portable::Portable;
use super::simd::Simd;
#[cfg(all(feature = "std", target_arch = "x86_64"))]
use super::{avx2::Avx2, avx512::Avx512};

/// An instruction set. Kernels take the [best](Self::best) one of the machine; `with_level` of a layer asks for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Level {
    /// Plain code for whatever the target is compiled for: SSE2, NEON, no vectors at all. The only one without the feature `std`.
    Portable,
    /// NEON, by hand.
    Neon,
    /// NEON and the byte dot products of Armv8.2.
    NeonDot,
    /// AVX2 and FMA.
    Avx2,
    /// AVX2, FMA and the dot products of AVX-VNNI.
    AvxVnni,
    /// AVX-512 (F, BW, DQ) and its dot products (VNNI).
    Avx512,
}

impl Level {
    /// All, best first.
    const ALL: [Self; 6] = [Self::Avx512, Self::AvxVnni, Self::Avx2, Self::NeonDot, Self::Neon, Self::Portable];

    /// The best one that this machine has.
    pub fn best() -> Self {
        Self::available().next().unwrap_or(Self::Portable)
    }

    /// Those that this machine has, best first.
    pub fn available() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|level| level.is_available())
    }

    /// Does this machine have it?
    pub fn is_available(self) -> bool {
        // The standard library asks the processor once and remembers the answer.
        #[cfg(all(feature = "std", target_arch = "x86_64"))]
        {
            let avx2 = || is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            match self {
                Self::Portable => true,
                Self::Neon | Self::NeonDot => false,
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
            self == Self::Portable
        }
    }

    /// Itself, if this machine has it.
    pub(crate) fn checked(self) -> Result<Self, KernelError> {
        if self.is_available() { Ok(self) } else { Err(KernelError::Unavailable { level: self }) }
    }

    /// Does one instruction look up a vector of floats?
    pub(crate) fn permutes(self) -> bool {
        self != Self::Portable
    }

    /// Are sums of bytes looked up where there are two of them?
    pub(crate) fn has_byte_tables(self) -> bool {
        matches!(self, Self::Avx2 | Self::AvxVnni)
    }

    /// Runs a kernel that was compiled for this instruction set.
    ///
    /// # Safety
    /// The level [is available](Self::is_available).
    pub(crate) unsafe fn run<K: Kernel>(self, kernel: K) {
        match self {
            #[cfg(all(feature = "std", target_arch = "x86_64"))]
            // SAFETY: the caller vouches for the instructions.
            Self::Avx2 => unsafe { run_avx2(kernel) },
            #[cfg(all(feature = "std", target_arch = "x86_64"))]
            // SAFETY: as above.
            Self::AvxVnni => unsafe { run_avx_vnni(kernel) },
            #[cfg(all(feature = "std", target_arch = "x86_64"))]
            // SAFETY: as above.
            Self::Avx512 => unsafe { run_avx512(kernel) },
            #[cfg(all(feature = "std", target_arch = "aarch64"))]
            // SAFETY: as above.
            Self::Neon => unsafe { run_neon(kernel) },
            #[cfg(all(feature = "std", target_arch = "aarch64"))]
            // SAFETY: as above.
            Self::NeonDot => unsafe { run_neon_dot(kernel) },
            // SAFETY: plain code.
            _ => unsafe { kernel.run::<Portable>() },
        }
    }
}

/// Code that is compiled once for each instruction set. `run` and all that it calls must be `#[inline(always)]`, and it must
/// hand no closure to another thread: a function of its own would be compiled without the instructions.
pub(crate) trait Kernel {
    /// # Safety
    /// The processor has the instructions of `V`.
    unsafe fn run<V: Simd>(self);
}

#[cfg(all(feature = "std", target_arch = "x86_64"))]
#[target_feature(enable = "avx2,fma")]
unsafe fn run_avx2<K: Kernel>(kernel: K) {
    // SAFETY: compiled for these instructions; the caller vouches for the processor.
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
