//! Functions of one and two numbers in all lanes of a vector.
//!
//! The exponential function and its relatives are free of branches, tables and calls: special values are selected, and
//! exponents are put into the bits of a number. Products and sums are rounded separately, so that results are the same for
//! every instruction set. Subnormal numbers are kept, and NaN yields NaN but
//! in the maximum and minimum of two numbers.
#![allow(clippy::excessive_precision, reason = "coefficients are written as published")]

use crate::kernels::simd::Simd;
use crate::network::operation::{Binary, Unary};

/// Most lanes of a vector.
pub(super) const LANES: usize = 16;

/// Computes a function of each lane of a vector, or of each pair of lanes of two vectors.
///
/// A closure as argument of a function might be compiled as a function of its own, without vector instructions.
macro_rules! each {
    ($V:ident, $x:ident in $vector:expr => $value:expr) => {{
        let mut lanes = [0.0; LANES];
        $V::store(lanes.as_mut_ptr(), $vector);
        for lane in 0..$V::LANES {
            let $x = lanes[lane];
            lanes[lane] = $value;
        }
        $V::load(lanes.as_ptr())
    }};
    ($V:ident, $a:ident in $first:expr, $b:ident in $second:expr => $value:expr) => {{
        let (mut lanes, mut second) = ([0.0; LANES], [0.0; LANES]);
        $V::store(lanes.as_mut_ptr(), $first);
        $V::store(second.as_mut_ptr(), $second);
        for lane in 0..$V::LANES {
            let ($a, $b) = (lanes[lane], second[lane]);
            lanes[lane] = $value;
        }
        $V::load(lanes.as_ptr())
    }};
}
pub(super) use each;

/// Computes a function of each lane.
///
/// # Safety
/// The processor must support the instructions of `V`.
#[inline(always)]
pub(super) unsafe fn unary<V: Simd>(function: Unary, x: V::Floats) -> V::Floats {
    // SAFETY: guaranteed by the caller.
    unsafe {
        match function {
            Unary::Relu => V::relu(x),
            Unary::LeakyRelu(slope) => each!(V, x in x => if x < 0.0 { slope * x } else { x }),
            Unary::Clamp([low, high]) => each!(V, x in x => {
                let x = if x < low { low } else { x };
                if x > high { high } else { x }
            }),
            Unary::Sigmoid => each!(V, x in x => sigmoid(x)),
            Unary::Tanh => each!(V, x in x => tanh(x)),
            Unary::Gelu => each!(V, x in x => 0.5 * x * (1.0 + erf(x * core::f32::consts::FRAC_1_SQRT_2))),
            Unary::Erf => each!(V, x in x => erf(x)),
            Unary::Exp => each!(V, x in x => exp(x)),
            Unary::Log => each!(V, x in x => libm::logf(x)),
            Unary::Sqrt => V::sqrt(x),
            Unary::Abs => each!(V, x in x => magnitude(x)),
            Unary::Negate => each!(V, x in x => -x),
            Unary::Reciprocal => V::div(V::splat(1.0), x),
        }
    }
}

/// Computes a function of each pair of lanes.
///
/// # Safety
/// As for [`unary`].
#[inline(always)]
pub(super) unsafe fn binary<V: Simd>(function: Binary, a: V::Floats, b: V::Floats) -> V::Floats {
    // SAFETY: guaranteed by the caller.
    unsafe {
        match function {
            Binary::Add => V::add(a, b),
            Binary::Subtract => V::sub(a, b),
            Binary::Multiply => V::mul(a, b),
            Binary::Divide => V::div(a, b),
            Binary::Maximum => each!(V, a in a, b in b => a.max(b)),
            Binary::Minimum => each!(V, a in a, b in b => a.min(b)),
            Binary::Power => each!(V, a in a, b in b => libm::powf(a, b)),
            Binary::Equal => each!(V, a in a, b in b => f32::from(a == b)),
            Binary::Less => each!(V, a in a, b in b => f32::from(a < b)),
            Binary::LessOrEqual => each!(V, a in a, b in b => f32::from(a <= b)),
        }
    }
}

#[inline(always)]
fn magnitude(x: f32) -> f32 {
    f32::from_bits(x.to_bits() & !SIGN)
}

/// Returns a number that is not negative with the sign of another one.
#[inline(always)]
fn with_sign(magnitude: f32, sign: f32) -> f32 {
    f32::from_bits(magnitude.to_bits() | (sign.to_bits() & SIGN))
}

const SIGN: u32 = 1 << 31;

/// The high part of ln 2: products with integers below 2¹⁵ are exact.
const LN_2_HIGH: f32 = 0.693359375;
/// ln 2 − [`LN_2_HIGH`].
const LN_2_LOW: f32 = -2.12194440e-4;

