//! Bytes: where they take the place of floats, and the weights for them.

use ttq_packed::network::{Constant, Graph, Int8, Quantization, quantization, quantize_weights};

use super::{Kind, Step, float, ternary};
use crate::Weights;

/// Maximum number of products of a sum of 32 bits: each is at most 255 · 127.
const MOST_PRODUCTS: usize = 1 << 16;
/// The quantization of floats.
const UNIT: Quantization = Quantization { scale: 1.0, zero: 0 };

/// Chooses the products of bytes and the values that are bytes for them. Returns `false` if there are none.
pub(super) fn choose(graph: &Graph, steps: &mut [Step<'_>], int8: Int8) -> bool {
    let last = steps.iter().rposition(|step| matches!(step.kind, Kind::Product { .. }));
    for reader in 1..steps.len() {
        if int8 == Int8::Inner && last == Some(reader) {
            continue;
        }
        let Kind::Product { window, weight, .. } = &steps[reader].kind else { continue };
        let axis = usize::from(window.is_none());
        let products = weight.dims().iter().product::<usize>() / weight.dims()[axis].max(1);
        // Maxima keep the quantization of the product before them.
        let Some(writer) = (0..reader).rev().find(|i| !matches!(steps[*i].kind, Kind::MaxPool(_))) else { continue };
        if let (Kind::Product { .. }, Some(_), Some(range)) =
            (&steps[writer].kind, ternary(weight, axis), graph.range(steps[writer].value))
            && products < MOST_PRODUCTS
        {
            steps[reader].is_bytes = true;
            steps[writer..reader].iter_mut().for_each(|step| step.writes = Some(quantization(range)));
        }
    }
    steps.iter().any(|step| step.is_bytes)
}

/// Returns weights and bias in units of the output.
pub(super) fn weights(
    weight: &Constant,
    axis: usize,
    bias: &[f32],
    reads: Option<Quantization>,
    writes: Option<Quantization>,
) -> (Weights<'static>, &'static [f32]) {
    let Quantization { scale, zero } = writes.unwrap_or(UNIT);
    let (unit, zero) = (f64::from(scale), f64::from(zero));
    let in_units = |x: f32| (f64::from(x) / unit) as f32;
    let mut bias: Vec<f32> = bias.iter().map(|x| (f64::from(*x) / unit + zero) as f32).collect();
    let weights = match (ternary(weight, axis), reads) {
        (Some((weight, scales)), Some(reads)) => {
            let codes = weight.codes().unpack();
            let inner: usize = weight.shape()[axis + 1..].iter().product();
            let (mut levels, mut factors) = (Vec::new(), Vec::new());
            for (channel, [pos, neg]) in scales.into_iter().enumerate() {
                let rows = codes.chunks_exact(bias.len() * inner);
                let own: Vec<i8> = rows.flat_map(|row| &row[channel * inner..][..inner]).copied().collect();
                let values = own.iter().map(|code| match code {
                    1 => f64::from(pos),
                    -1 => -f64::from(neg),
                    _ => 0.0,
                });
                let (integers, scale) = quantize_weights(&values.collect::<Vec<_>>());
                let level = |code: i8| own.iter().position(|own| *own == code).map_or(0, |i| integers[i]);
                let scale = scale * f64::from(reads.scale) / unit;
                let sum: i64 = integers.iter().map(|w| i64::from(*w)).sum();
                bias[channel] = (f64::from(bias[channel]) - scale * f64::from(reads.zero) * sum as f64) as f32;
                levels.push([level(1), -level(-1)]);
                factors.push(scale as f32);
            }
            Weights::TernaryBytes {
                codes: weight.codes().as_bytes().to_vec().leak(),
                levels: levels.leak(),
                scales: factors.leak(),
            }
        }
        (Some((weight, scales)), None) => Weights::Ternary {
            codes: weight.codes().as_bytes().to_vec().leak(),
            scales: scales.into_iter().map(|pair| pair.map(in_units)).collect::<Vec<_>>().leak(),
        },
        (None, _) => float(weight.values().into_iter().map(in_units).collect()),
    };
    (weights, bias.leak())
}

/// Returns the limits of results in units of the output.
pub(super) fn limits(limits: Option<[f32; 2]>, writes: Option<Quantization>) -> [f32; 2] {
    let limits = limits.unwrap_or([f32::NEG_INFINITY, f32::INFINITY]);
    match writes {
        None => limits,
        Some(Quantization { scale, zero }) => {
            limits.map(|x| (f64::from(x) / f64::from(scale) + f64::from(zero)) as f32)
        }
    }
}
