//! The operations of a [tape](super), as loops over the values of a tile.

/// An operation on one, two or three values, called a, b and c.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Operation {
    Add,
    Sub,
    Mul,
    Div,
    AddScalar(f32),
    SubScalar(f32),
    MulScalar(f32),
    DivScalar(f32),
    Neg,
    Abs,
    Recip,
    Sqrt,
    Exp,
    Log,
    Log1p,
    Tanh,
    Erf,
    Sigmoid,
    Relu,
    Gelu,
    /// max(a, scalar), NaN if a is NaN.
    ClampMin(f32),
    /// min(a, scalar), NaN if a is NaN.
    ClampMax(f32),
    /// b where a > 0, else 0: a is the output of ReLU, b its gradient.
    ReluBackward,
    /// The gradient of the argument of GELU: a is the argument, b the gradient.
    GeluBackward,
    /// a (1 - a) b: a is the output of the sigmoid, b its gradient.
    SigmoidBackward,
    /// 1 where a = b, else 0.
    Equal,
    /// 1 where a ≠ b, else 0.
    NotEqual,
    /// 1 where a > b, else 0.
    Greater,
    /// 1 where a ≥ b, else 0.
    GreaterEqual,
    /// b where a ≠ 0, else c.
    Select,
    /// The scalar where a ≠ 0, else b.
    Fill(f32),
}

impl Operation {
    /// Number of operands.
    pub(crate) fn operands(self) -> usize {
        match self {
            Self::Add
            | Self::Sub
            | Self::Mul
            | Self::Div
            | Self::ReluBackward
            | Self::GeluBackward
            | Self::SigmoidBackward
            | Self::Equal
            | Self::NotEqual
            | Self::Greater
            | Self::GreaterEqual
            | Self::Fill(_) => 2,
            Self::Select => 3,
            _ => 1,
        }
    }

    /// Returns whether the operation takes many times as long as a sum.
    pub(crate) fn is_expensive(self) -> bool {
        matches!(
            self,
            Self::Exp
                | Self::Log
                | Self::Log1p
                | Self::Tanh
                | Self::Erf
                | Self::Sigmoid
                | Self::Gelu
                | Self::GeluBackward
        )
    }
}

/// Computes an operation of each element. The loops are macros, not functions of closures: a closure that is not inlined
/// is compiled without the instruction set of its caller.
macro_rules! each {
    ($to:ident = |$x:ident: $a:ident| $value:expr) => {
        for (to, $x) in $to.iter_mut().zip($a) {
            let $x = *$x;
            *to = $value;
        }
    };
    ($to:ident = |$x:ident: $a:ident, $y:ident: $b:ident| $value:expr) => {
        for (to, ($x, $y)) in $to.iter_mut().zip($a.iter().zip($b)) {
            let ($x, $y) = (*$x, *$y);
            *to = $value;
        }
    };
}

const FRAC_1_SQRT_2: f32 = core::f32::consts::FRAC_1_SQRT_2;
/// 1 / sqrt(2 π)
const FRAC_1_SQRT_2_PI: f32 = 0.398_942_3;

