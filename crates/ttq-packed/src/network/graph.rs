//! Graphs: networks as data.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::NetworkError;
use super::operation::{Operation, Shape, elements};
use crate::TernaryWeight;

/// Maximum number of elements of a value: offsets of kernels have 32 bits.
pub(super) const MAX_ELEMENTS: usize = 1 << 30;

/// Maximum number of dimensions of a value.
const MAX_DIMENSIONS: usize = 32;

/// Maximum number of values.
pub(super) const MAX_VALUES: usize = 1 << 14;

/// A value of a graph: its input, a constant, or the result of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Value(pub(super) usize);

impl Value {
    /// Returns the position among the [values](Graph::values) of the graph.
    pub fn index(self) -> usize {
        self.0
    }
}

/// A constant.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Constant {
    /// Float32 elements in row-major order.
    Float {
        /// Dimensions.
        dims: Vec<usize>,
        /// Elements.
        values: Vec<f32>,
    },
    /// A ternary weight.
    Ternary(TernaryWeight),
}

impl Constant {
    /// Creates a float constant.
    pub fn float(dims: impl Into<Vec<usize>>, values: impl Into<Vec<f32>>) -> Self {
        Self::Float { dims: dims.into(), values: values.into() }
    }

    /// Returns the dimensions.
    pub fn dims(&self) -> &[usize] {
        match self {
            Self::Float { dims, .. } => dims,
            Self::Ternary(weight) => weight.shape(),
        }
    }

    /// Returns the elements in float32.
    pub fn values(&self) -> Vec<f32> {
        match self {
            Self::Float { values, .. } => values.clone(),
            Self::Ternary(weight) => weight.dequantize(),
        }
    }
}

/// The origin of a value.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Source {
    /// The input of the graph.
    Input,
    /// A constant.
    Constant(Constant),
    /// The result of an operation.
    Node {
        /// The operation.
        operation: Operation,
        /// Its operands.
        operands: Vec<Value>,
    },
}

/// A named value.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) shape: Shape,
    pub(super) source: Source,
    /// Range of the elements of typical inputs, for quantization.
    pub(super) range: Option<[f32; 2]>,
}

/// A network as data: an input, constants, operations, and an output.
///
/// Operands precede the operations that use them, so that a graph has no cycles.
///
/// ```
/// use ttq_packed::network::{Constant, Graph, Operation, Unary};
///
/// let mut graph = Graph::new([3])?;
/// let weight = graph.constant("weight", Constant::float([3, 2], [1.0, 0.0, 0.0, -1.0, 1.0, 1.0]))?;
/// let y = graph.apply("linear", Operation::Linear, &[graph.input(), weight])?;
/// let y = graph.apply("relu", Operation::Unary(Unary::Relu), &[y])?;
/// graph.set_output(y)?;
/// assert_eq!(graph.evaluate(&[1.0, 2.0, 4.0])?, [5.0, 2.0]);
/// # Ok::<(), ttq_packed::network::NetworkError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Graph {
    pub(super) entries: Vec<Entry>,
    pub(super) output: Value,
}

impl Graph {
    /// Creates a graph whose items have these dimensions.
    ///
    /// # Errors
    /// [`NetworkError::TooLarge`] if the item has more than 2³⁰ elements, and [`NetworkError::Empty`] if it has none.
    pub fn new(dims: impl Into<Vec<usize>>) -> Result<Self, NetworkError> {
        let shape = Shape { batched: true, dims: dims.into() };
        let mut graph = Self { entries: Vec::new(), output: Value(0) };
        graph.push("input".to_string(), shape, Source::Input)?;
        Ok(graph)
    }

    /// Returns the input.
    pub fn input(&self) -> Value {
        Value(0)
    }

    /// Returns the output, which is the input until it is [set](Self::set_output).
    pub fn output(&self) -> Value {
        self.output
    }

    /// Adds a constant. Its name says where it comes from, such as the path of a parameter.
    ///
    /// # Errors
    /// - [`NetworkError::Constant`] if the number of elements does not match the dimensions;
    /// - [`NetworkError::TooLarge`] if it has more than 2³⁰ elements, and [`NetworkError::Empty`] if it has none;
    /// - [`NetworkError::TooManyValues`] if the graph has 2¹⁴ values.
    pub fn constant(&mut self, name: impl Into<String>, constant: Constant) -> Result<Value, NetworkError> {
        let (name, dims) = (name.into(), constant.dims().to_vec());
        if let Constant::Float { values, .. } = &constant
            && elements(&dims) != Some(values.len())
        {
            let reason = format!("{} elements do not have the shape {dims:?}", values.len());
            return Err(NetworkError::Constant { name, reason });
        }
        self.push(name, Shape { batched: false, dims }, Source::Constant(constant))
    }

