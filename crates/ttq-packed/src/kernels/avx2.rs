//! Vectors of AVX2, with or without the byte dot products of AVX-VNNI.

use core::arch::{asm, x86_64::*};

use super::avx2_bytes;
use super::simd::{Simd, operations};

/// Vectors of eight lanes. `VNNI` selects the dot products of AVX-VNNI.
#[derive(Clone, Copy)]
pub(crate) struct Avx2<const VNNI: bool>;

/// Sums of byte products.
///
/// Without VNNI, products are first added in 16 bits. After 32 calls of [`dot`](Simd::dot), such a sum is at most
/// 32 · 2 · 255 · 2 = 32640.
#[derive(Clone, Copy)]
pub(crate) struct Dots {
    wide: __m256i,
    narrow: __m256i,
}

impl<const VNNI: bool> Simd for Avx2<VNNI> {
    const LANES: usize = 8;
    const PERMUTES: bool = true;
    const BYTE_TABLES: bool = true;
    const ANY_BYTES: bool = VNNI;
    type Floats = __m256;
    type Words = __m256i;
    type Bytes = __m256i;
    type Dots = Dots;

    operations! {
        fn splat(value: f32) -> __m256 { _mm256_set1_ps(value) }
        fn load(from: *const f32) -> __m256 { _mm256_loadu_ps(from) }
        fn store(to: *mut f32, value: __m256) { _mm256_storeu_ps(to, value) }
        fn add(a: __m256, b: __m256) -> __m256 { _mm256_add_ps(a, b) }
        fn sub(a: __m256, b: __m256) -> __m256 { _mm256_sub_ps(a, b) }
        fn mul(a: __m256, b: __m256) -> __m256 { _mm256_mul_ps(a, b) }
        fn div(a: __m256, b: __m256) -> __m256 { _mm256_div_ps(a, b) }
        fn sqrt(value: __m256) -> __m256 { _mm256_sqrt_ps(value) }
        // The instructions return the second operand if either one is NaN.
        fn max(a: __m256, b: __m256) -> __m256 {
            _mm256_blendv_ps(_mm256_max_ps(a, b), a, _mm256_cmp_ps::<_CMP_UNORD_Q>(a, a))
        }
        fn min(a: __m256, b: __m256) -> __m256 {
            _mm256_blendv_ps(_mm256_min_ps(a, b), a, _mm256_cmp_ps::<_CMP_UNORD_Q>(a, a))
        }
        fn mul_add(a: __m256, b: __m256, c: __m256) -> __m256 { _mm256_fmadd_ps(a, b, c) }
        fn relu(value: __m256) -> __m256 { _mm256_max_ps(_mm256_setzero_ps(), value) }

        fn load_words(from: *const u32) -> __m256i { _mm256_loadu_si256(from.cast()) }
        fn prefetch(from: *const u32) { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
        fn splat_word(value: u32) -> __m256i { _mm256_set1_epi32(value as i32) }
        fn shift(words: __m256i, bits: u32) -> __m256i { _mm256_srl_epi32(words, _mm_cvtsi32_si128(bits as i32)) }

        fn table(entries: [f32; 4]) -> __m256 { _mm256_broadcast_ps(&_mm_loadu_ps(entries.as_ptr())) }
        fn look_up(table: __m256, codes: __m256i) -> __m256 { _mm256_permutevar_ps(table, codes) }
        fn select(codes: __m256i, pos: __m256, neg: __m256) -> __m256 {
            // The highest bit of a lane selects. If it is 0 for both code bits, the result is 0.
            let (first, second) = (_mm256_slli_epi32::<31>(codes), _mm256_slli_epi32::<30>(codes));
            let zero = _mm256_setzero_ps();
            let neg = _mm256_blendv_ps(zero, neg, _mm256_castsi256_ps(second));
            _mm256_blendv_ps(neg, pos, _mm256_castsi256_ps(first))
        }
        fn planes(first: __m256i, second: __m256i) -> [__m256i; 2] {
            let even = _mm256_set1_epi8(0b0101_0101);
            let select = |one, other| _mm256_or_si256(_mm256_and_si256(one, even), _mm256_andnot_si256(even, other));
            [select(first, _mm256_add_epi32(second, second)), select(_mm256_srli_epi32::<1>(first), second)]
        }
        // A multiplication shifts within the half of a lane. It uses other execution units than shifts and permutations.
        fn index(words: __m256i, bit: u32) -> __m256i {
            let crosses_halves = bit < 16 && bit + 3 > 16;
            if bit.is_multiple_of(16) || crosses_halves {
                return Self::shift(words, bit);
            }
            let half = if bit < 16 { words } else { _mm256_srli_epi32::<16>(words) };
            multiply_high(half, _mm256_set1_epi32(1 << (16 - bit % 16)))
        }
        fn permute(table: *const f32, index: __m256i) -> __m256 {
            _mm256_permutevar8x32_ps(_mm256_loadu_ps(table), index)
        }

        fn no_dots() -> Dots { Dots { wide: _mm256_setzero_si256(), narrow: _mm256_setzero_si256() } }
        fn pos(words: __m256i) -> __m256i { _mm256_and_si256(words, _mm256_set1_epi8(0b01)) }
        fn neg(words: __m256i) -> __m256i { _mm256_and_si256(words, _mm256_set1_epi8(0b10)) }
        fn weights(words: __m256i, tables: __m256i) -> __m256i {
            let codes = _mm256_and_si256(words, _mm256_set1_epi8(0b11));
            if VNNI {
                // A shuffle selects among the bytes of four lanes.
                let lanes = _mm256_broadcastsi128_si256(_mm_set_epi32(0x0c0c_0c0c, 0x0808_0808, 0x0404_0404, 0));
                return _mm256_shuffle_epi8(tables, _mm256_or_si256(codes, lanes));
            }
            let signs = _mm256_broadcastsi128_si256(_mm_set_epi8(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, -1, 1, 0));
            _mm256_shuffle_epi8(signs, codes)
        }
        fn dot(sums: Dots, x: __m256i, weights: __m256i) -> Dots {
            if VNNI {
                Dots { wide: _mm256_dpbusd_avx_epi32(sums.wide, x, weights), ..sums }
            } else {
                Dots { narrow: _mm256_add_epi16(sums.narrow, _mm256_maddubs_epi16(x, weights)), ..sums }
            }
        }
        fn widen(sums: Dots) -> Dots {
            if VNNI {
                return sums;
            }
            let pairs = _mm256_madd_epi16(sums.narrow, _mm256_set1_epi16(1));
            Dots { wide: _mm256_add_epi32(sums.wide, pairs), narrow: _mm256_setzero_si256() }
        }
        fn store_dots(to: *mut i32, sums: Dots) { _mm256_storeu_si256(to.cast(), sums.wide) }
        fn sums_by_tables(words: *const u32, rows: usize, steps: usize, tables: *const u8) -> [[i32; 32]; 2] {
            avx2_bytes::sums(words, rows, steps, tables)
        }
        fn dot_signed(sums: Dots, x: __m256i, weights: __m256i) -> Dots {
            if VNNI {
                return Dots { wide: _mm256_dpbusd_avx_epi32(sums.wide, x, weights), ..sums };
            }
            // The sum of two byte products can exceed 16 bits, that of two 16-bit products fits in 32 bits.
            let even = _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(weights));
            let even = _mm256_madd_epi16(_mm256_and_si256(x, _mm256_set1_epi16(0xff)), even);
            let odd = _mm256_madd_epi16(_mm256_srli_epi16::<8>(x), _mm256_srai_epi16::<8>(weights));
            Dots { wide: _mm256_add_epi32(sums.wide, _mm256_add_epi32(even, odd)), ..sums }
        }
        fn dots_to_floats(sums: Dots) -> __m256 { _mm256_cvtepi32_ps(sums.wide) }
        fn load_bytes(from: *const u8) -> __m256 {
            _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(from.cast())))
        }
        fn store_bytes(to: *mut u8, value: __m256) {
            // Large values would become negative.
            let limited = _mm256_min_ps(_mm256_max_ps(value, _mm256_setzero_ps()), _mm256_set1_ps(255.0));
            let rounded = _mm256_cvtps_epi32(limited);
            let [low, high] = [_mm256_castsi256_si128(rounded), _mm256_extracti128_si256::<1>(rounded)];
            let halves = _mm_packus_epi32(low, high);
            _mm_storel_epi64(to.cast(), _mm_packus_epi16(halves, halves));
        }
        fn transpose(block: &mut [f32; 256]) {
            let block = block.as_mut_ptr();
            // Quarters on the diagonal keep their position, the two others are exchanged.
            for (from, to) in [(0, 0), (8 * 16 + 8, 8 * 16 + 8)] {
                store8(block.add(to), transpose8(load8(block.add(from))));
            }
            let (right, lower) = (transpose8(load8(block.add(8))), transpose8(load8(block.add(8 * 16))));
            store8(block.add(8), lower);
            store8(block.add(8 * 16), right);
        }
    }
}

