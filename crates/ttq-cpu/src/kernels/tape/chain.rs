//! Chains of instructions whose intermediate results stay in registers.

use super::Value;
use super::operation::Operation;
use crate::kernels::simd::Vector;

/// Vectors that a chain computes at once.
const WIDTH: usize = 8;

/// Operations in which each result is an operand of the next one.
pub(super) struct Chain {
    /// The first operand.
    pub(super) start: Value,
    pub(super) links: Vec<Link>,
}

/// An operation of the running value and an operand in memory.
pub(super) struct Link {
    kind: Kind,
    /// `None` if the operation has the running value only.
    pub(super) operand: Option<Value>,
    /// The result.
    pub(super) value: Value,
    /// Whether the result is written to memory.
    pub(super) is_kept: bool,
    /// The sum that the result is added to.
    pub(super) sum: Option<usize>,
}

/// The operation, where x is the running value and y the operand.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// x + y
    Add,
    /// x - y
    Sub,
    /// y - x
    SubFrom,
    /// x y
    Mul,
    /// x / y
    Div,
    /// y / x
    DivInto,
    /// x²
    Square,
    /// 0 if x < 0, else x
    Relu,
    /// x where y > 0, else 0
    Mask,
    /// y where x > 0, else 0
    Masked,
}

impl Link {
    /// Creates the link for an operation, one of whose operands is the running value. `constant` returns the value of
    /// a constant. `None` if the operation cannot be part of a chain.
    pub(super) fn new(
        operation: Operation,
        operands: &[Value],
        running: Value,
        value: Value,
        constant: &mut impl FnMut(f32) -> Value,
    ) -> Option<Self> {
        let (is_first, is_both) = (operands[0] == running, operands.iter().all(|operand| *operand == running));
        let other = || operands.iter().copied().find(|operand| *operand != running);
        let (kind, operand) = match operation {
            Operation::Mul if is_both && operands.len() == 2 => (Kind::Square, None),
            Operation::Add => (Kind::Add, Some(other()?)),
            Operation::Mul => (Kind::Mul, Some(other()?)),
            Operation::Sub => (if is_first { Kind::Sub } else { Kind::SubFrom }, Some(other()?)),
            Operation::Div => (if is_first { Kind::Div } else { Kind::DivInto }, Some(other()?)),
            Operation::ReluBackward => (if is_first { Kind::Masked } else { Kind::Mask }, Some(other()?)),
            Operation::AddScalar(scalar) => (Kind::Add, Some(constant(scalar))),
            Operation::SubScalar(scalar) => (Kind::Sub, Some(constant(scalar))),
            Operation::MulScalar(scalar) => (Kind::Mul, Some(constant(scalar))),
            Operation::DivScalar(scalar) => (Kind::Div, Some(constant(scalar))),
            // Exact: the sign of the product is the opposite sign.
            Operation::Neg => (Kind::Mul, Some(constant(-1.0))),
            Operation::Recip => (Kind::DivInto, Some(constant(1.0))),
            Operation::Relu => (Kind::Relu, None),
            _ => return None,
        };
        Some(Self { kind, operand, value, is_kept: false, sum: None })
    }

    /// How often the operation uses the running value.
    pub(super) fn uses_of_previous(&self) -> usize {
        if matches!(self.kind, Kind::Square) { 2 } else { 1 }
    }
}

impl Chain {
    /// Computes the chain for `len` elements. `address` returns the address of a value's first element, `sum` that of
    /// a sum.
    ///
    /// # Safety
    /// The addresses must be valid for `len` floats, and those of kept results and sums belong to this call alone.
    #[inline(always)]
    pub(super) unsafe fn run<V: Vector>(
        &self,
        len: usize,
        address: impl Fn(Value) -> *mut f32,
        sum: impl Fn(usize) -> *mut f32,
    ) {
        let (block, vector) = (WIDTH * V::LANES, V::LANES);
        let (blocks, vectors) = (len / block * block, len / vector * vector);
        // SAFETY: the blocks, the vectors after them and the floats after those are within the length.
        unsafe {
            for at in (0..blocks).step_by(block) {
                self.run_at::<V, WIDTH>(at, &address, &sum);
            }
            for at in (blocks..vectors).step_by(vector) {
                self.run_at::<V, 1>(at, &address, &sum);
            }
            for at in vectors..len {
                self.run_at::<f32, 1>(at, &address, &sum);
            }
        }
    }

    /// Computes the chain for `N` vectors.
    #[inline(always)]
    unsafe fn run_at<V: Vector, const N: usize>(
        &self,
        at: usize,
        address: &impl Fn(Value) -> *mut f32,
        sum: &impl Fn(usize) -> *mut f32,
    ) {
        /// Applies an operation to each vector of the running value.
        macro_rules! each {
            ($x:ident, $operand:ident, |$a:ident, $y:ident| $result:expr) => {
                for (index, x) in $x.iter_mut().enumerate() {
                    let ($a, $y) = (*x, V::load($operand.add(index * V::LANES)));
                    *x = $result;
                }
            };
        }
        // SAFETY: the caller guarantees that the addresses are valid.
        unsafe {
            let start = address(self.start).add(at);
            let mut x = [V::splat(0.0); N];
            for (index, x) in x.iter_mut().enumerate() {
                *x = V::load(start.add(index * V::LANES));
            }
            for link in &self.links {
                let y = address(link.operand.unwrap_or(self.start)).add(at);
                match link.kind {
                    Kind::Add => each!(x, y, |a, b| a.add(b)),
                    Kind::Sub => each!(x, y, |a, b| a.sub(b)),
                    Kind::SubFrom => each!(x, y, |a, b| b.sub(a)),
                    Kind::Mul => each!(x, y, |a, b| a.mul(b)),
                    Kind::Div => each!(x, y, |a, b| a.div(b)),
                    Kind::DivInto => each!(x, y, |a, b| b.div(a)),
                    Kind::Mask => each!(x, y, |a, b| a.where_positive(b)),
                    Kind::Masked => each!(x, y, |a, b| b.where_positive(a)),
                    Kind::Square => {
                        for x in &mut x {
                            *x = x.mul(*x);
                        }
                    }
                    Kind::Relu => {
                        for x in &mut x {
                            *x = x.relu();
                        }
                    }
                }
                if link.is_kept {
                    let to = address(link.value).add(at);
                    for (index, x) in x.iter().enumerate() {
                        x.store(to.add(index * V::LANES));
                    }
                }
                if let Some(index) = link.sum {
                    let to = sum(index).add(at);
                    for (index, x) in x.iter().enumerate() {
                        let to = to.add(index * V::LANES);
                        V::load(to).add(*x).store(to);
                    }
                }
            }
        }
    }
}
