//! The matrices of F(2, 3) and F(4, 3), applied to vectors of channels.

use crate::kernels::simd::Vector;

/// Multiplies a vector by a number.
#[inline(always)]
pub(super) unsafe fn scale<V: Vector>(a: V, factor: f32) -> V {
    // SAFETY: the caller guarantees the instruction set. The same holds below.
    unsafe { a.mul(V::splat(factor)) }
}

/// `a + factor * b`
#[inline(always)]
pub(super) unsafe fn multiply_add<V: Vector>(a: V, factor: f32, b: V) -> V {
    // SAFETY: see `scale`.
    unsafe { a.add_product(b, V::splat(factor)) }
}

/// `B^T x` of F(2, 3).
#[inline(always)]
pub(super) unsafe fn input_rows<V: Vector>([a, b, c, d]: [V; 4]) -> [V; 4] {
    // SAFETY: see `scale`.
    unsafe { [V::sub(a, c), V::add(b, c), V::sub(c, b), V::sub(b, d)] }
}

/// `B^T x` of F(4, 3).
#[inline(always)]
pub(super) unsafe fn input_columns<V: Vector>([a, b, c, d, e, f]: [V; 6]) -> [V; 6] {
    // SAFETY: see `scale`.
    unsafe {
        let (even, odd) = (multiply_add(e, -4.0, c), multiply_add(d, -4.0, b));
        let (far_even, far_odd) = (V::sub(e, c), V::sub(d, b));
        [
            multiply_add(multiply_add(e, -5.0, c), 4.0, a),
            V::add(even, odd),
            V::sub(even, odd),
            multiply_add(far_even, 2.0, far_odd),
            multiply_add(far_even, -2.0, far_odd),
            multiply_add(multiply_add(f, -5.0, d), 4.0, b),
        ]
    }
}

/// `A^T m` of F(2, 3).
#[inline(always)]
pub(super) unsafe fn output_rows<V: Vector>([a, b, c, d]: [V; 4]) -> [V; 2] {
    // SAFETY: see `scale`.
    unsafe { [V::add(a, V::add(b, c)), V::sub(V::sub(b, c), d)] }
}

/// `A^T m` of F(4, 3).
#[inline(always)]
pub(super) unsafe fn output_columns<V: Vector>([a, b, c, d, e, f]: [V; 6]) -> [V; 4] {
    // SAFETY: see `scale`.
    unsafe {
        let (sum, difference) = (V::add(b, c), V::sub(b, c));
        let (far_sum, far_difference) = (V::add(d, e), V::sub(d, e));
        [
            V::add(a, V::add(sum, far_sum)),
            multiply_add(difference, 2.0, far_difference),
            multiply_add(sum, 4.0, far_sum),
            V::add(multiply_add(difference, 8.0, far_difference), f),
        ]
    }
}

/// `A dy` of F(2, 3).
#[inline(always)]
pub(super) unsafe fn gradient_rows<V: Vector>([a, b]: [V; 2]) -> [V; 4] {
    // SAFETY: see `scale`.
    unsafe { [a, V::add(a, b), V::sub(a, b), scale(b, -1.0)] }
}

/// `A dy` of F(4, 3).
#[inline(always)]
pub(super) unsafe fn gradient_columns<V: Vector>([a, b, c, d]: [V; 4]) -> [V; 6] {
    // SAFETY: see `scale`.
    unsafe {
        let (even, odd) = (V::add(a, c), V::add(b, d));
        let (far_even, far_odd) = (multiply_add(a, 4.0, c), multiply_add(b, 4.0, d));
        [
            a,
            V::add(even, odd),
            V::sub(even, odd),
            multiply_add(far_even, 2.0, far_odd),
            multiply_add(far_even, -2.0, far_odd),
            d,
        ]
    }
}

/// `G w` of F(2, 3).
#[inline(always)]
pub(super) unsafe fn weight_rows<V: Vector>([a, b, c]: [V; 3]) -> [V; 4] {
    // SAFETY: see `scale`.
    unsafe {
        let (even, odd) = (scale(V::add(a, c), 0.5), scale(b, 0.5));
        [a, V::add(even, odd), V::sub(even, odd), c]
    }
}

/// `G w` of F(4, 3).
#[inline(always)]
pub(super) unsafe fn weight_columns<V: Vector>([a, b, c]: [V; 3]) -> [V; 6] {
    // SAFETY: see `scale`.
    unsafe {
        let (even, odd) = (scale(V::add(a, c), -1.0 / 6.0), scale(b, -1.0 / 6.0));
        let (far_even, far_odd) = (multiply_add(scale(a, 1.0 / 24.0), 1.0 / 6.0, c), scale(b, 1.0 / 12.0));
        [scale(a, 0.25), V::add(even, odd), V::sub(even, odd), V::add(far_even, far_odd), V::sub(far_even, far_odd), c]
    }
}

/// `G^T s` of F(2, 3).
#[inline(always)]
pub(super) unsafe fn sum_rows<V: Vector>([a, b, c, d]: [V; 4]) -> [V; 3] {
    // SAFETY: see `scale`.
    unsafe {
        let half = scale(V::add(b, c), 0.5);
        [V::add(a, half), scale(V::sub(b, c), 0.5), V::add(half, d)]
    }
}

/// `G^T s` of F(4, 3).
#[inline(always)]
pub(super) unsafe fn sum_columns<V: Vector>([a, b, c, d, e, f]: [V; 6]) -> [V; 3] {
    // SAFETY: see `scale`.
    unsafe {
        let (sum, difference) = (scale(V::add(b, c), -1.0 / 6.0), scale(V::sub(b, c), -1.0 / 6.0));
        let (far_sum, far_difference) = (V::add(d, e), V::sub(d, e));
        [
            multiply_add(multiply_add(sum, 0.25, a), 1.0 / 24.0, far_sum),
            multiply_add(difference, 1.0 / 12.0, far_difference),
            V::add(multiply_add(sum, 1.0 / 6.0, far_sum), f),
        ]
    }
}

/// Returns a row of a matrix that is stored by columns.
#[inline(always)]
pub(super) fn select<V: Vector, const ROWS: usize, const COLUMNS: usize>(
    columns: &[[V; ROWS]; COLUMNS],
    index: usize,
) -> [V; COLUMNS] {
    let mut row = [columns[0][index]; COLUMNS];
    for (to, column) in row.iter_mut().zip(columns) {
        *to = column[index];
    }
    row
}
