//! What a kernel needs of an instruction set.

/// Vectors of 32-bit lanes. A lane is a row of the matrix, or a pixel.
///
/// # Safety
/// All functions need the instructions that the type stands for: call them from [`Kernel::run`](super::level::Kernel::run) only.
/// Loads and stores touch [`LANES`](Self::LANES) lanes at an address of any alignment.
pub(crate) trait Simd: Copy {
    /// Lanes of a vector; divides 16.
    const LANES: usize;
    /// Does [`permute`](Self::permute) exist?
    const PERMUTES: bool = false;

    /// Does [`sums_by_tables`](Self::sums_by_tables) exist, and is it quicker than [`dot`](Self::dot)s?
    const BYTE_TABLES: bool = false;

    /// How often [`neg`](Self::neg) counts, as a power of two: 1 where the bit of a code is the weight as it is.
    const NEG_SHIFT: u32 = 1;

    /// Lanes of f32.
    type Floats: Copy;
    /// Lanes of 32 bits: 16 codes, or four bytes of activations.
    type Words: Copy;
    /// Lanes of four weights.
    type Bytes: Copy;
    /// Lanes of i32 sums of byte products.
    type Dots: Copy;

    unsafe fn splat(value: f32) -> Self::Floats;
    unsafe fn load(from: *const f32) -> Self::Floats;
    unsafe fn store(to: *mut f32, value: Self::Floats);
    unsafe fn add(a: Self::Floats, b: Self::Floats) -> Self::Floats;
    unsafe fn mul(a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// `a * b + c`
    unsafe fn mul_add(a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats;

    /// `max(value, 0)`, NaN for NaN.
    unsafe fn relu(value: Self::Floats) -> Self::Floats;

    unsafe fn load_words(from: *const u32) -> Self::Words;
    /// Asks for the cache line of an address, which need not exist.
    #[inline(always)]
    unsafe fn prefetch(_from: *const u32) {}
    unsafe fn splat_word(value: u32) -> Self::Words;
    /// Each lane shifted right.
    unsafe fn shift(words: Self::Words, bits: u32) -> Self::Words;

    /// Four floats, indexed by a code: see [`look_up`](Self::look_up).
    unsafe fn table(entries: [f32; 4]) -> Self::Floats;
    /// `table[code]`, where the code is the lowest two bits of a lane.
    unsafe fn look_up(table: Self::Floats, codes: Self::Words) -> Self::Floats;
    /// `pos` where the code (the lowest two bits of a lane) is `0b01`, `neg` where it is `0b10`, 0 where it is `0b00`.
    unsafe fn select(codes: Self::Words, pos: Self::Floats, neg: Self::Floats) -> Self::Floats;
    /// Each lane with the bits from `bit` on, as many as [`permute`](Self::permute) reads, at its lower end: a [`shift`](Self::shift),
    /// or what is quicker beside permutations.
    #[inline(always)]
    unsafe fn index(words: Self::Words, bit: u32) -> Self::Words {
        // SAFETY: the trait's contract.
        unsafe { Self::shift(words, bit) }
    }
    /// `table[index]` in a table of as many floats as there are lanes, where the index is the lowest bits of a lane.
    unsafe fn permute(_table: *const f32, _index: Self::Words) -> Self::Floats {
        unreachable!("asked for only where PERMUTES is true")
    }

    /// Sums of zero.
    unsafe fn no_dots() -> Self::Dots;
    /// 1 where the code in the lowest two bits of a byte is `0b01`, else 0.
    unsafe fn pos(words: Self::Words) -> Self::Bytes;
    /// 2 ^ [`NEG_SHIFT`](Self::NEG_SHIFT) where it is `0b10`, else 0.
    unsafe fn neg(words: Self::Words) -> Self::Bytes;
    /// 1 where it is `0b01`, -1 where it is `0b10`, else 0.
    unsafe fn signs(words: Self::Words) -> Self::Bytes;
    /// Adds to each lane the four products of the bytes of `x`, 0..=255, with those of `weights`. At most 32 times between two calls
    /// of [`widen`](Self::widen).
    unsafe fn dot(sums: Self::Dots, x: Self::Words, weights: Self::Bytes) -> Self::Dots;
    /// Makes room for more [`dot`](Self::dot)s.
    unsafe fn widen(sums: Self::Dots) -> Self::Dots;
    /// Stores the sums of a widened accumulator.
    unsafe fn store_dots(to: *mut i32, sums: Self::Dots);

    /// `[P, 2^NEG_SHIFT N]` of 32 rows, whose words of a step are `words[..32]` and of the next one `rows` words on, by
    /// [tables](super::byte_tables) of a row of activations.
    unsafe fn sums_by_tables(_words: *const u32, _rows: usize, _steps: usize, _tables: *const u8) -> [[i32; 32]; 2] {
        unreachable!("asked for only where BYTE_TABLES is true")
    }

    /// Transposes 16 × 16 floats in place.
    unsafe fn transpose(block: &mut [f32; 256]);
}

/// Implements functions of [`Simd`] by instructions.
macro_rules! operations {
    ($($(#[$attribute:meta])* fn $name:ident($($argument:ident: $type:ty),*) $(-> $output:ty)? $body:block)*) => {
        $(
            $(#[$attribute])*
            #[inline(always)]
            #[allow(unused_unsafe, reason = "a few bodies are plain code")]
            unsafe fn $name($($argument: $type),*) $(-> $output)? {
                // SAFETY: the trait's contract: the processor has the instructions, and the memory is there.
                unsafe { $body }
            }
        )*
    };
}
pub(crate) use operations;
