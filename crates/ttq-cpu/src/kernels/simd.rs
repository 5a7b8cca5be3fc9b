//! Vectors of f32 for three instruction sets, chosen at run time.

/// An instruction set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// The instructions of the compilation target, e.g. SSE2 or NEON.
    Portable,
    /// AVX2 and FMA, 8 lanes.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512, 16 lanes.
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Level {
    /// Returns the best instruction set that the processor supports. The standard library caches the detection.
    pub(crate) fn best() -> Self {
        Self::available().next().unwrap_or(Self::Portable)
    }

    /// Returns all instruction sets that the processor supports, best first.
    pub(crate) fn available() -> impl Iterator<Item = Self> {
        #[cfg(target_arch = "x86_64")]
        let levels = [
            (Self::Avx512, is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("fma")),
            (Self::Avx2, is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")),
            (Self::Portable, true),
        ];
        #[cfg(not(target_arch = "x86_64"))]
        let levels = [(Self::Portable, true)];
        levels.into_iter().filter_map(|(level, is_available)| is_available.then_some(level))
    }

    /// Runs `kernel` compiled for this instruction set.
    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self {
            Self::Portable => kernel.run::<Portable>(),
            // SAFETY: `best` and `available` return these two levels only if the processor supports the instructions.
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => unsafe { x86::run_avx2(kernel) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => unsafe { x86::run_avx512(kernel) },
        }
    }
}

/// Code that is compiled once for each instruction set.
///
/// `run` and every function that it calls must be `#[inline(always)]`, and `run` must not pass closures to other
/// threads: code that is not inlined is compiled without the instructions.
pub(crate) trait Kernel {
    type Output;
    fn run<V: Vector>(self) -> Self::Output;
}

/// Several f32 in one register.
///
/// # Safety
/// All functions require the instruction set of the type: call them from [`Kernel::run`] only. Loads and stores access
/// [`LANES`](Self::LANES) floats at an address of any alignment.
pub(crate) trait Vector: Copy {
    /// Number of floats.
    const LANES: usize;
    /// Rows of a register tile of a convolution, which is at most two vectors wide.
    const POSITIONS: usize;

    unsafe fn splat(value: f32) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn store(self, to: *mut f32);
    /// Returns `self + a * b`.
    unsafe fn add_product(self, a: Self, b: Self) -> Self;
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    unsafe fn div(self, other: Self) -> Self;
    /// Returns 0 where `self` is negative, else `self`. NaN stays NaN.
    unsafe fn relu(self) -> Self;
    /// Returns `self` where `condition` is positive, else 0.
    unsafe fn where_positive(self, condition: Self) -> Self;
    /// Transposes a block of `LANES` by `LANES` floats: `to[i * pitch + j] = from[j * stride + i]`.
    #[inline(always)]
    unsafe fn transpose(from: *const f32, stride: isize, to: *mut f32, pitch: usize) {
        for (i, j) in (0..Self::LANES).flat_map(|i| (0..Self::LANES).map(move |j| (i, j))) {
            // SAFETY: the caller guarantees that both blocks are valid.
            unsafe { *to.add(i * pitch + j) = *from.offset(j as isize * stride + i as isize) };
        }
    }
}

/// The largest [`Vector::LANES`].
pub(crate) const MAX_LANES: usize = 16;
/// The largest [`Vector::POSITIONS`].
pub(crate) const MAX_POSITIONS: usize = 8;

/// One float, for what remains after the last whole vector.
impl Vector for f32 {
    const LANES: usize = 1;
    const POSITIONS: usize = 1;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        value
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller guarantees a readable float.
        unsafe { *from }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller guarantees a writable float.
        unsafe { *to = self }
    }

    #[inline(always)]
    unsafe fn add_product(self, a: Self, b: Self) -> Self {
        self + a * b
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        self + other
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        self - other
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        self * other
    }

    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        self / other
    }

    #[inline(always)]
    unsafe fn relu(self) -> Self {
        if self < 0.0 { 0.0 } else { self }
    }

    #[inline(always)]
    unsafe fn where_positive(self, condition: Self) -> Self {
        if condition > 0.0 { self } else { 0.0 }
    }
}

/// Four lanes without intrinsics, which compile to one register of SSE2 or NEON.
#[derive(Clone, Copy)]
pub(crate) struct Portable([f32; 4]);

