//! Seconds per training step of a ResNet in full precision and with ternary weights, alternating in one run.
//!
//! `cargo xtask bench train --json FILE`

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result};
use burn::backend::Autodiff;
use burn::optim::SgdConfig;
use burn::optim::lr_scheduler::constant::ConstantLr;
use burn::optim::momentum::MomentumConfig;
use burn::prelude::*;
use burn::tensor::Distribution;
use burn::tensor::backend::AutodiffBackend;
use burn::train::Learner;
use clap::Parser;
use serde::Serialize;
use ttq_core::{Ternary, TernaryConfig};
use ttq_examples::model::{Batch, Classifier, ResNet};
use ttq_train::{Phase, TernaryOptimizer, TernaryStep};

#[derive(Parser)]
#[command(about = "Training steps in full precision and with ternary weights")]
struct Options {
    /// Write the figures to this file as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// A small network and few steps: does it run?
    #[arg(long)]
    quick: bool,
    /// Depth of the ResNet, 6 n + 2.
    #[arg(long, default_value_t = 20)]
    depth: usize,
    /// Images in a batch.
    #[arg(long, default_value_t = 128)]
    batch: usize,
    /// Counted steps of each kind.
    #[arg(long, default_value_t = 11)]
    steps: usize,
    /// Set by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Serialize)]
struct Figures {
    suite: &'static str,
    backend: &'static str,
    threads: usize,
    depth: usize,
    batch: usize,
    steps: usize,
    full_precision: Spread,
    ternary: Spread,
    /// Median of the ratios of neighbouring steps.
    ratio: f64,
}

#[derive(Serialize)]
struct Spread {
    median_s: f64,
    min_s: f64,
    max_s: f64,
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn spread(seconds: &[f64]) -> Spread {
    let fold = |start, pick: fn(f64, f64) -> f64| seconds.iter().copied().fold(start, pick);
    Spread { median_s: median(seconds.to_vec()), min_s: fold(f64::INFINITY, f64::min), max_s: fold(0.0, f64::max) }
}

fn main() -> Result<()> {
    let mut options = Options::parse();
    if options.quick {
        (options.depth, options.batch, options.steps) = (8, 32, 3);
    }
    let figures = measure::<Autodiff<burn::backend::Flex>>(&options, "flex");
    let Figures { full_precision: fp, ternary, .. } = &figures;
    println!("ResNet-{}, batch {}, {}, {} threads", figures.depth, figures.batch, figures.backend, figures.threads);
    for (name, spread) in [("full precision", fp), ("ternary", ternary)] {
        println!("{name:15} {:8.4} s a step ({:.4} to {:.4})", spread.median_s, spread.min_s, spread.max_s);
    }
    println!("{:15} {:8.4}", "ratio", figures.ratio);
    if let Some(path) = &options.json {
        let text = serde_json::to_string_pretty(&figures)?;
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn measure<B: AutodiffBackend>(options: &Options, backend: &'static str) -> Figures {
    let device = B::Device::default();
    B::seed(&device, 1);
    let model = Classifier::new(ResNet::<B>::new(options.depth, 10, &device));
    let ternary = Ternary::new(model, &TernaryConfig::default()).expect("the default selection fits a ResNet");
    let momentum = MomentumConfig::new().with_momentum(0.9).with_dampening(0.0);
    let mut learners = [Phase::FullPrecision, Phase::Ternary].map(|phase| {
        let optimizer = SgdConfig::new().with_momentum(Some(momentum.clone())).init();
        let step = TernaryStep::new(ternary.clone()).with_phase(phase);
        Learner::new(step, TernaryOptimizer::uniform(optimizer).with_weight_decay(2e-4), ConstantLr::new(0.01))
    });
    let batch = Batch {
        images: Tensor::<B, 4>::random([options.batch, 3, 32, 32], Distribution::Normal(0.0, 1.0), &device),
        targets: Tensor::<B, 1, Int>::from_ints(vec![3; options.batch].as_slice(), &device),
    };
    let mut seconds = [vec![], vec![]];
    for step in 0..options.steps + 2 {
        for (learner, seconds) in learners.iter_mut().zip(&mut seconds) {
            let start = Instant::now();
            learner.lr_step();
            let output = learner.train_step(batch.clone());
            learner.optimizer_step(output.grads);
            let _ = burn::train::ItemLazy::sync(output.item);
            B::sync(&device).expect("the device answers");
            // The first two steps warm up.
            if step >= 2 {
                seconds.push(start.elapsed().as_secs_f64());
            }
        }
    }
    let ratios = seconds[1].iter().zip(&seconds[0]).map(|(ternary, fp)| ternary / fp).collect();
    Figures {
        suite: "train",
        backend,
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        depth: options.depth,
        batch: options.batch,
        steps: options.steps,
        full_precision: spread(&seconds[0]),
        ternary: spread(&seconds[1]),
        ratio: median(ratios),
    }
}
