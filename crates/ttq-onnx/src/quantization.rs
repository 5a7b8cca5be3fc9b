//! What is rounded to bytes: values, weights and biases.

use std::collections::{BTreeMap, BTreeSet};

use ttq_packed::network::{
    Binary, Constant, Graph, Int8, Operation, Quantization, Source, Unary, Value, quantization, quantize_weights,
};

use crate::OnnxError;

/// Largest magnitude of an integer bias.
const LARGEST_BIAS: i32 = 1 << 28;
/// Maximum number of products, each at most 255 · 127, of which the sum with a bias fits in 32 bits.
const MOST_PRODUCTS: usize = (i32::MAX - LARGEST_BIAS) as usize / (255 * 127);

/// Which values and products are quantized.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// Values that are rounded.
    pub(crate) values: BTreeMap<Value, Quantization>,
    /// Products of bytes.
    pub(crate) products: BTreeSet<Value>,
}

impl Plan {
    pub(crate) fn new(graph: &Graph, int8: Int8) -> Result<Self, OnnxError> {
        let mut plan = Self::default();
        let quantizations = quantizations(graph);
        let products: Vec<Value> = graph.values().filter(|value| fan_in(graph, *value).is_some()).collect();
        let ends = [products.first(), products.last()].map(|end| end.copied().filter(|_| int8 == Int8::Inner));
        let readers = readers(graph);
        for product in products.into_iter().filter(|product| !ends.contains(&Some(*product))) {
            let Source::Node { operation, operands } = graph.source(product) else { continue };
            if let Some(quantization) = quantizations[operands[0].index()]
                && fan_in(graph, product).is_some_and(|products| products <= MOST_PRODUCTS)
            {
                plan.products.insert(product);
                plan.values.insert(operands[0], quantization);
                if matches!(operation, Operation::Convolution(_)) {
                    plan.round_result(graph, &readers, &quantizations, product);
                }
            }
        }
        if plan.products.is_empty() { Err(OnnxError::NoProducts) } else { Ok(plan) }
    }

    /// Rounds the result of a convolution after the sum and the activation function that follow it. Runtimes compute
    /// bytes only if all three are between rounded values; linear layers can have results that are not.
    fn round_result(
        &mut self,
        graph: &Graph,
        readers: &[Vec<Value>],
        quantizations: &[Option<Quantization>],
        product: Value,
    ) {
        let next = |value: Value| match readers[value.index()][..] {
            [reader] if value != graph.output() && graph.range(value).is_none() => match graph.source(reader) {
                Source::Node { operation, operands } => Some((reader, operation, operands)),
                _ => None,
            },
            _ => None,
        };
        let (mut end, mut residual) = (product, None);
        if let Some((sum, Operation::Binary(Binary::Add), operands)) = next(end) {
            let other = if operands[0] == product { operands[1] } else { operands[0] };
            (end, residual) = (sum, Some(other));
        }
        if let Some((value, Operation::Unary(Unary::Relu | Unary::Clamp(_)), _)) = next(end) {
            end = value;
        }
        let (Some([low, high]), true) = (graph.range(end), end != graph.output()) else { return };
        self.values.insert(end, quantization([low, high]));
        if let Some(residual) = residual
            && let (Some([least, most]), Some(quantized)) = (graph.range(residual), quantizations[residual.index()])
        {
            self.values.insert(residual, quantized);
            self.values.insert(product, quantization([low - most, high - least]));
        }
    }
}

/// Returns the quantization of each value that has a range. Elements that are only moved keep theirs.
fn quantizations(graph: &Graph) -> Vec<Option<Quantization>> {
    let mut found: Vec<Option<Quantization>> = Vec::with_capacity(graph.len());
    for value in graph.values() {
        let moved = match graph.source(value) {
            Source::Node {
                operation: Operation::MaxPool(_) | Operation::Reshape(_) | Operation::Permute(_),
                operands,
            } => found[operands[0].index()],
            _ => None,
        };
        found.push(moved.or_else(|| graph.range(value).map(quantization)));
    }
    found
}