impl Vector for Portable {
    const LANES: usize = 4;
    const POSITIONS: usize = 6;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self([value; 4])
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller guarantees four readable floats, and the read is unaligned.
        Self(unsafe { from.cast::<[f32; 4]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller guarantees four writable floats, and the write is unaligned.
        unsafe { to.cast::<[f32; 4]>().write_unaligned(self.0) }
    }

    #[inline(always)]
    unsafe fn add_product(self, a: Self, b: Self) -> Self {
        // `mul_add` only where the target has a fused multiply-add: elsewhere it is a call into the C library.
        let fused = cfg!(any(target_arch = "aarch64", target_feature = "fma"));
        Self(core::array::from_fn(|i| match fused {
            true => a.0[i].mul_add(b.0[i], self.0[i]),
            false => self.0[i] + a.0[i] * b.0[i],
        }))
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        Self(core::array::from_fn(|i| self.0[i] + other.0[i]))
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        Self(core::array::from_fn(|i| self.0[i] - other.0[i]))
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        Self(core::array::from_fn(|i| self.0[i] * other.0[i]))
    }

    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        Self(core::array::from_fn(|i| self.0[i] / other.0[i]))
    }

    #[inline(always)]
    unsafe fn relu(self) -> Self {
        Self(self.0.map(|x| if x < 0.0 { 0.0 } else { x }))
    }

    #[inline(always)]
    unsafe fn where_positive(self, condition: Self) -> Self {
        Self(core::array::from_fn(|i| if condition.0[i] > 0.0 { self.0[i] } else { 0.0 }))
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Kernel, Vector};
    use core::arch::x86_64::*;

    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn run_avx2<K: Kernel>(kernel: K) -> K::Output {
        kernel.run::<Avx2>()
    }

    #[target_feature(enable = "avx512f,avx2,fma")]
    pub(super) unsafe fn run_avx512<K: Kernel>(kernel: K) -> K::Output {
        kernel.run::<Avx512>()
    }

    #[derive(Clone, Copy)]
    pub(super) struct Avx2(__m256);

