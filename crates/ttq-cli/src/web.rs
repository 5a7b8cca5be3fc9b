//! `ttq web`: writes a page that runs a network in a browser.

mod text;

use std::fmt;
use std::fs;
use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use lzma_rust2::{LzmaOptions, LzmaWriter};
use serde::Serialize;
use ttq_packed::network::{CompileOptions, Network};

use crate::network;
use crate::output::Output;
use text::{compact, encode, escape};

/// The folder where `cargo xtask web` writes the modules.
const MODULES: &str = "target/web";
const HTML: &str = include_str!("web/page.html");
const STYLE: &str = include_str!("web/page.css");
const SCRIPT: &str = include_str!("web/page.js");
const WORKER: &str = include_str!("web/worker.js");

/// Arguments of `ttq web`.
#[derive(Debug, Args)]
#[command(mut_arg("path", |path| path.help("Page to write [default: the input file with the extension html]")))]
pub(crate) struct Web {
    /// Network file: a packed file with a graph.
    file: PathBuf,
    #[command(flatten)]
    output: Output,
    /// Folder with the modules simd.wasm and scalar.wasm, which `cargo xtask web` builds in a checkout of ttq.
    #[arg(long, value_name = "DIR", default_value = MODULES)]
    modules: PathBuf,
}

/// Output of `ttq web`.
#[derive(Debug, Serialize)]
pub(crate) struct Written {
    file: String,
    output: String,
    output_bytes: usize,
    network_bytes: usize,
    module_bytes: [usize; 2],
    compressed_module_bytes: usize,
}

impl Web {
    pub(crate) fn run(&self) -> Result<Written> {
        // The page shows the error of a file that cannot run, and this command does so before.
        let (graph, _) = network::read(&self.file)?;
        let mut options = CompileOptions::default();
        options.max_elements = MAX_ELEMENTS;
        Network::compile(&graph, &options).with_context(|| self.file.display().to_string())?;
        let file = fs::read(&self.file).with_context(|| format!("{}: cannot be read", self.file.display()))?;
        let (simd, scalar) = (self.module("simd.wasm")?, self.module("scalar.wasm")?);
        let output = self.output.path(&self.file, "html")?;
        // Most of the second module is in the first one.
        let modules = compress(&[simd.as_slice(), &scalar].concat())?;
        let network = compress(&file)?;
        let name = self.file.file_name().unwrap_or_default().to_string_lossy();
        let page = fill(
            HTML,
            &[
                ("name", &escape(&name)),
                ("style", &compact(STYLE)),
                ("script", &compact(SCRIPT)),
                ("worker", &compact(WORKER)),
                ("packed", &modules.len().to_string()),
                ("simd", &simd.len().to_string()),
                ("scalar", &scalar.len().to_string()),
                ("modules", &encode(&modules)),
                ("network_packed", &network.len().to_string()),
                ("network_length", &file.len().to_string()),
                ("network", &encode(&network)),
            ],
        );
        self.output.write(&output, page.as_bytes())?;
        Ok(Written {
            file: self.file.display().to_string(),
            output: output.display().to_string(),
            output_bytes: page.len(),
            network_bytes: file.len(),
            module_bytes: [simd.len(), scalar.len()],
            compressed_module_bytes: modules.len(),
        })
    }

    /// Reads a module.
    fn module(&self, name: &str) -> Result<Vec<u8>> {
        let path = self.modules.join(name);
        let advice =
            "build the modules with `cargo xtask web` in a checkout of ttq, and pass their folder as --modules";
        let module = fs::read(&path).with_context(|| format!("{}: cannot be read: {advice}", path.display()))?;
        if !module.starts_with(b"\0asm") {
            bail!("{}: is no WebAssembly module: {advice}", path.display());
        }
        Ok(module)
    }
}

/// The limit of `ttq-wasm`, see there.
const MAX_ELEMENTS: usize = 1 << 25;

/// Compresses bytes to a raw LZMA stream with `lc` = 3, `lp` = 0 and `pb` = 0, which the page decompresses: the formats that browsers
/// decompress look back 32 KiB, and the modules are fifteen times as large.
fn compress(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut options = LzmaOptions::with_preset(9);
    (options.lc, options.lp, options.pb, options.nice_len) = (3, 0, 0, LzmaOptions::NICE_LEN_MAX);
    options.depth_limit = 512;
    options.dict_size = u32::try_from(bytes.len())?.max(1 << 16);
    let mut writer = LzmaWriter::new_no_header(Vec::new(), &options, false)?;
    writer.write_all(bytes)?;
    Ok(writer.finish()?)
}

/// Replaces the names in braces of a template.
fn fill(template: &str, values: &[(&str, &str)]) -> String {
    let mut page = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        let (name, after) = after.split_once('}').unwrap_or((after, ""));
        let value = values.iter().find(|(key, _)| *key == name).map_or("", |(_, value)| value);
        page.push_str(before);
        page.push_str(value);
        rest = after;
    }
    page + rest
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, output, output_bytes, network_bytes, module_bytes: [simd, scalar], compressed_module_bytes } =
            self;
        writeln!(
            f,
            "{file} → {output}: {output_bytes} bytes; network {network_bytes}, modules {simd} with SIMD and {scalar} without, \
             {compressed_module_bytes} compressed"
        )
    }
}
