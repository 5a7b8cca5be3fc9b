//! A trained network continues a text.

use std::fmt;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use burn::prelude::*;
use ttq_examples::data::PackedText;
use ttq_examples::model::{Gpt, GptConfig};
use ttq_examples::{Cpu, Out, load, print_line, to_bytes};
use ttq_inference::{Packed, load as load_packed};
use ttq_packed::{Coding, PackedModel};
use ttq_train::item_seed;

/// How bytes are drawn.
pub(crate) struct Sampling {
    /// Number of bytes.
    pub tokens: usize,
    /// Divisor of the logits; 0 for the most probable byte.
    pub temperature: f64,
    /// Seed of the draws.
    pub seed: u64,
}

/// A trained network.
pub(crate) enum Trained {
    /// A packed ternary network.
    Packed(PackedModel),
    /// A network in full precision, of a run without a ternary phase.
    Dense(Box<Gpt<Cpu>>),
}

impl Trained {
    /// Opens the network of a run's directory, or a packed file; `None` if the run has not ended.
    ///
    /// # Errors
    /// A path without a run or packed language model, a damaged file.
    pub(crate) fn open(path: &Path) -> Result<Option<Self>> {
        if !path.is_dir() {
            return Ok(Some(Self::Packed(PackedModel::load(path).with_context(|| cannot_load(path))?)));
        }
        let (out, config) = Out::ended(path)?;
        let (packed, dense) = (out.packed_network(), out.full_precision_network());
        if packed.is_file() {
            return Self::open(&packed);
        }
        if config.epochs > 0 || !dense.is_file() {
            return Ok(None);
        }
        let mut network = Gpt::new(&config.gpt.unwrap_or_default(), &Default::default());
        load(&mut network, &dense, None)?;
        Ok(Some(Self::Dense(Box::new(network))))
    }

    /// Continues a text on the standard output, byte by byte, and prints speed, memory and size of file.
    pub(crate) fn write(&self, prompt: &str, sampling: &Sampling) -> Result<()> {
        let print = |bytes: &[u8]| {
            let mut out = std::io::stdout().lock();
            // A closed standard output is no error.
            out.write_all(bytes).and_then(|()| out.flush()).ok();
        };
        print(format!("\n{prompt}").as_bytes());
        let show = |byte| print(&[byte]);
        match self {
            Self::Dense(network) => {
                let speed = continue_text(network, prompt, sampling, show);
                print_line(format_args!("\n\n{}", Line::dense(network, speed)?));
            }
            Self::Packed(file) => {
                let (config, device) = (config(file)?, Default::default());
                let packed = load_packed(Gpt::<Packed<Cpu>>::new(&config, &device), file)?;
                let dense = load_packed(Gpt::<Cpu>::new(&config, &device), file)?;
                let packed = Line::packed(file, continue_text(&packed, prompt, sampling, show))?;
                let dense = Line::dense(&dense, continue_text(&dense, prompt, sampling, |_| ()))?;
                print_line(format_args!("\n\n{dense}\n{packed}"));
            }
        }
        Ok(())
    }
}

fn cannot_load(path: &Path) -> String {
    format!("cannot load {}: give the directory of a run, or a packed file", path.display())
}

/// Returns the size of the network in a packed file.
fn config(file: &PackedModel) -> Result<GptConfig> {
    let text = file.config.as_deref().unwrap_or_default();
    let config: PackedText = serde_json::from_str(text).context("the packed file is not that of a language model")?;
    Ok(config.gpt)
}

/// Speed and sizes of a network.
struct Line {
    name: &'static str,
    bytes_per_second: f64,
    memory: usize,
    file: usize,
}

impl Line {
    fn dense<B: Backend>(network: &Gpt<B>, bytes_per_second: f64) -> Result<Self> {
        let memory = 4 * Module::<B>::num_params(network);
        Ok(Self { name: "dense", bytes_per_second, memory, file: to_bytes(network)?.len() })
    }

    /// A kernel's form of a weight replaces its codes and has their size.
    fn packed(file: &PackedModel, bytes_per_second: f64) -> Result<Self> {
        let codes = file.weights.values().map(|weight| weight.codes().as_bytes().len());
        let scales = file.weights.values().map(|weight| size_of_val(weight.scales()));
        let others = file.tensors.values().map(|tensor| tensor.as_bytes().len());
        let memory = codes.chain(scales).chain(others).sum();
        Ok(Self { name: "packed", bytes_per_second, memory, file: file.write(Coding::Plain)?.len() })
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, bytes_per_second, memory, file } = self;
        write!(f, "{name:7} {bytes_per_second:6.0} tokens per second, weights {memory} bytes, file {file} bytes")
    }
}

