//! Detection of ternary weights in full-precision tensors, from their values alone.

use alloc::vec;
use alloc::vec::Vec;

use crate::codes::{Codes, VALUES_PER_BYTE};
use crate::file::TernaryWeight;

/// Converts a full-precision tensor to a ternary weight, if its values are ternary.
///
/// `values` are the elements of `shape` in row-major order. They are ternary if they take only the values `+w_pos`, `0`
/// and `-w_neg`, for one pair of scales or, if that fails, for one pair per index along `output_axis`.
///
/// The scales are the values themselves. Values are compared exactly, without tolerance, so
/// [`dequantize`](TernaryWeight::dequantize) returns the same numbers, except that the sign of zeros is lost. The scale
/// is 0 for a sign that does not occur.
///
/// Returns `None` if the values are not ternary, and also
/// - if a value is NaN or infinite;
/// - if the packed form would not be smaller than the tensor: with two values per channel, any two numbers of opposite
///   sign match some pair of scales;
/// - if every group holds a single value and at least one of these is not zero, such as an embedding of ones: nothing
///   shows that the values were quantized. A tensor of zeros is recognized, because all weights of a ternary layer may
///   become zero;
/// - if the number of values does not match the shape, or the shape has no axis `output_axis`.
///
/// ```
/// use ttq_packed::recognize;
///
/// let weight = recognize(&[0.5, 0.0, -0.7, 0.0, 0.0, 0.5], &[2, 3], 0).unwrap();
/// assert_eq!(weight.codes().unpack(), [1, 0, -1, 0, 0, 1]);
/// assert_eq!(weight.scales(), [[0.5, 0.7]]);
/// assert!(recognize(&[0.5, 0.6, -0.7, 0.0, 0.0, 0.5], &[2, 3], 0).is_none());
/// ```
pub fn recognize(values: &[f32], shape: &[usize], output_axis: usize) -> Option<TernaryWeight> {
    let channels = *shape.get(output_axis)?;
    let elements = shape.iter().try_fold(1, |product: usize, &dim| product.checked_mul(dim))?;
    if values.is_empty() || elements != values.len() {
        return None;
    }
    let run = shape[output_axis + 1..].iter().product();
    [(1, elements), (channels, run)].into_iter().find_map(|(groups, run)| {
        let (codes, scales) = codes_and_scales(values, groups, run)?;
        TernaryWeight::new(Codes::pack(&codes).ok()?, scales, shape, output_axis).ok()
    })
}

/// Returns codes and scales. The group changes after every `run` values and cycles through all groups.
fn codes_and_scales(values: &[f32], groups: usize, run: usize) -> Option<(Vec<i8>, Vec<[f32; 2]>)> {
    let packed = values.len().div_ceil(VALUES_PER_BYTE) + groups * size_of::<[f32; 2]>();
    if packed >= size_of_val(values) {
        return None;
    }
    let mut scales = vec![[0.0; 2]; groups];
    let mut has_zero = vec![false; groups];
    let mut codes = Vec::new();
    for (values, group) in values.chunks(run).zip((0..groups).cycle()) {
        for &value in values {
            codes.push(code_of(value, &mut scales[group])?);
            has_zero[group] |= value == 0.0;
        }
    }
    let has_two_values = |(pair, &zero): (&[f32; 2], &bool)| {
        let signs = pair.iter().filter(|&&scale| scale > 0.0).count();
        signs + usize::from(zero) >= 2
    };
    let is_quantized = scales.iter().zip(&has_zero).any(has_two_values) || scales.iter().all(|pair| *pair == [0.0; 2]);
    is_quantized.then_some((codes, scales))
}

