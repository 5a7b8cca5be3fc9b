//! One phase of a run: its loaders, metrics and optimizer.

use std::io::IsTerminal;
use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use burn::data::dataloader::DataLoader;
use burn::optim::adaptor::OptimizerAdaptor;
use burn::prelude::*;
use burn::tensor::backend::AutodiffBackend;
use burn::train::Interrupter;
use burn::train::metric::{AccuracyMetric, LearningRateMetric, LossMetric, TopKAccuracyMetric};
use ttq_core::Ternary;
use ttq_train::{
    EarlyStoppingConfig, KeptEpoch, ParamGroup, Phase, PhaseConfig, PhaseData, PhaseOutcome, PhaseTraining,
    TernaryOptimizer, TernaryStep, reestimate_batch_norm,
};

use crate::model::{Batch, Classifier, Inputs, Network, TrainableNetwork};
use crate::optimizer::Rule;
use crate::processes::ranks;
use crate::task::{Loader, Score, Task};
use crate::{RunConfig, Trains, print_line};

/// The model that the examples train.
pub(crate) type Model<B, N> = TernaryStep<B, Classifier<B, N>>;

/// What the phases of a run share.
pub(crate) struct Training<'a, B: Backend, N: Network<B>> {
    pub(crate) config: &'a RunConfig,
    pub(crate) task: &'a Arc<N::Task>,
    pub(crate) devices: &'a [B::Device],
    pub(crate) interrupter: &'a Interrupter,
    pub(crate) dashboard: bool,
}

impl<B: Trains, N: TrainableNetwork<B>> Training<'_, B, N> {
    /// Trains a phase in `directory`, from its newest checkpoint if there is one. Returns the model of the epoch that is kept,
    /// or `None` if the user stopped.
    ///
    /// # Errors
    /// Those of [`PhaseTraining::run`].
    pub(crate) fn run(
        &self,
        phase: Phase,
        epochs: usize,
        directory: &Path,
        model: Model<B, N>,
    ) -> Result<Option<Model<B, N>>> {
        let mut training = self.phase(phase, epochs, directory).with_interrupter(self.interrupter.clone());
        if self.dashboard && std::io::stdout().is_terminal() && cfg!(feature = "tui") {
            training = training.with_dashboard();
        }
        let metrics = |training: ttq_train::TernaryTraining<B, Classifier<B, N>, _>| {
            let training = training
                .metrics((AccuracyMetric::new(), LossMetric::new()))
                .metric_train_numeric(LearningRateMetric::new());
            match N::Task::SCORE {
                Score::Accuracy => training
                    .metric_train_numeric(TopKAccuracyMetric::new(5))
                    .metric_valid_numeric(TopKAccuracyMetric::new(5)),
                Score::Perplexity => training,
            }
        };
        match training.run(model, optimizer(self.config, phase), self.data(), metrics)? {
            PhaseOutcome::Completed { model, epoch, .. } => {
                match self.config.checkpoint {
                    KeptEpoch::Best => print_line(format_args!("{phase}: epoch {epoch} validates best")),
                    KeptEpoch::Last => print_line(format_args!("{phase}: epoch {epoch}, the last one, is kept")),
                }
                Ok(Some(model))
            }
            PhaseOutcome::Stopped { saved_epochs, reason } => {
                print_line(format_args!("{phase}: {reason}; {saved_epochs} epochs are saved"));
                Ok(None)
            }
            _ => anyhow::bail!("the phase {phase} ended in an unknown way"),
        }
    }

    /// Checks a phase before anything is written.
    ///
    /// # Errors
    /// Those of [`PhaseTraining::check`].
    pub(crate) fn check(&self, phase: Phase, epochs: usize, directory: &Path, model: &Model<B, N>) -> Result<()> {
        Ok(self.phase(phase, epochs, directory).check(model, &self.data())?)
    }

    fn phase(&self, phase: Phase, epochs: usize, directory: &Path) -> PhaseTraining<B> {
        let config = self.config;
        let phase_config = PhaseConfig::new(phase, epochs, config.rates(phase).learning_rate, N::Task::SCORE.goal())
            .with_schedule(config.schedule(epochs, N::Task::SCORE))
            .with_early_stopping(config.early_stopping.then(|| EarlyStoppingConfig::new(N::Task::SCORE.improvement())))
            .with_threshold_schedule(config.threshold_schedule)
            .with_averaging(config.averaging)
            .with_oscillation_freezing(config.oscillation_freezing)
            .with_kept_epoch(config.checkpoint)
            .with_accumulated_batches(config.accumulate);
        PhaseTraining::new(directory, phase_config, B::execution(config.strategy, self.devices.to_vec()))
            .with_ranks(ranks())
    }

    /// Estimates batch normalization anew for the ternary weights.
    pub(crate) fn reestimate_batch_norm(&self, ternary: &Ternary<B, Classifier<B, N>>) {
        let (loader, batches) = (self.train_loader(), self.config.reestimate_batch_norm);
        let forward = |model: &Classifier<B, N>, batch: &Batch<B, Inputs<B, N>>| {
            drop(model.network().forward(batch.inputs.clone()))
        };
        reestimate_batch_norm(&ternary.materialize(), loader.iter().take(batches), forward);
        print_line(format_args!(
            "batch normalization is estimated anew from {} batches",
            batches.min(loader.batches_per_epoch())
        ));
    }

    fn data(&self) -> PhaseData<B, Classifier<B, N>> {
        PhaseData::new(self.train_loader(), self.task.validation())
    }

    fn train_loader(&self) -> Loader<B, N::Task> {
        self.task.training(self.config, self.devices[0].clone())
    }
}

/// Creates the optimizer: the same rule for every group.
fn optimizer<B: AutodiffBackend, N: TrainableNetwork<B>>(
    config: &RunConfig,
    phase: Phase,
) -> TernaryOptimizer<Rules<B, N>, Rules<B, N>, Rules<B, N>> {
    let (group, rates) = (|| ParamGroup::new(config.optimizer.init()), config.rates(phase));
    TernaryOptimizer::new(
        group().with_weight_decay(rates.latent_weight_decay),
        group().with_lr_factor(config.scale_lr_factor),
        group().with_weight_decay(rates.weight_decay),
    )
}

type Rules<B, N> = OptimizerAdaptor<Rule<<B as AutodiffBackend>::InnerBackend>, Model<B, N>, B>;
