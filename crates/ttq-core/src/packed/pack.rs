//! From a trained module to what a file holds.

use burn::module::{ModuleVisitor, Param};
use burn::prelude::*;
use burn::tensor::{DType, TensorData};
use ttq_packed::file::WeightError;
use ttq_packed::{Codes, PackedModel, TernaryWeight};

use super::dtype;
use crate::selection::Place;
use crate::{Choice, LayerValues, Ternary};

/// What cannot be packed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PackError {
    /// A ternary weight whose scales are no numbers: training has diverged.
    #[error("{path} cannot be packed: {source}")]
    Weight {
        /// Its path.
        path: String,
        /// What is wrong.
        source: WeightError,
    },
    /// A parameter of a type that files do not hold.
    #[error("{path} is of type {dtype:?}, which cannot be packed: convert it to float32 or int32 first")]
    Type {
        /// Its path.
        path: String,
        /// Its type.
        dtype: DType,
    },
}

/// Packs a module with ternary weights: two bits for each of them, every other parameter as it is, all under their paths in the
/// wrapped module.
///
/// # Errors
/// [`PackError`]
pub fn pack<B: Backend, M: Module<B>>(ternary: &Ternary<B, M>) -> Result<PackedModel, PackError> {
    let mut packing = Packing { place: Place::default(), model: PackedModel::default(), error: None };
    for LayerValues { choice, codes, scales, .. } in ternary.layer_values() {
        let weight = ternary_weight(&choice, &codes, &scales)
            .map_err(|source| PackError::Weight { path: choice.path.clone(), source })?;
        packing.model.weights.insert(choice.path, weight);
    }
    ternary.latent().visit(&mut packing);
    packing.error.map_or(Ok(packing.model), Err)
}

fn ternary_weight(choice: &Choice, codes: &[i8], scales: &[f32]) -> Result<TernaryWeight, WeightError> {
    let (codes, axis) = (Codes::pack(codes)?, choice.kind.channel_axis());
    TernaryWeight::new(codes, scales.as_chunks().0, choice.shape.as_slice(), axis)
}

/// Collects the parameters that are not ternary.
struct Packing {
    place: Place,
    model: PackedModel,
    error: Option<PackError>,
}

impl Packing {
    fn add(&mut self, data: impl FnOnce() -> TensorData) {
        let path = self.place.path();
        if self.model.weights.contains_key(&path) {
            return;
        }
        let data = data();
        match dtype::to_file(&data) {
            Some(tensor) => drop(self.model.tensors.insert(path, tensor)),
            None => drop(self.error.get_or_insert(PackError::Type { path, dtype: data.dtype })),
        }
    }
}

impl<B: Backend> ModuleVisitor<B> for Packing {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.place.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.place.exit();
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
