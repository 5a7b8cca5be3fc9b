//! `ttq export`: writes a network as a file of another format.

use std::fmt;

use anyhow::{Context, Result};
use clap::Args;
use serde::Serialize;
use ttq_onnx::ExportOptions;
use ttq_packed::network::Int8;

use crate::network::{self, NetworkFile};
use crate::output::Output;

/// Arguments of `ttq export`.
#[derive(Debug, Args)]
#[command(
    mut_arg("path", |path| path.long("onnx").short(None).required(true).help("ONNX model to write")),
    mut_arg("int8", |int8| int8.help(
        "Write weights and activations of products in int8, for which the file must have ranges of values; `--int8` alone means `inner`"
    ))
)]
pub(crate) struct Export {
    #[command(flatten)]
    network: NetworkFile,
    #[command(flatten)]
    output: Output,
}

/// Output of `ttq export`.
#[derive(Debug, Serialize)]
pub(crate) struct Exported {
    file: String,
    output: String,
    int8: bool,
    input_shape: Vec<usize>,
    output_shape: Vec<usize>,
    output_bytes: usize,
}

impl Export {
    pub(crate) fn run(&self) -> Result<Exported> {
        let (graph, _) = network::read(&self.network.file)?;
        let output = self.output.path(&self.network.file, "onnx")?;
        let file = self.network.file.display().to_string();
        let options = ExportOptions::default().with_int8(self.network.int8);
        let bytes = ttq_onnx::export(&graph, &options).with_context(|| file.clone())?;
        self.output.write(&output, &bytes)?;
        let shape = |value| graph.shape(value).dims.clone();
        Ok(Exported {
            file,
            output: output.display().to_string(),
            int8: self.network.int8 != Int8::Off,
            input_shape: shape(graph.input()),
            output_shape: shape(graph.output()),
            output_bytes: bytes.len(),
        })
    }
}

impl fmt::Display for Exported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, output, int8, input_shape, output_shape, output_bytes } = self;
        let kind = if *int8 { "int8" } else { "float32" };
        writeln!(
            f,
            "{file} → {output}: ONNX in {kind}, input [batch, {}], output [batch, {}], {output_bytes} bytes",
            joined(input_shape),
            joined(output_shape)
        )
    }
}

fn joined(dims: &[usize]) -> String {
    dims.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
