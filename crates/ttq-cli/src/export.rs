//! `ttq export`: writes a network as a file of another format.

use std::fmt;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use serde::Serialize;
use ttq_onnx::ExportOptions;
use ttq_packed::network::Int8;

use crate::network;
use crate::output::Output;

/// Arguments of `ttq export`.
#[derive(Debug, Args)]
#[command(mut_arg("path", |path| path.long("onnx").short(None).required(true).help("ONNX model to write")))]
pub(crate) struct Export {
    /// Network file: a packed file with a graph.
    file: PathBuf,
    #[command(flatten)]
    output: Output,
    /// Write weights and activations of products in int8, for which the file must have ranges of values; `--int8` alone means `inner`.
    #[arg(
        long,
        value_parser = network::int8(),
        num_args = 0..=1,
        require_equals = true,
        default_value = "off",
        default_missing_value = "inner"
    )]
    int8: Int8,
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
        let (graph, _) = network::read(&self.file)?;
        let output = self.output.path(&self.file, "onnx")?;
        let file = self.file.display().to_string();
        let options = ExportOptions::default().with_int8(self.int8);
        let bytes = ttq_onnx::export(&graph, &options).with_context(|| file.clone())?;
        self.output.write(&output, &bytes)?;
        let shape = |value| graph.shape(value).dims.clone();
        Ok(Exported {
            file,
            output: output.display().to_string(),
            int8: self.int8 != Int8::Off,
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
