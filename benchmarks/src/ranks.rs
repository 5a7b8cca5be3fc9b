//! What sums over processes cost: by their size, and in training steps of ResNet-20 with ternary weights. Every process
//! that `mpirun` starts runs this; process 0 prints.

use std::time::{Duration, Instant};

use anyhow::Result;
use burn::backend::Autodiff;
use burn::optim::SgdConfig;
use burn::optim::lr_scheduler::constant::ConstantLr;
use burn::optim::momentum::MomentumConfig;
use burn::prelude::*;
use burn::train::Learner;
use clap::Args;
use ttq_core::{Ternary, TernaryConfig};
use ttq_cpu::Cpu;
use ttq_examples::model::ResNet;
use ttq_mpi::Mpi;
use ttq_train::{Accumulated, Ranks, TernaryOptimizer, TernaryStep};

use crate::measure::median;
use crate::networks::{CLASSES, Task};

/// Options of [`measure_ranks`].
#[derive(Debug, Clone, Args)]
pub struct RankOptions {
    /// Images in a batch, over all processes.
    #[arg(long, default_value_t = 128)]
    batch: usize,
    /// Number of rounds: steps with and without sums in turn.
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// Numbers of float32 values whose sums are timed.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 1_000, 10_000, 100_000, 272_000, 1_000_000, 4_000_000])]
    sizes: Vec<usize>,
    /// Milliseconds before each of these sums, in which nothing is sent, as between two steps.
    #[arg(long, default_value_t = 0)]
    pause: u64,
}

/// Steps of each kind in a round.
const STEPS: usize = 3;

/// Measures and prints a table.
///
/// # Errors
/// MPI that does not start.
pub fn measure_ranks(options: &RankOptions) -> Result<()> {
    let mpi = Mpi::start()?;
    let ranks = mpi.ranks();
    let first = ranks.is_first();
    for size in &options.sizes {
        let mut values = vec![0.0; *size];
        let repeats = (4_000_000 / (size + 40_000)).max(5);
        let times: Vec<f64> = (0..repeats)
            .map(|_| {
                std::thread::sleep(Duration::from_millis(options.pause));
                ranks.any(false);
                let start = Instant::now();
                ranks.sum(&mut values);
                start.elapsed().as_secs_f64()
            })
            .collect();
        let time = median(times);
        if first {
            println!("{} processes: sum of {size} values: {:.1} µs", ranks.size(), 1e6 * time);
        }
    }
    let [with, without] = steps(&ranks, options);
    let shares: Vec<f64> = with.iter().zip(&without).map(|(with, without)| 1.0 - without / with).collect();
    if first {
        let [with, without, share] = [median(with), median(without), median(shares)];
        println!(
            "{} processes: {:.1} ms per step, {:.1} ms without sums: communication takes {:.1} %",
            ranks.size(),
            1e3 * with,
            1e3 * without,
            1e2 * share
        );
    }
    mpi.finish();
    Ok(())
}

/// Returns the seconds per step with and without sums, by round: those of the slowest process.
fn steps(ranks: &Ranks, options: &RankOptions) -> [Vec<f64>; 2] {
    type B = Autodiff<Cpu>;
    let device = Default::default();
    B::seed(&device, 1);
    let network = Task::new(ResNet::<B>::new(20, CLASSES, &device));
    let ternary = Ternary::new(network, &TernaryConfig::default()).expect("ResNet-20 has ternary weights");
    let step = ranks.broadcast(TernaryStep::new(ternary), &device);
    let momentum = MomentumConfig::new().with_momentum(0.9).with_dampening(0.0);
    let mut learners = [ranks.clone(), Ranks::default()].map(|summed| {
        let optimizer = TernaryOptimizer::uniform(SgdConfig::new().with_momentum(Some(momentum.clone())).init());
        let optimizer = Accumulated::new(optimizer, 1, 1).with_ranks(summed);
        let step = step.clone().with_gradient_factor(1.0 / ranks.size() as f64);
        Learner::new(step, optimizer, ConstantLr::new(1e-3))
    });
    drop(step);
    let batch = Task::<B, ResNet<B>>::random_batch(options.batch / ranks.size(), &device);
    let mut times = [vec![], vec![]];
    for round in 0..=options.rounds {
        for (learner, times) in learners.iter_mut().zip(&mut times) {
            ranks.any(false);
            let start = Instant::now();
            for _ in 0..STEPS {
                learner.lr_step();
                let output = learner.train_step(batch.clone());
                learner.optimizer_step(output.grads);
                let _ = burn::train::ItemLazy::sync(output.item);
            }
            let all = ranks.gather(&(start.elapsed().as_secs_f64() / STEPS as f64));
            // The first round warms up.
            if round > 0 {
                times.push(all.into_iter().fold(0.0, f64::max));
            }
        }
    }
    times
}
