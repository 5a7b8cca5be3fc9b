//! `ttq inspect`: shows the contents of a file.

use std::fmt;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Serialize;
use ttq_packed::Coding;
use ttq_packed::network::Int8;
use ttq_pytorch::Escaped;
use ttq_report::network::{NetworkSummary, NetworkTotal, ValueSummary};

use crate::checkpoint::{self, Contents, Format, Unread};
use crate::memory;
use crate::network;
use crate::recognition;
use crate::summary::Summary;
use crate::table::{self, Table};

/// Arguments of `ttq inspect`.
#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// Packed file, or checkpoint (safetensors, PyTorch or burnpack), which is shown as `ttq pack` would pack it.
    file: PathBuf,
    /// Entry of a PyTorch checkpoint that holds the tensors, such as `state_dict` [default: the only one with such a name].
    #[arg(long)]
    key: Option<String>,
    /// Write a page with a picture of the graph of a network file; an existing file is replaced.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    network: Option<NetworkSummary>,
    /// Of the compiled network.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    memory: Vec<Memory>,
}

/// Allocated memory of a compiled network.
#[derive(Debug, Serialize)]
struct Memory {
    precision: &'static str,
    network_bytes: usize,
    /// Size of the values of the items that go through the layers together, for each thread.
    arena_bytes: usize,
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
        let graph = match format {
            Format::TtqPacked => network::graph(&packed).with_context(|| file.clone())?,
            _ => None,
        };
        let network = graph.as_ref().map(NetworkSummary::new);
        let mut memory = Vec::new();
        if let Some(graph) = &graph {
            for (precision, int8) in [("float32", Int8::Off), ("int8", Int8::Inner)] {
                // A graph without ranges, or without products inside, has no network in int8.
                if let (Ok(network), network_bytes) = memory::measure(|| network::compile(&self.file, graph, int8)) {
                    memory.push(Memory { precision, network_bytes, arena_bytes: network.memory().1 });
                }
            }
        }
        if let Some(page) = &self.html {
            let Some(network) = &network else {
                bail!("{file}: has no graph of a network to draw: omit --html");
            };
            let name = self.file.file_name().unwrap_or(self.file.as_os_str()).to_string_lossy();
            ttq_report::write_network(&name, network, page)?;
            notes.push(format!("the picture of the graph is in {}", page.display()));
        }
        Ok(Inspected { file, format, file_bytes, notes, not_read, summary, network, memory })
    }
}

impl fmt::Display for Inspected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, format, file_bytes, notes, not_read, summary, network, memory } = self;
        let note = if *format == Format::TtqPacked { "" } else { "; shown as `ttq pack` would pack it" };
        write!(f, "{file}: {format}, {file_bytes} bytes{note}\n\n{summary}")?;
        if let Some(network) = network {
            writeln!(f)?;
            show(network, f)?;
        }
        for Memory { precision, network_bytes, arena_bytes } in memory {
            writeln!(
                f,
                "memory       {network_bytes} bytes compiled in {precision}, and {arena_bytes} per thread for values"
            )?;
        }
        notes.iter().try_for_each(|note| writeln!(f, "note: {note}"))?;
        for Unread { name, reason } in not_read {
            writeln!(f, "warning: tensor `{}` is not read: it {reason}", Escaped(name))?;
        }
        Ok(())
    }
}

/// Shows the values of a graph as a table, and their sums.
fn show(network: &NetworkSummary, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let heading =
        ["", "value", "operation", "operands", "shape", "parameters", "zeros", "multiply-adds", "float32 bytes"];
    let mut table = Table::new(4, heading);
    let count = |n: usize| if n == 0 { String::new() } else { n.to_string() };
    let zeros = |zeros: usize, ternary: usize| match ternary {
        0 => String::new(),
        _ => format!("{:.1} %", 100.0 * zeros as f64 / ternary as f64),
    };
    for value in &network.values {
        let ValueSummary { index, name, operation, operands, parameters, ternary, multiply_adds, bytes, .. } = value;
        table.row([
            index.to_string(),
            name.clone(),
            operation.clone(),
            operands.iter().map(usize::to_string).collect::<Vec<_>>().join(", "),
            table::shape(&value.shape),
            count(*parameters),
            zeros(value.zeros, *ternary),
            count(*multiply_adds),
            bytes.to_string(),
        ]);
    }
    writeln!(f, "{table}")?;
    let NetworkTotal { operations, parameters, ternary, zeros: zero, multiply_adds, bytes, calibrated } = network.total;
    writeln!(
        f,
        "graph        {operations} operations, output {}; {multiply_adds} multiply-adds for an item",
        network.output
    )?;
    writeln!(f, "parameters   {parameters}, of which {ternary} are ternary, {} zeros", zeros(zero, ternary))?;
    writeln!(f, "values       {bytes} bytes for an item in float32")?;
    let ranges = if calibrated {
        "the graph has the ranges of values that it needs"
    } else {
        "the graph has no ranges of values"
    };
    writeln!(f, "int8         {ranges}")
}
