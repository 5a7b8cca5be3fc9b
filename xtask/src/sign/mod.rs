//! `cargo xtask sign`: draws the scales of single layers at every training step, for both signs of the gradient of W_n.
//!
//! Only one layer of the MNIST network is ternary in each run. burn-train logs W_p and W_n as means over the ternary layers,
//! so the logged values are those of this layer.

mod chart;
mod track;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;

use crate::reproduce::{Example, Program, Runner};
use chart::{Line, Panel};
use track::Track;

/// The layers: name, and the operations on their output.
const LAYERS: [(&str, &str); 2] =
    [("hidden", "batch normalization follows"), ("conv2", "bias, ReLU, pooling and the hidden layer follow")];
/// The signs of the gradient of W_n.
const SIGNS: [&str; 2] = ["exact", "published"];

/// Options of `cargo xtask sign`.
#[derive(Debug, Args)]
pub(crate) struct Sign {
    /// Directory of the runs. The default shares the network in full precision with `reproduce mnist`, seed 1
    /// [default: runs/reproduce-mnist/seed-1].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Directory of the figures and the table [default: docs/what-the-sign-costs].
    #[arg(long, value_name = "DIR")]
    results: Option<PathBuf>,
    #[command(flatten)]
    program: Program,
}

impl Sign {
    pub(crate) fn run(&self) -> Result<()> {
        let out = self.out.clone().unwrap_or_else(|| crate::root().join("runs/reproduce-mnist/seed-1"));
        let results = self.results.clone().unwrap_or_else(|| crate::root().join("docs/what-the-sign-costs"));
        fs::create_dir_all(&results).with_context(|| format!("cannot create directory {}", results.display()))?;
        let runner = Runner::new(Example::Mnist, &self.program)?;
        let full_precision = out.join("full-precision");
        let arguments = ["--method", "fp", "--fp-epochs", "3", "--epochs", "0", "--seed", "1"].map(String::from);
        println!("full precision");
        runner.run(&full_precision, &arguments, None)?;
        let checkpoint = full_precision.join("full-precision.safetensors");

        let mut table = String::from(track::HEADINGS);
        for (layer, behind) in LAYERS {
            let tracks = SIGNS.iter().map(|sign| {
                println!("{layer}, {sign} sign");
                let directory = out.join(format!("sign-{layer}-{sign}"));
                runner.run(&directory, &arguments_of(layer, sign), Some(&checkpoint))?;
                Track::read(&directory)
            });
            let [exact, published] = <[Track; 2]>::try_from(tracks.collect::<Result<Vec<_>>>()?)
                .map_err(|_| anyhow::anyhow!("internal error: the number of signs is not two"))?;
            for (sign, track) in SIGNS.iter().zip([&exact, &published]) {
                table += &track.row(&format!("`{layer}` | {sign}"));
            }
            let path = results.join(format!("{layer}.svg"));
            draw(&path, &format!("{layer}.weight ({behind})"), &exact, &published)?;
            println!("{}", path.display());
        }
        let path = results.join("scales.md");
        fs::write(&path, &table).with_context(|| format!("cannot write {}", path.display()))?;
        println!("\n{table}\n{}", path.display());
        Ok(())
    }
}

/// Arguments of the example for one epoch with one ternary layer.
fn arguments_of(layer: &str, sign: &str) -> Vec<String> {
    let pattern = format!("{layer}\\.weight");
    let arguments = ["--fp-epochs", "0", "--epochs", "1", "--seed", "1", "--include", &pattern, "--sign", sign];
    arguments.map(String::from).to_vec()
}

fn draw(path: &Path, title: &str, exact: &Track, published: &Track) -> Result<()> {
    let scales = |track: &Track| [track.line(|[w_pos, _]| w_pos), track.line(|[_, w_neg]| w_neg)];
    let ([exact_pos, exact_neg], [published_pos, published_neg]) = (scales(exact), scales(published));
    let panels = [
        Panel {
            title: "W_p and W_n",
            lines: vec![
                Line { name: "W_p, exact", color: chart::BLUE, dashed: false, points: exact_pos },
                Line { name: "W_n, exact", color: chart::BLUE, dashed: true, points: exact_neg },
                Line { name: "W_p, published", color: chart::ORANGE, dashed: false, points: published_pos },
                Line { name: "W_n, published", color: chart::ORANGE, dashed: true, points: published_neg },
            ],
        },
        Panel {
            title: "W_p W_n, relative to the start",
            lines: vec![
                Line { name: "exact", color: chart::BLUE, dashed: false, points: exact.relative(track::product) },
                Line {
                    name: "published",
                    color: chart::ORANGE,
                    dashed: false,
                    points: published.relative(track::product),
                },
            ],
        },
    ];
    chart::draw(path, title, &panels)
}
