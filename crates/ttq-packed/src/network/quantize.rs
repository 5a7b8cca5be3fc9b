//! Quantization to bytes: ranges of activations, and integers for weights.

use alloc::vec;
use alloc::vec::Vec;

use super::fuse::{Constants, Fused, Kind};
use super::graph::Graph;
use super::layers::Order;
use super::layout::Quantization;
use super::operation::Operation;
use super::values::ValueMap;
use super::{CompileOptions, Int8, Value};

/// Largest magnitude of a quantized weight.
const LARGEST: f64 = 127.0;
/// Maximum number of products of a sum of 32 bits: each is at most 255 · 127.
const MOST_PRODUCTS: usize = 1 << 16;

/// Returns the quantization of a range of numbers, which is extended to contain 0.
pub fn quantization([low, high]: [f32; 2]) -> Quantization {
    let (low, high) = (f64::from(low.min(0.0)), f64::from(high.max(0.0)));
    let scale = (high - low) / 255.0;
    if !(scale.is_finite() && scale as f32 > f32::MIN_POSITIVE) {
        return Quantization { scale: 1.0, zero: 0 };
    }
    Quantization { scale: scale as f32, zero: libm::round(-low / scale).clamp(0.0, 255.0) as u8 }
}

/// Returns integers from -127 to 127 and a scale, so that `scale · integer` approximates the weights of a channel.
///
/// If the weights are ternary, `+p`, `0` and `-n`, the integers are `+a`, `0` and `-b` with `a / b ≈ p / n`: the smaller
/// one has a relative error below 0.5 % if the ratio is at least 1 / 4, in most cases below 0.02 %. If a weight is not finite, the
/// scale is NaN.
pub fn quantize_weights(weights: &[f64]) -> (Vec<i8>, f64) {
    let largest = weights.iter().fold(0.0, |max: f64, w| max.max(w.abs()));
    if largest == 0.0 || weights.iter().any(|w| !w.is_finite()) {
        // NaN if a weight is.
        return (vec![0; weights.len()], weights.iter().map(|w| 0.0 * w).sum());
    }
    let smallest = weights.iter().filter(|w| **w != 0.0).fold(largest, |min: f64, w| min.min(w.abs()));
    let is_ternary = weights.iter().all(|w| *w == 0.0 || w.abs() == largest || w.abs() == smallest);
    let steps = match is_ternary {
        true => {
            let error = |steps: &f64| {
                let small = smallest / largest * steps;
                (libm::round(small).max(1.0) - small).abs() / small
            };
            let mut best = LARGEST;
            // From the largest, so that equal errors keep the finer step.
            for steps in (1..127).rev().map(f64::from) {
                if error(&steps) < error(&best) {
                    best = steps;
                }
            }
            best
        }
        false => LARGEST,
    };
    let scale = largest / steps;
    (weights.iter().map(|w| libm::round(w / scale) as i8).collect(), scale)
}

/// Where bytes take the place of floats.
#[derive(Debug, Default)]
pub(super) struct Bytes {
    /// Values that are stored as bytes: the input, or what a product or a maximum of bytes computes, if only products of bytes,
    /// residual sums and pooling read them.
    pub(super) values: ValueMap<Quantization>,
    /// Products of bytes, by their results, with the quantization of their operands.
    pub(super) products: ValueMap<Quantization>,
}

