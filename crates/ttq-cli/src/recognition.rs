//! Recognizes the ternary tensors of a checkpoint, and says why other tensors are not ternary.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Serialize, Serializer};
use ttq_packed::{DenseTensor, Dtype, PackedModel, TensorLayout, TernaryWeight, recognize};

use crate::checkpoint::Checkpoint;

/// Minimum number of dimensions of a weight. Biases and normalization parameters have fewer.
pub(crate) const MIN_RANK: usize = 2;

/// Why a tensor of two dimensions or more is not packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rejection {
    MoreThanThreeValues,
    NotFinite,
    Constant,
    NotSmaller,
    NotFloat,
    Float8,
    BitnetCodes,
    NotFloat32,
    NotPacked,
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MoreThanThreeValues => "more than three values",
            Self::NotFinite => "NaN or infinite values",
            Self::Constant => "all values are equal",
            Self::NotSmaller => "would not be smaller if packed",
            Self::NotFloat => "not a floating-point type",
            Self::Float8 => "float8, which is not recognized: convert it to float32",
            Self::BitnetCodes => "2-bit codes in bytes (BitNet), which are not read",
            Self::NotFloat32 => "values not representable in float32",
            Self::NotPacked => "ternary, but stored unpacked",
        })
    }
}

impl Serialize for Rejection {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Packs every ternary weight of a checkpoint and keeps all other tensors unchanged.
pub(crate) fn pack(checkpoint: Checkpoint) -> PackedModel {
    let Checkpoint { weights, config, layout, .. } = checkpoint;
    let mut model = PackedModel { weights, config, layout, ..PackedModel::default() };
    for (name, tensor) in checkpoint.tensors {
        match recognize_tensor(&tensor, layout, checkpoint.axes.get(&name).copied()) {
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

/// Returns the first tensor that holds 2-bit codes in bytes: `U8 [out / 4, in]` beside a scale with one element, the layout
/// of BitNet in Hugging Face's transformers.
pub(crate) fn bitnet_codes(tensors: &BTreeMap<String, DenseTensor>) -> Option<&str> {
    tensors.keys().find(|name| has_bitnet_codes(name, tensors)).map(String::as_str)
}

fn has_bitnet_codes(name: &str, tensors: &BTreeMap<String, DenseTensor>) -> bool {
    let is_codes = |tensor: &DenseTensor| tensor.dtype() == Dtype::U8 && tensor.shape().len() == 2;
    let is_scale = |scale: &DenseTensor| scale.shape().iter().product::<usize>() == 1;
    tensors.get(name).is_some_and(is_codes) && tensors.get(&format!("{name}_scale")).is_some_and(is_scale)
}

/// Returns why a tensor is not packed; `None` if it has fewer than [`MIN_RANK`] dimensions.
pub(crate) fn rejection(name: &str, tensors: &BTreeMap<String, DenseTensor>) -> Option<Rejection> {
    let tensor = tensors.get(name)?;
    if tensor.shape().len() < MIN_RANK {
        return None;
    }
    if has_bitnet_codes(name, tensors) {
        return Some(Rejection::BitnetCodes);
    }
    let values = match values(tensor) {
        Ok(values) => values,
        Err(rejection) => return Some(rejection),
    };
    let first = values.first();
    Some(if values.iter().any(|value| !value.is_finite()) {
        Rejection::NotFinite
    } else if values.len() <= 2 {
        Rejection::NotSmaller
    } else if values.iter().all(|value| Some(value) == first && *value != 0.0) {
        Rejection::Constant
    } else if recognize_tensor(tensor, TensorLayout::Pytorch, None).is_some() {
        Rejection::NotPacked
    } else {
        Rejection::MoreThanThreeValues
    })
}

/// Recognizes a tensor with one pair of scales, or one pair per output channel.
///
/// The output channels of a linear weight may lie along either axis. The axis that the file names is tried first, then that
/// of `layout`.
fn recognize_tensor(tensor: &DenseTensor, layout: TensorLayout, axis: Option<usize>) -> Option<TernaryWeight> {
    let shape = tensor.shape();
    if shape.len() < MIN_RANK {
        return None;
    }
    let values = values(tensor).ok()?;
    let axes: &[usize] = match (shape.len(), layout) {
        (2, TensorLayout::Burn) => &[1, 0],
        (2, TensorLayout::Pytorch) => &[0, 1],
        _ => &[0],
    };
    axis.iter().chain(axes).find_map(|&axis| recognize(&values, shape, axis))
}

/// Returns the values in float32, if the conversion is exact.
fn values(tensor: &DenseTensor) -> Result<Vec<f32>, Rejection> {
    match tensor.dtype() {
        Dtype::F32 | Dtype::F16 | Dtype::BF16 => tensor.to_f32().map_err(|_| Rejection::NotFloat),
        Dtype::F64 => {
            let values = tensor.as_bytes().as_chunks().0.iter().map(|&bytes| f64::from_le_bytes(bytes));
            let exact = |value: f64| f64::from(value as f32) == value || !value.is_finite();
            values.map(|value| if exact(value) { Ok(value as f32) } else { Err(Rejection::NotFloat32) }).collect()
        }
        Dtype::F8_E4M3 | Dtype::F8_E5M2 | Dtype::F8_E8M0 => Err(Rejection::Float8),
        _ => Err(Rejection::NotFloat),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Format;

    fn tensor(shape: &[usize], values: &[f32]) -> DenseTensor {
        DenseTensor::from_f32(shape, values).unwrap()
    }

    fn packed(tensors: &[(&str, DenseTensor)], layout: TensorLayout) -> PackedModel {
        let tensors = tensors.iter().map(|(name, tensor)| ((*name).to_owned(), tensor.clone())).collect();
        pack(Checkpoint::new(Format::Safetensors, layout, tensors, 0))
    }

    #[test]
    fn the_output_axis_of_a_linear_weight_follows_the_layout() {
        let weight = [("fc", tensor(&[2, 3], &[1.0, 0.0, -2.0, 1.0, 0.0, 1.0]))];
        assert_eq!(packed(&weight, TensorLayout::Pytorch).weights["fc"].output_axis(), 0);
        assert_eq!(packed(&weight, TensorLayout::Burn).weights["fc"].output_axis(), 1);
        let rows = [("fc", tensor(&[2, 6], &[1.0, 1.0, 0.0, 0.0, -1.0, -1.0, 3.0, 0.0, 3.0, 0.0, -2.0, 3.0]))];
        for layout in [TensorLayout::Burn, TensorLayout::Pytorch] {
            let weight = &packed(&rows, layout).weights["fc"];
            assert_eq!((weight.output_axis(), weight.scales()), (0, &[[1.0, 1.0], [3.0, 2.0]][..]));
        }
    }

    #[test]
    fn other_tensors_are_kept_unchanged_with_a_rejection() {
        let double = |value: f64| {
            let bytes = [0.0, value, value, 0.0].iter().flat_map(|v: &f64| v.to_le_bytes()).collect();
            DenseTensor::new(Dtype::F64, [2, 2], bytes).unwrap()
        };
        let cases = [
            (tensor(&[4], &[0.0, 1.0, 0.0, 1.0]), None),
            (tensor(&[2, 2], &[0.0, 1.0, 2.0, 0.0]), Some(Rejection::MoreThanThreeValues)),
            (tensor(&[2, 2], &[0.0, 1.0, f32::NAN, 0.0]), Some(Rejection::NotFinite)),
            (tensor(&[2, 2], &[1.0; 4]), Some(Rejection::Constant)),
            (tensor(&[2, 1], &[1.0, 0.0]), Some(Rejection::NotSmaller)),
            (DenseTensor::new(Dtype::I8, [2, 2], vec![0, 1, 1, 0]).unwrap(), Some(Rejection::NotFloat)),
            (double(0.1), Some(Rejection::NotFloat32)),
        ];
        for (tensor, expected) in cases {
            assert_eq!(rejection("t", &[("t".into(), tensor.clone())].into()), expected);
            let model = packed(&[("t", tensor.clone())], TensorLayout::Pytorch);
            assert!(model.weights.is_empty());
            assert_eq!(model.tensors["t"], tensor);
        }
        assert_eq!(packed(&[("t", double(0.5))], TensorLayout::Pytorch).weights["t"].scales(), [[0.5, 0.0]]);
        assert_eq!(rejection("t", &[("t".into(), double(0.5))].into()), Some(Rejection::NotPacked));
    }
}
