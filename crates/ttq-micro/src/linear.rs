//! Linear layers, of four outputs at a time: the codes of a byte.

use core::array::from_fn;
use core::ops::AddAssign;

use crate::program::Weights;
use crate::value::{Input, Output};

const TILE: usize = 4;

/// Computes `limit(sum + bias)`.
pub(crate) fn run(x: Input<'_>, weights: Weights<'_>, bias: &[f32], limits: [f32; 2], y: &mut Output<'_>) {
    let outputs = bias.len();
    for first in (0..outputs).step_by(TILE) {
        let last = |i: usize| (first + i).min(outputs - 1);
        let sums: [f32; TILE] = match (x, weights) {
            (Input::Floats(x), Weights::Float(weights)) => dense(x, &weights[first..], outputs),
            (Input::Floats(x), Weights::Ternary { codes, scales }) => {
                let [plus, minus]: [[f32; TILE]; 2] = ternary(x, codes, first, outputs);
                from_fn(|i| scales[last(i)][0] * plus[i] - scales[last(i)][1] * minus[i])
            }
            (Input::Bytes(x), Weights::TernaryBytes { codes, levels, scales }) => {
                let [plus, minus]: [[u32; TILE]; 2] = ternary(x, codes, first, outputs);
                from_fn(|i| {
                    let [a, b] = levels[last(i)].map(i32::from);
                    (a * plus[i] as i32 - b * minus[i] as i32) as f32 * scales[last(i)]
                })
            }
            _ => unreachable!("the weights are for elements of another type"),
        };
        let sums: [f32; TILE] = from_fn(|i| sums[i] + bias[last(i)]);
        y.store(first, &sums[..TILE.min(outputs - first)], limits);
    }
}

/// Returns the sums of some columns of weights.
fn dense(x: &[f32], weights: &[f32], outputs: usize) -> [f32; TILE] {
    let mut sums = [0.0; TILE];
    for (x, weights) in x.iter().zip(weights.chunks(outputs)) {
        for (sum, weight) in sums.iter_mut().zip(weights) {
            *sum += weight * x;
        }
    }
    sums
}

/// Returns the sums of the inputs with codes +1, and of those with codes -1.
fn ternary<T: Copy + PartialEq + Default + Into<A>, A: Copy + Default + AddAssign>(
    x: &[T],
    codes: &[u8],
    first: usize,
    outputs: usize,
) -> [[A; TILE]; 2] {
    let [mut plus, mut minus] = [[A::default(); TILE]; 2];
    for (i, x) in x.iter().enumerate() {
        // After an activation function, many inputs are zero.
        if *x == T::default() {
            continue;
        }
        let (index, x) = (i * outputs + first, (*x).into());
        let mut four = codes[index / 4];
        if !index.is_multiple_of(4) {
            let next = codes.get(index / 4 + 1).copied().unwrap_or(0);
            four = (u16::from_le_bytes([four, next]) >> (2 * (index % 4))) as u8;
        }
        for j in 0..TILE {
            match four >> (2 * j) & 0b11 {
                0b10 => plus[j] += x,
                0b00 => minus[j] += x,
                _ => {}
            }
        }
    }
    [plus, minus]
}
