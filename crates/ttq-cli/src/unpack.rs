//! `ttq unpack`: converts a packed file to float tensors, or to integer codes and scales.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use safetensors::tensor::TensorView;
use serde::Serialize;
use ttq_packed::{DenseTensor, Dtype, PackedModel};

use crate::checkpoint::{self, Contents};
use crate::output::Output;

/// Arguments of `ttq unpack`.
#[derive(Debug, Args)]
pub(crate) struct Unpack {
    /// Packed file.
    file: PathBuf,
    #[command(flatten)]
    output: Output,
    /// Write integers instead of floats: for each weight NAME, `NAME.codes` (I8: -1, 0, +1, in the shape of the weight)
    /// and `NAME.scales` (F32 [1, 2] or [output channels, 2]: W_p, W_n).
    #[arg(long)]
    integers: bool,
}

/// Output of `ttq unpack`.
#[derive(Debug, Serialize)]
pub(crate) struct Unpacked {
    file: String,
    output: String,
    integers: bool,
    weights: usize,
    tensors: usize,
    output_bytes: usize,
}

impl Unpack {
    pub(crate) fn run(&self) -> Result<Unpacked> {
        let path = &self.file;
        let model = match checkpoint::read(path, None)? {
            Contents::Packed(model, _) => model,
            Contents::Checkpoint(checkpoint) => {
                bail!("{}: is a {}, not a packed file: pack it with `ttq pack`", path.display(), checkpoint.format)
            }
        };
        let weights = model.weights.len();
        let file = || path.display().to_string();
        let (extension, metadata, tensors) = if self.integers {
            ("integers.safetensors", integer_metadata(&model)?, integers(model))
        } else {
            let config = model.config.clone().map(|config| ("config".to_owned(), config));
            ("float.safetensors", config, floats(model))
        };
        let output = self.output.path(path, extension)?;
        let tensors = tensors.with_context(file)?;
        let bytes = serialize(&tensors, metadata).with_context(file)?;
        self.output.write(&output, &bytes)?;
        Ok(Unpacked {
            file: file(),
            output: output.display().to_string(),
            integers: self.integers,
            weights,
            tensors: tensors.len(),
            output_bytes: bytes.len(),
        })
    }
}

type Tensors = BTreeMap<String, DenseTensor>;

/// Returns all tensors, with every weight dequantized to float32 under its name.
fn floats(model: PackedModel) -> Result<Tensors> {
    let mut tensors = model.tensors;
    for (name, weight) in model.weights {
        tensors.insert(name, DenseTensor::from_f32(weight.shape(), &weight.dequantize())?);
    }
    Ok(tensors)
}

/// Returns all tensors, with every weight as codes and scales.
fn integers(model: PackedModel) -> Result<Tensors> {
    let mut tensors = model.tensors;
    for (name, weight) in model.weights {
        let codes = weight.codes().iter().map(|code| code as u8).collect();
        tensors.insert(format!("{name}.codes"), DenseTensor::new(Dtype::I8, weight.shape(), codes)?);
        let scales = weight.scales();
        tensors.insert(format!("{name}.scales"), DenseTensor::from_f32([scales.len(), 2], scales.as_flattened())?);
    }
    Ok(tensors)
}

/// Returns the metadata of an integer file: the output axis of each weight, and the configuration.
fn integer_metadata(model: &PackedModel) -> Result<Option<(String, String)>> {
    #[derive(Serialize)]
    struct Description<'a> {
        output_axis: BTreeMap<&'a str, usize>,
        #[serde(skip_serializing_if = "Option::is_none")]
        config: Option<&'a str>,
    }

    let output_axis = model.weights.iter().map(|(name, weight)| (name.as_str(), weight.output_axis())).collect();
    let description = Description { output_axis, config: model.config.as_deref() };
    Ok(Some(("ttq-integers".to_owned(), serde_json::to_string(&description)?)))
}

/// Serializes tensors with at most one metadata entry: safetensors writes several in random order.
fn serialize(tensors: &Tensors, metadata: Option<(String, String)>) -> Result<Vec<u8>> {
    let mut views = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        views.push((name, TensorView::new(tensor.dtype(), tensor.shape().to_vec(), tensor.as_bytes())?));
    }
    Ok(safetensors::serialize(views, metadata.map(|entry| HashMap::from([entry])))?)
}

impl fmt::Display for Unpacked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, output, integers, weights, tensors, output_bytes } = self;
        let kind = if *integers { "codes and scales" } else { "floats" };
        writeln!(f, "{file} → {output}: {weights} weights as {kind}, {tensors} tensors in all, {output_bytes} bytes")
    }
}
