//! Ternary weights among full-precision tensors: what a checkpoint says only by its values.

use alloc::vec;
use alloc::vec::Vec;

use crate::codes::{Codes, VALUES_PER_BYTE};
use crate::file::TernaryWeight;

/// The ternary weight that a tensor is, if it is one: its row-major values are `+w_pos`, `0` and `-w_neg` and no others, for one pair
/// of scales or, where that fails, for one pair for each index along `output_axis`.
///
/// Scales are the values themselves, compared as they are without tolerance, so that
/// [`dequantize`](TernaryWeight::dequantize) gives the same numbers again; of zeros, the sign is lost. A side without
/// values has the scale 0.
///
/// `None`, too, for
/// - NaN and infinite values;
/// - a tensor that would not get smaller: with two values in a channel, any number is some scale of its own;
/// - groups that take one nonzero value throughout, such as an embedding of ones: nothing in them was rounded to a
///   second value. All zeros are a weight, though, since a ternary layer may die;
/// - values that do not fill the shape, and an axis that the shape has not.
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
        let (codes, scales) = split(values, groups, run)?;
        TernaryWeight::new(Codes::pack(&codes).ok()?, scales, shape, output_axis).ok()
    })
}

/// Codes and scales, where groups take turns every `run` values.
fn split(values: &[f32], groups: usize, run: usize) -> Option<(Vec<i8>, Vec<[f32; 2]>)> {
    let packed = values.len().div_ceil(VALUES_PER_BYTE) + groups * size_of::<[f32; 2]>();
    if packed >= size_of_val(values) {
        return None;
    }
    let mut scales = vec![[0.0; 2]; groups];
    let mut has_zero = vec![false; groups];
    let mut codes = Vec::new();
    for (values, group) in values.chunks(run).zip((0..groups).cycle()) {
        for &value in values {
            codes.push(code(value, &mut scales[group])?);
            has_zero[group] |= value == 0.0;
        }
    }
    let takes_two = |(pair, &zero): (&[f32; 2], &bool)| {
        let sides = pair.iter().filter(|&&scale| scale > 0.0).count();
        sides + usize::from(zero) >= 2
    };
    let evident = scales.iter().zip(&has_zero).any(takes_two) || scales.iter().all(|pair| *pair == [0.0; 2]);
    evident.then_some((codes, scales))
}

/// The code of a value, whose scale must be that of the values before it; the first one sets it.
fn code(value: f32, [w_pos, w_neg]: &mut [f32; 2]) -> Option<i8> {
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

    /// Ternary values of a shape with a pair for each channel; a single pair repeats.
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
    fn ternary_tensors_are_recognized_and_give_the_same_numbers() {
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
    fn scales_of_another_axis_are_not_found() {
        let values = ternary(&[30, 6], 1, &[[0.1, 0.2], [0.3, 0.4]]);
        assert!(recognize(&values, &[30, 6], 0).is_none());
    }

    #[test]
    fn the_next_float_is_another_value() {
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
    fn subnormal_scales_are_scales() {
        let tiny = f32::from_bits(1);
        let weight = recognize(&[tiny, -tiny, 0.0, tiny], &[2, 2], 0).unwrap();
        assert_eq!(weight.scales(), [[tiny, tiny]]);
    }

    #[test]
    fn zeros_and_one_sided_tensors_are_weights() {
        let zeros = recognize(&[0.0; 12], &[3, 4], 0).unwrap();
        assert_eq!((zeros.scales(), zeros.codes().counts()), (&[[0.0, 0.0]][..], [0, 12, 0]));
        let negative = recognize(&[0.0, -2.0, -2.0, 0.0], &[2, 2], 0).unwrap();
        assert_eq!((negative.scales(), negative.codes().counts()), (&[[0.0, 2.0]][..], [2, 2, 0]));
        let binary = recognize(&[3.0, -2.0, -2.0, 3.0], &[2, 2], 0).unwrap();
        assert_eq!((binary.scales(), binary.codes().counts()), (&[[3.0, 2.0]][..], [2, 0, 2]));
    }

    #[test]
    fn a_constant_is_no_weight_and_nor_are_constant_channels() {
        assert!(recognize(&[1.0; 12], &[3, 4], 0).is_none());
        assert!(recognize(&[1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0], &[2, 4], 0).is_none());
        let weight = recognize(&[1.0, 1.0, -2.0, 0.0, 3.0, 3.0, 3.0, 3.0], &[2, 4], 0).unwrap();
        assert_eq!(weight.scales(), [[1.0, 2.0], [3.0, 0.0]], "one channel of several values is evidence for all");
    }

    #[test]
    fn numbers_that_are_none_are_refused() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert!(recognize(&[0.0, 1.0, bad, 1.0], &[4], 0).is_none());
            assert!(recognize(&[bad, 0.0, bad, bad], &[4], 0).is_none());
        }
    }

    #[test]
    fn a_tensor_that_would_not_get_smaller_proves_nothing() {
        let values: Vec<f32> = (0..64).map(|i| (i as f32).sin()).collect();
        assert!(recognize(&values, &[64, 1, 1, 1], 0).is_none());
        let pairs: Vec<f32> = values.iter().flat_map(|value| [value.abs() + 0.1, -0.5 - value.abs()]).collect();
        assert!(recognize(&pairs, &[64, 2], 0).is_none());
        assert!(recognize(&[1.0, 0.0], &[2, 1], 0).is_none());
    }

    #[test]
    fn values_that_do_not_fill_the_shape_are_refused() {
        assert!(recognize(&[0.0; 8], &[3, 3], 0).is_none());
        assert!(recognize(&[0.0; 9], &[3, 3], 2).is_none());
        assert!(recognize(&[0.0; 9], &[usize::MAX, 3], 0).is_none());
        assert!(recognize(&[], &[0, usize::MAX, usize::MAX], 0).is_none());
        assert!(recognize(&[1.0], &[], 0).is_none());
    }
}