/// Returns the upper halves of 16-bit products.
///
/// The compiler would turn the intrinsic with a power of two as factor back into a shift.
#[inline]
#[target_feature(enable = "avx2")]
fn multiply_high(words: __m256i, factor: __m256i) -> __m256i {
    let product;
    // SAFETY: a single instruction that accesses only registers.
    unsafe {
        asm!("vpmulhuw {}, {}, {}", lateout(ymm_reg) product, in(ymm_reg) words, in(ymm_reg) factor, options(pure, nomem, nostack, preserves_flags));
    }
    product
}

/// Loads eight rows of eight floats at a distance of 16 floats.
#[inline(always)]
unsafe fn load8(from: *const f32) -> [__m256; 8] {
    // SAFETY: the caller guarantees the memory and the instructions, as in all functions below.
    unsafe {
        let mut rows = [_mm256_setzero_ps(); 8];
        for (i, row) in rows.iter_mut().enumerate() {
            *row = _mm256_loadu_ps(from.add(16 * i));
        }
        rows
    }
}

#[inline(always)]
unsafe fn store8(to: *mut f32, rows: [__m256; 8]) {
    for (i, row) in rows.into_iter().enumerate() {
        // SAFETY: see `load8`.
        unsafe { _mm256_storeu_ps(to.add(16 * i), row) }
    }
}

