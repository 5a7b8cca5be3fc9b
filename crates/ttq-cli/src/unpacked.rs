//! Files that `ttq unpack` writes, in the form that `ttq pack` reads again, and other safetensors files.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use ttq_packed::file::Container;
use ttq_packed::{Codes, DenseTensor, Dtype, PackedModel, TensorLayout, TernaryWeight};

use crate::checkpoint::{Checkpoint, Format};

/// Metadata entries of a float file: the configuration, and the output axes of the weights.
const CONFIG: &str = "config";
const FLOATS: &str = "ttq-floats";
/// Metadata entry of an integer file: output axes and configuration.
const INTEGERS: &str = "ttq-integers";

/// What the metadata says about the weights.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Description {
    output_axis: BTreeMap<String, usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    config: Option<String>,
}

impl Description {
    fn of(model: &PackedModel) -> Self {
        let axes = model.weights.iter().map(|(name, weight)| (name.clone(), weight.output_axis()));
        Self { output_axis: axes.collect(), config: None }
    }
}

/// Returns the entry of the metadata by which burn-store and PyTorch's own tools mark their layouts and names.
pub(crate) fn producer(layout: TensorLayout) -> (String, String) {
    let (name, value) = match layout {
        TensorLayout::Burn => ("producer", "burn"),
        TensorLayout::Pytorch => ("format", "pt"),
    };
    (name.into(), value.into())
}

/// Returns the model with all floats in float32, except for float64 tensors with values beyond its range.
pub(crate) fn floats(model: PackedModel) -> Result<Container> {
    let config = model.config.clone().map(|config| (CONFIG.into(), config));
    let mut metadata: BTreeMap<String, String> = config.into_iter().chain([producer(model.layout)]).collect();
    metadata.insert(FLOATS.into(), serde_json::to_string(&Description::of(&model))?);
    let mut tensors = model.tensors;
    for tensor in tensors.values_mut().filter(|tensor| matches!(tensor.dtype(), Dtype::F64 | Dtype::F16 | Dtype::BF16))
    {
        if let Ok(values) = tensor.to_f32() {
            *tensor = DenseTensor::from_f32(tensor.shape(), &values)?;
        }
    }
    for (name, weight) in model.weights {
        tensors.insert(name, DenseTensor::from_f32(weight.shape(), &weight.dequantize())?);
    }
    Ok(Container { tensors, metadata })
}

/// Returns the model with every weight as codes and scales, and every other tensor unchanged.
pub(crate) fn integers(model: PackedModel) -> Result<Container> {
    let description = Description { config: model.config.clone(), ..Description::of(&model) };
    let metadata = [(INTEGERS.into(), serde_json::to_string(&description)?), producer(model.layout)].into();
    let mut tensors = model.tensors;
    for (name, weight) in model.weights {
        let codes = weight.codes().iter().map(|code| code as u8).collect();
        tensors.insert(codes_name(&name), DenseTensor::new(Dtype::I8, weight.shape(), codes)?);
        let scales = weight.scales();
        tensors.insert(scales_name(&name), DenseTensor::from_f32([scales.len(), 2], scales.as_flattened())?);
    }
    Ok(Container { tensors, metadata })
}

/// Interprets a safetensors file of `bytes` bytes: one of `ttq unpack`, or any other.
pub(crate) fn read(container: Container, layout: TensorLayout, bytes: usize) -> Result<Checkpoint> {
    let Container { mut tensors, mut metadata } = container;
    let parse =
        |json: &str| serde_json::from_str::<Description>(json).context("has an invalid description of its weights");
    let mut weights = BTreeMap::new();
    let mut axes = BTreeMap::new();
    let mut config = metadata.remove(CONFIG);
    if let Some(json) = metadata.get(INTEGERS) {
        let description = parse(json)?;
        config = description.config;
        for (name, axis) in description.output_axis {
            let (Some(codes), Some(scales)) = (tensors.remove(&codes_name(&name)), tensors.remove(&scales_name(&name)))
            else {
                bail!("lacks the codes or the scales of `{name}`: unpack the packed file again")
            };
            let weight = weight(&codes, &scales, axis);
            weights.insert(name.clone(), weight.with_context(|| format!("codes and scales of `{name}`"))?);
        }
    } else if let Some(json) = metadata.get(FLOATS) {
        axes = parse(json)?.output_axis;
    }
    Ok(Checkpoint { weights, axes, config, ..Checkpoint::new(Format::Safetensors, layout, tensors, bytes) })
}

fn weight(codes: &DenseTensor, scales: &DenseTensor, axis: usize) -> Result<TernaryWeight> {
    if codes.dtype() != Dtype::I8 {
        bail!("codes have the type {} instead of I8", codes.dtype());
    }
    let values: Vec<i8> = codes.as_bytes().iter().map(|&byte| byte as i8).collect();
    let scales = scales.to_f32()?;
    Ok(TernaryWeight::new(Codes::pack(&values)?, scales.as_chunks().0, codes.shape(), axis)?)
}

fn codes_name(weight: &str) -> String {
    format!("{weight}.codes")
}

fn scales_name(weight: &str) -> String {
    format!("{weight}.scales")
}
