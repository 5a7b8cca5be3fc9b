//! Exponential, logarithm, error function and their relatives, for loops that the compiler vectorizes. Without `std`.
//!
//! The functions are free of branches, table lookups and calls: special values are selected, exponents are taken from
//! and put into the bits of the number. Inlined into a loop over a slice, they run in all lanes of the instruction set
//! that the surrounding function is compiled for. Products and sums are rounded separately instead of fused, so results
//! are the same bits for every instruction set and for every position in a slice.
//!
//! Errors are given in units in the last place (ulp) and were measured for all 2³² inputs against the standard
//! library's or `libm`'s functions in f64. Subnormal numbers are kept, and NaN yields NaN.
#![no_std]
#![allow(clippy::excessive_precision, reason = "coefficients are written as published")]

/// The high part of ln 2: products with integers below 2¹⁵ are exact.
const LN_2_HIGH: f32 = 0.693359375;
/// ln 2 − [`LN_2_HIGH`].
const LN_2_LOW: f32 = -2.12194440e-4;

/// Evaluates a polynomial by Horner's method, the highest power's coefficient first.
#[inline(always)]
fn polynomial<const N: usize>(x: f32, coefficients: [f32; N]) -> f32 {
    // A closure might be compiled as a function of its own, without vector instructions.
    let mut sum = coefficients[0];
    for coefficient in &coefficients[1..] {
        sum = sum * x + coefficient;
    }
    sum
}

/// Returns `n` and `eʳ` for x = n·ln 2 + r, |r| ≤ ln 2 / 2, |n| < 2²¹.
///
/// The polynomial is that of `expf` in the [Cephes library](https://www.netlib.org/cephes/).
#[inline(always)]
fn reduced_exponential(x: f32) -> (i32, f32) {
    // In the sum with 1.5 · 2²³ the unit of the last place is 1: the sum is rounded to an integer, found in its low bits.
    const ROUND: f32 = 12582912.0;
    let rounded = x * core::f32::consts::LOG2_E + ROUND;
    let n = rounded - ROUND;
    let r = (x - n * LN_2_HIGH) - n * LN_2_LOW;
    let p = polynomial(
        r,
        [1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1],
    );
    ((rounded.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32), 1.0 + (p * (r * r) + r))
}

/// Returns 2ⁿ for −126 ≤ n ≤ 127.
#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) << 23) as u32)
}

/// eˣ, at most 1 ulp from the exact value.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // Beyond these bounds the result is infinite or zero.
    let x = if x > 89.0 { 89.0 } else { x };
    let x = if x < -104.0 { -104.0 } else { x };
    let (n, e) = reduced_exponential(x);
    // Two factors, because 2ⁿ alone may be subnormal or infinite where the result is not.
    let half = n >> 1;
    e * power_of_two(half) * power_of_two(n.wrapping_sub(half))
}

/// 1 / (1 + e⁻ˣ), at most 2.5 ulp from the exact value.
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    // e^-|x| does not overflow, and keeps its digits for large negative x.
    let e = exp(-x.abs());
    let numerator = if x < 0.0 { e } else { 1.0 };
    numerator / (1.0 + e)
}

/// The hyperbolic tangent, at most 1.5 ulp from the exact value.
///
/// The polynomial is that of `tanhf` in the [Cephes library](https://www.netlib.org/cephes/).
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    let magnitude = x.abs();
    // tanh(10) is 1 in f32.
    let magnitude = if magnitude > 10.0 { 10.0 } else { magnitude };
    let square = magnitude * magnitude;
    let p = polynomial(
        square,
        [-5.70498872745e-3, 2.06390887954e-2, -5.37397155531e-2, 1.33314422036e-1, -3.33332819422e-1],
    );
    let near = magnitude + magnitude * (square * p);
    let (n, e) = reduced_exponential(2.0 * magnitude);
    let far = 1.0 - 2.0 / (e * power_of_two(n) + 1.0);
    (if magnitude < 0.625 { near } else { far }).copysign(x)
}

