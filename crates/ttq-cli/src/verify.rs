//! `ttq verify`: checks that a packed file is valid and undamaged.

use std::fmt;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Serialize;
use ttq_packed::file;

use crate::checkpoint::{self, Contents};
use crate::network;

/// Arguments of `ttq verify`.
#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// Packed file.
    file: PathBuf,
}

/// Output of `ttq verify` for a valid file.
#[derive(Debug, Serialize)]
pub(crate) struct Verified {
    file: String,
    version: u64,
    crc32: String,
    weights: usize,
    tensors: usize,
    /// Number of values of the graph, if the file has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    graph_values: Option<usize>,
    file_bytes: usize,
}

impl Verify {
    pub(crate) fn run(&self) -> Result<Verified> {
        let file = self.file.display().to_string();
        match checkpoint::read(&self.file, None)? {
            Contents::Packed(model, bytes) => Ok(Verified {
                graph_values: network::graph(&bytes).with_context(|| file.clone())?.map(|graph| graph.len()),
                // Reading the file has already compared this checksum with the stored one.
                crc32: file::checksum(&bytes).with_context(|| file.clone())?,
                file,
                version: file::FORMAT_VERSION,
                weights: model.weights.len(),
                tensors: model.tensors.len(),
                file_bytes: bytes.len(),
            }),
            Contents::Checkpoint(checkpoint) => {
                bail!("{file}: is a {}, not a packed file: pack it with `ttq pack`", checkpoint.format)
            }
        }
    }
}

impl fmt::Display for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, version, crc32, weights, tensors, graph_values, file_bytes } = self;
        let graph = graph_values.map_or_else(String::new, |values| format!("a graph of {values} values, "));
        writeln!(
            f,
            "{file}: valid; format version {version}, checksum {crc32}, {weights} ternary weights, \
             {tensors} other tensors, {graph}{file_bytes} bytes"
        )
    }
}
