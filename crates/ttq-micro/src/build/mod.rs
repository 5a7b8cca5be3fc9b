//! Compilation of graphs to programs, in build scripts.

mod quantize;
mod source;

use std::iter::repeat_n;

use thiserror::Error;
use ttq_packed::TernaryWeight;
use ttq_packed::network::{Constant, Graph, Int8, NetworkError, Operation, Source, Unary, Value};

use crate::convolution::MOST_TAPS;
use crate::{Function, Layer, Program, Weights};

pub use source::source;

/// Limit of what the evaluation of constants takes.
const MAX_ELEMENTS: usize = 1 << 26;

/// Error of [`compile`].
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The graph is invalid, or has no ranges for int8.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// A program cannot compute an operation.
    #[error("`{node}` ({operation}): {reason}")]
    Unsupported {
        /// Name of the node.
        node: String,
        /// Name of the operation.
        operation: &'static str,
        /// What is supported.
        reason: String,
    },
    /// The output is the input.
    #[error("the graph has no layer: a program computes at least one")]
    NoLayers,
    /// No layer would compute on bytes.
    #[error(
        "no layer can compute on bytes: int8 is for ternary layers that read what a convolution or a linear layer has computed, \
         and `Int8::Inner` leaves out the last product"
    )]
    NoProducts,
}

/// Compiles a graph.
///
/// The graph is a chain of convolutions (one group, no dilation), linear layers, ReLU or limits after these, maps per channel (such
/// as batch normalization) after these, maximum and average pooling, and reshapes to a vector.
///
/// With [`Int8::Inner`] or [`Int8::All`], ternary layers compute on bytes if the [range](Graph::range) of what they read is known; the
/// first layer, which reads the input, does not, and the last product only with `All`. Integer weights are those of a network
/// that `ttq-packed` compiles with the same choice.
///
/// What the program refers to stays allocated until the process ends: a build script compiles once.
///
/// # Errors
/// - [`BuildError::Unsupported`] if the graph has another operation, or is no chain;
/// - [`BuildError::NoLayers`] if the output is the input;
/// - [`BuildError::NoProducts`] if `int8` finds no layer;
/// - [`BuildError::Network`] if constants take too long to evaluate, or if the graph has no ranges, which int8 needs.
pub fn compile(graph: &Graph, int8: Int8) -> Result<Program<'static>, BuildError> {
    int8.check(graph)?;
    let graph = graph.simplify(MAX_ELEMENTS)?;
    let input = shape(&graph, graph.input(), "input", "input")?;
    let mut chain = Chain { graph: &graph, last: graph.input(), shape: input, steps: Vec::new() };
    for value in graph.values() {
        if let Source::Node { operation, operands } = graph.source(value) {
            chain.node(value, operation, operands)?;
        }
    }
    let Chain { mut steps, shape: output, .. } = chain;
    if steps.is_empty() {
        return Err(BuildError::NoLayers);
    }
    if int8 != Int8::Off && !quantize::choose(&graph, &mut steps, int8) {
        return Err(BuildError::NoProducts);
    }
    Ok(place(input, output, &steps))
}

/// A layer before its values have places.
pub(super) struct Step<'a> {
    pub(super) kind: Kind<'a>,
    /// The value that it computes.
    pub(super) value: Value,
    pub(super) shapes: [[usize; 3]; 2],
    /// Whether it is a product of bytes.
    pub(super) is_bytes: bool,
    /// The bytes that it writes, or `None` for floats.
    pub(super) writes: Option<ttq_packed::network::Quantization>,
}

pub(super) enum Kind<'a> {
    Product {
        /// Kernel, stride and padding, or `None` for a linear layer.
        window: Option<[[usize; 2]; 3]>,
        weight: &'a Constant,
        bias: Vec<f32>,
        limits: Option<[f32; 2]>,
    },
    /// Size, stride and padding.
    MaxPool([[usize; 2]; 3]),
    /// Size and stride.
    AveragePool([[usize; 2]; 2]),
}

struct Chain<'a> {
    graph: &'a Graph,
    /// The value that the next operation must read.
    last: Value,
    shape: [usize; 3],
    steps: Vec<Step<'a>>,
}

