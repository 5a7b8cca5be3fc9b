//! `ttq inspect`: shows the contents of a file.

use std::fmt;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use serde::Serialize;
use ttq_packed::Coding;
use ttq_pytorch::Escaped;

use crate::checkpoint::{self, Contents, Format, Unread};
use crate::recognition;
use crate::summary::Summary;

/// Arguments of `ttq inspect`.
#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// Packed file, or checkpoint (safetensors, PyTorch or burnpack), which is shown as `ttq pack` would pack it.
    file: PathBuf,
    /// Entry of a PyTorch checkpoint that holds the tensors, such as `state_dict` [default: the only one with such a name].
    #[arg(long)]
    key: Option<String>,
}

/// Output of `ttq inspect`.
#[derive(Debug, Serialize)]
pub(crate) struct Inspected {
    file: String,
    format: Format,
    file_bytes: usize,
    notes: Vec<String>,
    not_read: Vec<Unread>,
    #[serde(flatten)]
    summary: Summary,
}

impl Inspect {
    pub(crate) fn run(&self) -> Result<Inspected> {
        let file = self.file.display().to_string();
        let (mut notes, mut not_read) = (Vec::new(), Vec::new());
        let (format, file_bytes, model, packed) = match checkpoint::read(&self.file, self.key.as_deref())? {
            Contents::Packed(model, bytes) => (Format::TtqPacked, bytes.len(), model, bytes),
            Contents::Checkpoint(mut checkpoint) => {
                notes.append(&mut checkpoint.notes);
                not_read.append(&mut checkpoint.unread);
                let (format, bytes) = (checkpoint.format, checkpoint.bytes);
                let model = recognition::pack(checkpoint);
                let packed = model.write(Coding::Plain).with_context(|| file.clone())?;
                (format, bytes, model, packed)
            }
        };
        let summary = Summary::new(&model, &packed).with_context(|| file.clone())?;
        Ok(Inspected { file, format, file_bytes, notes, not_read, summary })
    }
}

impl fmt::Display for Inspected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, format, file_bytes, notes, not_read, summary } = self;
        let note = if *format == Format::TtqPacked { "" } else { "; shown as `ttq pack` would pack it" };
        write!(f, "{file}: {format}, {file_bytes} bytes{note}\n\n{summary}")?;
        notes.iter().try_for_each(|note| writeln!(f, "note: {note}"))?;
        for Unread { name, reason } in not_read {
            writeln!(f, "warning: tensor `{}` is not read: it {reason}", Escaped(name))?;
        }
        Ok(())
    }
}
