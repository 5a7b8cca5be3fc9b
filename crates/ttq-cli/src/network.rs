//! Network files: packed files whose metadata hold a graph.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use rayon::{ThreadPool, ThreadPoolBuilder};
use ttq_packed::network::{CompileOptions, Graph, Int8, Network, NetworkError};

use crate::checkpoint::{self, Contents};

/// Arguments of commands that read a network file.
#[derive(Debug, Args)]
pub(crate) struct NetworkFile {
    /// Network file: a packed file with a graph.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Compute products in int8, for which the file must have ranges of values; `--int8` alone means `inner`.
    #[arg(
        long,
        value_parser = int8(),
        num_args = 0..=1,
        require_equals = true,
        default_value = "off",
        default_missing_value = "inner"
    )]
    pub(crate) int8: Int8,
}

/// Parses the option `--int8`.
fn int8() -> impl TypedValueParser<Value = Int8> {
    let values = [
        ("off", "No product: float32"),
        ("inner", "All products but the first and the last one, which matter most for the accuracy"),
        ("all", "All products"),
    ];
    PossibleValuesParser::new(values.map(|(name, help)| PossibleValue::new(name).help(help))).map(|name| match &*name {
        "inner" => Int8::Inner,
        "all" => Int8::All,
        _ => Int8::Off,
    })
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
         write it with `Graph::save`, and pass that file"
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
pub(crate) fn compile(path: &Path, graph: &Graph, int8: Int8) -> Result<Network> {
    let file = path.display();
    let options = CompileOptions::default().with_int8(int8);
    let network = Network::compile(graph, &options).with_context(|| file.to_string())?;
    if int8 != Int8::Off && !network.layers().any(|layer| layer.algorithm == "int8") {
        let hint = match int8 {
            Int8::Inner => " besides the first and the last one: use --int8=all",
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
