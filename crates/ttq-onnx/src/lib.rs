#![doc = include_str!("../README.md")]

mod builder;
mod error;
mod nodes;
pub mod proto;
mod quantization;

pub use error::OnnxError;

use proto::{Message, ModelProto, OperatorSetIdProto};
use ttq_packed::network::{CompileOptions, Graph, Int8};

/// Version of the operators, of 2022: ONNX Runtime since 1.12, OpenVINO, TensorRT and Netron read it. Of later versions,
/// only the operator `Gelu` would be of use, and runtimes recognize it in the operators that it consists of.
const OPERATORS: i64 = 17;
/// Version of the format that was published with these operators.
const FORMAT: i64 = 8;

/// What [`export`] writes.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ExportOptions {
    /// Products whose weights and activations are in int8.
    pub int8: Int8,
    /// Maximum number of products to fold constants, as in [`CompileOptions::max_elements`], and of elements of the matrices of an
    /// adaptive average pooling.
    pub max_elements: usize,
}

impl Default for ExportOptions {
    /// Returns the options for a model in float32.
    fn default() -> Self {
        Self { int8: Int8::Off, max_elements: CompileOptions::default().max_elements }
    }
}

impl ExportOptions {
    /// Sets the products whose weights and activations are in int8.
    pub fn with_int8(self, int8: Int8) -> Self {
        Self { int8, ..self }
    }
}

/// Returns the bytes of an ONNX model that computes what a graph computes.
///
/// The model has one input, `input`, and one output, `output`, in float32. Their first dimension is the batch, which may
/// have any size. Other names are those of the [simplified](Graph::simplify) graph, with a number where a name is not
/// unique.
///
/// Results are those of [`Graph::evaluate`] up to rounding in float32, with two exceptions: an index of
/// [`Gather`](ttq_packed::network::Operation::Gather) half-way between two integers becomes the even one, and one that is NaN is
/// undefined; an adaptive average pooling whose windows overlap is a product with matrices, in which a value that is not finite
/// makes its whole row and column NaN.
///
/// # Int8
///
/// With [`int8`](ExportOptions::int8), pairs of `QuantizeLinear` and `DequantizeLinear` round what products read and
/// convolutions compute: runtimes replace pairs around an operator by an operator on bytes. Activations become unsigned bytes with one
/// scale and zero, and weights signed bytes with one scale per output channel, both as in a network that is compiled
/// with the same [`Int8`]. A bias becomes integers of 32 bits.
///
/// The convolution `x` in a residual sum `y = f(x + r)` is rounded before the sum, and its range is not measured. If those of
/// `y` and `r` are `[y₀, y₁]` and `[r₀, r₁]`, it is `[y₀ - r₁, y₁ - r₀]`: outside of that, `y` is at an end of its range.
///
/// # Errors
/// - [`OnnxError::Network`] if constants take more than [`max_elements`](ExportOptions::max_elements) products, if the graph
///   has no ranges, which int8 needs, or if a weight in int8 is not finite;
/// - [`OnnxError::Unsupported`] for an operation without equivalent, or an adaptive average pooling whose matrices have more than
///   `max_elements` elements;
/// - [`OnnxError::NoProducts`] if no product can be in int8;
/// - [`OnnxError::TooLarge`] if the model has more than 2 GB.
pub fn export(graph: &Graph, options: &ExportOptions) -> Result<Vec<u8>, OnnxError> {
    let graph = graph.simplify(options.max_elements)?;
    options.int8.check(&graph)?;
    let plan = match options.int8 {
        Int8::Off => quantization::Plan::default(),
        int8 => quantization::Plan::new(&graph, int8)?,
    };
    let model = ModelProto {
        ir_version: FORMAT,
        producer_name: "ttq".into(),
        producer_version: env!("CARGO_PKG_VERSION").into(),
        graph: Some(nodes::graph(&graph, plan, options.max_elements)?),
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: OPERATORS }],
    };
    let bytes = model.encoded_len();
    if i32::try_from(bytes).is_err() {
        return Err(OnnxError::TooLarge { bytes });
    }
    Ok(model.encode_to_vec())
}
