//! Vectors of NEON, with or without its byte dot products.

use core::arch::{aarch64::*, asm};

use super::simd::{Simd, operations};

/// Vectors of eight lanes in two registers. (NEON has twice as many registers as AVX2.) `DOT` selects the byte dot
/// products of Armv8.2.
#[derive(Clone, Copy)]
pub(crate) struct Neon<const DOT: bool>;

/// Unsigned weights, and the weights to subtract for [`weights`](Simd::weights). Without dot products, a weight is a byte
/// mask.
#[derive(Clone, Copy)]
pub(crate) struct Bytes {
    plus: [uint8x16_t; 2],
    minus: Option<[uint8x16_t; 2]>,
}

/// Sums of byte products of the weights of each sign.
#[derive(Clone, Copy)]
pub(crate) struct Dots {
    plus: Sums,
    minus: Sums,
}

/// Sums of one sign.
///
/// Without dot products, products are first added in 16 bits. After 32 calls of [`dot`](Simd::dot), such a sum is at
/// most 32 · 2 · 255 = 16320.
#[derive(Clone, Copy)]
struct Sums {
    wide: [uint32x4_t; 2],
    narrow: [uint16x8_t; 2],
}

/// Evaluates an expression for both registers, with the constant `$half` as the index of the register.
macro_rules! both {
    ($half:ident => $value:expr) => {
        [
            {
                const $half: usize = 0;
                $value
            },
            {
                const $half: usize = 1;
                $value
            },
        ]
    };
}

impl<const DOT: bool> Simd for Neon<DOT> {
    const LANES: usize = 8;
    const PERMUTES: bool = true;
    const NEG_SHIFT: u32 = if DOT { 1 } else { 0 };
    type Floats = [float32x4_t; 2];
    type Words = [uint32x4_t; 2];
    type Bytes = Bytes;
    type Dots = Dots;

