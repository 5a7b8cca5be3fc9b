//! The operators of ONNX for each operation.

use std::collections::BTreeMap;

use ttq_packed::kernels::ConvolutionOptions;
use ttq_packed::network::{Binary, Graph, Operation, Quantization, Reduction, Source, Unary, Value, Window};

use crate::OnnxError;
use crate::builder::{Builder, Element, float, int, integer, integers, ints, value_info};
use crate::proto::{AttributeProto, DataType, GraphProto};
use crate::quantization::{Integers, Plan};

/// Converts a simplified graph: no operation has only constant operands.
pub(crate) fn graph(graph: &Graph, plan: Plan, max_elements: usize) -> Result<GraphProto, OnnxError> {
    let mut export = Export { graph, plan, max_elements, builder: Builder::default(), names: BTreeMap::new() };
    let [input, output] = ["input", "output"].map(|name| export.builder.name(name));
    let dims = |value: Value| graph.shape(value).dims.as_slice();
    export.builder.graph.name = "network".into();
    export.builder.graph.input = vec![value_info(&input, dims(graph.input()))];
    export.builder.graph.output = vec![value_info(&output, dims(graph.output()))];
    if graph.output() == graph.input() {
        export.builder.node("Identity", &[&input], &output, vec![]);
    }
    export.publish(graph.input(), input);
    for value in graph.values() {
        let Source::Node { operation, operands } = graph.source(value) else { continue };
        let name = match value == graph.output() {
            true => output.clone(),
            false => export.builder.name(graph.name(value)),
        };
        export.operation(value, &name, operation, operands)?;
        if value != graph.output() {
            export.builder.graph.value_info.push(value_info(&name, dims(value)));
        }
        export.publish(value, name);
    }
    Ok(export.builder.graph)
}

struct Export<'a> {
    graph: &'a Graph,
    plan: Plan,
    /// Maximum number of elements of the matrices of an operation.
    max_elements: usize,
    builder: Builder,
    /// Names of the values that can be read.
    names: BTreeMap<Value, String>,
}