#[inline(always)]
unsafe fn transpose8(rows: [__m256; 8]) -> [__m256; 8] {
    // SAFETY: see `load8`.
    unsafe {
        let mut pairs = rows;
        for i in 0..4 {
            pairs[2 * i] = _mm256_unpacklo_ps(rows[2 * i], rows[2 * i + 1]);
            pairs[2 * i + 1] = _mm256_unpackhi_ps(rows[2 * i], rows[2 * i + 1]);
        }
        let mut quads = pairs;
        for i in 0..2 {
            let [a, b, c, d] = [pairs[4 * i], pairs[4 * i + 1], pairs[4 * i + 2], pairs[4 * i + 3]];
            quads[4 * i] = _mm256_shuffle_ps::<0b01_00_01_00>(a, c);
            quads[4 * i + 1] = _mm256_shuffle_ps::<0b11_10_11_10>(a, c);
            quads[4 * i + 2] = _mm256_shuffle_ps::<0b01_00_01_00>(b, d);
            quads[4 * i + 3] = _mm256_shuffle_ps::<0b11_10_11_10>(b, d);
        }
        let mut columns = quads;
        for i in 0..4 {
            columns[i] = _mm256_permute2f128_ps::<0x20>(quads[i], quads[i + 4]);
            columns[i + 4] = _mm256_permute2f128_ps::<0x31>(quads[i], quads[i + 4]);
        }
        columns
    }
}
