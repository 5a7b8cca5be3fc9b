//! Graphs in files.
//!
//! # Format, version 1
//!
//! A graph is an entry of the metadata of a [packed file](mod@crate::file), whose weights and tensors are its constants.
//! The key is `ttq-network`. Its value is a string that contains a JSON object:
//!
//! | field | content |
//! |---|---|
//! | `version` | 1; readers reject any other version |
//! | `crc32` | CRC-32 of the text of `graph`, as eight lower-case hexadecimal digits |
//! | `graph` | `{"input": [..], "range": [low, high], "values": [..], "output": index}` |
//!
//! `input` is the shape of an item of the input, without the batch dimension. Value 0 is the input, and value `i + 1` is
//! element `i` of `values`: either `{"constant": NAME}`, a ternary weight or a float tensor of the file, or
//!
//! `{"node": {"name": .., "operation": .., "operands": [..], "range": [low, high]}}`
//!
//! with an [`Operation`] and the indices of its operands, which are smaller than its own: a graph has no cycles. `range` is
//! optional, at the input and at nodes: the range of the value for quantization. `output` is the index of the output.
//!
//! An operation without attributes is a string (`"linear"`), others are an object with one key:
//! `{"unary": "relu"}`, `{"binary": "add"}`, `{"convolution": {"stride": [1, 1], "padding": [[1, 1], [1, 1]],
//! "dilation": [1, 1], "groups": 1}}`, `{"transposed_convolution": {"options": .., "output_padding": [0, 0]}}`. Names and attributes are those of [`Operation`], in snake
//! case; numbers that are not finite are the strings `"inf"`, `"-inf"` and `"nan"`.
//!
//! ```python
//! import json, struct
//! with open("model.safetensors", "rb") as file:
//!     header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
//! graph = json.loads(header["__metadata__"]["ttq-network"])["graph"]
//! for index, value in enumerate(graph["values"]):
//!     print(index + 1, value)
//! ```
//!
//! # Untrusted files
//!
//! [`Graph::read`] returns an error for invalid bytes and never panics. It checks operands, shapes and attributes as a
//! graph that is built in code, and it allocates in proportion to the file. [`CompileOptions`](super::CompileOptions) limit
//! what compilation allocates.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::graph::{Constant, Graph, MAX_VALUES, Source};
use super::{NetworkError, Operation, Value};
use crate::file::{Coding, DenseTensor, FileError, PackedModel};
#[cfg(feature = "std")]
use crate::file::{read_bytes, write_bytes};

