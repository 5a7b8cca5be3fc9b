//! Activations in 8 bits.
//!
//! For a row (or an image) `x`, `factor = max |x| / 127` and `q = round(x / factor)`, ties to even, so that `-127 <= q <= 127` and
//! `|x - factor q| <= factor / 2` up to rounding. Kernels take the unsigned byte `q + 128`: byte dot products multiply unsigned by
//! signed, the weights are the signed side, and what 128 adds is a constant of the row of weights.

/// The byte of zero.
pub(crate) const ZERO_POINT: i32 = 128;
/// Four bytes of zero.
pub(crate) const ZEROS: u32 = 0x8080_8080;
/// Adding it rounds a float of small magnitude to an integer, which is then in the lowest bits, the zero point included.
const ROUND: f32 = 12_582_912.0 + ZERO_POINT as f32;

/// `max |x| / 127` and its inverse. NaN or infinity in `x` make the factor NaN or infinite, and so the result; magnitudes too small
/// to have an inverse count as zero.
#[inline(always)]
pub(crate) fn factor(x: &[f32]) -> [f32; 2] {
    // Magnitudes compare as their bits do, and integers have a vector maximum.
    let largest = x.iter().fold(0, |largest, x| largest.max(x.to_bits() & 0x7fff_ffff));
    let largest = f32::from_bits(largest);
    let inverse = 127.0 / largest;
    if inverse == f32::INFINITY { [0.0, 0.0] } else { [largest / 127.0, inverse] }
}

/// `round(x · inverse) + 128`
#[inline(always)]
pub(crate) fn byte(x: f32, inverse: f32) -> u8 {
    (x * inverse + ROUND).to_bits() as u8
}

/// Quantizes rows of `width` floats into rows of whole words, the last one filled up with zeros; writes a factor for each.
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
    fn bytes_are_rounded_and_biased() {
        let x = [1.0, -1.0, 0.5, 0.0, 0.3 / 127.0, -0.7 / 127.0];
        let (mut words, mut factors) = ([0; 2], [0.0]);
        rows(&x, 6, &mut words, &mut factors);
        assert_eq!(factors, [1.0 / 127.0]);
        // 63.5 is a tie: the even neighbour is 64.
        assert_eq!(words[0].to_le_bytes(), [255, 1, 192, 128]);
        assert_eq!(words[1].to_le_bytes(), [128, 127, 128, 128]);
    }

    #[test]
    fn rows_without_a_scale_are_zeros_and_not_numbers_stay_visible() {
        assert_eq!(factor(&[0.0, -0.0]), [0.0, 0.0]);
        assert_eq!(factor(&[1e-44, 0.0]), [0.0, 0.0]);
        assert!(factor(&[1.0, f32::NAN])[0].is_nan());
        assert_eq!(factor(&[1.0, f32::NEG_INFINITY])[0], f32::INFINITY);
    }
}
