//! Convolutions, of eight neighbouring outputs at a time.

use core::array::from_fn;

use crate::value::Output;

/// Number of outputs of a tile, which are neighbours in a row.
const TILE: usize = 8;
/// Maximum number of elements of a kernel, so that a sum of as many bytes has 16 bits.
pub(crate) const MOST_TAPS: usize = 256;

/// Shapes and window of a convolution.
pub(crate) struct Geometry {
    pub(crate) from: [usize; 3],
    pub(crate) to: [usize; 3],
    pub(crate) kernel: [usize; 2],
    pub(crate) stride: [usize; 2],
    pub(crate) padding: [usize; 2],
}

/// Offsets of the inputs under a kernel, in groups of 16: the codes of a word.
pub(crate) struct Taps {
    offsets: [[u32; 16]; MOST_TAPS / 16],
    count: usize,
    /// Number of inputs from the first to the last of a tile.
    len: usize,
}

impl Taps {
    /// # Panics
    /// If an offset does not fit in 32 bits.
    fn new(kernel: [usize; 2], width: usize) -> Self {
        let last = (kernel[0] - 1).checked_mul(width).and_then(|rows| rows.checked_add(kernel[1] - 1));
        let last = last.filter(|last| *last < u32::MAX as usize - TILE).expect("the window is too large");
        let (count, len) = (kernel[0] * kernel[1], last + TILE);
        let mut taps = Self { offsets: [[0; 16]; MOST_TAPS / 16], count, len };
        let rows = (0..kernel[0]).flat_map(|ky| (0..kernel[1]).map(move |kx| ky * width + kx));
        taps.offsets.as_flattened_mut().iter_mut().zip(rows).for_each(|(to, offset)| *to = offset as u32);
        taps
    }

    /// Returns the offsets of each group, and their number.
    #[inline(always)]
    fn groups(&self) -> impl Iterator<Item = (&[u32; 16], usize)> {
        (0..self.count).step_by(16).map(|first| (&self.offsets[first / 16], (self.count - first).min(16)))
    }
}

/// The sums of an output channel at the outputs of a tile.
pub(crate) trait Sums<T> {
    /// Starts the sums of an output channel with its first weight.
    fn start(&mut self, channel: usize, weights: usize);
    /// Adds the products of the next weights. `taps` says where the input of each is, for the first output; those of the
    /// other outputs follow it.
    fn add(&mut self, x: &[T], taps: &Taps);
    /// Returns the sums.
    fn finish(&mut self) -> [f32; TILE];
}

/// Computes a convolution: `limit(sum + bias)`.
pub(crate) fn convolution<T: Copy, S: Sums<T>>(
    geometry: &Geometry,
    x: &[T],
    zero: T,
    mut sums: S,
    bias: &[f32],
    limits: [f32; 2],
    y: &mut Output<'_>,
) {
    let Geometry { from: [channels, height, width], to: [outputs, rows, columns], kernel, stride, padding } = *geometry;
    let weights = channels * kernel[0] * kernel[1];
    let (taps, one) = (Taps::new(kernel, width), Taps::new([1, 1], TILE));
    for (row, tile) in (0..rows).flat_map(|row| (0..columns).step_by(TILE).map(move |tile| (row, tile))) {
        // The last tile ends with the row, and computes some outputs again.
        let first = tile.min(columns.saturating_sub(TILE));
        let count = columns.min(TILE);
        // Where the tile is away from the border and without stride, inputs are read where they are.
        let top = (row * stride[0]).wrapping_sub(padding[0]);
        let left = (first * stride[1]).wrapping_sub(padding[1]);
        let fits = |start: usize, len: usize, size: usize| start < size && len <= size - start;
        let is_inside = stride[1] == 1 && fits(top, kernel[0], height) && fits(left, kernel[1] - 1 + TILE, width);
        for (output, bias) in bias.iter().enumerate().take(outputs) {
            sums.start(output, weights);
            for x in x.chunks_exact(height * width) {
                if is_inside {
                    sums.add(&x[top * width + left..], &taps);
                    continue;
                }
                for (ky, kx) in (0..kernel[0]).flat_map(|ky| (0..kernel[1]).map(move |kx| (ky, kx))) {
                    let at = top.wrapping_add(ky);
                    let line = if at < height { &x[at * width..][..width] } else { &[] };
                    let at = |i: usize| left.wrapping_add(i * stride[1] + kx);
                    sums.add(&from_fn::<T, TILE, _>(|i| line.get(at(i)).copied().unwrap_or(zero)), &one);
                }
            }
            let sums = sums.finish().map(|sum| sum + bias);
            y.store((output * rows + row) * columns + first, &sums[..count], limits);
        }
    }
}