impl Bytes {
    /// Chooses them from the ranges of values.
    pub(super) fn new(graph: &Graph, nodes: &[Fused], constants: &Constants, options: &CompileOptions) -> Self {
        let mut bytes = Self::default();
        if options.int8 == Int8::Off {
            return bytes;
        }
        let quantized = |value: Value| graph.entries[value.0].range.map(quantization);
        let products: Vec<Value> = nodes.iter().filter(|node| is_product(node)).map(|node| node.value).collect();
        let ends = [products.first(), products.last()].map(|end| end.copied().filter(|_| options.int8 == Int8::Inner));
        for node in nodes.iter().filter(|node| fits(node, constants) && !ends.contains(&Some(node.value))) {
            if let Some(quantization) = quantized(node.operands[0]) {
                bytes.products.insert(node.value, quantization);
            }
        }
        let mut read_as_floats = vec![false; graph.len()];
        read_as_floats[graph.output.0] = true;
        let mut orders = ValueMap::new();
        orders.insert(graph.input(), Order::of_input(&graph.shape(graph.input()).dims));
        for node in nodes {
            let order = orders.get(&node.operands[0]).copied();
            orders.insert(node.value, node.order);
            let reads_floats = match &node.kind {
                Kind::Map(function) => function.is_some(),
                Kind::Other(operation) => !is_pool(operation) || order != Some(Order::ChannelsFirst),
                // Floats are copied into another order.
                Kind::Linear { image: false, .. } if order != Some(Order::ChannelsLast) => true,
                Kind::Convolution { .. } if order != Some(Order::ChannelsFirst) => true,
                _ => !bytes.products.contains_key(&node.value),
            };
            if reads_floats {
                node.operands.iter().for_each(|value| read_as_floats[value.0] = true);
            }
        }
        let read_as_floats = |value: Value| read_as_floats[value.0];
        let input = graph.input();
        if let Some(quantization) = quantized(input).filter(|_| !read_as_floats(input)) {
            bytes.values.insert(input, quantization);
        }
        for node in nodes {
            let computed = match &node.kind {
                // A maximum has the quantization of its operand.
                Kind::Other(Operation::MaxPool(_)) => bytes.values.get(&node.operands[0]).copied(),
                Kind::Other(_) => None,
                _ => quantized(node.value),
            };
            if let Some(quantization) = computed.filter(|_| !read_as_floats(node.value)) {
                bytes.values.insert(node.value, quantization);
            }
        }
        bytes
    }
}

/// Returns `true` if the sums of a product of bytes fit in 32 bits, and the channels of a group are words.
fn fits(node: &Fused, constants: &Constants) -> bool {
    match &node.kind {
        Kind::Convolution { options, weight } => {
            let shape = constants[weight].dims();
            let words = options.groups == 1 || shape[1].is_multiple_of(4);
            words && shape[1..].iter().product::<usize>() < MOST_PRODUCTS
        }
        Kind::Linear { weight, .. } => constants[weight].dims()[0] < MOST_PRODUCTS,
        _ => false,
    }
}

fn is_pool(operation: &Operation) -> bool {
    matches!(operation, Operation::MaxPool(_) | Operation::AveragePool { .. } | Operation::AdaptiveAveragePool(_))
}

fn is_product(node: &Fused) -> bool {
    matches!(node.kind, Kind::Convolution { .. } | Kind::Linear { .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_that_are_not_finite_have_no_plausible_scale() {
        for broken in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert!(quantize_weights(&[1.0, broken, 0.5]).1.is_nan());
        }
        assert_eq!(quantize_weights(&[0.0, -0.0]), (vec![0, 0], 0.0));
    }

    #[test]
    fn ternary_weights_become_integers_of_nearly_the_same_ratio() {
        let mut rng = fastrand::Rng::with_seed(3);
        let mut errors = Vec::new();
        for _ in 0..1000 {
            let (p, n) = (0.3 + 0.7 * rng.f64(), 1.0);
            let (values, scale) = quantize_weights(&[p, 0.0, -n]);
            assert_eq!(values[1], 0);
            errors.push(((f64::from(values[0]) * scale - p) / p).abs());
            assert!((f64::from(values[2]) * scale + n).abs() < 1e-12);
        }
        errors.sort_by(f64::total_cmp);
        assert!(errors[500] < 2e-4 && errors[999] < 5e-3, "{} {}", errors[500], errors[999]);
    }

    #[test]
    fn other_weights_become_multiples_of_the_largest() {
        let (values, scale) = quantize_weights(&[1.0, -0.5, 0.26, 0.0]);
        assert_eq!((values, scale), (vec![127, -64, 33, 0], 1.0 / 127.0));
        assert_eq!(quantize_weights(&[0.0; 3]), (vec![0; 3], 0.0));
    }

    #[test]
    fn a_range_contains_zero_exactly() {
        for range in [[-1.0, 3.0], [0.5, 2.0], [-2.0, -1.0], [0.0, 0.0], [-1e-30, f32::INFINITY]] {
            let Quantization { scale, zero } = quantization(range);
            assert!(scale > 0.0 && scale.is_finite(), "{range:?}");
            if scale != 1.0 {
                let value = |q: f32| scale * (q - f32::from(zero));
                assert!(value(0.0) <= range[0].min(0.0) + scale && value(255.0) >= range[1].max(0.0) - scale);
            }
        }
    }
}
