//! The passes on a graph: dead values, constants, and what moves into the epilogue of a product.

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use super::graph::{Constant, Graph, Source};
use super::layers::{Activation, Order};
use super::operation::{Binary, Operation, Shape, Unary};
use super::reference::{Tensor, evaluate};
use super::values::ValueMap;
use super::{CompileOptions, NetworkError, Value};
use crate::kernels::ConvolutionOptions;

/// A map of one value per channel: `scale[c] x + shift[c]`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Affine {
    pub(super) scale: Vec<f64>,
    pub(super) shift: Vec<f64>,
}

impl Affine {
    pub(super) fn identity(channels: usize) -> Self {
        Self { scale: vec![1.0; channels], shift: vec![0.0; channels] }
    }

    fn then(&mut self, next: &Self) {
        for (i, (scale, shift)) in next.scale.iter().zip(&next.shift).enumerate() {
            self.scale[i] *= scale;
            self.shift[i] = self.shift[i] * scale + shift;
        }
    }
}

/// What a fused node computes before its epilogue.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    /// A convolution of `[C, H, W]` with a weight `[O, C / groups, kh, kw]`.
    Convolution { options: ConvolutionOptions, weight: Value },
    /// A transposed convolution of `[C, H, W]` with a weight `[C, O / groups, kh, kw]`.
    Transposed { options: ConvolutionOptions, output_padding: [usize; 2], weight: Value },
    /// A linear layer with a weight `[I, O]`, of `[.., I]`, or of the elements of an image.
    Linear { weight: Value, image: bool },
    /// The product of two values or of a value and a constant.
    Product,
    /// The operand, or a function of each of its elements.
    Map(Option<Unary>),
    /// Another operation, without epilogue.
    Other(Operation),
}

/// An operation, or several that one layer computes: `activation(affine(kind(operands)) + residual)`.
#[derive(Debug, Clone)]
pub(super) struct Fused {
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) operands: Vec<Value>,
    pub(super) affine: Affine,
    pub(super) residual: Option<Value>,
    pub(super) activation: Activation,
    /// The value that it computes.
    pub(super) value: Value,
    /// How the dimensions of the value are stored.
    pub(super) order: Order,
}

/// Values of a graph that do not depend on its input.
pub(super) type Constants = ValueMap<Constant>;

/// Returns the values on which the output depends.
fn reachable(graph: &Graph) -> Vec<bool> {
    let mut used = vec![false; graph.len()];
    used[graph.output.0] = true;
    for i in (0..graph.len()).rev() {
        if let (true, Source::Node { operands, .. }) = (used[i], &graph.entries[i].source) {
            operands.iter().for_each(|operand| used[operand.0] = true);
        }
    }
    used
}

/// Evaluates all operations on constants.
fn fold_constants(graph: &Graph, used: &[bool], limit: usize) -> Result<Constants, NetworkError> {
    let mut constants = Constants::new();
    let mut products = 0_usize;
    for (i, entry) in graph.entries.iter().enumerate().filter(|(i, _)| used[*i]) {
        let constant = match &entry.source {
            Source::Constant(constant) => constant.clone(),
            Source::Node { operation, operands } if !entry.shape.batched => {
                let shapes: Vec<&Shape> = operands.iter().map(|operand| graph.shape(*operand)).collect();
                products = products.saturating_add(operation.products(&shapes, &entry.shape));
                if products > limit {
                    return Err(NetworkError::TooLarge { node: entry.name.clone(), elements: products, limit });
                }
                let tensor = |value: &Value| {
                    let constant = &constants[value];
                    let values = constant.values().into_iter().map(f64::from).collect();
                    Tensor { dims: constant.dims().to_vec(), values }
                };
                let operands: Vec<Tensor> = operands.iter().map(tensor).collect();
                let values = evaluate(operation, &operands.iter().collect::<Vec<_>>(), &entry.shape.dims);
                let values = values.into_iter().map(|x| x as f32).collect();
                Constant::Float { dims: entry.shape.dims.clone(), values }
            }
            _ => continue,
        };
        constants.insert(Value(i), constant);
    }
    Ok(constants)
}

/// Turns a graph into nodes in the order of execution.
pub(super) fn fuse(graph: &Graph, options: &CompileOptions) -> Result<(Vec<Fused>, Constants), NetworkError> {
    let used = reachable(graph);
    let constants = fold_constants(graph, &used, options.max_elements)?;
    let mut uses = vec![0; graph.len()];
    uses[graph.output.0] += 1;
    for (_, entry) in graph.entries.iter().enumerate().filter(|(i, _)| used[*i]) {
        if let Source::Node { operands, .. } = &entry.source {
            operands.iter().for_each(|operand| uses[operand.0] += 1);
        }
    }
    let mut pass = Pass { graph, options, constants: &constants, uses, nodes: Vec::new(), producers: ValueMap::new() };
    for (i, entry) in graph.entries.iter().enumerate() {
        if let (true, true, Source::Node { operation, operands }) = (used[i], entry.shape.batched, &entry.source) {
            pass.node(Value(i), &entry.name, operation, operands);
        }
    }
    let nodes = read_nodes(pass.nodes, graph);
    Ok((nodes, constants))
}