impl<'a> Chain<'a> {
    fn node(&mut self, value: Value, operation: &Operation, operands: &[Value]) -> Result<(), BuildError> {
        let unsupported = |reason: &str| BuildError::Unsupported {
            node: self.graph.name(value).into(),
            operation: operation.name(),
            reason: reason.into(),
        };
        if operands[0] != self.last || operands[1..].iter().any(|operand| self.graph.shape(*operand).batched) {
            return Err(unsupported("a program is a chain, in which each layer reads what the layer before computes"));
        }
        let constant = |index: usize| match operands.get(index).map(|operand| self.graph.source(*operand)) {
            Some(Source::Constant(constant)) => Some(constant),
            _ => None,
        };
        let product = |window, outputs: usize| {
            let weight = constant(1).ok_or_else(|| unsupported("the weight must be a constant"))?;
            let bias = constant(2).map_or_else(|| vec![0.0; outputs], Constant::values);
            Ok::<_, BuildError>(Kind::Product { window, weight, bias, limits: None })
        };
        let to = shape(self.graph, value, self.graph.name(value), operation.name())?;
        let kind = match operation {
            Operation::Convolution(options) => {
                if options.groups != 1 || options.dilation != [1, 1] {
                    return Err(unsupported("only convolutions with one group and without dilation are supported"));
                }
                let dims = constant(1).map_or(&[][..], Constant::dims);
                let &[_, _, height, width] = dims else { return Err(unsupported("the weight must be a constant")) };
                if height.saturating_mul(width) > MOST_TAPS {
                    return Err(unsupported("a kernel has at most 256 elements"));
                }
                product(Some([[height, width], options.stride, options.padding.map(|[before, _]| before)]), to[0])?
            }
            Operation::Linear if self.graph.shape(operands[0]).dims.len() == 1 => product(None, to[0])?,
            Operation::Unary(Unary::Relu) => return self.limit(value, [0.0, f32::INFINITY]).map_err(unsupported),
            Operation::Unary(Unary::Clamp(range)) => return self.limit(value, *range).map_err(unsupported),
            Operation::Reshape(dims) if dims.len() == 1 => {
                (self.last, self.shape) = (value, to);
                return Ok(());
            }
            Operation::MaxPool(window) => {
                Kind::MaxPool([window.size, window.stride, window.padding.map(|[before, _]| before)])
            }
            Operation::AveragePool { window, .. } if window.padding == [[0; 2]; 2] => {
                Kind::AveragePool([window.size, window.stride])
            }
            Operation::AdaptiveAveragePool([1, 1]) => Kind::AveragePool([[self.shape[1], self.shape[2]]; 2]),
            _ => return Err(unsupported("no layer of a program computes it")),
        };
        self.steps.push(Step { kind, value, shapes: [self.shape, to], is_bytes: false, writes: None });
        (self.last, self.shape) = (value, to);
        Ok(())
    }

    /// Makes the last product limit its results.
    fn limit(&mut self, value: Value, range: [f32; 2]) -> Result<(), &'static str> {
        match self.steps.last_mut() {
            Some(Step { kind: Kind::Product { limits: limits @ None, .. }, value: last, .. }) if *last == self.last => {
                *limits = Some(range);
                (*last, self.last) = (value, value);
                Ok(())
            }
            _ => Err("an activation function must follow a convolution or a linear layer"),
        }
    }
}

/// Returns `[channels, height, width]`.
fn shape(graph: &Graph, value: Value, node: &str, operation: &'static str) -> Result<[usize; 3], BuildError> {
    match graph.shape(value).dims[..] {
        [channels, height, width] => Ok([channels, height, width]),
        [elements] => Ok([elements, 1, 1]),
        ref dims => {
            let reason = format!("the shape {dims:?} is neither an image nor a vector");
            Err(BuildError::Unsupported { node: node.into(), operation, reason })
        }
    }
}

/// Places the values at both ends of the arena by turns.
fn place(input: [usize; 3], output: [usize; 3], steps: &[Step<'_>]) -> Program<'static> {
    let inner = &steps[..steps.len().saturating_sub(1)];
    let sizes: Vec<usize> = inner
        .iter()
        .map(|step| {
            let elements: usize = step.shapes[1].iter().product();
            if step.writes.is_some() { elements.div_ceil(4) } else { elements }
        })
        .collect();
    let arena = sizes.iter().zip(sizes.iter().skip(1).chain([&0])).map(|(a, b)| a + b).max().unwrap_or(0);
    let place = |(i, size): (usize, &usize)| if i.is_multiple_of(2) { 0 } else { arena - size };
    // Input and output are elsewhere.
    let places: Vec<usize> = [arena].into_iter().chain(sizes.iter().enumerate().map(place)).chain([arena]).collect();
    let mut reads = None;
    let mut layers = Vec::new();
    for (step, places) in steps.iter().zip(places.windows(2)) {
        let bytes = [reads.is_some(), step.writes.is_some()];
        let function = step.function(reads);
        layers.push(Layer { function, shapes: step.shapes, places: [places[0], places[1]], bytes });
        reads = step.writes;
    }
    let [input, output] = [input, output].map(|shape| shape.iter().product());
    Program { input, output, arena, layers: layers.leak() }
}

/// Returns the codes of a weight and the pair of scales of each output channel, which lie along an axis.
fn ternary(constant: &Constant, axis: usize) -> Option<(&TernaryWeight, Vec<[f32; 2]>)> {
    let Constant::Ternary(weight) = constant else { return None };
    match *weight.scales() {
        [pair] => Some((weight, repeat_n(pair, weight.shape()[axis]).collect())),
        _ if weight.output_axis() == axis => Some((weight, weight.scales().to_vec())),
        _ => None,
    }
}

/// Returns float weights.
fn float(values: Vec<f32>) -> Weights<'static> {
    Weights::Float(values.leak())
}

impl Step<'_> {
    /// Returns the function, for bytes that the layer before wrote, if any.
    fn function(&self, reads: Option<ttq_packed::network::Quantization>) -> Function<'static> {
        match &self.kind {
            Kind::MaxPool([size, stride, padding]) => {
                Function::MaxPool { size: *size, stride: *stride, padding: *padding }
            }
            Kind::AveragePool([size, stride]) => Function::AveragePool { size: *size, stride: *stride },
            Kind::Product { window, weight, bias, limits } => {
                let axis = usize::from(window.is_none());
                let (weights, bias) = quantize::weights(weight, axis, bias, reads, self.writes);
                let limits = quantize::limits(*limits, self.writes);
                match *window {
                    None => Function::Linear { weights, bias, limits },
                    Some([kernel, stride, padding]) => {
                        let zero = reads.map_or(0, |quantization| quantization.zero);
                        Function::Convolution { kernel, stride, padding, zero, weights, bias, limits }
                    }
                }
            }
        }
    }
}
