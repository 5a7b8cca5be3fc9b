//! The vector operations that kernels need from an instruction set.

/// Vectors of 32-bit lanes. A lane is a row of the matrix, or a pixel.
///
/// # Safety
/// All functions require the instructions of the implementing type, so only [`Kernel::run`](super::level::Kernel::run)
/// may call them. Loads and stores access [`LANES`](Self::LANES) lanes at an address of any alignment.
pub(crate) trait Simd: Copy {
    /// Number of lanes of a vector, which divides 16.
    const LANES: usize;
    /// `true` if [`permute`](Self::permute) is implemented.
    const PERMUTES: bool = false;

    /// `true` if [`sums_by_tables`](Self::sums_by_tables) is implemented and faster than [`dot`](Self::dot).
    const BYTE_TABLES: bool = false;

    /// `true` if [`weights`](Self::weights) can return any bytes.
    const ANY_BYTES: bool = false;

    /// Base-2 logarithm of the weights that [`neg`](Self::neg) returns: 1 if the code bit itself serves as the weight.
    const NEG_SHIFT: u32 = 1;

    /// A vector of f32 lanes.
    type Floats: Copy;
    /// A vector of 32-bit lanes with 16 codes, or with four bytes of activations.
    type Words: Copy;
    /// A vector of 32-bit lanes with four byte weights.
    type Bytes: Copy;
    /// A vector of i32 sums of byte products.
    type Dots: Copy;