/// Returns the nodes that others or the output read. A linear layer that reads an image leaves its flattened form unread.
fn read_nodes(nodes: Vec<Fused>, graph: &Graph) -> Vec<Fused> {
    let mut read = vec![false; graph.len()];
    read[graph.output.0] = true;
    let mut kept: Vec<Fused> = Vec::with_capacity(nodes.len());
    for node in nodes.into_iter().rev() {
        if read[node.value.0] {
            node.operands.iter().chain(&node.residual).for_each(|operand| read[operand.0] = true);
            kept.push(node);
        }
    }
    kept.reverse();
    kept
}

struct Pass<'a> {
    graph: &'a Graph,
    options: &'a CompileOptions,
    constants: &'a Constants,
    /// Number of uses of each value.
    uses: Vec<usize>,
    nodes: Vec<Fused>,
    /// The node that computes a value.
    producers: ValueMap<usize>,
}

impl Pass<'_> {
    fn node(&mut self, value: Value, name: &str, operation: &Operation, operands: &[Value]) {
        let absorbed = match operation {
            Operation::Binary(Binary::Add) => self.absorb_residual(operands),
            Operation::Unary(Unary::Relu) => self.absorb_activation(operands[0], Activation::Relu),
            Operation::Unary(Unary::Clamp(range)) => self.absorb_activation(operands[0], Activation::Clamp(*range)),
            _ => None,
        };
        if let Some(node) = absorbed.or_else(|| self.absorb_affine(operation, operands)) {
            self.nodes[node].value = value;
            self.producers.insert(value, node);
            return;
        }
        let order = match operation {
            Operation::Convolution(_)
            | Operation::TransposedConvolution { .. }
            | Operation::MaxPool(_)
            | Operation::AveragePool { .. }
            | Operation::AdaptiveAveragePool(_) => Order::ChannelsFirst,
            Operation::Unary(_)
            | Operation::Softmax(_)
            | Operation::Reduce { .. }
            | Operation::Slice { .. }
            | Operation::Pad { .. } => self.order(operands[0]),
            Operation::Concatenate(_)
                if operands.iter().all(|operand| self.order(*operand) == Order::ChannelsFirst) =>
            {
                Order::ChannelsFirst
            }
            Operation::Binary(_) | Operation::Where => {
                // An operand of the shape of the result determines the order.
                let shape = self.graph.shape(value);
                let whole = operands.iter().find(|operand| self.graph.shape(**operand) == shape);
                whole.map_or(Order::ChannelsLast, |operand| self.order(*operand))
            }
            _ => Order::ChannelsLast,
        };
        let mut affine = Affine::identity(order.channels(&self.graph.shape(value).dims));
        let (mut operands, mut residual, mut activation) = (operands.to_vec(), None, Activation::None);
        let mut kind = match operation {
            Operation::Binary(Binary::Add) if self.is_sum(&operands) => {
                residual = operands.pop();
                Kind::Map(None)
            }
            Operation::Convolution(options) => Kind::Convolution { options: *options, weight: operands[1] },
            Operation::TransposedConvolution { options, output_padding } => {
                Kind::Transposed { options: *options, output_padding: *output_padding, weight: operands[1] }
            }
            Operation::Linear => Kind::Linear { weight: operands[1], image: false },
            Operation::MatrixProduct => Kind::Product,
            Operation::Unary(Unary::Relu) => {
                activation = Activation::Relu;
                Kind::Map(None)
            }
            Operation::Unary(Unary::Clamp(range)) => {
                activation = Activation::Clamp(*range);
                Kind::Map(None)
            }
            Operation::Unary(function) => Kind::Map(Some(*function)),
            operation => match self.affine(operation, &operands) {
                Some((x, map)) => {
                    (operands, affine) = ([x].into(), map);
                    Kind::Map(None)
                }
                None => Kind::Other(operation.clone()),
            },
        };
        if matches!(kind, Kind::Convolution { .. } | Kind::Transposed { .. } | Kind::Linear { .. }) {
            if let Some(bias) = operands.get(2) {
                affine.shift = self.constants[bias].values().into_iter().map(f64::from).collect();
            }
            operands.truncate(1);
            if let (Kind::Linear { image, .. }, Some(operand)) = (&mut kind, self.flattened(operands[0])) {
                (operands, *image) = ([operand].into(), true);
            }
        }
        self.producers.insert(value, self.nodes.len());
        self.nodes.push(Fused { name: name.into(), kind, operands, affine, residual, activation, value, order });
    }

    /// Returns how the dimensions of a value are stored.
    fn order(&self, value: Value) -> Order {
        match self.producers.get(&value) {
            Some(node) => self.nodes[*node].order,
            None => Order::of_input(&self.graph.shape(value).dims),
        }
    }

    fn batched(&self, value: Value) -> bool {
        self.graph.shape(value).batched
    }

    /// Returns the node that computes a value, if only this operation uses it and it can take a further step.
    fn open(&self, value: Value) -> Option<usize> {
        let node = *self.producers.get(&value)?;
        let fused = &self.nodes[node];
        let open = !matches!(fused.kind, Kind::Other(_)) && fused.activation == Activation::None;
        (self.options.fuse && self.uses[value.0] == 1 && open).then_some(node)
    }

    fn absorb_activation(&mut self, operand: Value, activation: Activation) -> Option<usize> {
        let node = self.open(operand)?;
        self.nodes[node].activation = activation;
        Some(node)
    }

    fn absorb_affine(&mut self, operation: &Operation, operands: &[Value]) -> Option<usize> {
        let (x, affine) = self.affine(operation, operands)?;
        let node = self.open(x).filter(|node| self.nodes[*node].residual.is_none())?;
        self.nodes[node].affine.then(&affine);
        Some(node)
    }

    /// Returns `true` if two operands have the same layout, so that one of them can be a residual.
    fn is_sum(&self, operands: &[Value]) -> bool {
        let [a, b] = [operands[0], operands[1]];
        self.graph.shape(a) == self.graph.shape(b) && self.order(a) == self.order(b)
    }

    /// Makes one summand the residual of the node that computes the other one, which must come later.
    fn absorb_residual(&mut self, operands: &[Value]) -> Option<usize> {
        let [a, b] = [operands[0], operands[1]];
        if !self.is_sum(operands) {
            return None;
        }
        let position = |value: Value| self.producers.get(&value).map_or(0, |node| node + 1);
        let (last, other) = if position(a) > position(b) { (a, b) } else { (b, a) };
        let node = self.open(last).filter(|node| self.nodes[*node].residual.is_none())?;
        self.nodes[node].residual = Some(other);
        Some(node)
    }

    /// Returns the operand and the map of an operation that is a map per channel.
    fn affine(&self, operation: &Operation, operands: &[Value]) -> Option<(Value, Affine)> {
        let (Operation::Binary(function), &[a, b]) = (operation, operands) else { return None };
        let (x, constant, reversed) = if self.batched(a) { (a, b, false) } else { (b, a, true) };
        let values = self.per_channel(self.constants.get(&constant)?, x)?;
        let (ones, zeros) = (vec![1.0; values.len()], vec![0.0; values.len()]);
        let negated = |values: Vec<f64>| values.into_iter().map(|x| -x).collect();
        let (scale, shift) = match (function, reversed) {
            (Binary::Add, _) => (ones, values),
            (Binary::Subtract, false) => (ones, negated(values)),
            (Binary::Subtract, true) => (negated(ones), values),
            (Binary::Multiply, _) => (values, zeros),
            (Binary::Divide, false) => (values.into_iter().map(|x| 1.0 / x).collect(), zeros),
            _ => return None,
        };
        Some((x, Affine { scale, shift }))
    }

    /// Returns one value per channel if a constant broadcasts along all other axes and does not enlarge the shape.
    fn per_channel(&self, constant: &Constant, x: Value) -> Option<Vec<f64>> {
        let (dims, order) = (&self.graph.shape(x).dims, self.order(x));
        let channels = order.channels(dims);
        let from_end = if order == Order::ChannelsFirst { 3 } else { 1 };
        let shape = constant.dims();
        let expected = |i: usize| if shape.len() - i == from_end { [1, channels] } else { [1, 1] };
        if shape.len() > dims.len() || !shape.iter().enumerate().all(|(i, dim)| expected(i).contains(dim)) {
            return None;
        }
        let values: Vec<f64> = constant.values().into_iter().map(f64::from).collect();
        (!values.is_empty()).then(|| (0..channels).map(|c| values[c % values.len()]).collect())
    }

    /// Returns the image of which the value is the flattened form, if nothing else uses that.
    fn flattened(&self, value: Value) -> Option<Value> {
        let node = &self.nodes[*self.producers.get(&value)?];
        let [image] = node.operands[..] else { return None };
        let reshapes = matches!(node.kind, Kind::Other(Operation::Reshape(_)));
        let flattens = self.order(image) == Order::ChannelsFirst && self.graph.shape(value).dims.len() == 1;
        (self.options.fuse && reshapes && flattens).then_some(image)
    }
}
