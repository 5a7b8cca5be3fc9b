//! Pairs of scales as small integers, so that one byte dot product computes both terms of `w_pos P - w_neg N`.

/// Largest relative error of a scale.
const MAX_ERROR: f64 = 1.0 / 256.0;
/// Largest magnitude of a byte weight.
const LARGEST: usize = 127;

/// Returns integers `[a, b]` and a `unit`, so that `w_pos ≈ unit a` and `w_neg ≈ unit b` with relative errors of at most
/// 1/256; `None` if there are no such integers.
///
/// A sum of `columns` products of an unsigned byte and `a` or `b` fits in an i32. If it allows for magnitudes up to 127,
/// there are integers for every ratio of the scales from 1/64 to 64, and half of the ratios from 1/4 to 4 have errors
/// below 1e-4: among fractions with such denominators, the neighbours `p/q < p'/q'` have the distance `1 / (q q')` with
/// `q + q' > 127`, so that the ratio of a number between them to one of them is at most `1 + 1 / (2 p q')`. The unit
/// divides this error equally between the scales. Equal scales become 1 and 1, without error.
pub(super) fn integers([w_pos, w_neg]: [f32; 2], columns: usize) -> Option<([i8; 2], f32)> {
    let most = LARGEST.min(i32::MAX as usize / 255 / columns);
    if most == 0 || !w_pos.is_finite() || !w_neg.is_finite() {
        return None;
    }
    let [pos, neg] = [w_pos, w_neg].map(|w| f64::from(w.abs()));
    let (large, small) = (pos.max(neg), pos.min(neg));
    let ([first, second], unit) = if small == large {
        ([1, 1], large)
    } else if small == 0.0 {
        ([1, 0], large)
    } else {
        closest(large, small, most)?
    };
    let [a, b] = if pos >= neg { [first, second] } else { [second, first] };
    let signed = |integer: i8, w: f32| if w < 0.0 { -integer } else { integer };
    Some(([signed(a, w_pos), signed(b, w_neg)], unit as f32))
}

/// Returns the integers up to `most` whose ratio is closest to that of two positive numbers, and the unit; `None` if its
/// error is too large.
fn closest(large: f64, small: f64, most: usize) -> Option<([i8; 2], f64)> {
    let mut best = (f64::INFINITY, [0, 0], 0.0);
    for step in 1..=most {
        let exact = small / large * step as f64;
        let rounded = libm::round(exact).max(1.0);
        let error = (exact / rounded).max(rounded / exact);
        if error < best.0 {
            best = (error, [step as i8, rounded as i8], libm::sqrt(large / step as f64 * (small / rounded)));
        }
    }
    let (error, integers, unit) = best;
    (libm::sqrt(error) - 1.0 <= MAX_ERROR).then_some((integers, unit))
}

/// Returns the bytes of the codes 0b00 to 0b11, in a word whose lowest byte is the first.
pub(super) fn table([a, b]: [i8; 2]) -> u32 {
    u32::from_le_bytes([0, a as u8, -b as u8, 0])
}

/// Returns the weights of the codes +1 and -1 in a [`table`].
#[inline(always)]
pub(super) fn weights(table: u32) -> [i32; 2] {
    [(table << 16) as i32 >> 24, (table << 8) as i32 >> 24]
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    fn errors(pair: [f32; 2], columns: usize) -> Option<[f32; 2]> {
        let (integers, unit) = integers(pair, columns)?;
        Some([0, 1].map(|i| (f32::from(integers[i]) * unit / pair[i] - 1.0).abs()))
    }

    #[test]
    fn scales_have_small_relative_errors() {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut common = Vec::new();
        for _ in 0..20_000 {
            let (w, ratio) = (1e-3 + rng.f32(), 64_f32.powf(2.0 * rng.f32() - 1.0));
            let [pos, neg] = errors([w, w * ratio], 4096).unwrap();
            assert!(pos.max(neg) <= 1.0 / 256.0 + 1e-6, "{w} {ratio}");
            if (0.25..4.0).contains(&ratio) {
                common.push(pos.max(neg));
            }
        }
        common.sort_by(f32::total_cmp);
        assert!(common[common.len() / 2] < 1e-4 && common[common.len() - 1] < 1.0 / 480.0);
    }

    #[test]
    fn simple_ratios_are_exact() {
        assert_eq!(integers([0.7, 0.7], 10), Some(([1, 1], 0.7)));
        assert_eq!(integers([0.75, 1.0], 10), Some(([3, 4], 0.25)));
        assert_eq!(integers([2.0, 0.0], 10), Some(([1, 0], 2.0)));
        assert_eq!(integers([0.0, 0.0], 10), Some(([1, 1], 0.0)));
        assert_eq!(integers([-1.0, 0.5], 10), Some(([-2, 1], 0.5)));
    }

    #[test]
    fn no_pair_is_used_beyond_the_largest_error_or_sum() {
        assert_eq!(integers([1.0, 1e-3], 10), None);
        assert_eq!(integers([f32::NAN, 1.0], 10), None);
        assert_eq!(integers([1.0, f32::INFINITY], 10), None);
        assert_eq!(integers([0.7, 0.7], 1 << 22), Some(([1, 1], 0.7)));
        assert_eq!(integers([1.0, 0.9], 1 << 22), None);
        for columns in [66_312, 1 << 20, 1 << 22] {
            let (pair, _) = integers([1.0, 0.5], columns).unwrap();
            assert!(i64::from(pair[0]) * 255 * columns as i64 <= i64::from(i32::MAX));
        }
    }

    #[test]
    fn a_table_contains_the_weights_of_the_codes() {
        assert_eq!(table([127, 3]).to_le_bytes(), [0, 127, 253, 0]);
        for pair in [[127, 3], [1, 1], [0, 127], [-5, 6], [-127, -127]] {
            assert_eq!(weights(table(pair)), [i32::from(pair[0]), -i32::from(pair[1])]);
        }
    }
}