/// Returns the inputs of a tile at an offset.
///
/// # Safety
/// `x` must have the length of the taps, and the offset must be one of theirs.
#[inline(always)]
unsafe fn inputs<T>(x: &[T], offset: u32) -> &[T; TILE] {
    // SAFETY: guaranteed by the caller: `len` is the largest offset and a tile.
    unsafe { &*x.as_ptr().add(offset as usize).cast() }
}

/// Calls a function for each code with a bit, with the offset of its input.
#[inline(always)]
fn for_each_bit(mut bits: u32, offsets: &[u32; 16], mut function: impl FnMut(u32)) {
    while bits != 0 {
        function(offsets[bits.trailing_zeros() as usize / 2 % 16]);
        bits &= bits - 1;
    }
}

/// Sums with weights of floats.
pub(crate) struct Dense<'a> {
    weights: &'a [f32],
    next: core::slice::Iter<'a, f32>,
    sums: [f32; TILE],
}

impl<'a> Dense<'a> {
    pub(crate) fn new(weights: &'a [f32]) -> Self {
        Self { weights, next: weights.iter(), sums: [0.0; TILE] }
    }
}

impl Sums<f32> for Dense<'_> {
    #[inline(always)]
    fn start(&mut self, channel: usize, weights: usize) {
        self.next = self.weights[channel * weights..].iter();
        self.sums = [0.0; TILE];
    }

    #[inline(never)]
    fn add(&mut self, x: &[f32], taps: &Taps) {
        let x = &x[..taps.len];
        let mut sums = self.sums;
        for (offset, weight) in taps.offsets.as_flattened()[..taps.count].iter().zip(&mut self.next) {
            // SAFETY: the offset is one of the taps.
            let x = unsafe { inputs(x, *offset) };
            sums = from_fn(|i| sums[i] + weight * x[i]);
        }
        self.sums = sums;
    }

    #[inline(always)]
    fn finish(&mut self) -> [f32; TILE] {
        self.sums
    }
}

/// Codes in the order of the file.
struct Codes<'a> {
    codes: &'a [u8],
    next: usize,
}

impl Codes<'_> {
    /// Takes up to 16 codes, and returns the lower bit of each pair where they are +1, and where they are -1.
    #[inline(always)]
    fn take(&mut self, count: usize) -> [u32; 2] {
        let (start, shift) = (self.next / 4, 2 * (self.next % 4) as u32);
        self.next += count;
        let byte = |i: usize| self.codes.get(start + i).copied().unwrap_or(0);
        let bytes = self.codes.get(start..).and_then(|codes| codes.first_chunk().copied());
        let low = u32::from_le_bytes(bytes.unwrap_or_else(|| from_fn(byte)));
        let high = u32::from(byte(4));
        let word = low >> shift | high << 1 << (31 - shift);
        let used = 0x5555_5555 >> (32 - 2 * count as u32);
        [word >> 1 & used, !(word | word >> 1) & used]
    }
}

/// Sums of floats with ternary weights: additions alone.
pub(crate) struct Ternary<'a> {
    codes: Codes<'a>,
    scales: &'a [[f32; 2]],
    scale: [f32; 2],
    plus: [f32; TILE],
    minus: [f32; TILE],
}

impl<'a> Ternary<'a> {
    pub(crate) fn new(codes: &'a [u8], scales: &'a [[f32; 2]]) -> Self {
        Self { codes: Codes { codes, next: 0 }, scales, scale: [0.0; 2], plus: [0.0; TILE], minus: [0.0; TILE] }
    }
}

impl Sums<f32> for Ternary<'_> {
    #[inline(always)]
    fn start(&mut self, channel: usize, weights: usize) {
        self.codes.next = channel * weights;
        self.scale = self.scales[channel];
        (self.plus, self.minus) = ([0.0; TILE], [0.0; TILE]);
    }

    #[inline(never)]
    fn add(&mut self, x: &[f32], taps: &Taps) {
        let x = &x[..taps.len];
        for (offsets, count) in taps.groups() {
            let codes = self.codes.take(count);
            for (bits, sums) in codes.into_iter().zip([&mut self.plus, &mut self.minus]) {
                let mut own = *sums;
                for_each_bit(bits, offsets, |offset| {
                    // SAFETY: the offset is one of the taps.
                    let x = unsafe { inputs(x, offset) };
                    own = from_fn(|i| own[i] + x[i]);
                });
                *sums = own;
            }
        }
    }

    #[inline(always)]
    fn finish(&mut self) -> [f32; TILE] {
        from_fn(|i| self.scale[0] * self.plus[i] - self.scale[1] * self.minus[i])
    }
}

