//! `ttq convert`: writes a float checkpoint as a safetensors file, which Burn reads.

use std::fmt;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Serialize;
use ttq_packed::PackedModel;

use crate::checkpoint::{self, Contents, Format};
use crate::output::Output;
use crate::unpacked;

/// Arguments of `ttq convert`.
#[derive(Debug, Args)]
pub(crate) struct Convert {
    /// Checkpoint: PyTorch or burnpack.
    checkpoint: PathBuf,
    #[command(flatten)]
    output: Output,
    /// Entry of a PyTorch checkpoint that holds the tensors, such as `state_dict` [default: the only one with such a name].
    #[arg(long)]
    key: Option<String>,
}

/// Output of `ttq convert`.
#[derive(Debug, Serialize)]
pub(crate) struct Converted {
    checkpoint: String,
    format: Format,
    checkpoint_bytes: usize,
    output: String,
    tensors: usize,
    output_bytes: usize,
    notes: Vec<String>,
}

impl Convert {
    pub(crate) fn run(&self) -> Result<Converted> {
        let path = &self.checkpoint;
        let file = || path.display().to_string();
        let checkpoint = match checkpoint::read(path, self.key.as_deref())? {
            Contents::Checkpoint(checkpoint) => checkpoint,
            Contents::Packed(..) => bail!("{}: is a packed file: unpack it with `ttq unpack`", path.display()),
        };
        if matches!(checkpoint.format, Format::Safetensors | Format::TtqPacked) {
            bail!("{}: is a safetensors file already: load it as it is", path.display());
        }
        checkpoint.all_read(path)?;
        let output = self.output.path(path, "safetensors")?;
        let model = PackedModel { tensors: checkpoint.tensors, ..PackedModel::default() };
        let mut container = unpacked::floats(model).with_context(file)?;
        container.metadata = [unpacked::producer(checkpoint.layout)].into();
        let bytes = container.write().with_context(file)?;
        self.output.write(&output, &bytes)?;
        Ok(Converted {
            checkpoint: file(),
            format: checkpoint.format,
            checkpoint_bytes: checkpoint.bytes,
            output: output.display().to_string(),
            tensors: container.tensors.len(),
            output_bytes: bytes.len(),
            notes: checkpoint.notes,
        })
    }
}

impl fmt::Display for Converted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { checkpoint, format, checkpoint_bytes, output, tensors, output_bytes, notes } = self;
        notes.iter().try_for_each(|note| writeln!(f, "note: {note}"))?;
        writeln!(
            f,
            "{checkpoint} ({format}, {checkpoint_bytes} bytes) → {output}: {tensors} tensors, {output_bytes} bytes"
        )
    }
}