    unsafe fn splat(value: f32) -> Self::Floats;
    unsafe fn load(from: *const f32) -> Self::Floats;
    unsafe fn store(to: *mut f32, value: Self::Floats);
    unsafe fn add(a: Self::Floats, b: Self::Floats) -> Self::Floats;
    unsafe fn sub(a: Self::Floats, b: Self::Floats) -> Self::Floats;
    unsafe fn mul(a: Self::Floats, b: Self::Floats) -> Self::Floats;
    unsafe fn div(a: Self::Floats, b: Self::Floats) -> Self::Floats;
    unsafe fn sqrt(value: Self::Floats) -> Self::Floats;
    /// Computes the larger value, and NaN if either one is NaN.
    unsafe fn max(a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// Computes the smaller value, and NaN if either one is NaN.
    unsafe fn min(a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// Computes `a * b + c`.
    unsafe fn mul_add(a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats;

    /// Computes `max(value, 0)`, and NaN for NaN.
    unsafe fn relu(value: Self::Floats) -> Self::Floats;

    unsafe fn load_words(from: *const u32) -> Self::Words;
    /// Prefetches the cache line of an address. The address may be invalid.
    #[inline(always)]
    unsafe fn prefetch(_from: *const u32) {}
    unsafe fn splat_word(value: u32) -> Self::Words;
    /// Shifts each lane right.
    unsafe fn shift(words: Self::Words, bits: u32) -> Self::Words;

    /// Creates a table of four floats for [`look_up`](Self::look_up).
    unsafe fn table(entries: [f32; 4]) -> Self::Floats;
    /// Returns `table[code]`. The code is the lowest two bits of a lane.
    unsafe fn look_up(table: Self::Floats, codes: Self::Words) -> Self::Floats;
    /// Returns `pos`, `neg` or 0 where the code (the lowest two bits of a lane) is `0b01`, `0b10` or `0b00`.
    unsafe fn select(codes: Self::Words, pos: Self::Floats, neg: Self::Floats) -> Self::Floats;
    /// Returns the bits of +1 of both words, and those of -1: a bit of the first word is at an even position, that of the
    /// second word is at the next odd one.
    unsafe fn planes(_first: Self::Words, _second: Self::Words) -> [Self::Words; 2] {
        unreachable!("called only if PERMUTES is true")
    }
    /// Moves the bits that start at `bit`, as many as [`permute`](Self::permute) reads, to the lowest bits of each
    /// lane.
    ///
    /// This is a [`shift`](Self::shift), or an operation that is faster in combination with permutations.
    #[inline(always)]
    unsafe fn index(words: Self::Words, bit: u32) -> Self::Words {
        // SAFETY: guaranteed by the contract of the trait.
        unsafe { Self::shift(words, bit) }
    }
    /// Returns `table[index]`. The table has [`LANES`](Self::LANES) floats, and the index is the lowest bits of a lane.
    unsafe fn permute(_table: *const f32, _index: Self::Words) -> Self::Floats {
        unreachable!("called only if PERMUTES is true")
    }

    /// Returns sums of zero.
    unsafe fn no_dots() -> Self::Dots;
    /// Returns 1 where the code in the lowest two bits of a byte is `0b01`, and 0 elsewhere.
    unsafe fn pos(words: Self::Words) -> Self::Bytes;
    /// Returns `2 ^` [`NEG_SHIFT`](Self::NEG_SHIFT) where the code is `0b10`, and 0 elsewhere.
    unsafe fn neg(words: Self::Words) -> Self::Bytes;
    /// Returns byte `c` of a lane of `tables` where the code in that lane is `c`.
    ///
    /// If [`ANY_BYTES`](Self::ANY_BYTES) is false, the bytes are 0, 1, -1, 0, whatever the tables are.
    unsafe fn weights(words: Self::Words, tables: Self::Words) -> Self::Bytes;
    /// Adds to each lane the four products of the bytes of `x` (0..=255) and of `weights`.
    ///
    /// At most 32 calls may occur between two calls of [`widen`](Self::widen).
    unsafe fn dot(sums: Self::Dots, x: Self::Words, weights: Self::Bytes) -> Self::Dots;
    /// Moves narrow sums to 32 bits, so that further calls of [`dot`](Self::dot) do not overflow.
    unsafe fn widen(sums: Self::Dots) -> Self::Dots;
    /// Stores the sums of a widened accumulator.
    unsafe fn store_dots(to: *mut i32, sums: Self::Dots);

    /// Returns `[P, 2^NEG_SHIFT N]` of 32 rows with the [tables](super::byte_tables) of a row of activations.
    ///
    /// The words of a step are `words[..32]`, and those of the next step follow at a distance of `rows` words.
    unsafe fn sums_by_tables(_words: *const u32, _rows: usize, _steps: usize, _tables: *const u8) -> [[i32; 32]; 2] {
        unreachable!("called only if BYTE_TABLES is true")
    }

    /// Adds to each lane the four products of the bytes of `x` (0..=255) and of `weights` (-128..=127), in 32 bits.
    ///
    /// Sums of this function need no [`widen`](Self::widen).
    unsafe fn dot_signed(sums: Self::Dots, x: Self::Words, weights: Self::Words) -> Self::Dots;
    /// Converts sums to floats.
    #[inline(always)]
    unsafe fn dots_to_floats(sums: Self::Dots) -> Self::Floats {
        let (mut lanes, mut floats) = ([0; 16], [0.0; 16]);
        // SAFETY: guaranteed by the contract of the trait. The same holds below.
        unsafe {
            Self::store_dots(lanes.as_mut_ptr(), sums);
            for lane in 0..Self::LANES {
                floats[lane] = lanes[lane] as f32;
            }
            Self::load(floats.as_ptr())
        }
    }
    /// Loads bytes as floats.
    #[inline(always)]
    unsafe fn load_bytes(from: *const u8) -> Self::Floats {
        let mut floats = [0.0; 16];
        // SAFETY: see `dots_to_floats`.
        unsafe {
            for lane in 0..Self::LANES {
                floats[lane] = f32::from(*from.add(lane));
            }
            Self::load(floats.as_ptr())
        }
    }
    /// Stores floats as bytes: limited to 0..=255, rounded to nearest, ties to even. NaN becomes any byte.
    #[inline(always)]
    unsafe fn store_bytes(to: *mut u8, value: Self::Floats) {
        let mut floats = [0.0; 16];
        // SAFETY: see `dots_to_floats`.
        unsafe {
            Self::store(floats.as_mut_ptr(), value);
            for lane in 0..Self::LANES {
                *to.add(lane) = round_to_byte(floats[lane]);
            }
        }
    }

    /// Transposes a block of 16 × 16 floats in place.
    unsafe fn transpose(block: &mut [f32; 256]);
}

/// Rounds to a byte: limited to 0..=255, to nearest, ties to even.
#[inline(always)]
pub(crate) fn round_to_byte(value: f32) -> u8 {
    // The unit in the last place of this number is 1, so that the addition rounds.
    const UNIT: f32 = 12_582_912.0;
    let limited = if value > 0.0 { value } else { 0.0 };
    let limited = if limited < 255.0 { limited } else { 255.0 };
    (limited + UNIT).to_bits() as u8
}

/// Implements functions of [`Simd`] with the given bodies.
macro_rules! operations {
    ($($(#[$attribute:meta])* fn $name:ident($($argument:ident: $type:ty),*) $(-> $output:ty)? $body:block)*) => {
        $(
            $(#[$attribute])*
            #[inline(always)]
            #[allow(unused_unsafe, reason = "a few bodies contain no unsafe operation")]
            unsafe fn $name($($argument: $type),*) $(-> $output)? {
                // SAFETY: the contract of the trait guarantees the instructions and the memory.
                unsafe { $body }
            }
        )*
    };
}
pub(crate) use operations;