/// Computes `to[i] = operation(a[i], b[i], c[i])`.
#[inline(always)]
pub(crate) fn apply(operation: Operation, a: &[f32], b: &[f32], c: &[f32], to: &mut [f32]) {
    match operation {
        Operation::Add => each!(to = |x: a, y: b| x + y),
        Operation::Sub => each!(to = |x: a, y: b| x - y),
        Operation::Mul => each!(to = |x: a, y: b| x * y),
        Operation::Div => each!(to = |x: a, y: b| x / y),
        Operation::AddScalar(s) => each!(to = |x: a| x + s),
        Operation::SubScalar(s) => each!(to = |x: a| x - s),
        Operation::MulScalar(s) => each!(to = |x: a| x * s),
        Operation::DivScalar(s) => each!(to = |x: a| x / s),
        Operation::Neg => each!(to = |x: a| -x),
        Operation::Abs => each!(to = |x: a| x.abs()),
        Operation::Recip => each!(to = |x: a| 1.0 / x),
        Operation::Sqrt => each!(to = |x: a| x.sqrt()),
        Operation::Exp => each!(to = |x: a| ttq_math::exp(x)),
        Operation::Log => each!(to = |x: a| ttq_math::ln(x)),
        Operation::Log1p => each!(to = |x: a| ttq_math::log1p(x)),
        Operation::Tanh => each!(to = |x: a| ttq_math::tanh(x)),
        Operation::Erf => each!(to = |x: a| ttq_math::erf(x)),
        Operation::Sigmoid => each!(to = |x: a| ttq_math::sigmoid(x)),
        // NaN compares false: it is kept.
        Operation::Relu => each!(to = |x: a| if x < 0.0 { 0.0 } else { x }),
        Operation::Gelu => each!(to = |x: a| 0.5 * x * (1.0 + ttq_math::erf(x * FRAC_1_SQRT_2))),
        Operation::ClampMin(s) => each!(to = |x: a| if x < s { s } else { x }),
        Operation::ClampMax(s) => each!(to = |x: a| if x > s { s } else { x }),
        Operation::ReluBackward => each!(to = |x: a, y: b| if x > 0.0 { y } else { 0.0 }),
        Operation::GeluBackward => each!(
            to = |x: a, y: b| {
                let cumulative = 0.5 * (1.0 + ttq_math::erf(x * FRAC_1_SQRT_2));
                y * (cumulative + x * FRAC_1_SQRT_2_PI * ttq_math::exp(-0.5 * x * x))
            }
        ),
        Operation::SigmoidBackward => each!(to = |x: a, y: b| x * (1.0 - x) * y),
        Operation::Equal => each!(to = |x: a, y: b| if x == y { 1.0 } else { 0.0 }),
        Operation::NotEqual => each!(to = |x: a, y: b| if x != y { 1.0 } else { 0.0 }),
        Operation::Greater => each!(to = |x: a, y: b| if x > y { 1.0 } else { 0.0 }),
        Operation::GreaterEqual => each!(to = |x: a, y: b| if x >= y { 1.0 } else { 0.0 }),
        Operation::Fill(s) => each!(to = |x: a, y: b| if x == 0.0 { y } else { s }),
        Operation::Select => {
            for (to, (x, (y, z))) in to.iter_mut().zip(a.iter().zip(b.iter().zip(c))) {
                *to = if *x == 0.0 { *z } else { *y };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::simd::{Kernel, Level, Vector};

    struct Apply<'a>(Operation, &'a [f32], &'a mut [f32]);

    impl Kernel for Apply<'_> {
        type Output = ();

        #[inline(always)]
        fn run<V: Vector>(self) {
            apply(self.0, self.1, self.1, self.1, self.2);
        }
    }

    #[test]
    fn functions_have_the_same_bits_in_every_instruction_set_and_position() {
        let functions = [
            Operation::Exp,
            Operation::Log,
            Operation::Log1p,
            Operation::Tanh,
            Operation::Erf,
            Operation::Sigmoid,
            Operation::Gelu,
            Operation::GeluBackward,
        ];
        // Numbers of all signs and magnitudes, infinities and NaN.
        let x: Vec<f32> = (0..=u32::MAX).step_by(600_011).map(f32::from_bits).collect();
        for function in functions {
            let one = |x: &f32| {
                let mut out = [0.0];
                apply(function, std::hint::black_box(&[*x]), &[*x], &[*x], &mut out);
                out[0]
            };
            let expected: Vec<f32> = x.iter().map(one).collect();
            for level in Level::available() {
                for start in 0..17 {
                    let mut out = vec![0.0; x.len() - start];
                    level.run(Apply(function, &x[start..], &mut out));
                    for ((out, one), x) in out.iter().zip(&expected[start..]).zip(&x[start..]) {
                        let same = out.to_bits() == one.to_bits() || out.is_nan() && one.is_nan();
                        assert!(same, "{function:?} {level:?}: {x:e}");
                    }
                }
            }
        }
    }
}
