//! Functions of one and two numbers in all lanes of a vector.
//!
//! Results are the same for every instruction set. NaN yields NaN.

use ttq_math::{erf, exp, ln, sigmoid, tanh};

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
            Unary::Clamp([low, high]) => V::min(V::max(x, V::splat(low)), V::splat(high)),
            Unary::Sigmoid => each!(V, x in x => sigmoid(x)),
            Unary::Tanh => each!(V, x in x => tanh(x)),
            Unary::Gelu => each!(V, x in x => 0.5 * x * (1.0 + erf(x * core::f32::consts::FRAC_1_SQRT_2))),
            Unary::Erf => each!(V, x in x => erf(x)),
            Unary::Exp => each!(V, x in x => exp(x)),
            Unary::Log => each!(V, x in x => ln(x)),
            Unary::Sqrt => V::sqrt(x),
            Unary::Abs => each!(V, x in x => x.abs()),
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
            Binary::Maximum => V::max(a, b),
            Binary::Minimum => V::min(a, b),
            Binary::Power => each!(V, a in a, b in b => libm::powf(a, b)),
            Binary::Equal => each!(V, a in a, b in b => f32::from(a == b)),
            Binary::Less => each!(V, a in a, b in b => f32::from(a < b)),
            Binary::LessOrEqual => each!(V, a in a, b in b => f32::from(a <= b)),
        }
    }
}
