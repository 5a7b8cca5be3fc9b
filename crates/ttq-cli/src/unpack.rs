//! `ttq unpack`: converts a packed file to float tensors, or to integer codes and scales.

use std::fmt;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Serialize;
use ttq_packed::file::Container;
use ttq_packed::network::format::NETWORK_KEY;

use crate::checkpoint::{self, Contents};
use crate::output::Output;
use crate::unpacked;

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
    notes: Vec<String>,
}

impl Unpack {
    pub(crate) fn run(&self) -> Result<Unpacked> {
        let path = &self.file;
        let mut notes = Vec::new();
        let model = match checkpoint::read(path, None)? {
            Contents::Packed(model, bytes) => {
                if Container::read(&bytes)?.metadata.contains_key(NETWORK_KEY) {
                    notes.push(
                        "the graph of the network is not part of the output: only a packed file can have one"
                            .to_owned(),
                    );
                }
                model
            }
            Contents::Checkpoint(checkpoint) => {
                bail!("{}: is a {}, not a packed file: pack it with `ttq pack`", path.display(), checkpoint.format)
            }
        };
        let weights = model.weights.len();
        let file = || path.display().to_string();
        let (extension, container) = if self.integers {
            ("integers.safetensors", unpacked::integers(model))
        } else {
            ("float.safetensors", unpacked::floats(model))
        };
        let output = self.output.path(path, extension)?;
        let container = container.with_context(file)?;
        let bytes = container.write().with_context(file)?;
        self.output.write(&output, &bytes)?;
        Ok(Unpacked {
            file: file(),
            output: output.display().to_string(),
            integers: self.integers,
            weights,
            tensors: container.tensors.len(),
            output_bytes: bytes.len(),
            notes,
        })
    }
}

impl fmt::Display for Unpacked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, output, integers, weights, tensors, output_bytes, notes } = self;
        let kind = if *integers { "codes and scales" } else { "floats" };
        writeln!(f, "{file} → {output}: {weights} weights as {kind}, {tensors} tensors in all, {output_bytes} bytes")?;
        notes.iter().try_for_each(|note| writeln!(f, "note: {note}"))
    }
}