/// Returns the code of a value. The first value of a sign sets the scale, later ones must match it.
fn code_of(value: f32, [w_pos, w_neg]: &mut [f32; 2]) -> Option<i8> {
    if value == 0.0 {
        return Some(0);
    }
    let (scale, code) = if value > 0.0 { (w_pos, 1) } else { (w_neg, -1) };
    if *scale == 0.0 && value.is_finite() {
        *scale = value.abs();
    }
    (*scale == value.abs()).then_some(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns random ternary values with one pair of scales per channel, or the same pair for all channels.
    fn ternary(shape: &[usize], axis: usize, pairs: &[[f32; 2]]) -> Vec<f32> {
        let run: usize = shape[axis + 1..].iter().product();
        let mut rng = fastrand::Rng::with_seed(4);
        let value = |index: usize| {
            let [w_pos, w_neg] = pairs[index / run % shape[axis] % pairs.len()];
            [-w_neg, 0.0, w_pos][rng.usize(0..3)]
        };
        (0..shape.iter().product()).map(value).collect()
    }

    #[test]
    fn recognized_tensors_dequantize_to_the_same_values() {
        let pairs: Vec<[f32; 2]> = (1..=6).map(|i| [0.1 * i as f32, 1.0 / i as f32]).collect();
        for (shape, axis) in [(&[6, 5, 3, 3][..], 0), (&[30, 6], 1), (&[6, 30], 0), (&[4, 6, 7], 1)] {
            for (pairs, groups) in [(&pairs[..1], 1), (&pairs[..], 6)] {
                let values = ternary(shape, axis, pairs);
                let weight = recognize(&values, shape, axis).unwrap();
                assert_eq!((weight.scales().len(), weight.shape(), weight.output_axis()), (groups, shape, axis));
                assert_eq!(weight.scales(), pairs);
                assert_eq!(weight.dequantize(), values);
            }
        }
    }

    #[test]
    fn scales_along_another_axis_are_not_recognized() {
        let values = ternary(&[30, 6], 1, &[[0.1, 0.2], [0.3, 0.4]]);
        assert!(recognize(&values, &[30, 6], 0).is_none());
    }

    #[test]
    fn values_are_compared_without_tolerance() {
        let mut values = ternary(&[8, 9], 0, &[[0.3, 0.2]]);
        let last = values.iter().rposition(|&value| value == 0.3).unwrap();
        assert!(recognize(&values, &[8, 9], 0).is_some());
        values[last] = values[last].next_up();
        assert!(recognize(&values, &[8, 9], 0).is_none());
    }

    #[test]
    fn negative_zero_is_zero() {
        let weight = recognize(&[-0.0, 0.5, 0.0, 0.5], &[4], 0).unwrap();
        assert_eq!(weight.codes().unpack(), [0, 1, 0, 1]);
        assert_eq!(weight.scales(), [[0.5, 0.0]]);
    }

    #[test]
    fn subnormal_scales_are_recognized() {
        let tiny = f32::from_bits(1);
        let weight = recognize(&[tiny, -tiny, 0.0, tiny], &[2, 2], 0).unwrap();
        assert_eq!(weight.scales(), [[tiny, tiny]]);
    }

    #[test]
    fn all_zero_one_signed_and_binary_tensors_are_recognized() {
        let zeros = recognize(&[0.0; 12], &[3, 4], 0).unwrap();
        assert_eq!((zeros.scales(), zeros.codes().counts()), (&[[0.0, 0.0]][..], [0, 12, 0]));
        let negative = recognize(&[0.0, -2.0, -2.0, 0.0], &[2, 2], 0).unwrap();
        assert_eq!((negative.scales(), negative.codes().counts()), (&[[0.0, 2.0]][..], [2, 2, 0]));
        let binary = recognize(&[3.0, -2.0, -2.0, 3.0], &[2, 2], 0).unwrap();
        assert_eq!((binary.scales(), binary.codes().counts()), (&[[3.0, 2.0]][..], [2, 0, 2]));
    }

    #[test]
    fn constant_tensors_and_constant_channels_are_not_recognized() {
        assert!(recognize(&[1.0; 12], &[3, 4], 0).is_none());
        assert!(recognize(&[1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0], &[2, 4], 0).is_none());
        let weight = recognize(&[1.0, 1.0, -2.0, 0.0, 3.0, 3.0, 3.0, 3.0], &[2, 4], 0).unwrap();
        assert_eq!(weight.scales(), [[1.0, 2.0], [3.0, 0.0]], "one channel with two values is enough");
    }

    #[test]
    fn nan_and_infinite_values_are_not_recognized() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert!(recognize(&[0.0, 1.0, bad, 1.0], &[4], 0).is_none());
            assert!(recognize(&[bad, 0.0, bad, bad], &[4], 0).is_none());
        }
    }

    #[test]
    fn a_tensor_that_would_not_get_smaller_is_not_recognized() {
        let values: Vec<f32> = (0..64).map(|i| (i as f32).sin()).collect();
        assert!(recognize(&values, &[64, 1, 1, 1], 0).is_none());
        let pairs: Vec<f32> = values.iter().flat_map(|value| [value.abs() + 0.1, -0.5 - value.abs()]).collect();
        assert!(recognize(&pairs, &[64, 2], 0).is_none());
        assert!(recognize(&[1.0, 0.0], &[2, 1], 0).is_none());
    }

    #[test]
    fn values_that_do_not_match_the_shape_are_not_recognized() {
        assert!(recognize(&[0.0; 8], &[3, 3], 0).is_none());
        assert!(recognize(&[0.0; 9], &[3, 3], 2).is_none());
        assert!(recognize(&[0.0; 9], &[usize::MAX, 3], 0).is_none());
        assert!(recognize(&[], &[0, usize::MAX, usize::MAX], 0).is_none());
        assert!(recognize(&[1.0], &[], 0).is_none());
    }
}
