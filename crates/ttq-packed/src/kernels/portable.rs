//! Vectors in plain Rust. The compiler maps four lanes to a register of SSE2 or NEON.

use super::epilogue;
use super::simd::{Simd, operations};

const LANES: usize = 4;

/// Vectors of four lanes in an array.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

/// Weights as byte masks: `plus` selects the bytes to add, `minus` the bytes to subtract.
#[derive(Clone, Copy)]
pub(crate) struct Bytes {
    plus: [u32; LANES],
    minus: [u32; LANES],
}

/// Sums of byte products.
///
/// A narrow sum is `low + 2^16 high` with two sums of 16 bits. After 32 calls of [`dot`](Simd::dot), each is at most
/// 32 · 2 · 255 = 16320.
#[derive(Clone, Copy)]
pub(crate) struct Dots {
    wide: [i32; LANES],
    narrow: [i32; LANES],
}

/// Returns the byte 255 for each byte whose bit is set, computed as 256 - 1, and 0 for the others.
#[inline(always)]
fn masks(words: [u32; LANES], bit: u32) -> [u32; LANES] {
    zip(words, words, |word, _| {
        let ones = word >> bit & 0x0101_0101;
        (ones << 8).wrapping_sub(ones)
    })
}

/// Adds bytes in pairs, 0 to 1 and 2 to 3, and returns the sums in the halves of a word.
#[inline(always)]
fn halves(bytes: u32) -> u32 {
    (bytes & 0x00ff_00ff) + (bytes >> 8 & 0x00ff_00ff)
}

#[inline(always)]
fn zip<A: Copy, B: Copy, T: Copy + Default>(a: [A; LANES], b: [B; LANES], f: impl Fn(A, B) -> T) -> [T; LANES] {
    let mut result = [T::default(); LANES];
    for lane in 0..LANES {
        result[lane] = f(a[lane], b[lane]);
    }
    result
}

/// Computes `a * b + c`, fused if the target has an instruction for it. Elsewhere `mul_add` would call the C library.
#[inline(always)]
fn mul_add(a: f32, b: f32, c: f32) -> f32 {
    #[cfg(all(feature = "std", target_arch = "aarch64"))]
    return a.mul_add(b, c);
    #[cfg(not(all(feature = "std", target_arch = "aarch64")))]
    return a * b + c;
}

/// Returns all ones if the bit is set, and 0 otherwise.
#[inline(always)]
fn mask(word: u32, bit: u32) -> u32 {
    (word >> bit & 1).wrapping_neg()
}

impl Simd for Portable {
    const LANES: usize = LANES;
    const NEG_SHIFT: u32 = 0;
    type Floats = [f32; LANES];
    type Words = [u32; LANES];
    type Bytes = Bytes;
    type Dots = Dots;

    operations! {
        fn splat(value: f32) -> [f32; LANES] { [value; LANES] }
        fn load(from: *const f32) -> [f32; LANES] { from.cast::<[f32; LANES]>().read_unaligned() }
        fn store(to: *mut f32, value: [f32; LANES]) { to.cast::<[f32; LANES]>().write_unaligned(value) }
        fn load_words(from: *const u32) -> [u32; LANES] { from.cast::<[u32; LANES]>().read_unaligned() }
        fn store_dots(to: *mut i32, sums: Dots) { to.cast::<[i32; LANES]>().write_unaligned(sums.wide) }
    }

    #[inline(always)]
    unsafe fn add(a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        zip(a, b, |a, b| a + b)
    }

    #[inline(always)]
    unsafe fn sub(a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        zip(a, b, |a, b| a - b)
    }

    #[inline(always)]
    unsafe fn max(a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        zip(a, b, |a, b| if a > b || a.is_nan() { a } else { b })
    }

    #[inline(always)]
    unsafe fn min(a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        zip(a, b, |a, b| if a < b || a.is_nan() { a } else { b })
    }

    #[inline(always)]
    unsafe fn mul(a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        zip(a, b, |a, b| a * b)
    }

    #[inline(always)]
    unsafe fn div(a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        zip(a, b, |a, b| a / b)
    }

    #[inline(always)]
    unsafe fn sqrt(value: [f32; LANES]) -> [f32; LANES] {
        zip(value, value, |value, _| libm::sqrtf(value))
    }

    #[inline(always)]
    unsafe fn mul_add(a: [f32; LANES], b: [f32; LANES], c: [f32; LANES]) -> [f32; LANES] {
        zip(zip(a, b, |a, b| (a, b)), c, |(a, b), c| mul_add(a, b, c))
    }

    #[inline(always)]
    unsafe fn relu(value: [f32; LANES]) -> [f32; LANES] {
        zip(value, value, |value, _| epilogue::relu(value))
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
        // Two masks compile to vector instructions, an index per lane does not.
        // SAFETY: the portable level uses no special instructions.
        unsafe { Self::select(codes, [table[1]; LANES], [table[2]; LANES]) }
    }

    #[inline(always)]
    unsafe fn select(codes: [u32; LANES], pos: [f32; LANES], neg: [f32; LANES]) -> [f32; LANES] {
        let pos = zip(codes, pos, |code, pos| mask(code, 0) & pos.to_bits());
        let neg = zip(codes, neg, |code, neg| mask(code, 1) & neg.to_bits());
        zip(pos, neg, |pos, neg| f32::from_bits(pos | neg))
    }

    #[inline(always)]
    unsafe fn no_dots() -> Dots {
        Dots { wide: [0; LANES], narrow: [0; LANES] }
    }

    #[inline(always)]
    unsafe fn pos(words: [u32; LANES]) -> Bytes {
        Bytes { plus: masks(words, 0), minus: [0; LANES] }
    }

    #[inline(always)]
    unsafe fn neg(words: [u32; LANES]) -> Bytes {
        Bytes { plus: masks(words, 1), minus: [0; LANES] }
    }

    #[inline(always)]
    unsafe fn weights(words: [u32; LANES], _tables: [u32; LANES]) -> Bytes {
        Bytes { plus: masks(words, 0), minus: masks(words, 1) }
    }

    #[inline(always)]
    unsafe fn dot(sums: Dots, x: [u32; LANES], weights: Bytes) -> Dots {
        let plus = zip(x, weights.plus, |x, mask| halves(x & mask));
        let minus = zip(x, weights.minus, |x, mask| halves(x & mask));
        let narrow = zip(sums.narrow, plus, |sum, plus| sum + plus as i32);
        Dots { narrow: zip(narrow, minus, |sum, minus| sum - minus as i32), ..sums }
    }

    #[inline(always)]
    unsafe fn widen(sums: Dots) -> Dots {
        let wide = zip(sums.wide, sums.narrow, |wide, narrow| {
            let low = i32::from(narrow as i16);
            wide + low + ((narrow - low) >> 16)
        });
        Dots { wide, narrow: [0; LANES] }
    }

    #[inline(always)]
    unsafe fn dot_signed(sums: Dots, x: [u32; LANES], weights: [u32; LANES]) -> Dots {
        let byte = |word: u32, i: u32| (word >> (8 * i)) as u8;
        let products = zip(x, weights, |x, w| -> i32 {
            (0..4).map(|i| i32::from(byte(x, i)) * i32::from(byte(w, i) as i8)).sum()
        });
        Dots { wide: zip(sums.wide, products, |sum, product| sum + product), ..sums }
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