    /// Adds an operation. Its name says where it comes from, such as the path of a module.
    ///
    /// # Errors
    /// - [`NetworkError::Operation`] if operands and attributes do not fit together;
    /// - [`NetworkError::Value`] if an operand is not part of the graph;
    /// - [`NetworkError::TooLarge`] if the result has more than 2³⁰ elements, and [`NetworkError::Empty`] if it has none;
    /// - [`NetworkError::TooManyValues`] if the graph has 2¹⁴ values.
    pub fn apply(
        &mut self,
        name: impl Into<String>,
        operation: Operation,
        operands: &[Value],
    ) -> Result<Value, NetworkError> {
        let name = name.into();
        operands.iter().try_for_each(|value| self.check(*value))?;
        let shapes: Vec<&Shape> = operands.iter().map(|value| self.shape(*value)).collect();
        let shape = match operation.shape(&shapes) {
            Ok(shape) => shape,
            Err(reason) => return Err(NetworkError::Operation { node: name, operation: operation.name(), reason }),
        };
        self.push(name, shape, Source::Node { operation, operands: operands.into() })
    }

    /// Sets the output.
    ///
    /// # Errors
    /// [`NetworkError::Value`] if the value is not part of the graph, and [`NetworkError::ConstantOutput`] if it does
    /// not depend on the input.
    pub fn set_output(&mut self, value: Value) -> Result<(), NetworkError> {
        self.check(value)?;
        if !self.shape(value).batched {
            return Err(NetworkError::ConstantOutput);
        }
        self.output = value;
        Ok(())
    }

    /// Returns the shape of a value.
    ///
    /// # Panics
    /// If the value belongs to another graph, which has more values.
    pub fn shape(&self, value: Value) -> &Shape {
        &self.entries[value.0].shape
    }

    /// Returns the number of values.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns `false`: a graph has an input.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn check(&self, value: Value) -> Result<(), NetworkError> {
        let values = self.entries.len();
        if value.0 < values { Ok(()) } else { Err(NetworkError::Value { index: value.0, values }) }
    }

    pub(super) fn push(&mut self, name: String, shape: Shape, source: Source) -> Result<Value, NetworkError> {
        if shape.dims.contains(&0) {
            return Err(NetworkError::Empty { node: name, dims: shape.dims });
        }
        if shape.dims.len() > MAX_DIMENSIONS {
            return Err(NetworkError::TooManyDimensions { node: name, dims: shape.dims.len(), limit: MAX_DIMENSIONS });
        }
        if self.entries.len() == MAX_VALUES {
            return Err(NetworkError::TooManyValues { values: MAX_VALUES + 1, limit: MAX_VALUES });
        }
        match elements(&shape.dims) {
            Some(count) if count <= MAX_ELEMENTS => {}
            count => {
                let elements = count.unwrap_or(usize::MAX);
                return Err(NetworkError::TooLarge { node: name, elements, limit: MAX_ELEMENTS });
            }
        }
        self.entries.push(Entry { name, shape, source, range: None });
        Ok(Value(self.entries.len() - 1))
    }

    /// Returns the values, each after those that it is computed from.
    pub fn values(&self) -> impl DoubleEndedIterator<Item = Value> + ExactSizeIterator + use<> {
        (0..self.entries.len()).map(Value)
    }

    /// Returns the name of a value.
    ///
    /// # Panics
    /// If the value belongs to another graph, which has more values.
    pub fn name(&self, value: Value) -> &str {
        &self.entries[value.0].name
    }

    /// Returns the origin of a value.
    ///
    /// # Panics
    /// If the value belongs to another graph, which has more values.
    pub fn source(&self, value: Value) -> &Source {
        &self.entries[value.0].source
    }

    /// Returns the number of multiplications, each with an addition, by which a convolution, transposed or not, a linear
    /// layer or a matrix product defines a value of an item, and 0 for other values. A bias is not counted.
    ///
    /// # Panics
    /// If the value belongs to another graph, which has more values.
    pub fn multiply_adds(&self, value: Value) -> usize {
        let Source::Node { operation, operands } = self.source(value) else { return 0 };
        let shapes: Vec<&Shape> = operands.iter().map(|operand| self.shape(*operand)).collect();
        operation.multiply_adds(&shapes, self.shape(value))
    }
}
