//! Packing: a trained module as a file with 2 bits per ternary weight.
//!
//! ```text
//! Ternary<B, M> ──► pack ──► PackedModel ──► file ──► PackedModel ──► ttq_inference::load ──► M
//! ```
//!
//! The crate `ttq-inference` loads the file into the same module: with packed weights on its backend, with dense ones on
//! every other.

use burn::module::{ModuleVisitor, Param};
use burn::prelude::*;
use burn::tensor::{DType, TensorData};
use ttq_packed::file::WeightError;
use ttq_packed::{Codes, DenseTensor, Dtype, TernaryWeight};
/// The coding of packed weights in a file, and a packed model: those of [`ttq_packed`].
pub use ttq_packed::{Coding, PackedModel};

use crate::module_path::ModulePath;
use crate::{Choice, LayerValues, Ternary};

/// A module that cannot be packed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PackError {
    /// An element of a ternary weight is NaN or infinite, or an element of another tensor is NaN.
    #[error("`{path}` cannot be packed: element {index} is {value}, the training has diverged")]
    NotFinite {
        /// Path of the parameter.
        path: String,
        /// Row-major index of the element.
        index: usize,
        /// The element.
        value: f64,
    },
    /// The scales of a ternary weight are negative, NaN or infinite.
    #[error("`{path}` cannot be packed: {source}")]
    Weight {
        /// Path of the weight.
        path: String,
        /// The cause.
        source: WeightError,
    },
    /// Files do not support the element type of a parameter.
    #[error("`{path}` is of type {dtype:?}, which cannot be packed: convert it to float32 or int32 first")]
    Type {
        /// Path of the parameter.
        path: String,
        /// Element type of the parameter.
        dtype: DType,
    },
}

/// Packs a module with ternary weights.
///
/// The result holds the ternary weights with 2 bits per element and every other parameter unchanged, by their paths in
/// the wrapped module. Reads from the device.
///
/// Running statistics are those of a record of the module: every forward pass counts, those of other threads too. As
/// for a record, call the function between the steps of a training on several devices, not during one.
///
/// # Errors
/// Returns [`PackError`] if an element of a ternary weight is NaN or infinite, if an element of another tensor is NaN,
/// if a scale is negative, NaN or infinite, or if files do not support the element type of a parameter.
pub fn pack<B: Backend, M: Module<B>>(ternary: &Ternary<B, M>) -> Result<PackedModel, PackError> {
    // Without a record the last update of the running statistics is missing.
    drop(ternary.latent().clone().into_record());
    let mut packer = Packer { path: ModulePath::default(), model: PackedModel::default(), error: None };
    for LayerValues { choice, latent, codes, scales, .. } in ternary.layer_values() {
        if let Some(index) = latent.iter().position(|value| !value.is_finite()) {
            return Err(PackError::NotFinite { path: choice.path, index, value: f64::from(latent[index]) });
        }
        let weight = ternary_weight(&choice, &codes, &scales)
            .map_err(|source| PackError::Weight { path: choice.path.clone(), source })?;
        packer.model.weights.insert(choice.path, weight);
    }
    ternary.latent().visit(&mut packer);
    packer.error.map_or(Ok(packer.model), Err)
}

fn ternary_weight(choice: &Choice, codes: &[i8], scales: &[f32]) -> Result<TernaryWeight, WeightError> {
    let (codes, axis) = (Codes::pack(codes)?, choice.axis());
    TernaryWeight::new(codes, scales.as_chunks().0, choice.shape.as_slice(), axis)
}

/// Collects the parameters that are not ternary.
struct Packer {
    path: ModulePath,
    model: PackedModel,
    error: Option<PackError>,
}

impl Packer {
    fn add(&mut self, data: impl FnOnce() -> TensorData) {
        let path = self.path.joined();
        if self.model.weights.contains_key(&path) {
            return;
        }
        let data = data();
        if data.dtype.is_float()
            && let Some((index, value)) = data.iter::<f64>().enumerate().find(|(_, value)| value.is_nan())
        {
            self.error.get_or_insert(PackError::NotFinite { path, index, value });
            return;
        }
        match to_file(&data) {
            Some(tensor) => drop(self.model.tensors.insert(path, tensor)),
            None => drop(self.error.get_or_insert(PackError::Type { path, dtype: data.dtype })),
        }
    }
}

impl<B: Backend> ModuleVisitor<B> for Packer {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        self.add(|| param.val().into_data());
    }

    fn visit_int<const D: usize>(&mut self, param: &Param<Tensor<B, D, Int>>) {
        self.add(|| param.val().into_data());
    }

    fn visit_bool<const D: usize>(&mut self, param: &Param<Tensor<B, D, Bool>>) {
        self.add(|| param.val().into_data());
    }
}

/// Converts tensor data to a tensor of a file; `None` if files do not support the element type.
fn to_file(data: &TensorData) -> Option<DenseTensor> {
    let dtype = match data.dtype {
        DType::F64 => Dtype::F64,
        DType::F32 => Dtype::F32,
        DType::F16 => Dtype::F16,
        DType::BF16 => Dtype::BF16,
        DType::I64 => Dtype::I64,
        DType::I32 => Dtype::I32,
        DType::I16 => Dtype::I16,
        DType::I8 => Dtype::I8,
        DType::U64 => Dtype::U64,
        DType::U32 => Dtype::U32,
        DType::U16 => Dtype::U16,
        DType::U8 => Dtype::U8,
        DType::Bool(_) => Dtype::BOOL,
        _ => return None,
    };
    // Backends store booleans in different ways, a file in one byte each.
    let bytes = match dtype {
        Dtype::BOOL => data.iter::<bool>().map(u8::from).collect(),
        _ => data.bytes.to_vec(),
    };
    DenseTensor::new(dtype, data.shape.to_vec(), bytes).ok()
}