/// ln(1 + f) − f + `correction` for √½ ≤ 1 + f ≤ √2.
///
/// The polynomial is that of `logf` in the [Cephes library](https://www.netlib.org/cephes/).
#[inline(always)]
fn logarithm_tail(f: f32, correction: f32) -> f32 {
    let square = f * f;
    let p = polynomial(
        f,
        [
            7.0376836292e-2,
            -1.1514610310e-1,
            1.1676998740e-1,
            -1.2420140846e-1,
            1.4249322787e-1,
            -1.6668057665e-1,
            2.0000714765e-1,
            -2.4999993993e-1,
            3.3333331174e-1,
        ],
    );
    (p * (f * square) + correction) - 0.5 * square
}

/// Returns `n` and `m` of x = 2ⁿ·m, √½ ≤ m < √2, for a normal, positive x.
#[inline(always)]
fn split(x: f32) -> (f32, f32) {
    const SQRT_HALF: i32 = core::f32::consts::FRAC_1_SQRT_2.to_bits() as i32;
    let bits = (x.to_bits() as i32).wrapping_sub(SQRT_HALF);
    ((bits >> 23) as f32, f32::from_bits((bits & 0x7f_ffff).wrapping_add(SQRT_HALF) as u32))
}

/// The natural logarithm, at most 1 ulp from the exact value.
#[inline(always)]
pub fn ln(x: f32) -> f32 {
    let is_subnormal = x < f32::MIN_POSITIVE;
    let scaled = if is_subnormal { x * 8388608.0 } else { x };
    let (n, m) = split(scaled);
    let n = if is_subnormal { n - 23.0 } else { n };
    let f = m - 1.0;
    let y = logarithm_tail(f, n * LN_2_LOW) + f + n * LN_2_HIGH;
    let y = if x > 0.0 { y } else { f32::NAN };
    let y = if x == 0.0 { f32::NEG_INFINITY } else { y };
    if x == f32::INFINITY { x } else { y }
}

/// ln(1 + x), at most 1 ulp from the exact value.
#[inline(always)]
pub fn log1p(x: f32) -> f32 {
    let u = 1.0 + x;
    let (n, m) = split(u);
    // The part of x that rounding took from u.
    let lost = if n >= 2.0 { 1.0 - (u - x) } else { x - (u - 1.0) };
    let (f, correction) = if n == 0.0 { (x, 0.0) } else { (m - 1.0, lost / u) };
    let y = logarithm_tail(f, n * LN_2_LOW + correction) + f + n * LN_2_HIGH;
    let y = if x > -1.0 { y.copysign(x) } else { f32::NAN };
    let y = if x == -1.0 { f32::NEG_INFINITY } else { y };
    if x == f32::INFINITY { x } else { y }
}