    operations! {
        fn splat(value: f32) -> [float32x4_t; 2] { [vdupq_n_f32(value); 2] }
        fn load(from: *const f32) -> [float32x4_t; 2] { both!(H => vld1q_f32(from.add(4 * H))) }
        fn store(to: *mut f32, value: [float32x4_t; 2]) {
            vst1q_f32(to, value[0]);
            vst1q_f32(to.add(4), value[1]);
        }
        fn add(a: [float32x4_t; 2], b: [float32x4_t; 2]) -> [float32x4_t; 2] { both!(H => vaddq_f32(a[H], b[H])) }
        fn sub(a: [float32x4_t; 2], b: [float32x4_t; 2]) -> [float32x4_t; 2] { both!(H => vsubq_f32(a[H], b[H])) }
        fn mul(a: [float32x4_t; 2], b: [float32x4_t; 2]) -> [float32x4_t; 2] { both!(H => vmulq_f32(a[H], b[H])) }
        fn div(a: [float32x4_t; 2], b: [float32x4_t; 2]) -> [float32x4_t; 2] { both!(H => vdivq_f32(a[H], b[H])) }
        fn sqrt(value: [float32x4_t; 2]) -> [float32x4_t; 2] { both!(H => vsqrtq_f32(value[H])) }
        fn max(a: [float32x4_t; 2], b: [float32x4_t; 2]) -> [float32x4_t; 2] { both!(H => vmaxq_f32(a[H], b[H])) }
        fn min(a: [float32x4_t; 2], b: [float32x4_t; 2]) -> [float32x4_t; 2] { both!(H => vminq_f32(a[H], b[H])) }
        fn mul_add(a: [float32x4_t; 2], b: [float32x4_t; 2], c: [float32x4_t; 2]) -> [float32x4_t; 2] {
            both!(H => vfmaq_f32(c[H], a[H], b[H]))
        }
        fn relu(value: [float32x4_t; 2]) -> [float32x4_t; 2] { both!(H => vmaxq_f32(value[H], vdupq_n_f32(0.0))) }

        fn load_words(from: *const u32) -> [uint32x4_t; 2] { both!(H => vld1q_u32(from.add(4 * H))) }
        fn prefetch(from: *const u32) {
            asm!("prfm pldl1keep, [{}]", in(reg) from, options(nostack, readonly, preserves_flags));
        }
        fn splat_word(value: u32) -> [uint32x4_t; 2] { [vdupq_n_u32(value); 2] }
        fn shift(words: [uint32x4_t; 2], bits: u32) -> [uint32x4_t; 2] {
            // The instruction shifts left, so the number of bits is negative.
            both!(H => vshlq_u32(words[H], vdupq_n_s32(-(bits as i32))))
        }

        fn table(entries: [f32; 4]) -> [float32x4_t; 2] { [vld1q_f32(entries.as_ptr()); 2] }
        fn look_up(table: [float32x4_t; 2], codes: [uint32x4_t; 2]) -> [float32x4_t; 2] {
            let table = vreinterpretq_u8_f32(table[0]);
            both!(H => vreinterpretq_f32_u8(vqtbl1q_u8(table, bytes_of(codes[H], 0b11))))
        }
        fn select(codes: [uint32x4_t; 2], pos: [float32x4_t; 2], neg: [float32x4_t; 2]) -> [float32x4_t; 2] {
            both!(H => {
                let is_pos = vtstq_u32(codes[H], vdupq_n_u32(0b01));
                let is_neg = vtstq_u32(codes[H], vdupq_n_u32(0b10));
                let pos = vandq_u32(is_pos, vreinterpretq_u32_f32(pos[H]));
                vbslq_f32(is_neg, neg[H], vreinterpretq_f32_u32(pos))
            })
        }
        fn planes(first: [uint32x4_t; 2], second: [uint32x4_t; 2]) -> [[uint32x4_t; 2]; 2] {
            let even = vdupq_n_u32(0x5555_5555);
            [
                both!(H => vbslq_u32(even, first[H], vaddq_u32(second[H], second[H]))),
                both!(H => vbslq_u32(even, vshrq_n_u32::<1>(first[H]), second[H])),
            ]
        }
        fn permute(table: *const f32, index: [uint32x4_t; 2]) -> [float32x4_t; 2] {
            let table = uint8x16x2_t(vld1q_u8(table.cast()), vld1q_u8(table.add(4).cast()));
            both!(H => vreinterpretq_f32_u8(vqtbl2q_u8(table, bytes_of(index[H], 0b111))))
        }

        fn no_dots() -> Dots {
            let none = Sums { wide: [vdupq_n_u32(0); 2], narrow: [vdupq_n_u16(0); 2] };
            Dots { plus: none, minus: none }
        }
        fn pos(words: [uint32x4_t; 2]) -> Bytes { Bytes { plus: plane::<DOT>(words, 0b01), minus: None } }
        fn neg(words: [uint32x4_t; 2]) -> Bytes { Bytes { plus: plane::<DOT>(words, 0b10), minus: None } }
        fn weights(words: [uint32x4_t; 2], _tables: [uint32x4_t; 2]) -> Bytes {
            // Moves the bit of -1 to the bit of +1, because the bit of `neg` would count twice.
            let halved = Self::shift(words, 1);
            Bytes { plus: plane::<DOT>(words, 0b01), minus: Some(plane::<DOT>(halved, 0b01)) }
        }
        fn dot(sums: Dots, x: [uint32x4_t; 2], weights: Bytes) -> Dots {
            let plus = add_products::<DOT>(sums.plus, x, weights.plus);
            match weights.minus {
                Some(minus) => Dots { plus, minus: add_products::<DOT>(sums.minus, x, minus) },
                None => Dots { plus, ..sums },
            }
        }
        fn widen(sums: Dots) -> Dots {
            if DOT {
                return sums;
            }
            Dots { plus: widen(sums.plus), minus: widen(sums.minus) }
        }
        fn store_dots(to: *mut i32, sums: Dots) {
            let sums = both!(H => vreinterpretq_s32_u32(vsubq_u32(sums.plus.wide[H], sums.minus.wide[H])));
            vst1q_s32(to, sums[0]);
            vst1q_s32(to.add(4), sums[1]);
        }
        fn dot_signed(sums: Dots, x: [uint32x4_t; 2], weights: [uint32x4_t; 2]) -> Dots {
            let wide = both!(H => {
                let x = vreinterpretq_u8_u32(x[H]);
                let w = vreinterpretq_s8_u32(weights[H]);
                let low = products(vmovl_u8(vget_low_u8(x)), vmovl_s8(vget_low_s8(w)));
                let high = products(vmovl_high_u8(x), vmovl_high_s8(w));
                vaddq_u32(sums.plus.wide[H], vreinterpretq_u32_s32(vpaddq_s32(low, high)))
            });
            Dots { plus: Sums { wide, ..sums.plus }, ..sums }
        }
        fn transpose(block: &mut [f32; 256]) {
            let block = block.as_mut_ptr();
            for row in (0..16).step_by(4) {
                for column in (0..=row).step_by(4) {
                    // Exchanges two blocks of 4 × 4, which are the same block on the diagonal.
                    let (one, other) = (block.add(16 * row + column), block.add(16 * column + row));
                    let (first, second) = (transpose4(load4(one)), transpose4(load4(other)));
                    store4(other, first);
                    store4(one, second);
                }
            }
        }
    }
}

