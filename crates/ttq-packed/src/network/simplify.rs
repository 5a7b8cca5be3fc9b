//! Graphs with fewer operations, for other runtimes.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use super::fuse::{Affine, Constants, Fused, Kind, fuse};
use super::graph::{Constant, Graph, Source};
use super::layers::{Activation, Order};
use super::operation::{Binary, Operation, Unary};
use super::values::ValueMap;
use super::{CompileOptions, NetworkError, Value};
use crate::{Codes, TernaryWeight};

impl Graph {
    /// Returns a graph that computes the same with fewer operations, for runtimes without these passes: operations on
    /// constants are evaluated, maps per channel (such as batch normalization) are multiplied into the weights and biases
    /// before, and values on which the output does not depend are left out.
    ///
    /// Values keep their names and ranges. `max_elements` is that of [`CompileOptions`].
    ///
    /// # Errors
    /// [`NetworkError::TooLarge`] if operations on constants take more than `max_elements` products.
    pub fn simplify(&self, max_elements: usize) -> Result<Self, NetworkError> {
        let options = CompileOptions { max_elements, ..CompileOptions::default() };
        let (nodes, constants) = fuse(self, &options)?;
        let mut graph = Self::new(self.shape(self.input()).dims.clone())?;
        graph.entries[0] = self.entries[0].clone();
        let mut values = ValueMap::new();
        values.insert(self.input(), graph.input());
        let (named, names) = (BTreeMap::new(), BTreeSet::new());
        let mut rebuild = Rebuild { source: self, constants: &constants, graph, values, named, names };
        for node in &nodes {
            rebuild.node(node)?;
        }
        let output = rebuild.value(self.output)?;
        rebuild.graph.set_output(output)?;
        Ok(rebuild.graph)
    }
}

/// Rebuilds a graph from fused nodes.
struct Rebuild<'a> {
    source: &'a Graph,
    constants: &'a Constants,
    graph: Graph,
    /// The new value of each value that has one.
    values: ValueMap<Value>,
    /// The constants that were added, by the name that was asked for, and their names: a file needs unique ones, and nodes of
    /// equal names are usual.
    named: BTreeMap<String, Vec<Value>>,
    names: BTreeSet<String>,
}