/// The metadata key of a graph.
pub const NETWORK_KEY: &str = "ttq-network";
/// The version of the format of graphs that this crate writes, and the only one that it reads.
pub const NETWORK_VERSION: u64 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    version: u64,
    crc32: String,
    graph: Box<RawValue>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredGraph {
    input: Vec<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    range: Option<[f32; 2]>,
    values: Vec<StoredValue>,
    output: usize,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StoredValue {
    Constant(String),
    Node(StoredNode),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredNode {
    name: String,
    operation: Operation,
    operands: Vec<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    range: Option<[f32; 2]>,
}

impl Graph {
    /// Returns the bytes of a file with the graph and its constants.
    ///
    /// `config` is any text, such as the configuration of the model as JSON.
    ///
    /// # Errors
    /// [`NetworkError::File`] with [`FileError::Duplicate`] if two constants have the same name.
    pub fn write(&self, coding: Coding, config: Option<&str>) -> Result<Vec<u8>, NetworkError> {
        let mut model = PackedModel { config: config.map(ToString::to_string), ..PackedModel::default() };
        let mut values = Vec::with_capacity(self.len() - 1);
        for entry in &self.entries[1..] {
            values.push(match &entry.source {
                Source::Node { operation, operands } => StoredValue::Node(StoredNode {
                    name: entry.name.clone(),
                    operation: operation.clone(),
                    operands: operands.iter().map(|operand| operand.0).collect(),
                    range: entry.range,
                }),
                Source::Constant(constant) => {
                    let name = entry.name.clone();
                    if model.weights.contains_key(&name) || model.tensors.contains_key(&name) {
                        return Err(FileError::Duplicate { name }.into());
                    }
                    match constant {
                        Constant::Ternary(weight) => drop(model.weights.insert(name.clone(), weight.clone())),
                        Constant::Float { dims, values } => {
                            let tensor = DenseTensor::from_f32(dims.clone(), values)
                                .map_err(|cause| FileError::Tensor { name: name.clone(), cause })?;
                            model.tensors.insert(name.clone(), tensor);
                        }
                    }
                    StoredValue::Constant(name)
                }
                Source::Input => continue,
            });
        }
        let input = self.shape(self.input()).dims.clone();
        let graph = StoredGraph { input, range: self.entries[0].range, values, output: self.output.0 };
        let unwritable = |cause| NetworkError::Json { cause };
        let graph = serde_json::value::to_raw_value(&graph).map_err(unwritable)?;
        let stored = Stored { version: NETWORK_VERSION, crc32: crc32(graph.get()), graph };
        let json = serde_json::to_string(&stored).map_err(unwritable)?;
        Ok(model.write_entries(|_, _| coding, [(NETWORK_KEY.to_string(), json)].into())?)
    }

    /// Saves the graph and its constants to the file `path` by [`write_atomically`](crate::file::write_atomically).
    ///
    /// Coding and `config` are those of [`write`](Self::write).
    ///
    /// # Errors
    /// The errors of [`write`](Self::write), and [`FileError::Io`] if a file operation fails.
    #[cfg(feature = "std")]
    pub fn save(
        &self,
        path: impl AsRef<std::path::Path>,
        coding: Coding,
        config: Option<&str>,
    ) -> Result<(), NetworkError> {
        Ok(write_bytes(path.as_ref(), &self.write(coding, config)?)?)
    }

    /// Loads a graph and its constants from the file `path`.
    ///
    /// # Errors
    /// The errors of [`read`](Self::read), and [`FileError::Io`] if the file cannot be read.
    #[cfg(feature = "std")]
    pub fn load(path: impl AsRef<std::path::Path>) -> Result<Self, NetworkError> {
        Self::read(&read_bytes(path.as_ref())?)
    }

    /// Reads a graph and its constants from the bytes of a file. Tensors that are no constants of the graph are ignored.
    ///
    /// # Errors
    /// - [`NetworkError::File`] if the bytes deviate from the format of [packed files](mod@crate::file);
    /// - [`NetworkError::NoGraph`], [`NetworkError::Version`], [`NetworkError::Json`] or [`NetworkError::Checksum`] if the
    ///   metadata has no valid graph, for example if an operation is unknown;
    /// - the errors of [`constant`](Self::constant), [`apply`](Self::apply) and [`set_output`](Self::set_output).
    pub fn read(file: &[u8]) -> Result<Self, NetworkError> {
        let (mut model, metadata) = PackedModel::read_entries(file)?;
        let json = metadata.get(NETWORK_KEY).ok_or(NetworkError::NoGraph)?;
        let graph = parse(json)?;
        let mut constant = |name: &str| {
            let ternary = model.weights.remove(name).map(Constant::Ternary);
            // Tensors of other types can be in the file for other readers.
            let float = |tensor: DenseTensor| Some(Constant::float(tensor.shape(), tensor.to_f32().ok()?));
            ternary.or_else(|| model.tensors.remove(name).and_then(float))
        };
        if graph.values.len() >= MAX_VALUES {
            return Err(NetworkError::TooManyValues { values: graph.values.len(), limit: MAX_VALUES });
        }
        let mut result = Self::new(graph.input)?;
        result.set_range(Value(0), graph.range)?;
        for value in graph.values {
            match value {
                StoredValue::Constant(name) => {
                    let Some(constant) = constant(&name) else {
                        let reason =
                            "the file has no float tensor or ternary weight of this name that is not yet in use";
                        return Err(NetworkError::Constant { name, reason: reason.into() });
                    };
                    result.constant(name, constant)?;
                }
                StoredValue::Node(StoredNode { name, operation, operands, range }) => {
                    let operands: Vec<Value> = operands.into_iter().map(Value).collect();
                    let value = result.apply(name, operation, &operands)?;
                    result.set_range(value, range)?;
                }
            }
        }
        result.set_output(Value(graph.output))?;
        Ok(result)
    }

    fn set_range(&mut self, value: Value, range: Option<[f32; 2]>) -> Result<(), NetworkError> {
        let entry = &mut self.entries[value.0];
        if let Some([low, high]) = range
            && !(low.is_finite() && high.is_finite() && low <= high)
        {
            return Err(NetworkError::Range { node: entry.name.clone(), low, high });
        }
        entry.range = range;
        Ok(())
    }
}

/// Computes the checksum of the graph in a file, as eight hexadecimal digits, without comparing it with the recorded one.
///
/// The result can repair the checksum of a file that was changed on purpose.
///
/// # Errors
/// The errors of [`Graph::read`] up to the version of the graph.
pub fn checksum(file: &[u8]) -> Result<String, NetworkError> {
    let (_, metadata) = PackedModel::read_entries(file)?;
    let stored = stored(metadata.get(NETWORK_KEY).ok_or(NetworkError::NoGraph)?)?;
    Ok(crc32(stored.graph.get()))
}

/// Parses the JSON. The version is checked first, because the fields of other versions are unknown.
fn stored(json: &str) -> Result<Stored, NetworkError> {
    #[derive(Deserialize)]
    struct Version {
        version: u64,
    }

    let invalid = |cause| NetworkError::Json { cause };
    let Version { version: found } = serde_json::from_str(json).map_err(invalid)?;
    if found != NETWORK_VERSION {
        return Err(NetworkError::Version { found });
    }
    serde_json::from_str(json).map_err(invalid)
}

fn parse(json: &str) -> Result<StoredGraph, NetworkError> {
    let stored = stored(json)?;
    let found = crc32(stored.graph.get());
    if found != stored.crc32 {
        return Err(NetworkError::Checksum { expected: stored.crc32, found });
    }
    serde_json::from_str(stored.graph.get()).map_err(|cause| NetworkError::Json { cause })
}

fn crc32(text: &str) -> String {
    format!("{:08x}", crc32fast::hash(text.as_bytes()))
}
