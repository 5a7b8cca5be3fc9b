//! `ttq pack`: packs the ternary weights of a checkpoint.

use std::fmt;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use serde::Serialize;
use ttq_packed::{Coding, DenseTensor, Dtype, PackedModel, TensorLayout};

use crate::checkpoint::{self, Contents, Format};
use crate::output::Output;
use crate::recognition;
use crate::summary::Summary;

/// Arguments of `ttq pack`.
#[derive(Debug, Args)]
pub(crate) struct Pack {
    /// Checkpoint: safetensors, PyTorch or burnpack.
    checkpoint: PathBuf,
    #[command(flatten)]
    output: Output,
    /// Compress the ternary codes with an entropy coder: smaller files, decoded on load.
    #[arg(long)]
    archive: bool,
    /// Store all other float tensors in float16 if their values are in its range.
    #[arg(long)]
    half: bool,
    /// Entry of a PyTorch checkpoint that holds the tensors, such as `state_dict` [default: the only one with such a name].
    #[arg(long)]
    key: Option<String>,
    /// Layout of linear weights [default: depends on the file format].
    #[arg(long, value_parser = layout())]
    layout: Option<TensorLayout>,
}

/// Parses the option `--layout`.
fn layout() -> impl TypedValueParser<Value = TensorLayout> {
    let values = [("burn", "[in, out]"), ("pytorch", "[out, in]")];
    PossibleValuesParser::new(values.map(|(name, help)| PossibleValue::new(name).help(help))).map(|name| match &*name {
        "burn" => TensorLayout::Burn,
        _ => TensorLayout::Pytorch,
    })
}

/// Output of `ttq pack`.
#[derive(Debug, Serialize)]
pub(crate) struct Packed {
    checkpoint: String,
    format: Format,
    checkpoint_bytes: usize,
    output: String,
    notes: Vec<String>,
    #[serde(flatten)]
    summary: Summary,
}

impl Pack {
    pub(crate) fn run(&self) -> Result<Packed> {
        let path = &self.checkpoint;
        let checkpoint = match checkpoint::read(path, self.key.as_deref())? {
            Contents::Checkpoint(checkpoint) => checkpoint,
            Contents::Packed(..) => {
                bail!(
                    "{}: is already packed: use `ttq inspect` to show it or `ttq unpack` to unpack it",
                    path.display()
                )
            }
        };
        checkpoint.all_read(path)?;
        let output = self.output.path(path, "ttq.safetensors")?;
        let notes = checkpoint.notes.clone();
        let (format, checkpoint_bytes) = (checkpoint.format, checkpoint.bytes);
        let layout = self.layout.unwrap_or(checkpoint.layout);
        let mut model = recognition::pack(checkpoint::Checkpoint { layout, ..checkpoint });
        if let Some(name) = recognition::bitnet_codes(&model.tensors).filter(|_| model.weights.is_empty()) {
            bail!(
                "{}: `{name}` holds 2-bit codes in bytes with the scale `{name}_scale`, the layout of BitNet in \
                 transformers, which is not read, because the file does not say whether the scale multiplies or divides: \
                 dequantize the model in transformers and save its weights as floats",
                path.display()
            );
        }
        if model.weights.is_empty() {
            bail!(
                "{}: none of its {} tensors is ternary (`ttq inspect` shows why): \
                 pass a checkpoint of ternary weights, not of latent weights, or train it first with `ttq-core`",
                path.display(),
                model.tensors.len()
            );
        }
        if self.half {
            convert_to_f16(&mut model);
        }
        let coding = if self.archive { Coding::Archive } else { Coding::Plain };
        let bytes = model.write(coding).with_context(|| path.display().to_string())?;
        let summary = Summary::new(&model, &bytes).with_context(|| path.display().to_string())?;
        self.output.write(&output, &bytes)?;
        let (checkpoint, output) = (path.display().to_string(), output.display().to_string());
        Ok(Packed { checkpoint, format, checkpoint_bytes, output, notes, summary })
    }
}

/// Converts float64, float32 and bfloat16 tensors to float16, except those with values outside of its range.
fn convert_to_f16(model: &mut PackedModel) {
    let floats =
        model.tensors.values_mut().filter(|tensor| matches!(tensor.dtype(), Dtype::F64 | Dtype::F32 | Dtype::BF16));
    for tensor in floats {
        if let Ok(half) = DenseTensor::to_f16(tensor) {
            *tensor = half;
        }
    }
}

impl fmt::Display for Packed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { checkpoint, format, checkpoint_bytes, output, notes, summary } = self;
        let weights = summary.weights();
        writeln!(f, "{summary}")?;
        notes.iter().try_for_each(|note| writeln!(f, "note: {note}"))?;
        writeln!(f, "{checkpoint} ({format}, {checkpoint_bytes} bytes) → {output}: {weights} weights packed")
    }
}
