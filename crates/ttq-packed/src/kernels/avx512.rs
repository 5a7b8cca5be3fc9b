//! Vectors of AVX-512 with VNNI.

use core::arch::{asm, x86_64::*};

use super::simd::{Simd, operations};

/// Vectors of sixteen lanes.
#[derive(Clone, Copy)]
pub(crate) struct Avx512;

impl Simd for Avx512 {
    const LANES: usize = 16;
    const PERMUTES: bool = true;
    const ANY_BYTES: bool = true;
    type Floats = __m512;
    type Words = __m512i;
    type Bytes = __m512i;
    type Dots = __m512i;

    operations! {
        fn splat(value: f32) -> __m512 { _mm512_set1_ps(value) }
        fn load(from: *const f32) -> __m512 { _mm512_loadu_ps(from) }
        fn store(to: *mut f32, value: __m512) { _mm512_storeu_ps(to, value) }
        fn add(a: __m512, b: __m512) -> __m512 { _mm512_add_ps(a, b) }
        fn sub(a: __m512, b: __m512) -> __m512 { _mm512_sub_ps(a, b) }
        fn mul(a: __m512, b: __m512) -> __m512 { _mm512_mul_ps(a, b) }
        fn div(a: __m512, b: __m512) -> __m512 { _mm512_div_ps(a, b) }
        fn sqrt(value: __m512) -> __m512 { _mm512_sqrt_ps(value) }
        // The instructions return the second operand if either one is NaN.
        fn max(a: __m512, b: __m512) -> __m512 {
            _mm512_mask_mov_ps(_mm512_max_ps(a, b), _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(a, a), a)
        }
        fn min(a: __m512, b: __m512) -> __m512 {
            _mm512_mask_mov_ps(_mm512_min_ps(a, b), _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(a, a), a)
        }
        fn mul_add(a: __m512, b: __m512, c: __m512) -> __m512 { _mm512_fmadd_ps(a, b, c) }
        fn relu(value: __m512) -> __m512 { _mm512_max_ps(_mm512_setzero_ps(), value) }

        fn load_words(from: *const u32) -> __m512i { _mm512_loadu_si512(from.cast()) }
        fn prefetch(from: *const u32) { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
        fn splat_word(value: u32) -> __m512i { _mm512_set1_epi32(value as i32) }
        fn shift(words: __m512i, bits: u32) -> __m512i { _mm512_srl_epi32(words, _mm_cvtsi32_si128(bits as i32)) }

        fn table(entries: [f32; 4]) -> __m512 { _mm512_broadcast_f32x4(_mm_loadu_ps(entries.as_ptr())) }
        fn look_up(table: __m512, codes: __m512i) -> __m512 { _mm512_permutevar_ps(table, codes) }
        fn select(codes: __m512i, pos: __m512, neg: __m512) -> __m512 {
            let is_pos = _mm512_test_epi32_mask(codes, _mm512_set1_epi32(0b01));
            let is_neg = _mm512_test_epi32_mask(codes, _mm512_set1_epi32(0b10));
            _mm512_mask_mov_ps(_mm512_maskz_mov_ps(is_pos, pos), is_neg, neg)
        }
        fn planes(first: __m512i, second: __m512i) -> [__m512i; 2] {
            // A bit of the first operand selects one of the second or of the third.
            const SELECT: i32 = 0b1100_1010;
            let even = _mm512_set1_epi8(0b0101_0101);
            let (doubled, halved) = (_mm512_add_epi32(second, second), _mm512_srli_epi32::<1>(first));
            [
                _mm512_ternarylogic_epi32::<SELECT>(even, first, doubled),
                _mm512_ternarylogic_epi32::<SELECT>(even, halved, second),
            ]
        }
        // A multiplication shifts within the half of a lane. It uses other execution units than shifts and permutations.
        fn index(words: __m512i, bit: u32) -> __m512i {
            let half = if bit < 16 { words } else { _mm512_srli_epi32::<16>(words) };
            match bit % 16 {
                0 => half,
                bit => multiply_high(half, _mm512_set1_epi32(1 << (16 - bit))),
            }
        }
        fn permute(table: *const f32, index: __m512i) -> __m512 { _mm512_permutexvar_ps(index, _mm512_loadu_ps(table)) }

        fn no_dots() -> __m512i { _mm512_setzero_si512() }
        fn pos(words: __m512i) -> __m512i { _mm512_and_si512(words, _mm512_set1_epi8(0b01)) }
        fn neg(words: __m512i) -> __m512i { _mm512_and_si512(words, _mm512_set1_epi8(0b10)) }
        fn weights(words: __m512i, tables: __m512i) -> __m512i {
            // A shuffle selects among the bytes of four lanes.
            let lanes = _mm512_broadcast_i32x4(_mm_set_epi32(0x0c0c_0c0c, 0x0808_0808, 0x0404_0404, 0));
            let index = _mm512_or_si512(_mm512_and_si512(words, _mm512_set1_epi8(0b11)), lanes);
            _mm512_shuffle_epi8(tables, index)
        }
        fn dot(sums: __m512i, x: __m512i, weights: __m512i) -> __m512i { _mm512_dpbusd_epi32(sums, x, weights) }
        fn widen(sums: __m512i) -> __m512i { sums }
        fn store_dots(to: *mut i32, sums: __m512i) { _mm512_storeu_si512(to.cast(), sums) }
        fn dot_signed(sums: __m512i, x: __m512i, weights: __m512i) -> __m512i { _mm512_dpbusd_epi32(sums, x, weights) }
        fn dots_to_floats(sums: __m512i) -> __m512 { _mm512_cvtepi32_ps(sums) }
        fn load_bytes(from: *const u8) -> __m512 {
            _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(from.cast())))
        }
        fn store_bytes(to: *mut u8, value: __m512) {
            let rounded = _mm512_cvtps_epi32(_mm512_max_ps(value, _mm512_setzero_ps()));
            _mm_storeu_si128(to.cast(), _mm512_cvtusepi32_epi8(rounded));
        }
        fn transpose(block: &mut [f32; 256]) {
            let block = block.as_mut_ptr();
            let mut rows = [_mm512_setzero_ps(); 16];
            for (i, row) in rows.iter_mut().enumerate() {
                *row = _mm512_loadu_ps(block.add(16 * i));
            }
            for (i, column) in transpose16(rows).into_iter().enumerate() {
                _mm512_storeu_ps(block.add(16 * i), column);
            }
        }
    }
}