impl<'a> Export<'a> {
    fn dims(&self, value: Value) -> &'a [usize] {
        &self.graph.shape(value).dims
    }

    /// Makes a value readable under its name, or rounded to bytes.
    fn publish(&mut self, value: Value, name: String) {
        let read = match self.plan.values.get(&value) {
            None => name,
            Some(&Quantization { scale, zero }) => {
                let scale = self.builder.scalar(&format!("{name}.scale"), scale);
                let zero = self.builder.scalar(&format!("{name}.zero"), zero);
                let bytes = self.builder.step("QuantizeLinear", &[&name, &scale, &zero], &name, vec![]);
                self.builder.step("DequantizeLinear", &[&bytes, &scale, &zero], &name, vec![])
            }
        };
        self.names.insert(value, read);
    }

    /// Returns the name of an operand. Constants are written when they are first used.
    fn operand(&mut self, value: Value) -> String {
        if let Some(name) = self.names.get(&value) {
            return name.clone();
        }
        let Source::Constant(constant) = self.graph.source(value) else { unreachable!("operands come first") };
        let name = self.builder.tensor(self.graph.name(value), constant.dims(), &constant.values());
        self.names.insert(value, name.clone());
        name
    }

    fn operands(&mut self, values: &[Value]) -> Vec<String> {
        values.iter().map(|value| self.operand(*value)).collect()
    }

    /// Returns operands that broadcast: axes of size 1 after the batch take the place of those that items lack.
    /// Constants have no batch, and as many dimensions as the result or fewer.
    fn aligned(&mut self, values: &[Value], rank: usize) -> Vec<String> {
        let mut operands = self.operands(values);
        for (value, name) in values.iter().zip(&mut operands) {
            let lacking = rank - self.dims(*value).len();
            if self.graph.shape(*value).batched && lacking > 0 {
                let axes: Vec<i64> = (1..=integer(lacking)).collect();
                let axes = self.builder.list(&format!("{name}.axes"), &axes);
                *name = self.builder.step("Unsqueeze", &[&*name, &axes], name, vec![]);
            }
        }
        operands
    }

    /// Adds the nodes of an operation.
    fn operation(
        &mut self,
        value: Value,
        output: &str,
        operation: &Operation,
        operands: &[Value],
    ) -> Result<(), OnnxError> {
        let dims = self.dims(value);
        let x = self.dims(operands[0]);
        let unsupported = |reason: &str| OnnxError::Unsupported {
            node: self.graph.name(value).into(),
            operation: operation.name(),
            reason: reason.into(),
        };
        let unknown = unsupported("this version of ttq-onnx does not know it");
        let (operator, inputs, attributes) = match operation {
            Operation::Convolution(options) => {
                let kernel = &self.dims(operands[1])[2..];
                ("Conv", self.product(value, operands, 0), convolution_attributes(kernel, options))
            }
            Operation::TransposedConvolution { options, output_padding } => {
                // Runtimes add less than a stride, and only what is not removed again.
                let (mut options, mut added) = (*options, *output_padding);
                for (added, [_, removed]) in added.iter_mut().zip(&mut options.padding) {
                    let both = (*added).min(*removed);
                    (*added, *removed) = (*added - both, *removed - both);
                }
                if added.iter().zip(&options.stride).any(|(added, stride)| added >= stride) {
                    return Err(unsupported("its output padding must be less than its stride"));
                }
                let mut attributes = convolution_attributes(&self.dims(operands[1])[2..], &options);
                attributes.push(ints("output_padding", integers(&added)));
                ("ConvTranspose", self.operands(operands), attributes)
            }
            Operation::Linear if x.len() == 1 => ("Gemm", self.product(value, operands, 1), vec![]),
            Operation::Linear => {
                let factors = self.product(value, &operands[..2], 1);
                match operands.get(2) {
                    None => ("MatMul", factors, vec![]),
                    Some(bias) => {
                        let product = self.builder.step("MatMul", &factors, output, vec![]);
                        ("Add", vec![product, self.operand(*bias)], vec![])
                    }
                }
            }
            Operation::MatrixProduct => ("MatMul", self.aligned(operands, dims.len()), vec![]),
            Operation::Unary(Unary::Clamp([low, high])) => {
                let x = self.operand(operands[0]);
                let low = self.builder.scalar(&format!("{output}.low"), *low);
                let high = self.builder.scalar(&format!("{output}.high"), *high);
                ("Clip", vec![x, low, high], vec![])
            }
            Operation::Unary(Unary::Gelu) => ("Mul", self.gelu(operands[0], output), vec![]),
            Operation::Unary(Unary::LeakyRelu(slope)) => {
                ("LeakyRelu", self.operands(operands), vec![float("alpha", *slope)])
            }
            Operation::Unary(function) => (unary(*function).ok_or(unknown)?, self.operands(operands), vec![]),
            Operation::Binary(function) => {
                let (operator, operands) = (binary(*function).ok_or(unknown)?, self.aligned(operands, dims.len()));
                match function {
                    Binary::Equal | Binary::Less | Binary::LessOrEqual => {
                        let truth = self.builder.step(operator, &operands, output, vec![]);
                        ("Cast", vec![truth], vec![int("to", DataType::Float as i64)])
                    }
                    _ => (operator, operands, vec![]),
                }
            }
            Operation::Where => {
                let mut operands = self.aligned(operands, dims.len());
                let bool = vec![int("to", DataType::Bool as i64)];
                operands[0] = self.builder.step("Cast", &[&operands[0]], output, bool);
                ("Where", operands, vec![])
            }
            Operation::MaxPool(window) => ("MaxPool", self.operands(operands), window_attributes(window)),
            Operation::AveragePool { window, count_padding } => {
                let mut attributes = window_attributes(window);
                attributes.push(int("count_include_pad", (*count_padding).into()));
                ("AveragePool", self.operands(operands), attributes)
            }
            Operation::AdaptiveAveragePool([1, 1]) => ("GlobalAveragePool", self.operands(operands), vec![]),
            Operation::AdaptiveAveragePool([height, width])
                if x[1].is_multiple_of(*height) && x[2].is_multiple_of(*width) =>
            {
                let window = integers(&[x[1] / height, x[2] / width]);
                let attributes = vec![ints("kernel_shape", window.clone()), ints("strides", window)];
                ("AveragePool", self.operands(operands), attributes)
            }
            Operation::AdaptiveAveragePool([height, width]) => {
                let elements = height.saturating_mul(x[1]).saturating_add(width.saturating_mul(x[2]));
                if elements > self.max_elements {
                    let limit = self.max_elements;
                    let reason = format!(
                        "its matrices have {elements} elements, and the limit is {limit}: choose a size that \
                        divides that of the input"
                    );
                    return Err(unsupported(&reason));
                }
                // The mean of a rectangle is the mean of the means of its rows: a product with a matrix on each side.
                let rows = self.builder.tensor(&format!("{output}.rows"), &[*height, x[1]], &means(*height, x[1]));
                let columns: Vec<f32> = transposed(&means(*width, x[2]), x[2]);
                let columns = self.builder.tensor(&format!("{output}.columns"), &[x[2], *width], &columns);
                let operand = self.operand(operands[0]);
                ("MatMul", vec![self.builder.step("MatMul", &[&rows, &operand], output, vec![]), columns], vec![])
            }
            Operation::Softmax(axis) => ("Softmax", self.operands(operands), vec![int("axis", 1 + integer(*axis))]),
            Operation::Reduce { function, axes } => {
                let axes: Vec<i64> = axes.iter().map(|axis| 1 + integer(*axis)).collect();
                let mut inputs = self.operands(operands);
                let (operator, attributes) = match function {
                    Reduction::Sum => {
                        inputs.push(self.builder.list(&format!("{output}.axes"), &axes));
                        ("ReduceSum", vec![])
                    }
                    Reduction::Mean => ("ReduceMean", vec![ints("axes", axes)]),
                    Reduction::Max => ("ReduceMax", vec![ints("axes", axes)]),
                    Reduction::Min => ("ReduceMin", vec![ints("axes", axes)]),
                    _ => return Err(unknown),
                };
                (operator, inputs, attributes)
            }
            Operation::Reshape(dims) => {
                // The size 0 stands for that of the operand: the batch.
                let shape = [&[0], &*integers(dims)].concat();
                let shape = self.builder.list(&format!("{output}.shape"), &shape);
                ("Reshape", vec![self.operand(operands[0]), shape], vec![])
            }
            Operation::Permute(axes) => {
                let axes = [0].into_iter().chain(axes.iter().map(|axis| 1 + integer(*axis))).collect();
                ("Transpose", self.operands(operands), vec![ints("perm", axes)])
            }
            Operation::Concatenate(axis) => {
                ("Concat", self.repeated(operands, output), vec![int("axis", 1 + integer(*axis))])
            }
            Operation::Slice { axis, start, end, step } => {
                let mut inputs = vec![self.operand(operands[0])];
                let parts = [("start", *start), ("end", *end), ("axis", 1 + axis), ("step", (*step).min(end - start))];
                for (part, number) in parts {
                    inputs.push(self.builder.list(&format!("{output}.{part}"), &[integer(number)]));
                }
                ("Slice", inputs, vec![])
            }
            Operation::Pad { padding, value } => {
                let side = |i: usize| [0].into_iter().chain(padding.iter().map(move |pair| integer(pair[i])));
                let pads: Vec<i64> = side(0).chain(side(1)).collect();
                let pads = self.builder.list(&format!("{output}.pads"), &pads);
                let value = self.builder.scalar(&format!("{output}.value"), *value);
                ("Pad", vec![self.operand(operands[0]), pads, value], vec![])
            }
            Operation::Gather => self.gather(operands[0], operands[1], output),
            _ => return Err(unknown),
        };
        self.builder.node(operator, &inputs, output, attributes);
        Ok(())
    }

    /// Returns the operands of a product: weight and bias, if any, as integers if it is a product of bytes.
    fn product(&mut self, value: Value, operands: &[Value], axis: usize) -> Vec<String> {
        let quantization = self.plan.values.get(&operands[0]).filter(|_| self.plan.products.contains(&value));
        let Some(&Quantization { scale, .. }) = quantization else { return self.operands(operands) };
        let constant = |value: Value| match self.graph.source(value) {
            Source::Constant(constant) => constant,
            _ => unreachable!("weights and biases are constants"),
        };
        let (weight, bias) = (constant(operands[1]), operands.get(2).map(|bias| constant(*bias).values()));
        let integers = Integers::new(weight, axis, &bias.unwrap_or_default(), scale);
        let (name, values, scales) = (self.graph.name(operands[1]), &integers.weights, &integers.scales);
        let mut inputs = vec![self.operand(operands[0]), self.dequantized(name, weight.dims(), values, scales, axis)];
        if let Some(bias) = operands.get(2) {
            let (values, scales) = (&integers.bias, &integers.bias_scales);
            inputs.push(self.dequantized(self.graph.name(*bias), &[values.len()], values, scales, 0));
        }
        inputs
    }

    /// Adds integers and their conversion to floats, with one scale per index of an axis.
    fn dequantized<T: Element + Default>(
        &mut self,
        name: &str,
        dims: &[usize],
        values: &[T],
        scales: &[f32],
        axis: usize,
    ) -> String {
        let integers = self.builder.tensor(name, dims, values);
        let scale = self.builder.tensor(&format!("{name}.scale"), &[scales.len()], scales);
        let zero = self.builder.tensor(&format!("{name}.zero"), &[scales.len()], &vec![T::default(); scales.len()]);
        let axis = vec![int("axis", integer(axis))];
        self.builder.step("DequantizeLinear", &[&integers, &scale, &zero], name, axis)
    }

    /// Returns the factors of `x (1 + erf(x / √2)) · 1/2`, computed in the order in which runtimes recognize it.
    fn gelu(&mut self, x: Value, output: &str) -> Vec<String> {
        let x = self.operand(x);
        let root = self.builder.scalar(&format!("{output}.root"), std::f32::consts::SQRT_2);
        let one = self.builder.scalar(&format!("{output}.one"), 1.0_f32);
        let half = self.builder.scalar(&format!("{output}.half"), 0.5_f32);
        let y = self.builder.step("Div", &[&x, &root], output, vec![]);
        let y = self.builder.step("Erf", &[&y], output, vec![]);
        let y = self.builder.step("Add", &[&y, &one], output, vec![]);
        vec![self.builder.step("Mul", &[&x, &y], output, vec![]), half]
    }

    /// Returns operands that all have a batch: constants are repeated.
    fn repeated(&mut self, values: &[Value], output: &str) -> Vec<String> {
        let mut operands = self.operands(values);
        let batched = |value: &Value| self.graph.shape(*value).batched;
        let Some(first) = values.iter().position(batched) else { return operands };
        for (i, value) in values.iter().enumerate().filter(|(_, value)| !batched(value)) {
            let only_batch = vec![int("start", 0), int("end", 1)];
            let batch = self.builder.step("Shape", &[&operands[first]], output, only_batch);
            let item = self.builder.list(&format!("{output}.item"), &integers(self.dims(*value)));
            let shape = self.builder.step("Concat", &[&batch, &item], output, vec![int("axis", 0)]);
            operands[i] = self.builder.step("Expand", &[&operands[i], &shape], output, vec![]);
        }
        operands
    }

    /// Returns the last node of rows of a table: indices are integers within the table.
    fn gather(
        &mut self,
        table: Value,
        indices: Value,
        output: &str,
    ) -> (&'static str, Vec<String>, Vec<AttributeProto>) {
        let rows = self.dims(table)[0];
        // Beyond 2²⁴ not every integer is a float.
        let last = (rows - 1) as f32;
        let last = if last as usize >= rows { last.next_down() } else { last };
        let [table_varies, indices_vary] = [table, indices].map(|value| self.graph.shape(value).batched);
        let index = match self.graph.source(indices) {
            Source::Constant(constant) => {
                let index = |x: f32| (x.round().max(0.0) as usize).min(rows - 1);
                let values: Vec<i64> = constant.values().into_iter().map(index).map(integer).collect();
                self.builder.tensor(self.graph.name(indices), constant.dims(), &values)
            }
            _ => {
                let low = self.builder.scalar(&format!("{output}.low"), 0.0_f32);
                let high = self.builder.scalar(&format!("{output}.high"), last);
                let index = self.operand(indices);
                let index = self.builder.step("Round", &[&index], output, vec![]);
                let index = self.builder.step("Clip", &[&index, &low, &high], output, vec![]);
                self.builder.step("Cast", &[&index], output, vec![int("to", DataType::Int64 as i64)])
            }
        };
        let table = self.operand(table);
        match (table_varies, indices_vary) {
            (true, true) => {
                let axis = self.builder.list(&format!("{output}.axis"), &[-1]);
                let index = self.builder.step("Unsqueeze", &[&index, &axis], output, vec![]);
                ("GatherND", vec![table, index], vec![int("batch_dims", 1)])
            }
            (true, false) => ("Gather", vec![table, index], vec![int("axis", 1)]),
            (false, _) => ("Gather", vec![table, index], vec![int("axis", 0)]),
        }
    }
}