/// Returns, for each lane, the indices of the four bytes of the float with the masked index.
#[inline(always)]
unsafe fn bytes_of(index: uint32x4_t, mask: u32) -> uint8x16_t {
    // SAFETY: the caller guarantees the memory and the instructions, as in all functions below.
    unsafe {
        let index = vandq_u32(index, vdupq_n_u32(mask));
        vreinterpretq_u8_u32(vmlaq_u32(vdupq_n_u32(0x0302_0100), index, vdupq_n_u32(0x0404_0404)))
    }
}

/// Returns one bit of each byte, in place if `DOT` is true and as a byte mask otherwise.
#[inline(always)]
unsafe fn plane<const DOT: bool>(words: [uint32x4_t; 2], bit: u8) -> [uint8x16_t; 2] {
    // SAFETY: see `bytes_of`.
    unsafe {
        let bit = vdupq_n_u8(bit);
        if DOT {
            both!(H => vandq_u8(vreinterpretq_u8_u32(words[H]), bit))
        } else {
            both!(H => vtstq_u8(vreinterpretq_u8_u32(words[H]), bit))
        }
    }
}

#[inline(always)]
unsafe fn add_products<const DOT: bool>(sums: Sums, x: [uint32x4_t; 2], weights: [uint8x16_t; 2]) -> Sums {
    // SAFETY: see `bytes_of`.
    unsafe {
        let x = both!(H => vreinterpretq_u8_u32(x[H]));
        if DOT {
            Sums { wide: both!(H => udot(sums.wide[H], x[H], weights[H])), ..sums }
        } else {
            Sums { narrow: both!(H => vpadalq_u8(sums.narrow[H], vandq_u8(x[H], weights[H]))), ..sums }
        }
    }
}

/// Adds to each lane four products of unsigned bytes. (The intrinsic is not available in stable Rust.)
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn udot(mut sums: uint32x4_t, x: uint8x16_t, weights: uint8x16_t) -> uint32x4_t {
    // SAFETY: a single instruction that accesses only registers.
    unsafe {
        asm!("udot {:v}.4s, {:v}.16b, {:v}.16b", inout(vreg) sums, in(vreg) x, in(vreg) weights, options(pure, nomem, nostack, preserves_flags));
    }
    sums
}

/// Returns the sums of neighbouring products.
#[inline(always)]
unsafe fn products(x: uint16x8_t, weights: int16x8_t) -> int32x4_t {
    // SAFETY: see `bytes_of`.
    unsafe {
        let x = vreinterpretq_s16_u16(x);
        vpaddq_s32(vmull_s16(vget_low_s16(x), vget_low_s16(weights)), vmull_high_s16(x, weights))
    }
}

#[inline(always)]
unsafe fn widen(sums: Sums) -> Sums {
    // SAFETY: see `bytes_of`.
    unsafe { Sums { wide: both!(H => vpadalq_u16(sums.wide[H], sums.narrow[H])), narrow: [vdupq_n_u16(0); 2] } }
}

/// Loads four rows of four floats at a distance of 16 floats.
#[inline(always)]
unsafe fn load4(from: *const f32) -> [float32x4_t; 4] {
    // SAFETY: see `bytes_of`.
    unsafe { [vld1q_f32(from), vld1q_f32(from.add(16)), vld1q_f32(from.add(32)), vld1q_f32(from.add(48))] }
}

#[inline(always)]
unsafe fn store4(to: *mut f32, rows: [float32x4_t; 4]) {
    for (i, row) in rows.into_iter().enumerate() {
        // SAFETY: see `bytes_of`.
        unsafe { vst1q_f32(to.add(16 * i), row) }
    }
}

#[inline(always)]
unsafe fn transpose4([a, b, c, d]: [float32x4_t; 4]) -> [float32x4_t; 4] {
    // SAFETY: see `bytes_of`.
    unsafe {
        let pair = |x| vreinterpretq_f64_f32(x);
        let (ab, cd) = (pair(vtrn1q_f32(a, b)), pair(vtrn1q_f32(c, d)));
        let (ab_odd, cd_odd) = (pair(vtrn2q_f32(a, b)), pair(vtrn2q_f32(c, d)));
        [
            vreinterpretq_f32_f64(vtrn1q_f64(ab, cd)),
            vreinterpretq_f32_f64(vtrn1q_f64(ab_odd, cd_odd)),
            vreinterpretq_f32_f64(vtrn2q_f64(ab, cd)),
            vreinterpretq_f32_f64(vtrn2q_f64(ab_odd, cd_odd)),
        ]
    }
}
