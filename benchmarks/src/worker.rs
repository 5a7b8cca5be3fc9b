//! The process that trains a network on a backend of this project, and times steps on request. `train_torch.py` is its
//! counterpart.

use std::io::{BufRead, Write};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use burn::module::{AutodiffModule, ModuleDisplay};
use burn::optim::SgdConfig;
use burn::optim::lr_scheduler::constant::ConstantLr;
use burn::optim::momentum::MomentumConfig;
use burn::prelude::*;
use burn::tensor::backend::AutodiffBackend;
use burn::train::Learner;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use ttq_core::{Ternary, TernaryConfig};
use ttq_examples::model::{Gpt, ResNet};
use ttq_train::{Phase, TernaryOptimizer, TernaryStep};

use crate::networks::{CLASSES, Mlp, Network, Task, Transformer, gpt_config};
use crate::usage;

/// A network of the suite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum NetworkName {
    /// ResNet for images of CIFAR-10's shape.
    Resnet,
    /// 784 inputs, two hidden layers of 1024 units.
    Mlp,
    /// Four encoder layers, 64 tokens of 128 features.
    Transformer,
    /// Six encoder layers with a causal mask, 128 bytes, 256 features.
    Gpt,
}

impl NetworkName {
    /// Returns the name on the command line.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map_or(String::new(), |value| value.get_name().to_owned())
    }
}

/// A network and the size of its batches.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Training {
    pub(crate) network: NetworkName,
    pub(crate) batch: usize,
    /// Depth of the ResNet, encoder layers of the transformers.
    pub(crate) layers: usize,
    /// Whether to measure the time of the processor instead of the clock's.
    pub(crate) processor_time: bool,
}

/// First answer of a process that trains.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Ready {
    /// Version of PyTorch.
    pub(crate) torch: Option<String>,
    /// Number of floats in parameters and running statistics, without those of ternary scales.
    pub(crate) parameters: usize,
    /// Number of weights that the ternary steps ternarize.
    pub(crate) ternary_weights: usize,
}

/// Answer to a request for steps: seconds of each.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Turn {
    pub(crate) full_precision: Vec<f64>,
    pub(crate) ternary: Vec<f64>,
    /// Largest resident set since the warm-up, in bytes.
    pub(crate) peak_memory: Option<u64>,
}

impl Training {
    /// Trains on the backend `B` and answers requests until the standard input ends.
    ///
    /// # Errors
    /// Returns an error if the standard input or output fails.
    pub(crate) fn serve<B: AutodiffBackend>(self) -> Result<()> {
        let device = B::Device::default();
        B::seed(&device, 1);
        match self.network {
            NetworkName::Resnet => self.serve_network(ResNet::<B>::new(self.layers, CLASSES, &device), &device),
            NetworkName::Mlp => self.serve_network(Mlp::<B>::new(&device), &device),
            NetworkName::Transformer => self.serve_network(Transformer::<B>::new(self.layers, &device), &device),
            NetworkName::Gpt => self.serve_network(Gpt::<B>::new(&gpt_config(self.layers), &device), &device),
        }
    }

    fn serve_network<B, N>(self, network: N, device: &B::Device) -> Result<()>
    where
        B: AutodiffBackend,
        N: Network<B> + AutodiffModule<B> + ModuleDisplay + 'static,
        N::InnerModule: Network<B::InnerBackend> + ModuleDisplay,
    {
        let parameters = Module::num_params(&network);
        let ternary = Ternary::new(Task::new(network), &TernaryConfig::default())?;
        let ternary_weights = ternary.selection().ternary().map(|choice| choice.len()).sum();
        let momentum = MomentumConfig::new().with_momentum(0.9).with_dampening(0.0);
        let mut learners = [Phase::FullPrecision, Phase::Ternary].map(|phase| {
            let optimizer = SgdConfig::new().with_momentum(Some(momentum.clone())).init();
            let step = TernaryStep::new(ternary.clone()).with_phase(phase);
            Learner::new(step, TernaryOptimizer::uniform(optimizer).with_weight_decay(2e-4), ConstantLr::new(0.01))
        });
        drop(ternary);
        let batch = Task::<B, N>::random_batch(self.batch, device);
        let mut steps = |count: usize| {
            let mut seconds = [vec![], vec![]];
            for _ in 0..count {
                for (learner, seconds) in learners.iter_mut().zip(&mut seconds) {
                    let start = self.now();
                    learner.lr_step();
                    let output = learner.train_step(batch.clone());
                    learner.optimizer_step(output.grads);
                    let _ = burn::train::ItemLazy::sync(output.item);
                    B::sync(device).expect("the device must not fail during the benchmark");
                    seconds.push((self.now() - start).as_secs_f64());
                }
            }
            seconds
        };
        steps(WARM_UP);
        usage::reset_peak_memory();
        answer(&Ready { torch: None, parameters, ternary_weights })?;
        for request in std::io::stdin().lock().lines() {
            let request = request?;
            let count: usize = request.parse().with_context(|| format!("`{request}` is not a number of steps"))?;
            // The first step finds data of another process in the caches.
            let [full_precision, ternary] = steps(count + 1).map(|mut seconds| seconds.split_off(1));
            answer(&Turn { full_precision, ternary, peak_memory: usage::peak_memory() })?;
        }
        Ok(())
    }
}

impl Training {
    /// Time since a fixed moment.
    fn now(self) -> Duration {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        match self.processor_time {
            true => usage::processor_time().expect("this system does not count processor time"),
            false => START.elapsed(),
        }
    }
}

/// Untimed steps of each kind before the first answer.
const WARM_UP: usize = 2;

fn answer(value: &impl Serialize) -> Result<()> {
    let mut output = std::io::stdout().lock();
    writeln!(output, "{}", serde_json::to_string(value)?)?;
    Ok(output.flush()?)
}