/// Continues a text, and passes each byte to `show`. Returns the number of bytes per second.
///
/// The network reads the last bytes of the text up to its context. When they exceed it, it reads the last half anew.
fn continue_text<B: Backend>(network: &Gpt<B>, prompt: &str, sampling: &Sampling, mut show: impl FnMut(u8)) -> f64 {
    let start = Instant::now();
    let (context, device) = (network.context(), Default::default());
    let mut text = if prompt.is_empty() { b"\n".to_vec() } else { prompt.as_bytes().to_vec() };
    let mut cache = network.cache();
    let mut unread = text.len().min(context);
    for index in 0..sampling.tokens {
        if cache.len() + unread > context {
            cache = network.cache();
            unread = context.div_ceil(2);
        }
        let bytes: Vec<i32> = text[text.len() - unread..].iter().map(|byte| i32::from(*byte)).collect();
        let logits = network.read(Tensor::from_data(TensorData::new(bytes, [1, unread]), &device), &mut cache);
        let logits: Vec<f32> = logits.narrow(0, unread - 1, 1).into_data().iter().collect();
        // 53 random bits.
        let uniform = (item_seed(sampling.seed, 0, index) >> 11) as f64 / (1_u64 << 53) as f64;
        let byte = draw(&logits, sampling.temperature, uniform);
        show(byte);
        text.push(byte);
        unread = 1;
    }
    sampling.tokens as f64 / start.elapsed().as_secs_f64()
}

/// Draws a class with probability `softmax(logits / temperature)`; `uniform` is from 0 to 1.
fn draw(logits: &[f32], temperature: f64, uniform: f64) -> u8 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weight = |logit: &f32| match temperature {
        0.0 => f64::from(u8::from(*logit == largest)),
        temperature => (f64::from(logit - largest) / temperature).exp(),
    };
    let mut left = uniform * logits.iter().map(weight).sum::<f64>();
    let drawn = logits.iter().position(|logit| {
        left -= weight(logit);
        left < 0.0
    });
    drawn.unwrap_or(logits.len() - 1) as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use ttq_examples::model::Network;

    #[test]
    fn a_byte_is_drawn_with_its_probability_at_the_temperature() {
        let logits = [1.0, 0.0, 2.0];
        for temperature in [0.5, 1.0, 3.0] {
            let weights = logits.map(|logit| (f64::from(logit) / temperature).exp());
            let draws: Vec<u8> = (0..1000).map(|i| draw(&logits, temperature, (f64::from(i) + 0.5) / 1000.0)).collect();
            for (class, weight) in weights.iter().enumerate() {
                let count = draws.iter().filter(|drawn| usize::from(**drawn) == class).count();
                let expected = 1000.0 * weight / weights.iter().sum::<f64>();
                assert!((count as f64 - expected).abs() <= 1.0, "{class}: {count}, {expected}");
            }
        }
        assert!([0.0, 0.5, 0.999].iter().all(|uniform| draw(&logits, 0.0, *uniform) == 2));
    }

    #[test]
    fn the_most_probable_continuation_is_that_of_the_network_without_a_cache() {
        let config = GptConfig { layers: 1, width: 8, heads: 2, context: 10 };
        let network = Gpt::<Cpu>::new(&config, &Default::default());
        let mut written = Vec::new();
        let sampling = Sampling { tokens: 25, temperature: 0.0, seed: 1 };
        continue_text(&network, "a longer prompt", &sampling, |byte| written.push(byte));
        let text = [b"a longer prompt", &written[..]].concat();
        // The first byte follows the last 10; from then on the network reads 5 to 10 bytes.
        let mut read = 10;
        for end in 15..text.len() {
            let bytes: Vec<i32> = text[end - read..end].iter().map(|byte| i32::from(*byte)).collect();
            let logits = network.forward(Tensor::from_data(TensorData::new(bytes, [1, read]), &Default::default()));
            let logits: Vec<f32> = logits.narrow(0, read - 1, 1).into_data().iter().collect();
            let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            assert!(largest - logits[usize::from(text[end])] < 1e-5, "byte {end}");
            read = if read == 10 { 5 } else { read + 1 };
        }
    }
}