/// Returns the upper halves of 16-bit products.
///
/// The compiler would turn the intrinsic with a power of two as factor back into a shift.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn multiply_high(words: __m512i, factor: __m512i) -> __m512i {
    let product;
    // SAFETY: a single instruction that accesses only registers.
    unsafe {
        asm!("vpmulhuw {}, {}, {}", lateout(zmm_reg) product, in(zmm_reg) words, in(zmm_reg) factor, options(pure, nomem, nostack, preserves_flags));
    }
    product
}

/// Transposes 16 rows: interleaves pairs of rows, then groups of four, then 128-bit quarters.
#[inline(always)]
unsafe fn transpose16(rows: [__m512; 16]) -> [__m512; 16] {
    // SAFETY: accesses only registers; the caller guarantees the instructions.
    unsafe {
        let mut pairs = rows;
        for i in 0..8 {
            pairs[2 * i] = _mm512_unpacklo_ps(rows[2 * i], rows[2 * i + 1]);
            pairs[2 * i + 1] = _mm512_unpackhi_ps(rows[2 * i], rows[2 * i + 1]);
        }
        // Quarter `q` of `fours[4 i + j]` is column `4 q + j` of the rows `4 i .. 4 i + 4`.
        let mut fours = pairs;
        for i in 0..4 {
            let [a, b, c, d] = [pairs[4 * i], pairs[4 * i + 1], pairs[4 * i + 2], pairs[4 * i + 3]];
            fours[4 * i] = _mm512_shuffle_ps::<0b01_00_01_00>(a, c);
            fours[4 * i + 1] = _mm512_shuffle_ps::<0b11_10_11_10>(a, c);
            fours[4 * i + 2] = _mm512_shuffle_ps::<0b01_00_01_00>(b, d);
            fours[4 * i + 3] = _mm512_shuffle_ps::<0b11_10_11_10>(b, d);
        }
        let mut columns = fours;
        for j in 0..4 {
            let [a, b, c, d] = [fours[j], fours[4 + j], fours[8 + j], fours[12 + j]];
            // The quarters 0 and 2, and the quarters 1 and 3, of two vectors.
            let (even_low, even_high) =
                (_mm512_shuffle_f32x4::<0b10_00_10_00>(a, b), _mm512_shuffle_f32x4::<0b10_00_10_00>(c, d));
            let (odd_low, odd_high) =
                (_mm512_shuffle_f32x4::<0b11_01_11_01>(a, b), _mm512_shuffle_f32x4::<0b11_01_11_01>(c, d));
            columns[j] = _mm512_shuffle_f32x4::<0b10_00_10_00>(even_low, even_high);
            columns[8 + j] = _mm512_shuffle_f32x4::<0b11_01_11_01>(even_low, even_high);
            columns[4 + j] = _mm512_shuffle_f32x4::<0b10_00_10_00>(odd_low, odd_high);
            columns[12 + j] = _mm512_shuffle_f32x4::<0b11_01_11_01>(odd_low, odd_high);
        }
        columns
    }
}