    impl Vector for Avx2 {
        const LANES: usize = 8;
        const POSITIONS: usize = 6;

        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            // SAFETY: by the trait's contract the processor supports the instructions and the memory is valid. The same
            // holds below.
            Self(unsafe { _mm256_set1_ps(value) })
        }

        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: see `splat`.
            Self(unsafe { _mm256_loadu_ps(from) })
        }

        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: see `splat`.
            unsafe { _mm256_storeu_ps(to, self.0) }
        }

        #[inline(always)]
        unsafe fn add_product(self, a: Self, b: Self) -> Self {
            // SAFETY: see `splat`.
            Self(unsafe { _mm256_fmadd_ps(a.0, b.0, self.0) })
        }

        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            // SAFETY: see `splat`.
            Self(unsafe { _mm256_add_ps(self.0, other.0) })
        }

        #[inline(always)]
        unsafe fn sub(self, other: Self) -> Self {
            // SAFETY: see `splat`.
            Self(unsafe { _mm256_sub_ps(self.0, other.0) })
        }

        #[inline(always)]
        unsafe fn mul(self, other: Self) -> Self {
            // SAFETY: see `splat`.
            Self(unsafe { _mm256_mul_ps(self.0, other.0) })
        }

        #[inline(always)]
        unsafe fn div(self, other: Self) -> Self {
            // SAFETY: see `splat`.
            Self(unsafe { _mm256_div_ps(self.0, other.0) })
        }

        #[inline(always)]
        unsafe fn relu(self) -> Self {
            // SAFETY: see `splat`.
            Self(unsafe { _mm256_andnot_ps(_mm256_cmp_ps::<_CMP_LT_OQ>(self.0, _mm256_setzero_ps()), self.0) })
        }

        #[inline(always)]
        unsafe fn where_positive(self, condition: Self) -> Self {
            // SAFETY: see `splat`.
            Self(unsafe { _mm256_and_ps(_mm256_cmp_ps::<_CMP_GT_OQ>(condition.0, _mm256_setzero_ps()), self.0) })
        }

        #[inline(always)]
        unsafe fn transpose(from: *const f32, stride: isize, to: *mut f32, pitch: usize) {
            // SAFETY: see `splat`.
            unsafe {
                // Each vector holds 4 floats of rows j and j + 4. What remains is to transpose 4 by 4 blocks.
                for half in 0..2 {
                    let load = |j: usize| _mm_loadu_ps(from.offset(j as isize * stride + 4 * half as isize));
                    let row = |j: usize| _mm256_insertf128_ps::<1>(_mm256_castps128_ps256(load(j)), load(j + 4));
                    let (a, b, c, d) = (row(0), row(1), row(2), row(3));
                    let [ab, cd] = [_mm256_unpacklo_ps(a, b), _mm256_unpacklo_ps(c, d)].map(|x| _mm256_castps_pd(x));
                    let [ef, gh] = [_mm256_unpackhi_ps(a, b), _mm256_unpackhi_ps(c, d)].map(|x| _mm256_castps_pd(x));
                    let columns = [
                        _mm256_unpacklo_pd(ab, cd),
                        _mm256_unpackhi_pd(ab, cd),
                        _mm256_unpacklo_pd(ef, gh),
                        _mm256_unpackhi_pd(ef, gh),
                    ];
                    for (i, column) in columns.into_iter().enumerate() {
                        _mm256_storeu_ps(to.add((4 * half + i) * pitch), _mm256_castpd_ps(column));
                    }
                }
            }
        }
    }

    #[derive(Clone, Copy)]
    pub(super) struct Avx512(__m512);

    impl Vector for Avx512 {
        const LANES: usize = 16;
        const POSITIONS: usize = 8;

        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            // SAFETY: by the trait's contract the processor supports the instructions and the memory is valid. The same
            // holds below.
            Self(unsafe { _mm512_set1_ps(value) })
        }

        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: see `splat`.
            Self(unsafe { _mm512_loadu_ps(from) })
        }

        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: see `splat`.
            unsafe { _mm512_storeu_ps(to, self.0) }
        }

        #[inline(always)]
        unsafe fn add_product(self, a: Self, b: Self) -> Self {
            // SAFETY: see `splat`.
            Self(unsafe { _mm512_fmadd_ps(a.0, b.0, self.0) })
        }

        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            // SAFETY: see `splat`.
            Self(unsafe { _mm512_add_ps(self.0, other.0) })
        }

        #[inline(always)]
        unsafe fn sub(self, other: Self) -> Self {
            // SAFETY: see `splat`.
            Self(unsafe { _mm512_sub_ps(self.0, other.0) })
        }

        #[inline(always)]
        unsafe fn mul(self, other: Self) -> Self {
            // SAFETY: see `splat`.
            Self(unsafe { _mm512_mul_ps(self.0, other.0) })
        }

        #[inline(always)]
        unsafe fn div(self, other: Self) -> Self {
            // SAFETY: see `splat`.
            Self(unsafe { _mm512_div_ps(self.0, other.0) })
        }

        #[inline(always)]
        unsafe fn relu(self) -> Self {
            // SAFETY: see `splat`.
            Self(unsafe {
                _mm512_mask_mov_ps(
                    self.0,
                    _mm512_cmp_ps_mask::<_CMP_LT_OQ>(self.0, _mm512_setzero_ps()),
                    _mm512_setzero_ps(),
                )
            })
        }

        #[inline(always)]
        unsafe fn where_positive(self, condition: Self) -> Self {
            // SAFETY: see `splat`.
            Self(unsafe {
                _mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_GT_OQ>(condition.0, _mm512_setzero_ps()), self.0)
            })
        }

        #[inline(always)]
        unsafe fn transpose(from: *const f32, stride: isize, to: *mut f32, pitch: usize) {
            // SAFETY: see `splat`.
            unsafe {
                // Each vector holds 4 floats of rows j, j + 4, j + 8 and j + 12. What remains is to transpose 4 by 4
                // blocks.
                for quarter in 0..4 {
                    let load = |j: usize| _mm_loadu_ps(from.offset(j as isize * stride + 4 * quarter as isize));
                    let row = |j: usize| {
                        let row = _mm512_insertf32x4::<1>(_mm512_castps128_ps512(load(j)), load(j + 4));
                        let row = _mm512_insertf32x4::<2>(row, load(j + 8));
                        _mm512_insertf32x4::<3>(row, load(j + 12))
                    };
                    let (a, b, c, d) = (row(0), row(1), row(2), row(3));
                    let [ab, cd] = [_mm512_unpacklo_ps(a, b), _mm512_unpacklo_ps(c, d)].map(|x| _mm512_castps_pd(x));
                    let [ef, gh] = [_mm512_unpackhi_ps(a, b), _mm512_unpackhi_ps(c, d)].map(|x| _mm512_castps_pd(x));
                    let columns = [
                        _mm512_unpacklo_pd(ab, cd),
                        _mm512_unpackhi_pd(ab, cd),
                        _mm512_unpacklo_pd(ef, gh),
                        _mm512_unpackhi_pd(ef, gh),
                    ];
                    for (i, column) in columns.into_iter().enumerate() {
                        _mm512_storeu_ps(to.add((4 * quarter + i) * pitch), _mm512_castpd_ps(column));
                    }
                }
            }
        }
    }
}
