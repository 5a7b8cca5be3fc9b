//! Quantization of activations to 8 bits.
//!
//! For a row (or an image) `x`, `factor = max |x| / 127` and `q = round(x / factor)` with ties to even, so that
//! `-127 <= q <= 127` and `|x - factor q| <= factor / 2` up to rounding errors. Kernels read the unsigned byte
//! `q + 128`, because byte dot products multiply unsigned by signed bytes and the weights are the signed operand. The
//! contribution of 128 is a constant for each row of weights.

/// The byte that represents zero.
pub(crate) const ZERO_POINT: i32 = 128;
/// A word of four bytes that represent zero.
pub(crate) const ZEROS: u32 = 0x8080_8080;
/// Added to a float of small magnitude, it leaves the rounded integer plus the zero point in the lowest bits.
const ROUND: f32 = 12_582_912.0 + ZERO_POINT as f32;

/// Returns the factor `max |x| / 127` and its inverse.
///
/// NaN or infinity in `x` make the factor, and thus the result, NaN or infinite. If the inverse overflows, both numbers
/// are 0 and the activations count as zero.
#[inline(always)]
pub(crate) fn factor(x: &[f32]) -> [f32; 2] {
    // The order of magnitudes equals the order of their bits, and integers have a vector maximum.
    let largest = x.iter().fold(0, |largest, x| largest.max(x.to_bits() & 0x7fff_ffff));
    let largest = f32::from_bits(largest);
    let inverse = 127.0 / largest;
    if inverse == f32::INFINITY { [0.0, 0.0] } else { [largest / 127.0, inverse] }
}

/// Computes `round(x · inverse) + 128`.
#[inline(always)]
pub(crate) fn byte(x: f32, inverse: f32) -> u8 {
    (x * inverse + ROUND).to_bits() as u8
}

/// Quantizes rows of `width` floats to rows of whole words, padded with zeros, and writes the factor of each row.
#[inline(always)]
pub(crate) fn rows(x: &[f32], width: usize, to: &mut [u32], factors: &mut [f32]) {
    let words = width.div_ceil(4);
    for ((row, to), out) in x.chunks_exact(width).zip(to.chunks_exact_mut(words)).zip(factors) {
        let [factor, inverse] = factor(row);
        *out = factor;
        let quads = row.chunks_exact(4);
        let rest = quads.remainder();
        for (quad, to) in quads.zip(to.iter_mut()) {
            let mut bytes = [0; 4];
            for i in 0..4 {
                bytes[i] = byte(quad[i], inverse);
            }
            *to = u32::from_le_bytes(bytes);
        }
        if !rest.is_empty() {
            let mut bytes = ZEROS.to_le_bytes();
            for (to, x) in bytes.iter_mut().zip(rest) {
                *to = byte(*x, inverse);
            }
            to[words - 1] = u32::from_le_bytes(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_rounded_to_even_and_shifted_by_the_zero_point() {
        let x = [1.0, -1.0, 0.5, 0.0, 0.3 / 127.0, -0.7 / 127.0];
        let (mut words, mut factors) = ([0; 2], [0.0]);
        rows(&x, 6, &mut words, &mut factors);
        assert_eq!(factors, [1.0 / 127.0]);
        // 0.5 / factor = 63.5 is a tie and rounds to the even 64.
        assert_eq!(words[0].to_le_bytes(), [255, 1, 192, 128]);
        assert_eq!(words[1].to_le_bytes(), [128, 127, 128, 128]);
    }

    #[test]
    fn tiny_rows_become_zero_and_nan_or_infinity_propagate() {
        assert_eq!(factor(&[0.0, -0.0]), [0.0, 0.0]);
        assert_eq!(factor(&[1e-44, 0.0]), [0.0, 0.0]);
        assert!(factor(&[1.0, f32::NAN])[0].is_nan());
        assert_eq!(factor(&[1.0, f32::NEG_INFINITY])[0], f32::INFINITY);
    }
}
