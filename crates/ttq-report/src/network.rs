//! The values of a network's graph: parameters, multiply-adds and memory.
//!
//! Values that do not depend on the input are constants, computed or not. Their elements count as parameters of the first
//! operation that uses them.

use serde::Serialize;
use ttq_packed::network::{Constant, Graph, Operation, Reduction, Source, Value, Window};

/// Statistics of a graph.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NetworkSummary {
    /// The input and the results of operations on it, in the order of computation.
    pub values: Vec<ValueSummary>,
    /// Index of the output among the values of the graph.
    pub output: usize,
    /// Sums over all values.
    pub total: NetworkTotal,
}

/// Statistics of the input or of the result of an operation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ValueSummary {
    /// Index among the values of the graph, which has constants too.
    pub index: usize,
    /// Name.
    pub name: String,
    /// The operation and its attributes, such as `convolution 3×3, stride 2`.
    pub operation: String,
    /// Indices of the operands that depend on the input.
    pub operands: Vec<usize>,
    /// Shape of an item.
    pub shape: Vec<usize>,
    /// Number of elements of its constants that no operation before uses.
    pub parameters: usize,
    /// Number of these that are ternary.
    pub ternary: usize,
    /// Number of ternary ones that are zero.
    pub zeros: usize,
    /// Multiplications, each with an addition, of the definition for an item.
    pub multiply_adds: usize,
    /// Size of an item in float32.
    pub bytes: usize,
    /// Range of the elements for int8, if it was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub range: Option<[f32; 2]>,
}

/// Sums over the values of a graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct NetworkTotal {
    /// Number of operations on the input.
    pub operations: usize,
    /// Number of parameters.
    pub parameters: usize,
    /// Number of ternary parameters.
    pub ternary: usize,
    /// Number of ternary parameters that are zero.
    pub zeros: usize,
    /// Multiply-adds for an item.
    pub multiply_adds: usize,
    /// Size of all values of an item in float32. A compiled network needs less, because values share memory.
    pub bytes: usize,
    /// `true` if the graph has ranges for int8.
    pub calibrated: bool,
}

impl NetworkSummary {
    /// Computes the statistics of a graph.
    pub fn new(graph: &Graph) -> Self {
        let mut counted = vec![false; graph.len()];
        let depends = |value: &Value| graph.shape(*value).batched;
        let values: Vec<ValueSummary> =
            graph.values().filter(depends).map(|value| ValueSummary::new(graph, value, &mut counted)).collect();
        let sum = |count: fn(&ValueSummary) -> usize| values.iter().map(count).fold(0, usize::saturating_add);
        let total = NetworkTotal {
            operations: values.len() - 1,
            parameters: sum(|value| value.parameters),
            ternary: sum(|value| value.ternary),
            zeros: sum(|value| value.zeros),
            multiply_adds: sum(|value| value.multiply_adds),
            bytes: sum(|value| value.bytes),
            calibrated: graph.is_calibrated(),
        };
        Self { values, output: graph.output().index(), total }
    }
}

impl ValueSummary {
    /// Computes the statistics of a value. `counted` marks the values whose constants belong to earlier operations.
    fn new(graph: &Graph, value: Value, counted: &mut [bool]) -> Self {
        let shape = graph.shape(value).dims.clone();
        let mut summary = Self {
            index: value.index(),
            name: graph.name(value).to_owned(),
            operation: "input".to_owned(),
            operands: Vec::new(),
            bytes: shape.iter().product::<usize>().saturating_mul(size_of::<f32>()),
            shape,
            parameters: 0,
            ternary: 0,
            zeros: 0,
            multiply_adds: graph.multiply_adds(value),
            range: graph.range(value),
        };
        if let Source::Node { operation, operands } = graph.source(value) {
            let dims = operands.get(1).map_or(&[][..], |weight| &graph.shape(*weight).dims);
            summary.operation = describe(operation, dims);
            let (on_input, mut constants): (Vec<Value>, Vec<Value>) =
                operands.iter().partition(|operand| graph.shape(**operand).batched);
            summary.operands = on_input.into_iter().map(Value::index).collect();
            while let Some(constant) = constants.pop() {
                if std::mem::replace(&mut counted[constant.index()], true) {
                    continue;
                }
                match graph.source(constant) {
                    Source::Constant(constant) => summary.count(constant),
                    Source::Node { operands, .. } => constants.extend(operands),
                    _ => {}
                }
            }
        }
        summary
    }

    fn count(&mut self, constant: &Constant) {
        let elements: usize = constant.dims().iter().product();
        self.parameters += elements;
        if let Constant::Ternary(weight) = constant {
            self.ternary += elements;
            self.zeros += weight.codes().counts()[1];
        }
    }
}

/// Describes an operation. `weight` is the shape of its second operand.
fn describe(operation: &Operation, weight: &[usize]) -> String {
    let name = operation.name();
    let pool = |window: &Window| format!("{name} {}, stride {}", pair(window.size), one_or_pair(window.stride));
    match operation {
        Operation::Convolution(options) | Operation::TransposedConvolution { options, .. } => {
            let mut text = match *weight {
                [.., height, width] => format!("{name} {}", pair([height, width])),
                _ => name.to_owned(),
            };
            for (what, numbers) in [("stride", options.stride), ("dilation", options.dilation)] {
                if numbers != [1, 1] {
                    text += &format!(", {what} {}", one_or_pair(numbers));
                }
            }
            if options.groups > 1 {
                text += &format!(", {} groups", options.groups);
            }
            text
        }
        Operation::MaxPool(window) | Operation::AveragePool { window, .. } => pool(window),
        Operation::AdaptiveAveragePool(size) => format!("{name} {}", pair(*size)),
        Operation::Softmax(axis) | Operation::Concatenate(axis) => format!("{name}, axis {axis}"),
        Operation::Reduce { function, axes } => {
            let function = match function {
                Reduction::Sum => "sum",
                Reduction::Mean => "mean",
                Reduction::Max => "maximum",
                Reduction::Min => "minimum",
                _ => name,
            };
            format!("{function}, axes {}", list(axes))
        }
        Operation::Permute(axes) => format!("{name} {}", list(axes)),
        Operation::Slice { axis, start, end, step: 1 } => format!("{name} {start}..{end}, axis {axis}"),
        Operation::Slice { axis, start, end, step } => format!("{name} {start}..{end} in steps of {step}, axis {axis}"),
        _ => name.to_owned(),
    }
}

fn pair([height, width]: [usize; 2]) -> String {
    format!("{height}×{width}")
}

fn one_or_pair([vertical, horizontal]: [usize; 2]) -> String {
    if vertical == horizontal { vertical.to_string() } else { pair([vertical, horizontal]) }
}

fn list(numbers: &[usize]) -> String {
    numbers.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")
}