/// Exact sums of bytes with ternary weights.
pub(crate) struct Bytes<'a> {
    codes: Codes<'a>,
    levels: &'a [[i8; 2]],
    scales: &'a [f32],
    channel: usize,
    plus: Halves,
    minus: Halves,
    /// Number of bytes that can be in the sums.
    count: usize,
    sums: [i32; TILE],
}

impl<'a> Bytes<'a> {
    pub(crate) fn new(codes: &'a [u8], levels: &'a [[i8; 2]], scales: &'a [f32]) -> Self {
        let (plus, minus) = (Halves::default(), Halves::default());
        Self { codes: Codes { codes, next: 0 }, levels, scales, channel: 0, plus, minus, count: 0, sums: [0; TILE] }
    }

    /// Moves the sums of 16 bits to those of 32.
    #[inline(never)]
    fn widen(&mut self) {
        let [a, b] = self.levels[self.channel].map(i32::from);
        let [plus, minus] = [&self.plus, &self.minus].map(Halves::get);
        self.sums = from_fn(|i| self.sums[i] + a * plus[i] - b * minus[i]);
        (self.plus, self.minus, self.count) = (Halves::default(), Halves::default(), 0);
    }
}

impl Sums<u8> for Bytes<'_> {
    #[inline(always)]
    fn start(&mut self, channel: usize, weights: usize) {
        self.codes.next = channel * weights;
        self.channel = channel;
        (self.plus, self.minus, self.count, self.sums) = (Halves::default(), Halves::default(), 0, [0; TILE]);
    }

    #[inline(never)]
    fn add(&mut self, x: &[u8], taps: &Taps) {
        let x = &x[..taps.len];
        if self.count + taps.count > MOST_TAPS {
            self.widen();
        }
        self.count += taps.count;
        for (offsets, count) in taps.groups() {
            let codes = self.codes.take(count);
            for (bits, sums) in codes.into_iter().zip([&mut self.plus, &mut self.minus]) {
                let mut own = *sums;
                // SAFETY: the offset is one of the taps.
                for_each_bit(bits, offsets, |offset| own.add(unsafe { inputs(x, offset) }));
                *sums = own;
            }
        }
    }

    #[inline(always)]
    fn finish(&mut self) -> [f32; TILE] {
        self.widen();
        let scale = self.scales[self.channel];
        self.sums.map(|sum| sum as f32 * scale)
    }
}

/// Eight sums of 16 bits: those of bytes 0 and 2, 1 and 3, 4 and 6, 5 and 7.
#[derive(Clone, Copy, Default)]
struct Halves([u32; 4]);

impl Halves {
    #[inline(always)]
    fn add(&mut self, x: &[u8; TILE]) {
        let [a, b, c, d, e, f, g, h] = *x;
        let [low, high] = [u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])];
        let [first, second, third, fourth] = &mut self.0;
        *first = add_bytes::<0>(*first, low);
        *second = add_bytes::<8>(*second, low);
        *third = add_bytes::<0>(*third, high);
        *fourth = add_bytes::<8>(*fourth, high);
    }

    fn get(&self) -> [i32; TILE] {
        from_fn(|i| {
            let word = self.0[i / 4 * 2 + i % 2];
            (if i % 4 < 2 { word & 0xffff } else { word >> 16 }) as i32
        })
    }
}

/// Adds the bytes 0 and 2 of `x >> SHIFT` to the halves of a word, of which no sum exceeds 16 bits.
#[inline(always)]
fn add_bytes<const SHIFT: u32>(sums: u32, x: u32) -> u32 {
    #[cfg(all(feature = "dsp", target_arch = "arm"))]
    {
        let result: u32;
        // SAFETY: the instruction of the DSP extension has no other effects.
        unsafe {
            core::arch::asm!(
                "uxtab16 {0}, {1}, {2}, ror #{3}", out(reg) result, in(reg) sums, in(reg) x, const SHIFT,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
        result
    }
    #[cfg(not(all(feature = "dsp", target_arch = "arm")))]
    {
        sums + (x >> SHIFT & 0x00ff_00ff)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_tap_is_within_the_length() {
        let taps = Taps::new([3, 2], 9);
        assert_eq!((taps.count, taps.len), (6, 2 * 9 + 1 + TILE));
        assert_eq!(taps.offsets[0][..6], [0, 1, 9, 10, 18, 19]);
    }

    #[test]
    #[should_panic(expected = "the window is too large")]
    fn offsets_that_wrap_are_refused() {
        Taps::new([2, 1], usize::MAX - 3);
    }
}
