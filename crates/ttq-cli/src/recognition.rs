//! From a checkpoint to a packed model: which tensors are ternary, and why the others are not.

use std::fmt;

use serde::{Serialize, Serializer};
use ttq_packed::{DenseTensor, Dtype, PackedModel, TernaryWeight, recognize};

use crate::checkpoint::{Checkpoint, Layout};

/// Fewer dimensions are those of biases and normalization: never weights.
pub(crate) const MIN_RANK: usize = 2;

/// Why a tensor of two dimensions or more is not packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    MoreThanThreeValues,
    NotFinite,
    Constant,
    NoSmaller,
    NotFloat,
    NotFloat32,
    NotPacked,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MoreThanThreeValues => "more than three values",
            Self::NotFinite => "NaN or infinite values",
            Self::Constant => "one value throughout",
            Self::NoSmaller => "packed it would be no smaller",
            Self::NotFloat => "no floating-point numbers",
            Self::NotFloat32 => "values that float32 cannot hold",
            Self::NotPacked => "ternary, but left as it is",
        })
    }
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Packs every ternary weight of a checkpoint and takes all other tensors over.
pub(crate) fn pack(checkpoint: Checkpoint) -> PackedModel {
    let mut model = PackedModel { config: checkpoint.config, ..PackedModel::default() };
    for (name, tensor) in checkpoint.tensors {
        match ternary(&tensor, checkpoint.layout) {
            Some(weight) => {
                model.weights.insert(name, weight);
            }
            None => {
                model.tensors.insert(name, tensor);
            }
        }
    }
    model
}

/// Why a tensor is not packed; none for one that is no candidate.
pub(crate) fn reason(tensor: &DenseTensor) -> Option<Reason> {
    if tensor.shape().len() < MIN_RANK {
        return None;
    }
    let values = match values(tensor) {
        Ok(values) => values,
        Err(reason) => return Some(reason),
    };
    let first = values.first();
    Some(if values.iter().any(|value| !value.is_finite()) {
        Reason::NotFinite
    } else if values.len() <= 2 {
        Reason::NoSmaller
    } else if values.iter().all(|value| Some(value) == first && *value != 0.0) {
        Reason::Constant
    } else if ternary(tensor, Layout::Pytorch).is_some() {
        Reason::NotPacked
    } else {
        Reason::MoreThanThreeValues
    })
}

/// One pair of scales, or one for each output; those of linear weights are looked for along both axes, the likely one first.
fn ternary(tensor: &DenseTensor, layout: Layout) -> Option<TernaryWeight> {
    let shape = tensor.shape();
    if shape.len() < MIN_RANK {
        return None;
    }
    let values = values(tensor).ok()?;
    let axes: &[usize] = match (shape.len(), layout) {
        (2, Layout::Burn) => &[1, 0],
        (2, Layout::Pytorch) => &[0, 1],
        _ => &[0],
    };
    axes.iter().find_map(|&axis| recognize(&values, shape, axis))
}

/// The values in float32, where that holds them exactly.
fn values(tensor: &DenseTensor) -> Result<Vec<f32>, Reason> {
    match tensor.dtype() {
        Dtype::F32 | Dtype::F16 | Dtype::BF16 => tensor.to_f32().map_err(|_| Reason::NotFloat),
        Dtype::F64 => {
            let values = tensor.as_bytes().as_chunks().0.iter().map(|&bytes| f64::from_le_bytes(bytes));
            let exact = |value: f64| f64::from(value as f32) == value || !value.is_finite();
            values.map(|value| if exact(value) { Ok(value as f32) } else { Err(Reason::NotFloat32) }).collect()
        }
        _ => Err(Reason::NotFloat),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Format;

    fn tensor(shape: &[usize], values: &[f32]) -> DenseTensor {
        DenseTensor::from_f32(shape, values).unwrap()
    }

    fn packed(tensors: &[(&str, DenseTensor)], layout: Layout) -> PackedModel {
        let tensors = tensors.iter().map(|(name, tensor)| ((*name).to_owned(), tensor.clone())).collect();
        pack(Checkpoint { format: Format::Safetensors, layout, tensors, config: None, bytes: 0 })
    }

    #[test]
    fn linear_outputs_run_along_the_axis_of_the_layout() {
        let weight = [("fc", tensor(&[2, 3], &[1.0, 0.0, -2.0, 1.0, 0.0, 1.0]))];
        assert_eq!(packed(&weight, Layout::Pytorch).weights["fc"].output_axis(), 0);
        assert_eq!(packed(&weight, Layout::Burn).weights["fc"].output_axis(), 1);
        let rows = [("fc", tensor(&[2, 6], &[1.0, 1.0, 0.0, 0.0, -1.0, -1.0, 3.0, 0.0, 3.0, 0.0, -2.0, 3.0]))];
        for layout in [Layout::Burn, Layout::Pytorch] {
            let weight = &packed(&rows, layout).weights["fc"];
            assert_eq!((weight.output_axis(), weight.scales()), (0, &[[1.0, 1.0], [3.0, 2.0]][..]));
        }
    }

    #[test]
    fn other_tensors_stay_as_they_are_for_a_reason() {
        let double = |value: f64| {
            let bytes = [0.0, value, value, 0.0].iter().flat_map(|v: &f64| v.to_le_bytes()).collect();
            DenseTensor::new(Dtype::F64, [2, 2], bytes).unwrap()
        };
        let cases = [
            (tensor(&[4], &[0.0, 1.0, 0.0, 1.0]), None),
            (tensor(&[2, 2], &[0.0, 1.0, 2.0, 0.0]), Some(Reason::MoreThanThreeValues)),
            (tensor(&[2, 2], &[0.0, 1.0, f32::NAN, 0.0]), Some(Reason::NotFinite)),
            (tensor(&[2, 2], &[1.0; 4]), Some(Reason::Constant)),
            (tensor(&[2, 1], &[1.0, 0.0]), Some(Reason::NoSmaller)),
            (DenseTensor::new(Dtype::I8, [2, 2], vec![0, 1, 1, 0]).unwrap(), Some(Reason::NotFloat)),
            (double(0.1), Some(Reason::NotFloat32)),
        ];
        for (tensor, expected) in cases {
            assert_eq!(reason(&tensor), expected);
            let model = packed(&[("t", tensor.clone())], Layout::Pytorch);
            assert!(model.weights.is_empty());
            assert_eq!(model.tensors["t"], tensor);
        }
        assert_eq!(packed(&[("t", double(0.5))], Layout::Pytorch).weights["t"].scales(), [[0.5, 0.0]]);
        assert_eq!(reason(&double(0.5)), Some(Reason::NotPacked));
    }
}
