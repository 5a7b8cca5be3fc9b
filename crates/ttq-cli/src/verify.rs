//! `ttq verify`: is a packed file whole and lawful?

use std::fmt;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Serialize;
use ttq_packed::file;

use crate::checkpoint::{self, Contents};

/// What to verify.
#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// The packed file.
    file: PathBuf,
}

/// The answer, where it is yes.
#[derive(Debug, Serialize)]
pub(crate) struct Verified {
    file: String,
    version: u64,
    crc32: String,
    weights: usize,
    tensors: usize,
    file_bytes: usize,
}

impl Verify {
    pub(crate) fn run(&self) -> Result<Verified> {
        let file = self.file.display().to_string();
        match checkpoint::read(&self.file, None)? {
            Contents::Packed(model, bytes) => Ok(Verified {
                // The reader has compared it with the one in the file.
                crc32: file::checksum(&bytes).with_context(|| file.clone())?,
                file,
                version: file::FORMAT_VERSION,
                weights: model.weights.len(),
                tensors: model.tensors.len(),
                file_bytes: bytes.len(),
            }),
            Contents::Checkpoint(checkpoint) => {
                bail!("{file}: is a {}, not packed: `ttq pack` packs it", checkpoint.format)
            }
        }
    }
}

impl fmt::Display for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, version, crc32, weights, tensors, file_bytes } = self;
        writeln!(
            f,
            "{file}: sound; format version {version}, checksum {crc32}, {weights} ternary weights, {tensors} other tensors, \
             {file_bytes} bytes"
        )
    }
}
