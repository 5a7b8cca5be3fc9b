//! The record of a run: its operations in the order in which they were computed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use burn_backend::quantization::{QuantPropagation, QuantScheme};
use burn_backend::{DType, QTensorPrimitive, Shape, TensorMetadata};
use ttq_packed::network::{Constant, Operation};

/// A tensor of [`Capture`](crate::Capture): one of the inner backend, and whether it depends on the input.
#[derive(Debug, Clone)]
pub struct Tracked<T> {
    pub(crate) inner: T,
    pub(crate) origin: Origin,
}

/// What a tensor depends on.
#[derive(Debug, Clone)]
pub(crate) enum Origin {
    /// Not on the input. The path is that of a parameter from which the tensor was computed.
    Constant(Option<Arc<str>>),
    /// On the input: it is a value of a run.
    Value(Tape, usize),
}

impl<T> Tracked<T> {
    /// Makes a tensor of the inner backend, which does not depend on the input, one of [`Capture`](crate::Capture).
    pub(crate) fn constant(inner: T) -> Self {
        Self { inner, origin: Origin::Constant(None) }
    }

    pub(crate) fn inner(&self) -> &T {
        &self.inner
    }

    pub(crate) fn is_constant(&self) -> bool {
        matches!(self.origin, Origin::Constant(_))
    }
}

impl<T: TensorMetadata> Tracked<T> {
    /// Returns the dimensions.
    pub(crate) fn dims(&self) -> Vec<usize> {
        dims(&self.inner)
    }
}

impl<T: TensorMetadata> TensorMetadata for Tracked<T> {
    fn dtype(&self) -> DType {
        self.inner.dtype()
    }

    fn shape(&self) -> Shape {
        self.inner.shape()
    }
}

impl<T: QTensorPrimitive> QTensorPrimitive for Tracked<T> {
    fn scheme(&self) -> &QuantScheme {
        self.inner.scheme()
    }

    fn propagation(&self) -> QuantPropagation {
        self.inner.propagation()
    }

    fn default_scheme() -> QuantScheme {
        T::default_scheme()
    }
}

pub(crate) fn dims<T: TensorMetadata>(tensor: &T) -> Vec<usize> {
    tensor.shape().iter().copied().collect()
}

/// The record of a run, which all its values share.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tape(Arc<Mutex<Records>>);

#[derive(Debug, Default)]
pub(crate) struct Records {
    pub(crate) values: Vec<Record>,
    /// The first operation that gave elements to code outside, and the module after which it was called.
    pub(crate) leak: Option<(&'static str, String)>,
    module: String,
}

/// A value that depends on the input.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) step: Step,
    pub(crate) operands: Vec<Operand>,
    /// Dimensions, with the batch.
    pub(crate) dims: Vec<usize>,
    /// Path of the module whose parameter was used last.
    pub(crate) module: String,
}

/// What computes a value.
#[derive(Debug, PartialEq)]
pub(crate) enum Step {
    Input,
    /// An operation of a graph, whose axes count the batch. The dimensions of a reshape are those of the record.
    Known(Operation),
    /// An operation that a graph does not have, by the name of Burn's method.
    Unknown(&'static str),
}

#[derive(Debug, Clone)]
pub(crate) enum Operand {
    Value(usize),
    Constant(Arc<NamedConstant>),
}

/// A constant with the path of the parameter that it comes from.
#[derive(Debug)]
pub(crate) struct NamedConstant {
    pub(crate) path: Option<Arc<str>>,
    pub(crate) constant: Constant,
}

impl Tape {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Records> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends a value.
    pub(crate) fn push(&self, step: Step, operands: Vec<Operand>, dims: Vec<usize>) -> Origin {
        let path = operands.iter().find_map(|operand| match operand {
            Operand::Constant(constant) => constant.path.as_deref(),
            Operand::Value(_) => None,
        });
        if let Some(path) = path {
            self.enter(path);
        }
        let mut records = self.lock();
        let module = records.module.clone();
        records.values.push(Record { step, operands, dims, module });
        Origin::Value(self.clone(), records.values.len() - 1)
    }

    /// Notes the use of a parameter, by its path.
    pub(crate) fn enter(&self, path: &str) {
        self.lock().module = path.rsplit_once('.').map_or(path, |(module, _)| module).to_owned();
    }

    /// Notes a value of another run, which a module has kept.
    pub(crate) fn check(&self, other: &Self) {
        if !Arc::ptr_eq(&self.0, &other.0) {
            self.leak("a tensor that was kept from another call");
        }
    }

    /// Notes that elements are read outside of the backend.
    pub(crate) fn leak(&self, operation: &'static str) {
        let mut records = self.lock();
        let module = records.module.clone();
        records.leak.get_or_insert((operation, module));
    }
}
