//! Conversion of a packed model to a module.

use std::collections::BTreeSet;

use burn::module::{ModuleMapper, Param, ParamId};
use burn::prelude::*;
use burn::tensor::{DType, TensorData};
use ttq_packed::{PackedModel, TernaryWeight};

use super::{dtype, weight};
use crate::selection::ModulePath;

/// A packed model that does not match a module. Lists all differences by path.
#[derive(Debug, Clone, Default, PartialEq, Eq, thiserror::Error)]
#[error("the file does not match this module:{}", self.list())]
#[non_exhaustive]
pub struct LoadError {
    /// Paths of parameters of the module that are missing from the file.
    pub missing: Vec<String>,
    /// Names of tensors of the file for which the module has no parameter.
    pub unexpected: Vec<String>,
    /// Tensors whose shape or type differs from that of the parameter.
    pub mismatched: Vec<Mismatch>,
}

/// A tensor whose shape or type differs from that of its parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Mismatch {
    /// Path of the parameter.
    pub path: String,
    /// Shape or type of the parameter.
    pub expected: String,
    /// Shape or type of the tensor in the file.
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

/// Fills `module` with the tensors of a packed model, by parameter path.
///
/// Packed layers take packed weights. Burn's layers take the same weights as float32. The model must have exactly the
/// parameters of the module, in their shapes. Files with PyTorch's names are converted by
/// [`pytorch::to_burn`](super::pytorch::to_burn) first.
///
/// # Errors
/// Returns [`LoadError`], which lists all differences.
pub fn load<B: Backend, M: Module<B>>(module: M, packed: &PackedModel) -> Result<M, LoadError> {
    let mut loader = Loader { path: ModulePath::default(), packed, used: BTreeSet::new(), error: LoadError::default() };
    let module = module.map(&mut loader);
    let Loader { used, mut error, .. } = loader;
    let names = packed.weights.keys().chain(packed.tensors.keys());
    error.unexpected = names.filter(|name| !used.contains(*name)).cloned().collect();
    if error == LoadError::default() { Ok(module) } else { Err(error) }
}

/// Fills the parameters of a module and collects the differences.
struct Loader<'a> {
    path: ModulePath,
    packed: &'a PackedModel,
    used: BTreeSet<String>,
    error: LoadError,
}

/// The new contents of a parameter.
enum Content<'a> {
    /// A parameter of a packed weight, by its name, and the weight.
    Packed(&'static str, &'a TernaryWeight),
    /// A dense tensor.
    Dense(TensorData),
}

impl<'a> Loader<'a> {
    /// Returns the contents of the current parameter, which has this shape. Records a difference if there are none.
    fn content(&mut self, shape: &[usize], is_float: bool) -> Option<Content<'a>> {
        let path = self.path.joined();
        if let Some((name, parameter)) = self.path.parameter_of(weight::CONTAINER, &weight::PARAMETERS) {
            let content = self.packed.weights.get(&name);
            // Report a missing weight once, not for each of its parameters.
            if self.used.insert(name.clone()) && content.is_none() {
                self.error.missing.push(name);
            }
            return content.map(|weight| Content::Packed(parameter, weight));
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
        Some(Content::Dense(data))
    }

    fn mismatch(&mut self, path: String, expected: String, found: String) {
        self.error.mismatched.push(Mismatch { path, expected, found });
    }

    /// Compares the layout of a weight of the file with that of the packed layer.
    fn check_layout(&mut self, weight: &TernaryWeight, expected: &[i64]) {
        let found = weight::layout(weight.shape(), weight.output_axis());
        if found != expected {
            let text = |layout: &[i64]| match layout.split_last() {
                Some((axis, shape)) => format!("{shape:?} with the output channels along axis {axis}"),
                None => String::new(),
            };
            let path = self.path.parent();
            self.mismatch(path, text(expected), text(&found));
        }
    }
}

impl<B: Backend> ModuleMapper<B> for Loader<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let device = param.lazy_device();
        match self.content(&param.lazy_shape(), true) {
            // The scales. The file determines their number: one pair, or one for each output channel.
            Some(Content::Packed(_, weight)) => {
                let scales = Tensor::from_data(weight::scales(weight), &device);
                Param::initialized(ParamId::new(), scales).set_require_grad(false)
            }
            Some(Content::Dense(data)) => {
                let (id, _, mapper) = param.consume();
                Param::from_mapped_value(id, Tensor::from_data(data, &device), mapper)
            }
            None => param,
        }
    }

    fn map_int<const D: usize>(&mut self, param: Param<Tensor<B, D, Int>>) -> Param<Tensor<B, D, Int>> {
        let device = param.lazy_device();
        match self.content(&param.lazy_shape(), false) {
            Some(Content::Packed(weight::LAYOUT, weight)) => {
                let expected: Vec<i64> = param.val().into_data().iter().collect();
                self.check_layout(weight, &expected);
                param
            }
            Some(Content::Packed(_, weight)) => {
                Param::initialized(ParamId::new(), Tensor::from_data(weight::words(weight.codes()), &device))
            }
            Some(Content::Dense(data)) => {
                let (id, _, mapper) = param.consume();
                Param::from_mapped_value(id, Tensor::from_data(data.convert_dtype(DType::I64), &device), mapper)
            }
            None => param,
        }
    }
}
