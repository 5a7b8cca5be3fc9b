//! Vectors of WebAssembly's fixed-width SIMD.

use core::arch::wasm32::*;

use super::simd::{Simd, operations};

/// Vectors of four lanes. Two of them would need more registers in the inner loops than x86-64 has.
#[derive(Clone, Copy)]
pub(crate) struct Simd128;

/// Weights as byte masks: `plus` selects the bytes to add, `minus` the bytes to subtract.
#[derive(Clone, Copy)]
pub(crate) struct Bytes {
    plus: v128,
    minus: Option<v128>,
}

/// Sums of byte products.
///
/// Products are first added in 16 bits. After 32 calls of [`dot`](Simd::dot), such a sum is at most 32 · 2 · 255 = 16320.
#[derive(Clone, Copy)]
pub(crate) struct Dots {
    wide: v128,
    narrow: v128,
}

impl Simd for Simd128 {
    const LANES: usize = 4;
    const NEG_SHIFT: u32 = 0;
    type Floats = v128;
    type Words = v128;
    type Bytes = Bytes;
    type Dots = Dots;

    operations! {
        fn splat(value: f32) -> v128 { f32x4_splat(value) }
        fn load(from: *const f32) -> v128 { v128_load(from.cast()) }
        fn store(to: *mut f32, value: v128) { v128_store(to.cast(), value) }
        fn add(a: v128, b: v128) -> v128 { f32x4_add(a, b) }
        fn sub(a: v128, b: v128) -> v128 { f32x4_sub(a, b) }
        fn mul(a: v128, b: v128) -> v128 { f32x4_mul(a, b) }
        fn div(a: v128, b: v128) -> v128 { f32x4_div(a, b) }
        fn sqrt(value: v128) -> v128 { f32x4_sqrt(value) }
        // The pseudo-maximum is a single instruction of SSE and NEON; the maximum with IEEE's rules for NaN is not.
        fn max(a: v128, b: v128) -> v128 { f32x4_max(a, b) }
        fn min(a: v128, b: v128) -> v128 { f32x4_min(a, b) }
        fn mul_add(a: v128, b: v128, c: v128) -> v128 { f32x4_add(f32x4_mul(a, b), c) }
        // `pmax` returns the first operand if either one is NaN.
        fn relu(value: v128) -> v128 { f32x4_pmax(value, f32x4_splat(0.0)) }

        fn load_words(from: *const u32) -> v128 { v128_load(from.cast()) }
        fn splat_word(value: u32) -> v128 { u32x4_splat(value) }
        fn shift(words: v128, bits: u32) -> v128 { u32x4_shr(words, bits) }

        fn table(entries: [f32; 4]) -> v128 { v128_load(entries.as_ptr().cast()) }
        fn look_up(table: v128, codes: v128) -> v128 {
            // The indices of the four bytes of a float.
            let first = i32x4_mul(v128_and(codes, u32x4_splat(0b11)), u32x4_splat(0x0404_0404));
            i8x16_swizzle(table, i32x4_add(first, u32x4_splat(0x0302_0100)))
        }
        fn select(codes: v128, pos: v128, neg: v128) -> v128 {
            let all = |bit: u32| i32x4_shr(i32x4_shl(codes, 31 - bit), 31);
            v128_or(v128_and(all(0), pos), v128_and(all(1), neg))
        }

        fn no_dots() -> Dots { Dots { wide: u32x4_splat(0), narrow: u32x4_splat(0) } }
        fn pos(words: v128) -> Bytes { Bytes { plus: masks(words, 0b01), minus: None } }
        fn neg(words: v128) -> Bytes { Bytes { plus: masks(words, 0b10), minus: None } }
        fn weights(words: v128, _tables: v128) -> Bytes {
            Bytes { plus: masks(words, 0b01), minus: Some(masks(words, 0b10)) }
        }
        fn dot(sums: Dots, x: v128, weights: Bytes) -> Dots {
            let pairs = |mask| u16x8_extadd_pairwise_u8x16(v128_and(x, mask));
            let narrow = i16x8_add(sums.narrow, pairs(weights.plus));
            Dots { narrow: weights.minus.map_or(narrow, |minus| i16x8_sub(narrow, pairs(minus))), ..sums }
        }
        fn widen(sums: Dots) -> Dots {
            let pairs = i32x4_extadd_pairwise_i16x8(sums.narrow);
            Dots { wide: i32x4_add(sums.wide, pairs), narrow: u32x4_splat(0) }
        }
        fn store_dots(to: *mut i32, sums: Dots) { v128_store(to.cast(), sums.wide) }
        fn dot_signed(sums: Dots, x: v128, weights: v128) -> Dots {
            let even = i32x4_dot_i16x8(v128_and(x, u16x8_splat(0xff)), i16x8_shr(i16x8_shl(weights, 8), 8));
            let odd = i32x4_dot_i16x8(u16x8_shr(x, 8), i16x8_shr(weights, 8));
            Dots { wide: i32x4_add(sums.wide, i32x4_add(even, odd)), ..sums }
        }
        fn dots_to_floats(sums: Dots) -> v128 { f32x4_convert_i32x4(sums.wide) }
        fn load_bytes(from: *const u8) -> v128 {
            let bytes = v128_load32_zero(from.cast());
            f32x4_convert_i32x4(u32x4_extend_low_u16x8(u16x8_extend_low_u8x16(bytes)))
        }
        fn store_bytes(to: *mut u8, value: v128) {
            // Conversion and narrowing saturate, and NaN becomes 0.
            let words = i32x4_trunc_sat_f32x4(f32x4_nearest(value));
            let halves = i16x8_narrow_i32x4(words, words);
            v128_store32_lane::<0>(u8x16_narrow_i16x8(halves, halves), to.cast());
        }
        fn transpose(block: &mut [f32; 256]) {
            let block = block.as_mut_ptr();
            for row in (0..16).step_by(4) {
                for column in (0..=row).step_by(4) {
                    // Exchanges two blocks of 4 × 4, which are the same block on the diagonal.
                    let (one, other) = (block.add(16 * row + column), block.add(16 * column + row));
                    let (first, second) = (transposed(one), transposed(other));
                    for i in 0..4 {
                        v128_store(other.add(16 * i).cast(), first[i]);
                        v128_store(one.add(16 * i).cast(), second[i]);
                    }
                }
            }
        }
    }
}

/// Returns the byte 255 where a byte has the bit, and 0 elsewhere.
#[inline(always)]
fn masks(words: v128, bit: u8) -> v128 {
    let bit = u8x16_splat(bit);
    i8x16_eq(v128_and(words, bit), bit)
}

/// Loads four rows of four floats at a distance of 16 floats, and transposes them.
///
/// # Safety
/// The rows must be readable.
#[inline(always)]
unsafe fn transposed(from: *const f32) -> [v128; 4] {
    // SAFETY: guaranteed by the caller.
    let [a, b, c, d] = unsafe { [0, 16, 32, 48].map(|row| v128_load(from.add(row).cast())) };
    let (ab, cd) = (i32x4_shuffle::<0, 4, 1, 5>(a, b), i32x4_shuffle::<0, 4, 1, 5>(c, d));
    let (ab_high, cd_high) = (i32x4_shuffle::<2, 6, 3, 7>(a, b), i32x4_shuffle::<2, 6, 3, 7>(c, d));
    [
        i64x2_shuffle::<0, 2>(ab, cd),
        i64x2_shuffle::<1, 3>(ab, cd),
        i64x2_shuffle::<0, 2>(ab_high, cd_high),
        i64x2_shuffle::<1, 3>(ab_high, cd_high),
    ]
}
