//! `ttq pack`: from a checkpoint to a packed file.

use std::fmt;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Serialize;
use ttq_packed::{Coding, DenseTensor, Dtype, PackedModel};

use crate::checkpoint::{self, Contents, Format, Layout};
use crate::output::Output;
use crate::recognition;
use crate::summary::Summary;

/// What to pack, and how.
#[derive(Debug, Args)]
pub(crate) struct Pack {
    /// The checkpoint: safetensors, PyTorch (tensors stored contiguously) or burnpack.
    checkpoint: PathBuf,
    #[command(flatten)]
    output: Output,
    /// Code the ternary weights at about their entropy: smaller, decoded when loaded.
    #[arg(long)]
    archive: bool,
    /// Store all other float tensors in float16, where it can hold them.
    #[arg(long)]
    half: bool,
    /// Take the tensors from this entry of a PyTorch checkpoint, such as `state_dict`.
    #[arg(long)]
    key: Option<String>,
    /// Whose linear weights: `[in, out]` or `[out, in]` [default: as the file says].
    #[arg(long, value_enum)]
    layout: Option<Layout>,
}

/// The answer.
#[derive(Debug, Serialize)]
pub(crate) struct Packed {
    checkpoint: String,
    format: Format,
    checkpoint_bytes: usize,
    output: String,
    #[serde(flatten)]
    summary: Summary,
}

impl Pack {
    pub(crate) fn run(&self) -> Result<Packed> {
        let path = &self.checkpoint;
        let checkpoint = match checkpoint::read(path, self.key.as_deref())? {
            Contents::Checkpoint(checkpoint) => checkpoint,
            Contents::Packed(..) => bail!("{}: is packed already: `ttq inspect` shows it", path.display()),
        };
        let output = self.output.path(path, "ttq.safetensors")?;
        let (format, checkpoint_bytes) = (checkpoint.format, checkpoint.bytes);
        let layout = self.layout.unwrap_or(checkpoint.layout);
        let mut model = recognition::pack(checkpoint::Checkpoint { layout, ..checkpoint });
        if model.weights.is_empty() {
            bail!(
                "{}: none of its {} tensors is ternary: pack the ternary weights, not the latent ones (`ttq inspect` says why)",
                path.display(),
                model.tensors.len()
            );
        }
        if self.half {
            halve(&mut model);
        }
        let coding = if self.archive { Coding::Archive } else { Coding::Plain };
        let bytes = model.write(coding).with_context(|| path.display().to_string())?;
        let summary = Summary::new(&model, &bytes).with_context(|| path.display().to_string())?;
        self.output.write(&output, &bytes)?;
        let (checkpoint, output) = (path.display().to_string(), output.display().to_string());
        Ok(Packed { checkpoint, format, checkpoint_bytes, output, summary })
    }
}

/// Float32 and bfloat16 tensors to float16; what it cannot hold stays.
fn halve(model: &mut PackedModel) {
    let floats = model.tensors.values_mut().filter(|tensor| matches!(tensor.dtype(), Dtype::F32 | Dtype::BF16));
    for tensor in floats {
        if let Ok(half) = DenseTensor::to_f16(tensor) {
            *tensor = half;
        }
    }
}

impl fmt::Display for Packed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { checkpoint, format, checkpoint_bytes, output, summary } = self;
        let weights = summary.weights();
        writeln!(f, "{summary}")?;
        writeln!(f, "{checkpoint} ({format}, {checkpoint_bytes} bytes) → {output}: {weights} weights packed")
    }
}
