//! `ttq inspect`: shows the contents of a file.

use std::fmt;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use serde::Serialize;
use ttq_packed::Coding;

use crate::checkpoint::{self, Contents, Format};
use crate::recognition;
use crate::summary::Summary;

/// Arguments of `ttq inspect`.
#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// Packed file, or checkpoint (safetensors, PyTorch or burnpack), which is shown as `ttq pack` would pack it.
    file: PathBuf,
}

/// Output of `ttq inspect`.
#[derive(Debug, Serialize)]
pub(crate) struct Inspected {
    file: String,
    format: Format,
    file_bytes: usize,
    #[serde(flatten)]
    summary: Summary,
}

impl Inspect {
    pub(crate) fn run(&self) -> Result<Inspected> {
        let file = self.file.display().to_string();
        let (format, file_bytes, model, packed) = match checkpoint::read(&self.file, None)? {
            Contents::Packed(model, bytes) => (Format::TtqPacked, bytes.len(), model, bytes),
            Contents::Checkpoint(checkpoint) => {
                let (format, bytes) = (checkpoint.format, checkpoint.bytes);
                let model = recognition::pack(checkpoint);
                let packed = model.write(Coding::Plain).with_context(|| file.clone())?;
                (format, bytes, model, packed)
            }
        };
        let summary = Summary::new(&model, &packed).with_context(|| file.clone())?;
        Ok(Inspected { file, format, file_bytes, summary })
    }
}

impl fmt::Display for Inspected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, format, file_bytes, summary } = self;
        let note = if *format == Format::TtqPacked { "" } else { "; shown as `ttq pack` would pack it" };
        write!(f, "{file}: {format}, {file_bytes} bytes{note}\n\n{summary}")
    }
}
