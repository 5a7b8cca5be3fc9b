//! A row times a matrix whose columns are contiguous.

use std::ops::Range;

use super::super::SharedOutput;
use super::super::simd::{MAX_LANES, Vector};
use super::Product;

/// Columns that are computed together.
const COLUMNS: usize = 4;
/// Vectors of each column that are summed independently.
const UNROLL: usize = 2;

/// Computes columns of one product with `m = 1`.
///
/// # Safety
/// No other thread may write these columns at the same time. `scratch` must hold `k` floats. The instruction set of `V`
/// must be supported.
#[inline(always)]
pub(super) unsafe fn row<V: Vector>(
    product: &Product<'_>,
    entry: usize,
    columns: Range<usize>,
    c: SharedOutput,
    scratch: &mut [f32],
) {
    let [a, b] = product.offsets(entry);
    let row = &mut scratch[..product.k];
    for (index, x) in row.iter_mut().enumerate() {
        *x = product.a.floats[(a + index as isize * product.a.strides[1]) as usize];
    }
    let stride = product.b.strides[1];
    let write = |column: usize, sum: f32| {
        // SAFETY: the caller guarantees that no other thread writes the element, which exists.
        unsafe { *c.pointer().add(entry * product.n + column) = product.bias(column) + sum };
    };
    let mut column = columns.start;
    while column < columns.end {
        // SAFETY: the product's constructor checked that the operand holds all elements.
        unsafe {
            let b = product.b.floats.as_ptr().offset(b + column as isize * stride);
            if columns.end - column >= COLUMNS {
                let sums = dots::<V, COLUMNS>(row, b, stride);
                sums.into_iter().enumerate().for_each(|(index, sum)| write(column + index, sum));
                column += COLUMNS;
            } else {
                let [sum] = dots::<V, 1>(row, b, stride);
                write(column, sum);
                column += 1;
            }
        }
    }
}

/// Returns the dot products of `row` and `N` columns.
///
/// # Safety
/// Each column must be valid for reads of as many floats as `row` has.
#[inline(always)]
unsafe fn dots<V: Vector, const N: usize>(row: &[f32], b: *const f32, stride: isize) -> [f32; N] {
    // SAFETY: the caller guarantees valid columns.
    unsafe {
        let columns: [*const f32; N] = core::array::from_fn(|column| b.wrapping_offset(column as isize * stride));
        let mut sums = [[V::splat(0.0); UNROLL]; N];
        let step = UNROLL * V::LANES;
        let whole = row.len() - row.len() % step;
        for index in (0..whole).step_by(step) {
            let x: [V; UNROLL] = core::array::from_fn(|part| V::load(row.as_ptr().add(index + part * V::LANES)));
            for (sums, column) in sums.iter_mut().zip(columns) {
                for (part, (sum, x)) in sums.iter_mut().zip(x).enumerate() {
                    *sum = sum.add_product(x, V::load(column.add(index + part * V::LANES)));
                }
            }
        }
        let mut lanes = [[0.0_f32; MAX_LANES]; N];
        for (lanes, sums) in lanes.iter_mut().zip(sums) {
            let [first, rest @ ..] = sums;
            rest.into_iter().fold(first, |total, sum| total.add(sum)).store(lanes.as_mut_ptr());
            // Halves are added, so that the additions do not wait for each other.
            for half in [8, 4, 2, 1] {
                for lane in 0..half {
                    lanes[lane] += lanes[lane + half];
                }
            }
        }
        core::array::from_fn(|column| {
            let rest = (whole..row.len()).map(|index| row[index] * *columns[column].add(index));
            lanes[column][0] + rest.sum::<f32>()
        })
    }
}
