//! From what a file holds to a module.

use std::collections::BTreeSet;

use burn::module::{ModuleMapper, Param, ParamId};
use burn::prelude::*;
use burn::tensor::{DType, TensorData};
use ttq_packed::{PackedModel, TernaryWeight};

use super::{dtype, weight};
use crate::selection::Place;

/// A file that does not belong to a module: everything that differs, by path.
#[derive(Debug, Clone, Default, PartialEq, Eq, thiserror::Error)]
#[error("the file does not belong to this module:{}", self.list())]
pub struct LoadError {
    /// Parameters of the module that the file lacks.
    pub missing: Vec<String>,
    /// Tensors of the file that the module has no parameter for.
    pub unexpected: Vec<String>,
    /// Tensors of another shape or type than the parameter.
    pub mismatched: Vec<Mismatch>,
}

/// A tensor of another shape or type than its parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// Path of the parameter.
    pub path: String,
    /// What the module has there.
    pub expected: String,
    /// What the file has there.
    pub found: String,
}

impl LoadError {
    fn list(&self) -> String {
        let missing = self.missing.iter().map(|path| format!("\n  {path} is missing from the file"));
        let unexpected = self.unexpected.iter().map(|path| format!("\n  {path} is not in the module"));
        let mismatched = self.mismatched.iter().map(|Mismatch { path, expected, found }| {
            format!("\n  {path} is {found} in the file and {expected} in the module")
        });
        missing.chain(unexpected).chain(mismatched).collect()
    }
}

/// Fills `module` with what a file holds, by parameter path: packed layers with packed weights, Burn's layers with the same weights as
/// floats. All parameters must be there, no more, and in their shapes.
///
/// # Errors
/// [`LoadError`], which lists all that does not fit.
pub fn load<B: Backend, M: Module<B>>(module: M, packed: &PackedModel) -> Result<M, LoadError> {
    let mut loading = Loading { place: Place::default(), packed, used: BTreeSet::new(), error: LoadError::default() };
    let module = module.map(&mut loading);
    let Loading { used, mut error, .. } = loading;
    let names = packed.weights.keys().chain(packed.tensors.keys());
    error.unexpected = names.filter(|name| !used.contains(*name)).cloned().collect();
    if error == LoadError::default() { Ok(module) } else { Err(error) }
}

struct Loading<'a> {
    place: Place,
    packed: &'a PackedModel,
    used: BTreeSet<String>,
    error: LoadError,
}

/// What belongs at a parameter.
enum Content<'a> {
    /// A part of a packed layer's weight, by its name.
    Part(&'static str, &'a TernaryWeight),
    /// All of it.
    Whole(TensorData),
}

impl<'a> Loading<'a> {
    /// What belongs at the current place, where the module has a parameter of this shape and kind.
    fn content(&mut self, shape: &[usize], is_float: bool) -> Option<Content<'a>> {
        let path = self.place.path();
        if let Some((name, part)) = self.place.part_of(weight::CONTAINER, &weight::PARTS) {
            let content = self.packed.weights.get(&name);
            // Once for all parts.
            if self.used.insert(name.clone()) && content.is_none() {
                self.error.missing.push(name);
            }
            return content.map(|weight| Content::Part(part, weight));
        }
        self.used.insert(path.clone());
        let (data, found) = match (self.packed.weights.get(&path), self.packed.tensors.get(&path)) {
            (Some(weight), _) => (Some(TensorData::new(weight.dequantize(), weight.shape().to_vec())), "F32".into()),
            (None, Some(tensor)) => (dtype::to_burn(tensor), tensor.dtype().to_string()),
            (None, None) => {
                self.error.missing.push(path);
                return None;
            }
        };
        let kind = if is_float { "float" } else { "integer" };
        let Some(data) = data.filter(|data| data.dtype.is_float() == is_float) else {
            self.mismatch(path, kind.into(), found);
            return None;
        };
        if data.shape[..] != *shape {
            self.mismatch(path, format!("{shape:?}"), format!("{:?}", data.shape));
            return None;
        }
        Some(Content::Whole(data))
    }

    fn mismatch(&mut self, path: String, expected: String, found: String) {
        self.error.mismatched.push(Mismatch { path, expected, found });
    }

    /// Holds the layout of a file's weight against a packed layer's.
    fn check_layout(&mut self, weight: &TernaryWeight, expected: &[i64]) {
        let found = weight::layout(weight.shape(), weight.output_axis());
        if found != expected {
            let text = |layout: &[i64]| match layout.split_last() {
                Some((axis, shape)) => format!("{shape:?} with outputs along axis {axis}"),
                None => String::new(),
            };
            let path = self.place.parent();
            self.mismatch(path, text(expected), text(&found));
        }
    }
}

impl<B: Backend> ModuleMapper<B> for Loading<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.place.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.place.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let device = param.lazy_device();
        match self.content(&param.lazy_shape(), true) {
            // The scales: their number, one pair or one for each channel, is the file's.
            Some(Content::Part(_, weight)) => {
                let scales = Tensor::from_data(weight::scales(weight), &device);
                Param::initialized(ParamId::new(), scales).set_require_grad(false)
            }
            Some(Content::Whole(data)) => {
                let (id, _, mapper) = param.consume();
                Param::from_mapped_value(id, Tensor::from_data(data, &device), mapper)
            }
            None => param,
        }
    }

    fn map_int<const D: usize>(&mut self, param: Param<Tensor<B, D, Int>>) -> Param<Tensor<B, D, Int>> {
        let device = param.lazy_device();
        match self.content(&param.lazy_shape(), false) {
            Some(Content::Part(weight::LAYOUT, weight)) => {
                let expected: Vec<i64> = param.val().into_data().iter().collect();
                self.check_layout(weight, &expected);
                param
            }
            Some(Content::Part(_, weight)) => {
                Param::initialized(ParamId::new(), Tensor::from_data(weight::words(weight.codes()), &device))
            }
            Some(Content::Whole(data)) => {
                let (id, _, mapper) = param.consume();
                Param::from_mapped_value(id, Tensor::from_data(data.convert_dtype(DType::I64), &device), mapper)
            }
            None => param,
        }
    }
}
