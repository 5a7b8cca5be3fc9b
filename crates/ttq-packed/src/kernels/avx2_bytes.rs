//! Sums of bytes with lookup [tables](super::byte_tables) on AVX2.

use core::arch::x86_64::*;

use super::avx2::Avx2;
use super::byte_tables::LOWER;
use super::simd::Simd;
use super::tile::AHEAD;

/// Number of pairs of steps whose sums fit in a signed 16-bit number: at most 4 · 8 · 4 · 255 = 32640.
const BLOCK: usize = 4;

/// Returns `[P, 2 N]` of 32 rows. The words of a step are `words[..32]`, and those of the next step follow at a
/// distance of `rows` words.
///
/// # Safety
/// The processor must support AVX2, and the words and the tables of all steps must exist.
#[inline(always)]
pub(super) unsafe fn sums(words: *const u32, rows: usize, steps: usize, tables: *const u8) -> [[i32; 32]; 2] {
    // SAFETY: guaranteed by the caller, as in all functions below.
    unsafe {
        let mut sums = [[0; 32]; 2];
        let mut narrow = [[_mm256_setzero_si256(); 2]; 2];
        for pair in 0..steps / 2 {
            let words = words.add(2 * pair * rows);
            add_pair(&mut narrow, words, words.add(rows), tables.add(256 * pair));
            for v in 0..4 {
                _mm_prefetch::<_MM_HINT_T0>(words.wrapping_add(AHEAD + 16 * (v % 2) + v / 2 * rows).cast());
            }
            if pair % BLOCK == BLOCK - 1 {
                widen(&mut sums, &mut narrow);
            }
        }
        if steps % 2 == 1 {
            widen(&mut sums, &mut narrow);
            add_pair(&mut narrow, words.add((steps - 1) * rows), [0; 32].as_ptr(), tables.add(steps / 2 * 256));
        }
        widen(&mut sums, &mut narrow);
        sums
    }
}

/// Adds the contributions of the steps `first` and `second` to `P` and to `N`.
///
/// A vector of `narrow` has 16 rows in the order of [`bytes_of_rows`].
#[inline(always)]
unsafe fn add_pair(narrow: &mut [[__m256i; 2]; 2], first: *const u32, second: *const u32, tables: *const u8) {
    // SAFETY: see `sums`.
    unsafe {
        let mut planes = [[_mm256_setzero_si256(); 4]; 2];
        for v in 0..4 {
            let first = _mm256_loadu_si256(first.add(8 * v).cast());
            let second = _mm256_loadu_si256(second.add(8 * v).cast());
            [planes[0][v], planes[1][v]] = Avx2::<false>::planes(first, second);
        }
        let bytes = [bytes_of_rows(planes[0]), bytes_of_rows(planes[1])];
        let mask = _mm256_set1_epi8(0b1111);
        let mut lower = [_mm256_setzero_si256(); 2];
        let mut upper = lower;
        for i in 0..4 {
            for half in 0..2 {
                let tables = tables.add(64 * i + 32 * half);
                let (low, high) = (load_twice(tables), load_twice(tables.add(16)));
                for p in 0..2 {
                    let nibble = if half == 0 { bytes[p][i] } else { _mm256_srli_epi16::<4>(bytes[p][i]) };
                    let index = _mm256_and_si256(nibble, mask);
                    lower[p] = _mm256_add_epi8(lower[p], _mm256_shuffle_epi8(low, index));
                    upper[p] = _mm256_add_epi8(upper[p], _mm256_shuffle_epi8(high, index));
                }
            }
        }
        let weights = _mm256_set1_epi16(1 | 1 << (8 + LOWER));
        for p in 0..2 {
            let pairs = [_mm256_unpacklo_epi8(lower[p], upper[p]), _mm256_unpackhi_epi8(lower[p], upper[p])];
            for v in 0..2 {
                narrow[p][v] = _mm256_add_epi16(narrow[p][v], _mm256_maddubs_epi16(pairs[v], weights));
            }
        }
    }
}

/// Adds 16-bit sums, `P` and twice `N`, to 32-bit sums. Unpacking restores the order of the rows.
#[inline(always)]
unsafe fn widen(sums: &mut [[i32; 32]; 2], narrow: &mut [[__m256i; 2]; 2]) {
    // SAFETY: see `sums`.
    unsafe {
        let zero = _mm256_setzero_si256();
        for p in 0..2 {
            for v in 0..4 {
                let (half, to) = (narrow[p][v / 2], sums[p].as_mut_ptr().add(8 * v).cast());
                let wide =
                    if v % 2 == 0 { _mm256_unpacklo_epi16(half, zero) } else { _mm256_unpackhi_epi16(half, zero) };
                let wide = if p == 0 { wide } else { _mm256_add_epi32(wide, wide) };
                _mm256_storeu_si256(to, _mm256_add_epi32(_mm256_loadu_si256(to), wide));
            }
            narrow[p] = [zero; 2];
        }
    }
}

/// Returns four vectors with the bytes 0 to 3 of 32 words. In the half `h` of a vector, byte `4 v + i` belongs to the
/// row `8 v + 4 h + i`.
#[inline(always)]
unsafe fn bytes_of_rows(words: [__m256i; 4]) -> [__m256i; 4] {
    // SAFETY: see `sums`.
    unsafe {
        let order = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
        let [a, b, c, d] = words;
        let (a, b) = (_mm256_shuffle_epi8(a, order), _mm256_shuffle_epi8(b, order));
        let (c, d) = (_mm256_shuffle_epi8(c, order), _mm256_shuffle_epi8(d, order));
        let (ab, cd) = (_mm256_unpacklo_epi32(a, b), _mm256_unpacklo_epi32(c, d));
        let (ab_high, cd_high) = (_mm256_unpackhi_epi32(a, b), _mm256_unpackhi_epi32(c, d));
        [
            _mm256_unpacklo_epi64(ab, cd),
            _mm256_unpackhi_epi64(ab, cd),
            _mm256_unpacklo_epi64(ab_high, cd_high),
            _mm256_unpackhi_epi64(ab_high, cd_high),
        ]
    }
}

/// Loads a table to both halves of a vector.
#[inline(always)]
unsafe fn load_twice(table: *const u8) -> __m256i {
    // SAFETY: see `sums`.
    unsafe { _mm256_broadcastsi128_si256(_mm_loadu_si128(table.cast())) }
}
