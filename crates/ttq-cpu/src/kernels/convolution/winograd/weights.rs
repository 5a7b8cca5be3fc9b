//! Transforms of weights to points, and of sums of points to gradients of weights.

use super::POINTS;
use super::matrices::{select, sum_columns, sum_rows, weight_columns, weight_rows};
use crate::kernels::simd::{Kernel, Vector};

/// Transforms packed weights, `[blocks, 9 taps, row]`, to points, `[24 points, blocks, row]`.
pub(super) struct TransformWeights<'a> {
    pub(super) weights: &'a [f32],
    pub(super) row: usize,
}

impl Kernel for TransformWeights<'_> {
    type Output = Vec<f32>;

    #[inline(always)]
    fn run<V: Vector>(self) -> Vec<f32> {
        let Self { weights, row: len } = self;
        let blocks = weights.len() / (9 * len);
        let mut points = vec![0.0; POINTS * blocks * len];
        for block in 0..blocks {
            for at in (0..len).step_by(V::LANES) {
                // SAFETY: rows are multiples of a vector, and `len` floats of each tap and point are in the memory.
                unsafe {
                    let from = weights.as_ptr().add(block * 9 * len + at);
                    let to = points.as_mut_ptr().add(block * len + at);
                    let mut columns = [[V::splat(0.0); 4]; 3];
                    for (j, column) in columns.iter_mut().enumerate() {
                        let tap = |i: usize| V::load(from.add((i * 3 + j) * len));
                        *column = weight_rows([tap(0), tap(1), tap(2)]);
                    }
                    for i in 0..4 {
                        let points: [V; 6] = weight_columns(select(&columns, i));
                        for (j, point) in points.into_iter().enumerate() {
                            point.store(to.add((i * 6 + j) * blocks * len));
                        }
                    }
                }
            }
        }
        points
    }
}

/// Transforms sums of points, `[24 points, len]`, to the gradient of the weights, `[9 taps, len]`.
pub(super) struct TransformSums<'a> {
    pub(super) sums: &'a [f32],
    pub(super) row: usize,
}

impl Kernel for TransformSums<'_> {
    type Output = Vec<f32>;

    #[inline(always)]
    fn run<V: Vector>(self) -> Vec<f32> {
        let Self { sums, row: len } = self;
        assert_eq!(sums.len(), POINTS * len);
        let mut taps = vec![0.0; 9 * len];
        for at in (0..len).step_by(V::LANES) {
            // SAFETY: the len is a multiple of a vector, and `len` floats of each point and tap are in the memory.
            unsafe {
                let (from, to) = (sums.as_ptr().add(at), taps.as_mut_ptr().add(at));
                let mut columns = [[V::splat(0.0); 3]; 6];
                for (j, column) in columns.iter_mut().enumerate() {
                    let point = |i: usize| V::load(from.add((i * 6 + j) * len));
                    *column = sum_rows([point(0), point(1), point(2), point(3)]);
                }
                for i in 0..3 {
                    let taps: [V; 3] = sum_columns(select(&columns, i));
                    for (j, tap) in taps.into_iter().enumerate() {
                        tap.store(to.add((i * 3 + j) * len));
                    }
                }
            }
        }
        taps
    }
}
