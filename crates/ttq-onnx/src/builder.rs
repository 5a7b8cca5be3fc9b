//! A graph of ONNX under construction: unique names, nodes, constants.

use std::collections::BTreeMap;

use crate::proto::{
    AttributeProto, AttributeType, DataType, Dimension, GraphProto, NodeProto, TensorProto, TensorShapeProto,
    TensorType, TypeProto, ValueInfoProto,
};

/// Name of the first dimension of every value.
const BATCH: &str = "batch";

/// A type of the elements of a constant.
pub(crate) trait Element: Copy {
    const TYPE: DataType;
    fn append(self, bytes: &mut Vec<u8>);
}

macro_rules! elements {
    ($($element:ty => $type:ident),*) => {
        $(impl Element for $element {
            const TYPE: DataType = DataType::$type;
            fn append(self, bytes: &mut Vec<u8>) {
                bytes.extend_from_slice(&self.to_le_bytes());
            }
        })*
    };
}
elements!(f32 => Float, u8 => Uint8, i8 => Int8, i32 => Int32, i64 => Int64);

#[derive(Default)]
pub(crate) struct Builder {
    pub(crate) graph: GraphProto,
    /// Names in use, with the number of values that were to have them.
    names: BTreeMap<String, usize>,
}

impl Builder {
    /// Returns a name that no other value has: the wanted one, or that with a number.
    pub(crate) fn name(&mut self, wanted: &str) -> String {
        let wanted = if wanted.is_empty() { "value" } else { wanted };
        loop {
            let count = self.names.entry(wanted.into()).or_insert(0);
            *count += 1;
            if *count == 1 {
                return wanted.into();
            }
            let name = format!("{wanted}_{}", *count - 1);
            if !self.names.contains_key(&name) {
                self.names.insert(name.clone(), 1);
                return name;
            }
        }
    }

    /// Adds a node with a result of this name.
    pub(crate) fn node<S: AsRef<str>>(
        &mut self,
        operator: &str,
        inputs: &[S],
        output: &str,
        attribute: Vec<AttributeProto>,
    ) {
        self.graph.node.push(NodeProto {
            input: inputs.iter().map(|name| name.as_ref().into()).collect(),
            output: vec![output.into()],
            name: output.into(),
            op_type: operator.into(),
            attribute,
        });
    }

    /// Adds a node, and returns the name of its result, which is derived from another name and the operator.
    pub(crate) fn step<S: AsRef<str>>(
        &mut self,
        operator: &str,
        inputs: &[S],
        near: &str,
        attribute: Vec<AttributeProto>,
    ) -> String {
        let output = self.name(&format!("{near}.{}", operator.to_lowercase()));
        self.node(operator, inputs, &output, attribute);
        output
    }

    /// Adds a constant, and returns its name.
    pub(crate) fn tensor<T: Element>(&mut self, wanted: &str, dims: &[usize], values: &[T]) -> String {
        let name = self.name(wanted);
        let mut bytes = Vec::with_capacity(size_of_val(values));
        values.iter().for_each(|value| value.append(&mut bytes));
        self.graph.initializer.push(TensorProto {
            dims: integers(dims),
            data_type: T::TYPE.into(),
            name: name.clone(),
            raw_data: Some(bytes),
        });
        name
    }

    /// Adds a constant without dimensions.
    pub(crate) fn scalar<T: Element>(&mut self, wanted: &str, value: T) -> String {
        self.tensor(wanted, &[], &[value])
    }

    /// Adds a list of integers.
    pub(crate) fn list(&mut self, wanted: &str, values: &[i64]) -> String {
        self.tensor(wanted, &[values.len()], values)
    }
}

/// Returns name and type of a value that has these dimensions after the batch dimension.
pub(crate) fn value_info(name: &str, dims: &[usize]) -> ValueInfoProto {
    let batch = Dimension { dim_param: Some(BATCH.into()), ..Dimension::default() };
    let fixed = integers(dims).into_iter().map(|dim| Dimension { dim_value: Some(dim), ..Dimension::default() });
    let shape = TensorShapeProto { dim: [batch].into_iter().chain(fixed).collect() };
    let tensor = TensorType { elem_type: DataType::Float.into(), shape: Some(shape) };
    ValueInfoProto { name: name.into(), r#type: Some(TypeProto { tensor_type: Some(tensor) }) }
}

pub(crate) fn integer(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(crate) fn integers(values: &[usize]) -> Vec<i64> {
    values.iter().copied().map(integer).collect()
}

pub(crate) fn int(name: &str, value: i64) -> AttributeProto {
    attribute(name, AttributeType::Int, AttributeProto { i: Some(value), ..AttributeProto::default() })
}

pub(crate) fn ints(name: &str, values: Vec<i64>) -> AttributeProto {
    attribute(name, AttributeType::Ints, AttributeProto { ints: values, ..AttributeProto::default() })
}

pub(crate) fn float(name: &str, value: f32) -> AttributeProto {
    attribute(name, AttributeType::Float, AttributeProto { f: Some(value), ..AttributeProto::default() })
}

fn attribute(name: &str, r#type: AttributeType, attribute: AttributeProto) -> AttributeProto {
    AttributeProto { name: name.into(), r#type: r#type.into(), ..attribute }
}