/// The error function, at most 1.5 ulp from the exact value.
///
/// Below 0.9, erf(x) = x · P(x²) with a relative error of 1.2·10⁻⁸; beyond, erf(x) = 1 − exp(x · R(x)) with an absolute
/// error of 3·10⁻⁹. Both polynomials have degree 5 and are minimax approximations on Chebyshev nodes, found by iteratively
/// reweighted least squares (Lawson's method) in f64.
#[inline(always)]
pub fn erf(x: f32) -> f32 {
    let magnitude = x.abs();
    // erf(4) is 1 in f32.
    let magnitude = if magnitude > 4.0 { 4.0 } else { magnitude };
    // P without its leading 1, so that the sum is rounded once.
    let p = polynomial(
        magnitude * magnitude,
        [-6.090360315e-4, 5.011962885e-3, -2.677890896e-2, 1.128214081e-1, -3.761252328e-1, 1.28379154e-1],
    );
    let near = magnitude + magnitude * p;
    let r = polynomial(
        magnitude,
        [2.141537999e-4, -3.216451053e-3, 2.289512391e-2, -1.052705040e-1, -6.357112481e-1, -1.28516602e-1],
    );
    let (n, e) = reduced_exponential(magnitude * r - magnitude);
    let far = 1.0 - e * power_of_two(n);
    (if magnitude < 0.9 { near } else { far }).copysign(x)
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;

    /// A function, its name, its reference in f64, and the error bound in ulp.
    type Case = (&'static str, fn(f32) -> f32, fn(f64) -> f64, f64);

    const CASES: [Case; 6] = [
        ("exp", exp, f64::exp, 1.0),
        ("ln", ln, f64::ln, 1.0),
        ("log1p", log1p, f64::ln_1p, 1.0),
        ("sigmoid", sigmoid, |x| 1.0 / (1.0 + (-x).exp()), 2.5),
        ("tanh", tanh, f64::tanh, 1.5),
        ("erf", erf, libm::erf, 1.5),
    ];

    /// Numbers of all signs and magnitudes, infinities and NaN.
    fn samples() -> impl Iterator<Item = f32> {
        (0..=u32::MAX).step_by(10_007).map(f32::from_bits)
    }

    /// The distance in units of the last place of `exact`; 0 if both are NaN or the same infinity.
    fn ulp(result: f32, exact: f64) -> f64 {
        let rounded = exact as f32;
        if rounded.is_finite() && result.is_finite() {
            let exponent = rounded.abs().max(f32::MIN_POSITIVE).to_bits() >> 23;
            return (f64::from(result) - exact).abs() / 2f64.powi(exponent as i32 - 150);
        }
        if result == rounded || result.is_nan() && rounded.is_nan() { 0.0 } else { f64::INFINITY }
    }

    #[test]
    fn errors_are_within_the_stated_bounds_for_all_magnitudes() {
        for (name, function, reference, bound) in CASES {
            let error = |x: &f32| ulp(function(*x), reference(f64::from(*x)));
            let worst = samples().max_by(|a, b| error(a).total_cmp(&error(b))).unwrap();
            assert!(error(&worst) <= bound, "{name}({worst:e}) = {:e}: {} ulp", function(worst), error(&worst));
        }
    }

    #[test]
    fn special_values_are_those_of_the_standard_library() {
        let (inf, tiny) = (f32::INFINITY, f32::from_bits(1));
        type Case<'a> = (fn(f32) -> f32, &'a [(f32, f32)]);
        let cases: [Case<'_>; 6] = [
            (exp, &[(inf, inf), (-inf, 0.0), (88.8, inf), (-104.0, 0.0), (-103.5, tiny), (0.0, 1.0), (-0.0, 1.0)]),
            (ln, &[(inf, inf), (-inf, f32::NAN), (-tiny, f32::NAN), (0.0, -inf), (-0.0, -inf), (1.0, 0.0)]),
            (log1p, &[(inf, inf), (-1.0, -inf), (-1.1, f32::NAN), (-inf, f32::NAN), (0.0, 0.0), (-0.0, -0.0)]),
            (sigmoid, &[(inf, 1.0), (-inf, 0.0), (0.0, 0.5), (-0.0, 0.5)]),
            (tanh, &[(inf, 1.0), (-inf, -1.0), (0.0, 0.0), (-0.0, -0.0), (tiny, tiny)]),
            (erf, &[(inf, 1.0), (-inf, -1.0), (0.0, 0.0), (-0.0, -0.0), (-tiny, -tiny)]),
        ];
        for (index, (function, values)) in cases.into_iter().enumerate() {
            assert!(function(f32::NAN).is_nan());
            for &(x, y) in values {
                let result = function(x);
                let is_same = result.to_bits() == y.to_bits() || result.is_nan() && y.is_nan();
                assert!(is_same, "{}({x:e}) = {result:e}, not {y:e}", CASES[index].0);
            }
        }
    }
}