/// Returns the operations that read each value, once for each operand.
fn readers(graph: &Graph) -> Vec<Vec<Value>> {
    let mut readers = vec![Vec::new(); graph.len()];
    for value in graph.values() {
        if let Source::Node { operands, .. } = graph.source(value) {
            operands.iter().for_each(|operand| readers[operand.index()].push(value));
        }
    }
    readers
}

/// Returns the number of products in each sum of a convolution or linear layer.
fn fan_in(graph: &Graph, value: Value) -> Option<usize> {
    match graph.source(value) {
        Source::Node { operation: Operation::Convolution(_), operands } => {
            Some(graph.shape(operands[1]).dims[1..].iter().product())
        }
        Source::Node { operation: Operation::Linear, operands } => Some(graph.shape(operands[1]).dims[0]),
        _ => None,
    }
}

/// A weight as integers with one scale per output channel, and the bias in units of their products.
#[derive(Debug)]
pub(crate) struct Integers {
    pub(crate) weights: Vec<i8>,
    pub(crate) scales: Vec<f32>,
    pub(crate) bias: Vec<i32>,
    pub(crate) bias_scales: Vec<f32>,
}

impl Integers {
    /// Quantizes a weight, whose output channels lie along an axis, and a bias, which may be empty. The operand of
    /// the product has the scale `input`.
    pub(crate) fn new(weight: &Constant, axis: usize, bias: &[f32], input: f32) -> Self {
        let (dims, values, input) = (weight.dims(), weight.values(), f64::from(input));
        let (channels, inner) = (dims[axis], dims[axis + 1..].iter().product::<usize>());
        let mut integers = Self { weights: vec![0; values.len()], scales: vec![], bias: vec![], bias_scales: vec![] };
        for channel in 0..channels {
            let rows = (channel * inner..values.len()).step_by(channels * inner);
            let indices: Vec<usize> = rows.flat_map(|first| first..first + inner).collect();
            let floats: Vec<f64> = indices.iter().map(|i| f64::from(values[*i])).collect();
            let (mut weights, scale) = quantize_weights(&floats);
            let bias = bias.get(channel).copied().map(f64::from);
            // A bias that is very large compared with the weights determines the scale.
            let least = bias.map_or(0.0, |bias| bias.abs() / (input * f64::from(LARGEST_BIAS)));
            let least = if least + scale == 0.0 { 1.0 } else { least.max(f64::from(f32::MIN_POSITIVE)) };
            if scale < least {
                weights = floats.iter().map(|w| (w / least).round() as i8).collect();
            }
            let scale = scale.max(least) as f32;
            indices.into_iter().zip(weights).for_each(|(i, w)| integers.weights[i] = w);
            integers.scales.push(scale);
            if let Some(bias) = bias {
                let scale = input * f64::from(scale);
                integers.bias.push((bias / scale).round() as i32);
                integers.bias_scales.push(scale as f32);
            }
        }
        integers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_of_zeros_keeps_its_bias() {
        let weight = Constant::float([3, 2], [0.5, -0.25, 0.0, 0.0, 1e-30, 0.0]);
        let bias = [1.0, -3.0, 0.0];
        let integers = Integers::new(&weight, 0, &bias, 0.01);
        for (i, expected) in bias.into_iter().enumerate() {
            let found = integers.bias[i] as f32 * integers.bias_scales[i];
            assert!((found - expected).abs() <= 1e-6 * expected.abs(), "{found} instead of {expected}");
            assert!(integers.scales[i] >= f32::MIN_POSITIVE);
        }
        let values = integers.weights.iter().enumerate().map(|(i, w)| f32::from(*w) * integers.scales[i / 2]);
        for (found, expected) in values.zip(weight.values()) {
            assert!((found - expected).abs() <= 1e-3 * expected.abs(), "{found} instead of {expected}");
        }
    }

    #[test]
    fn columns_are_channels_of_a_linear_weight() {
        let weight = Constant::float([2, 3], [0.5, 0.0, 0.1, -0.25, 4.0, 0.1]);
        let integers = Integers::new(&weight, 1, &[], 1.0);
        for (i, expected) in weight.values().into_iter().enumerate() {
            assert!((f32::from(integers.weights[i]) * integers.scales[i % 3] - expected).abs() < 1e-6);
        }
        assert!(integers.bias.is_empty());
    }
}