fn unary(function: Unary) -> Option<&'static str> {
    Some(match function {
        Unary::Relu => "Relu",
        Unary::Sigmoid => "Sigmoid",
        Unary::Tanh => "Tanh",
        Unary::Erf => "Erf",
        Unary::Exp => "Exp",
        Unary::Log => "Log",
        Unary::Sqrt => "Sqrt",
        Unary::Abs => "Abs",
        Unary::Negate => "Neg",
        Unary::Reciprocal => "Reciprocal",
        _ => return None,
    })
}

fn binary(function: Binary) -> Option<&'static str> {
    Some(match function {
        Binary::Add => "Add",
        Binary::Subtract => "Sub",
        Binary::Multiply => "Mul",
        Binary::Divide => "Div",
        Binary::Maximum => "Max",
        Binary::Minimum => "Min",
        Binary::Power => "Pow",
        Binary::Equal => "Equal",
        Binary::Less => "Less",
        Binary::LessOrEqual => "LessOrEqual",
        _ => return None,
    })
}

/// Converts `[[top, bottom], [left, right]]` to `[top, left, bottom, right]`.
fn pads([[top, bottom], [left, right]]: [[usize; 2]; 2]) -> Vec<i64> {
    integers(&[top, left, bottom, right])
}

fn convolution_attributes(kernel: &[usize], options: &ConvolutionOptions) -> Vec<AttributeProto> {
    vec![
        ints("kernel_shape", integers(kernel)),
        ints("strides", integers(&options.stride)),
        ints("pads", pads(options.padding)),
        ints("dilations", integers(&options.dilation)),
        int("group", integer(options.groups)),
    ]
}

fn window_attributes(window: &Window) -> Vec<AttributeProto> {
    vec![
        ints("kernel_shape", integers(&window.size)),
        ints("strides", integers(&window.stride)),
        ints("pads", pads(window.padding)),
    ]
}

/// Returns the matrix `[n, len]` whose rows take the means of an adaptive pooling.
fn means(n: usize, len: usize) -> Vec<f32> {
    let mut matrix = vec![0.0; n * len];
    for (i, row) in matrix.chunks_exact_mut(len).enumerate() {
        let range = i * len / n..((i + 1) * len).div_ceil(n);
        let mean = 1.0 / range.len() as f32;
        row[range].fill(mean);
    }
    matrix
}

/// Transposes a matrix with rows of some length.
fn transposed(matrix: &[f32], columns: usize) -> Vec<f32> {
    (0..columns).flat_map(|column| matrix.iter().skip(column).step_by(columns).copied()).collect()
}