impl Rebuild<'_> {
    /// Returns the new value; constants are added when they are first used.
    fn value(&mut self, value: Value) -> Result<Value, NetworkError> {
        if let Some(new) = self.values.get(&value) {
            return Ok(*new);
        }
        let new = self.constant(self.source.name(value).into(), self.constants[&value].clone())?;
        self.values.insert(value, new);
        Ok(new)
    }

    /// Adds a constant, or returns an equal one that has this name.
    fn constant(&mut self, name: String, constant: Constant) -> Result<Value, NetworkError> {
        let known = self.named.entry(name.clone()).or_default();
        for value in &*known {
            if matches!(&self.graph.entries[value.0].source, Source::Constant(known) if *known == constant) {
                return Ok(*value);
            }
        }
        let mut unique = name.clone();
        let mut number = 1;
        while !self.names.insert(unique.clone()) {
            number += 1;
            unique = format!("{name}#{number}");
        }
        let value = self.graph.constant(unique, constant)?;
        known.push(value);
        Ok(value)
    }

    /// Adds the operations of a node: the product or map, the sum, and the activation function.
    fn node(&mut self, node: &Fused) -> Result<(), NetworkError> {
        let mut y = match &node.kind {
            Kind::Convolution { options, weight } => {
                let x = self.value(node.operands[0])?;
                self.product(node, Operation::Convolution(*options), x, *weight, Channels { axis: 0, groups: 1 })?
            }
            Kind::Transposed { options, output_padding, weight } => {
                let x = self.value(node.operands[0])?;
                let channels = Channels { axis: 1, groups: options.groups };
                let operation = Operation::TransposedConvolution { options: *options, output_padding: *output_padding };
                self.product(node, operation, x, *weight, channels)?
            }
            Kind::Linear { weight, image } => {
                let mut x = self.value(node.operands[0])?;
                if *image {
                    let elements = self.graph.shape(x).dims.iter().product();
                    x = self.graph.apply(format!("{}.flatten", node.name), Operation::Reshape(vec![elements]), &[x])?;
                }
                self.product(node, Operation::Linear, x, *weight, Channels { axis: 1, groups: 1 })?
            }
            Kind::Product | Kind::Map(_) => {
                let Affine { scale, shift } = &node.affine;
                let operands: Result<Vec<Value>, _> = node.operands.iter().map(|value| self.value(*value)).collect();
                let operands = operands?;
                let operation = match node.kind {
                    Kind::Product => Some(Operation::MatrixProduct),
                    Kind::Map(function) => function.map(Operation::Unary),
                    _ => None,
                };
                let x = match operation {
                    Some(operation) => self.graph.apply(&*node.name, operation, &operands)?,
                    None => operands[0],
                };
                let y = self.map(node, "scale", Binary::Multiply, x, scale)?;
                self.map(node, "shift", Binary::Add, y, shift)?
            }
            Kind::Other(operation) => {
                let operands: Result<Vec<Value>, _> = node.operands.iter().map(|value| self.value(*value)).collect();
                self.graph.apply(&*node.name, operation.clone(), &operands?)?
            }
        };
        let name = self.source.name(node.value);
        if let Some(residual) = node.residual {
            let residual = self.value(residual)?;
            y = self.graph.apply(name, Operation::Binary(Binary::Add), &[y, residual])?;
        }
        let activation = match node.activation {
            Activation::None => None,
            Activation::Relu => Some(Unary::Relu),
            Activation::Clamp(range) => Some(Unary::Clamp(range)),
        };
        if let Some(activation) = activation {
            y = self.graph.apply(name, Operation::Unary(activation), &[y])?;
        }
        let range = &mut self.graph.entries[y.0].range;
        *range = range.or(self.source.entries[node.value.0].range);
        self.values.insert(node.value, y);
        Ok(())
    }

    /// Adds a product with the map after it in its weight, whose output channels lie along an axis, and in its bias.
    fn product(
        &mut self,
        node: &Fused,
        operation: Operation,
        x: Value,
        weight: Value,
        channels: Channels,
    ) -> Result<Value, NetworkError> {
        let Affine { scale, shift } = &node.affine;
        let weight = if scale.iter().all(|scale| *scale == 1.0) {
            self.value(weight)?
        } else {
            self.constant(self.source.name(weight).into(), scaled(&self.constants[&weight], channels, scale))?
        };
        let mut operands = vec![x, weight];
        if shift.iter().any(|shift| *shift != 0.0) {
            let values: Vec<f32> = shift.iter().map(|x| *x as f32).collect();
            operands.push(self.constant(format!("{}.bias", node.name), Constant::float([shift.len()], values))?);
        }
        self.graph.apply(&*node.name, operation, &operands)
    }

    /// Adds a sum or product with one number per channel, unless it changes nothing.
    fn map(
        &mut self,
        node: &Fused,
        part: &str,
        function: Binary,
        x: Value,
        channels: &[f64],
    ) -> Result<Value, NetworkError> {
        let neutral = if function == Binary::Multiply { 1.0 } else { 0.0 };
        if channels.iter().all(|value| *value == neutral) {
            return Ok(x);
        }
        let dims = match node.order {
            Order::ChannelsFirst => vec![channels.len(), 1, 1],
            Order::ChannelsLast => vec![channels.len(); self.graph.shape(x).dims.len().min(1)],
        };
        let values: Vec<f32> = channels.iter().map(|x| *x as f32).collect();
        let constant = self.constant(format!("{}.{part}", node.name), Constant::float(dims, values))?;
        self.graph.apply(&*node.name, Operation::Binary(function), &[x, constant])
    }
}

/// The output channels of a weight: an axis, for each of some groups of the first axis.
#[derive(Clone, Copy)]
struct Channels {
    axis: usize,
    groups: usize,
}

/// Multiplies a weight by one number per output channel. A ternary weight stays ternary if its scales are numbers per channel, too.
fn scaled(weight: &Constant, Channels { axis, groups }: Channels, scale: &[f64]) -> Constant {
    let dims = weight.dims();
    let [rows, inner] = [1, axis + 1].map(|from| dims[from..].iter().product::<usize>());
    let channel = |i: usize| i / rows * groups / dims[0] * dims[axis] + i / inner % dims[axis];
    if let Constant::Ternary(weight) = weight
        && (weight.scales().len() == 1 || weight.output_axis() == axis)
    {
        let pairs = scale.iter().zip(weight.scales().iter().cycle()).map(|(scale, &[pos, neg])| {
            let [pos, neg] = [pos, neg].map(|w| (f64::from(w) * scale.abs()) as f32);
            if *scale < 0.0 { [neg, pos] } else { [pos, neg] }
        });
        let sign = |(i, code): (usize, i8)| if scale[channel(i)] < 0.0 { -code } else { code };
        let codes = match scale.iter().any(|scale| *scale < 0.0) {
            true => Codes::pack(&weight.codes().iter().enumerate().map(sign).collect::<Vec<_>>()).ok(),
            false => Some(weight.codes().clone()),
        };
        let scaled = codes.and_then(|codes| TernaryWeight::new(codes, pairs.collect::<Vec<_>>(), dims, axis).ok());
        if let Some(weight) = scaled {
            return Constant::Ternary(weight);
        }
    }
    let scaled = |(i, w): (usize, f32)| (f64::from(w) * scale[channel(i)]) as f32;
    Constant::float(dims, weight.values().into_iter().enumerate().map(scaled).collect::<Vec<_>>())
}