/// Evaluates a polynomial by Horner's method, the highest power's coefficient first.
#[inline(always)]
fn polynomial<const N: usize>(x: f32, coefficients: [f32; N]) -> f32 {
    let mut sum = coefficients[0];
    for i in 1..N {
        sum = sum * x + coefficients[i];
    }
    sum
}

/// Returns `n` and `eʳ` for `x = n ln 2 + r`, `|r| ≤ ln 2 / 2`, `|n| < 2²¹`.
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

/// Returns `2ⁿ` for `−126 ≤ n ≤ 127`.
#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) << 23) as u32)
}

/// `eˣ`, at most 1 unit in the last place (ulp) from the exact value.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    // Beyond these bounds the result is infinite or zero.
    let x = if x > 89.0 { 89.0 } else { x };
    let x = if x < -104.0 { -104.0 } else { x };
    let (n, e) = reduced_exponential(x);
    // Two factors, because 2ⁿ alone may be subnormal or infinite where the result is not.
    let half = n >> 1;
    e * power_of_two(half) * power_of_two(n.wrapping_sub(half))
}

/// `1 / (1 + e⁻ˣ)`, at most 2.5 ulp from the exact value.
#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    // e^-|x| does not overflow, and keeps its digits for large negative x.
    let e = exp(-magnitude(x));
    let numerator = if x < 0.0 { e } else { 1.0 };
    numerator / (1.0 + e)
}

/// The hyperbolic tangent, at most 1.5 ulp from the exact value.
///
/// The polynomial is that of `tanhf` in the [Cephes library](https://www.netlib.org/cephes/).
#[inline(always)]
fn tanh(x: f32) -> f32 {
    let size = magnitude(x);
    // tanh(10) is 1 in f32.
    let size = if size > 10.0 { 10.0 } else { size };
    let square = size * size;
    let p = polynomial(
        square,
        [-5.70498872745e-3, 2.06390887954e-2, -5.37397155531e-2, 1.33314422036e-1, -3.33332819422e-1],
    );
    let near = size + size * (square * p);
    let (n, e) = reduced_exponential(2.0 * size);
    let far = 1.0 - 2.0 / (e * power_of_two(n) + 1.0);
    with_sign(if size < 0.625 { near } else { far }, x)
}

/// The error function, at most 1.5 ulp from the exact value.
///
/// Below 0.9, `erf(x) = x P(x²)` with a relative error of 1.2·10⁻⁸; beyond, `erf(x) = 1 − exp(x R(x))` with an absolute
/// error of 3·10⁻⁹. Both polynomials have degree 5 and are minimax approximations on Chebyshev nodes, found by iteratively
/// reweighted least squares (Lawson's method) in f64.
#[inline(always)]
fn erf(x: f32) -> f32 {
    let size = magnitude(x);
    // erf(4) is 1 in f32.
    let size = if size > 4.0 { 4.0 } else { size };
    // P without its leading 1, so that the sum is rounded once.
    let p = polynomial(
        size * size,
        [-6.090360315e-4, 5.011962885e-3, -2.677890896e-2, 1.128214081e-1, -3.761252328e-1, 1.28379154e-1],
    );
    let near = size + size * p;
    let r = polynomial(
        size,
        [2.141537999e-4, -3.216451053e-3, 2.289512391e-2, -1.052705040e-1, -6.357112481e-1, -1.28516602e-1],
    );
    let (n, e) = reduced_exponential(size * r - size);
    let far = 1.0 - e * power_of_two(n);
    with_sign(if size < 0.9 { near } else { far }, x)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The distance in units of the last place of `exact`; 0 if both are NaN or the same infinity.
    fn ulp(result: f32, exact: f64) -> f64 {
        let rounded = exact as f32;
        if rounded.is_finite() && result.is_finite() {
            let exponent = magnitude(rounded).max(f32::MIN_POSITIVE).to_bits() >> 23;
            return (f64::from(result) - exact).abs() / libm::pow(2.0, f64::from(exponent) - 150.0);
        }
        if result == rounded || result.is_nan() && rounded.is_nan() { 0.0 } else { f64::INFINITY }
    }

    #[test]
    fn errors_are_within_the_stated_bounds_for_all_magnitudes_and_special_values() {
        type Case = (&'static str, fn(f32) -> f32, fn(f64) -> f64, f64);
        let cases: [Case; 4] = [
            ("exp", exp, libm::exp, 1.0),
            ("sigmoid", sigmoid, |x| 1.0 / (1.0 + libm::exp(-x)), 2.5),
            ("tanh", tanh, libm::tanh, 1.5),
            ("erf", erf, libm::erf, 1.5),
        ];
        let special = [0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 88.8, -103.5, 1e-45];
        for (name, function, reference, bound) in cases {
            for x in (0..=u32::MAX).step_by(20_011).map(f32::from_bits).chain(special) {
                let error = ulp(function(x), reference(f64::from(x)));
                assert!(error <= bound, "{name}({x:e}) = {:e}: {error} ulp", function(x));
            }
        }
    }
}
