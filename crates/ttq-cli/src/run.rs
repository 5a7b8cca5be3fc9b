//! `ttq run`: computes the outputs of a network.

use std::fmt;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Serialize;
use ttq_packed::network::Arena;

use crate::items::Items;
use crate::network::{self, NetworkFile};
use crate::npy;
use crate::output::Output;
use crate::picture::Normalization;

/// Largest distance from 1 of the sum of outputs that are probabilities.
const SUM: f64 = 1e-3;

/// Arguments of `ttq run`.
#[derive(Debug, Args)]
#[command(mut_arg("path", |path| {
    path.help("File to write, a float32 .npy array [items, ..] [default: print the largest outputs of each item]")
}))]
pub(crate) struct Run {
    #[command(flatten)]
    network: NetworkFile,
    /// A .npy array [items, ..] of numbers; or PNG and JPEG pictures, or directories of them, of the size of the network's
    /// input.
    #[arg(short, long, required = true, num_args = 1.., value_name = "PATH")]
    input: Vec<PathBuf>,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    normalization: Normalization,
    /// Number of threads [default: all of the machine].
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
    /// Number of items that are read and computed at once; results do not depend on it.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    batch: u32,
    /// Number of outputs of an item that are printed.
    #[arg(long, default_value_t = 3)]
    top: usize,
}

/// Output of `ttq run`.
#[derive(Debug, Serialize)]
pub(crate) struct Ran {
    file: String,
    items: usize,
    input_shape: Vec<usize>,
    output_shape: Vec<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    classes: Vec<Classes>,
}

/// The largest outputs of an item.
#[derive(Debug, Serialize)]
struct Classes {
    item: String,
    largest: Vec<Class>,
}

/// An output of a classifier.
#[derive(Debug, Serialize)]
struct Class {
    class: usize,
    value: f32,
    /// The value, if all outputs of the item are probabilities, and otherwise the softmax function.
    probability: f64,
}

impl Run {
    pub(crate) fn run(&self) -> Result<Ran> {
        let (graph, configuration) = network::read(&self.network.file)?;
        let normalization = self.normalization.with_configuration(configuration.as_deref());
        let network = network::compile(&self.network.file, &graph, self.network.int8)?;
        let [from, to] = [network.input_dims(), network.output_dims()];
        let output = self.output.named_path()?;
        if output.is_none() && to.iter().filter(|dim| **dim > 1).count() > 1 {
            bail!("{}: the output has the shape {to:?}: write it with --output FILE.npy", self.network.file.display());
        }
        let items = Items::find(&self.input, from, &normalization)?;
        let count = items.count(from.iter().product());
        let len = to.iter().product::<usize>();
        let mut outputs = vec![0.0; count * len];
        let (pool, mut arena) =
            (network::threads(self.threads.map_or_else(network::available_threads, usize::from))?, Arena::new());
        let batch = self.batch as usize;
        for (i, outputs) in outputs.chunks_mut(batch * len).enumerate() {
            let x = items.values(i * batch, count.min((i + 1) * batch), from, &normalization)?;
            let run = pool.install(|| network.run(&mut arena, &x, outputs));
            run.with_context(|| self.network.file.display().to_string())?;
        }
        let mut classes = Vec::new();
        match &output {
            Some(path) => self.output.write(path, &npy::write(&[&[count], to].concat(), &outputs))?,
            None => {
                let named = outputs.chunks(len).enumerate();
                classes.extend(named.map(|(i, y)| Classes { item: items.name(i), largest: largest(y, self.top) }));
            }
        }
        Ok(Ran {
            file: self.network.file.display().to_string(),
            items: count,
            input_shape: from.into(),
            output_shape: to.into(),
            output: output.map(|path| path.display().to_string()),
            classes,
        })
    }
}

/// Returns the largest outputs of an item, largest first.
fn largest(outputs: &[f32], count: usize) -> Vec<Class> {
    let sum: f64 = outputs.iter().map(|y| f64::from(*y)).sum();
    let are_probabilities = (sum - 1.0).abs() < SUM && outputs.iter().all(|y| (0.0..=1.0).contains(y));
    let most = outputs.iter().fold(f64::NEG_INFINITY, |most, y| most.max(f64::from(*y)));
    let exp = |y: f32| (f64::from(y) - most).exp();
    let total: f64 = outputs.iter().map(|y| exp(*y)).sum();
    let probability = |y: f32| if are_probabilities { y.into() } else { exp(y) / total };
    let mut order: Vec<usize> = (0..outputs.len()).collect();
    order.sort_by(|a, b| outputs[*b].total_cmp(&outputs[*a]));
    let class = |class: usize| Class { class, value: outputs[class], probability: probability(outputs[class]) };
    order.into_iter().take(count).map(class).collect()
}

impl fmt::Display for Ran {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, items, output_shape, output, classes, .. } = self;
        if let Some(output) = output {
            let shape: String = output_shape.iter().map(|dim| format!(", {dim}")).collect();
            return writeln!(f, "{file}: {items} items → {output}, float32 [{items}{shape}]");
        }
        for Classes { item, largest } in classes {
            let largest: Vec<String> = largest
                .iter()
                .map(|Class { class, value, probability }| {
                    format!("class {class} {:.1} % ({value:.4})", 100.0 * probability)
                })
                .collect();
            writeln!(f, "{item}: {}", largest.join(", "))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_outputs_have_the_probabilities_of_the_softmax_function() {
        let found = largest(&[0.0, 2.0_f32.ln(), f32::NEG_INFINITY, 1.0_f32.ln()], 2);
        assert_eq!(found.iter().map(|class| class.class).collect::<Vec<_>>(), [1, 0]);
        assert!((found[0].probability - 0.5).abs() < 1e-6 && (found[1].probability - 0.25).abs() < 1e-6);
    }

    #[test]
    fn outputs_that_are_probabilities_stay_as_they_are() {
        let found = largest(&[0.25, 0.75], 5);
        assert_eq!(
            found.iter().map(|class| (class.class, class.probability)).collect::<Vec<_>>(),
            [(1, 0.75), (0, 0.25)]
        );
    }
}
