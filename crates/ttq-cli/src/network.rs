//! Network files: packed files whose metadata hold a graph.

use std::path::Path;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use rayon::{ThreadPool, ThreadPoolBuilder};
use ttq_packed::network::{CompileOptions, Graph, Network, NetworkError};

use crate::checkpoint::{self, Contents};

/// Products that are computed in int8.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Int8 {
    /// All but the first and the last one, which matter most for the accuracy.
    Inner,
    /// All.
    All,
}

/// Reads the graph of a network file, and the configuration in the file.
pub(crate) fn read(path: &Path) -> Result<(Graph, Option<String>)> {
    let file = path.display();
    let what = match checkpoint::read(path, None)? {
        Contents::Packed(model, bytes) => match graph(&bytes).with_context(|| file.to_string())? {
            Some(graph) => return Ok((graph, model.config)),
            None => "packed file".to_owned(),
        },
        Contents::Checkpoint(checkpoint) => checkpoint.format.to_string(),
    };
    bail!(
        "{file}: is a {what} without a graph, which says what to compute: capture the network with `ttq_compile::capture`, \
         write it with `Graph::write`, and pass that file"
    )
}

/// Returns the graph in the bytes of a packed file, if there is one.
pub(crate) fn graph(file: &[u8]) -> Result<Option<Graph>> {
    match Graph::read(file) {
        Ok(graph) => Ok(Some(graph)),
        Err(NetworkError::NoGraph) => Ok(None),
        Err(error) => Err(error).context("the graph cannot be read"),
    }
}

/// Compiles the graph of a file, in float32 or in int8.
pub(crate) fn compile(path: &Path, graph: &Graph, int8: Option<Int8>) -> Result<Network> {
    let file = path.display();
    if int8.is_some() && !graph.is_calibrated() {
        bail!(
            "{file}: the graph has no ranges of values, which int8 needs: measure them with \
             `ttq_packed::network::Graph::calibrate` before it is written, or omit --int8"
        );
    }
    let mut options = CompileOptions::default();
    (options.int8, options.int8_ends) = (int8.is_some(), int8 == Some(Int8::All));
    let network = Network::compile(graph, &options).with_context(|| file.to_string())?;
    if int8.is_some() && !network.layers().any(|layer| layer.algorithm == "int8") {
        let hint = match int8 {
            Some(Int8::Inner) => " besides the first and the last one: use --int8=all",
            _ => ", which needs products of values with ranges and of weights: omit --int8",
        };
        bail!("{file}: no product can be computed in int8{hint}");
    }
    Ok(network)
}

/// Creates threads.
pub(crate) fn threads(number: usize) -> Result<ThreadPool> {
    ThreadPoolBuilder::new().num_threads(number).build().with_context(|| format!("cannot start {number} threads"))
}

/// Returns the number of threads that the machine can run at once.
pub(crate) fn available_threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
