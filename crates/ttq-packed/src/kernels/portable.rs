//! Vectors in plain code: what the compiler makes of four lanes is a register of SSE2 or NEON.

use super::simd::{Simd, operations};

const LANES: usize = 4;

/// Four lanes in an array.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

#[inline(always)]
fn zip<A: Copy, B: Copy, T: Copy + Default>(a: [A; LANES], b: [B; LANES], f: impl Fn(A, B) -> T) -> [T; LANES] {
    let mut result = [T::default(); LANES];
    for lane in 0..LANES {
        result[lane] = f(a[lane], b[lane]);
    }
    result
}

/// `a * b + c`, fused where the target does that in one instruction: elsewhere `mul_add` is a call into the C library.
#[inline(always)]
fn mul_add(a: f32, b: f32, c: f32) -> f32 {
    #[cfg(all(feature = "std", target_arch = "aarch64"))]
    return a.mul_add(b, c);
    #[cfg(not(all(feature = "std", target_arch = "aarch64")))]
    return a * b + c;
}

/// All ones where the bit is set.
#[inline(always)]
fn mask(word: u32, bit: u32) -> u32 {
    (word >> bit & 1).wrapping_neg()
}

impl Simd for Portable {
    const LANES: usize = LANES;
    type Floats = [f32; LANES];
    type Words = [u32; LANES];
    type Dots = [i32; LANES];

    operations! {
        fn splat(value: f32) -> [f32; LANES] { [value; LANES] }
        fn load(from: *const f32) -> [f32; LANES] { from.cast::<[f32; LANES]>().read_unaligned() }
        fn store(to: *mut f32, value: [f32; LANES]) { to.cast::<[f32; LANES]>().write_unaligned(value) }
        fn load_words(from: *const u32) -> [u32; LANES] { from.cast::<[u32; LANES]>().read_unaligned() }
        fn store_dots(to: *mut i32, sums: [i32; LANES]) { to.cast::<[i32; LANES]>().write_unaligned(sums) }
    }

    #[inline(always)]
    unsafe fn add(a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        zip(a, b, |a, b| a + b)
    }

    #[inline(always)]
    unsafe fn mul(a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        zip(a, b, |a, b| a * b)
    }

    #[inline(always)]
    unsafe fn mul_add(a: [f32; LANES], b: [f32; LANES], c: [f32; LANES]) -> [f32; LANES] {
        zip(zip(a, b, |a, b| (a, b)), c, |(a, b), c| mul_add(a, b, c))
    }

    #[inline(always)]
    unsafe fn splat_word(value: u32) -> [u32; LANES] {
        [value; LANES]
    }

    #[inline(always)]
    unsafe fn shift(words: [u32; LANES], bits: u32) -> [u32; LANES] {
        zip(words, words, |word, _| word >> bits)
    }

    #[inline(always)]
    unsafe fn table(entries: [f32; 4]) -> [f32; LANES] {
        entries
    }

    #[inline(always)]
    unsafe fn look_up(table: [f32; LANES], codes: [u32; LANES]) -> [f32; LANES] {
        // Two masks are vector instructions; an index for each lane is not.
        // SAFETY: plain code.
        unsafe { Self::select(codes, [table[1]; LANES], [table[2]; LANES]) }
    }

    #[inline(always)]
    unsafe fn select(codes: [u32; LANES], pos: [f32; LANES], neg: [f32; LANES]) -> [f32; LANES] {
        let pos = zip(codes, pos, |code, pos| mask(code, 0) & pos.to_bits());
        let neg = zip(codes, neg, |code, neg| mask(code, 1) & neg.to_bits());
        zip(pos, neg, |pos, neg| f32::from_bits(pos | neg))
    }

    #[inline(always)]
    unsafe fn no_dots() -> [i32; LANES] {
        [0; LANES]
    }

    #[inline(always)]
    unsafe fn plane(words: [u32; LANES], mask: u8) -> [u32; LANES] {
        zip(words, words, |word, _| word & u32::from_ne_bytes([mask; 4]))
    }

    #[inline(always)]
    unsafe fn signs(words: [u32; LANES]) -> [u32; LANES] {
        // A byte is 0b00, 0b01 or 0b10: the first bit is the value +1, and 0b10 becomes 0xff.
        zip(words, words, |word, _| (word & 0x0101_0101) | (word >> 1 & 0x0101_0101) * 0xff)
    }

    #[inline(always)]
    unsafe fn dot(sums: [i32; LANES], x: [u32; LANES], weights: [u32; LANES]) -> [i32; LANES] {
        let mut result = sums;
        for byte in 0..4 {
            let products = zip(x, weights, |x, weight| {
                i32::from((x >> (8 * byte)) as u8) * i32::from((weight >> (8 * byte)) as i8)
            });
            result = zip(result, products, |sum, product| sum + product);
        }
        result
    }

    #[inline(always)]
    unsafe fn widen(sums: [i32; LANES]) -> [i32; LANES] {
        sums
    }

    #[inline(always)]
    unsafe fn transpose(block: &mut [f32; 256]) {
        for row in 0..16 {
            for column in 0..row {
                block.swap(16 * row + column, 16 * column + row);
            }
        }
    }
}
