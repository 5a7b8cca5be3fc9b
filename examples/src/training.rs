//! One phase of a run: its loaders, metrics and optimizer.

use std::io::IsTerminal;
use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use burn::data::dataloader::DataLoader;
use burn::data::dataloader::batcher::Batcher;
use burn::module::{AutodiffModule, ModuleDisplay};
use burn::optim::adaptor::OptimizerAdaptor;
use burn::prelude::*;
use burn::tensor::backend::AutodiffBackend;
use burn::train::Interrupter;
use burn::train::metric::{AccuracyMetric, LearningRateMetric, LossMetric, TopKAccuracyMetric};
use ttq_core::Ternary;
use ttq_train::{
    EarlyStoppingConfig, ItemKey, KeptEpoch, MetricGoal, ParamGroup, Phase, PhaseConfig, PhaseData, PhaseOutcome,
    PhaseTraining, ReproducibleLoader, TernaryOptimizer, TernaryStep, reestimate_batch_norm,
};

use crate::data::{ImageSet, Images, normalize};
use crate::evaluate::{self, to_batch};
use crate::model::{Batch, Classifier, Network};
use crate::optimizer::Rule;
use crate::{Distort, RunConfig, Trains, print_line};

/// The model that the examples train.
pub(crate) type Model<B, N> = TernaryStep<B, Classifier<B, N>>;

/// What the phases of a run share.
pub(crate) struct Training<'a, B: Backend> {
    pub(crate) config: &'a RunConfig,
    pub(crate) train: Arc<ImageSet>,
    pub(crate) valid: Arc<ImageSet>,
    pub(crate) images: &'a Images,
    pub(crate) distort: Option<Distort>,
    pub(crate) devices: &'a [B::Device],
    pub(crate) interrupter: &'a Interrupter,
    pub(crate) dashboard: bool,
}

impl<B: Trains> Training<'_, B> {
    /// Trains a phase in `directory`, from its newest checkpoint if there is one. Returns the model of the epoch that is kept,
    /// or `None` if the user stopped.
    ///
    /// # Errors
    /// Those of [`PhaseTraining::run`].
    pub(crate) fn run<N>(
        &self,
        phase: Phase,
        epochs: usize,
        directory: &Path,
        model: Model<B, N>,
    ) -> Result<Option<Model<B, N>>>
    where
        N: Network<B> + AutodiffModule<B> + ModuleDisplay + 'static,
        N::InnerModule: Network<B::InnerBackend> + ModuleDisplay,
    {
        let mut training = self.phase(phase, epochs, directory).with_interrupter(self.interrupter.clone());
        if self.dashboard && std::io::stdout().is_terminal() && cfg!(feature = "tui") {
            training = training.with_dashboard();
        }
        let metrics = |training: ttq_train::TernaryTraining<B, Classifier<B, N>, _>| {
            training
                .metrics((AccuracyMetric::new(), TopKAccuracyMetric::new(5), LossMetric::new()))
                .metric_train_numeric(LearningRateMetric::new())
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
    pub(crate) fn check<N>(&self, phase: Phase, epochs: usize, directory: &Path, model: &Model<B, N>) -> Result<()>
    where
        N: Network<B> + AutodiffModule<B> + ModuleDisplay + 'static,
        N::InnerModule: Network<B::InnerBackend> + ModuleDisplay,
    {
        Ok(self.phase(phase, epochs, directory).check(model, &self.data())?)
    }

    fn phase(&self, phase: Phase, epochs: usize, directory: &Path) -> PhaseTraining<B> {
        let config = self.config;
        let phase_config =
            PhaseConfig::new(phase, epochs, config.rates(phase).learning_rate, MetricGoal::maximize("Accuracy"))
                .with_schedule(config.schedule(epochs))
                .with_early_stopping(config.early_stopping.then(EarlyStoppingConfig::default))
                .with_threshold_schedule(config.threshold_schedule)
                .with_averaging(config.averaging)
                .with_oscillation_freezing(config.oscillation_freezing)
                .with_kept_epoch(config.checkpoint)
                .with_accumulated_batches(config.accumulate);
        PhaseTraining::new(directory, phase_config, B::execution(config.strategy, self.devices.to_vec()))
    }

    /// Estimates batch normalization anew for the ternary weights.
    pub(crate) fn reestimate_batch_norm<N>(&self, ternary: &Ternary<B, Classifier<B, N>>)
    where
        N: Network<B> + AutodiffModule<B> + ModuleDisplay + 'static,
        N::InnerModule: Network<B::InnerBackend> + ModuleDisplay,
    {
        let (loader, batches) = (self.train_loader(), self.config.reestimate_batch_norm);
        let forward = |model: &Classifier<B, N>, batch: &Batch<B>| drop(model.network().forward(batch.images.clone()));
        reestimate_batch_norm(&ternary.materialize(), loader.iter().take(batches), forward);
        print_line(format_args!(
            "batch normalization is estimated anew from {} batches",
            batches.min(loader.batches_per_epoch())
        ));
    }

    fn data<N>(&self) -> PhaseData<B, Classifier<B, N>>
    where
        N: Network<B> + AutodiffModule<B> + ModuleDisplay + 'static,
        N::InnerModule: Network<B::InnerBackend> + ModuleDisplay,
    {
        let shape = self.valid.shape();
        let (set, mean, std) = (self.valid.clone(), self.images.mean.clone(), self.images.std.clone());
        let valid_item = move |key: ItemKey| {
            let mut pixels = vec![0.0; shape.iter().product()];
            normalize(set.image(key.index), shape, &mean, &std, &mut pixels);
            Item { pixels, label: set.label(key.index) }
        };
        let (items, batcher, device) = (self.valid.len(), Arc::new(ImageBatcher(shape)), Default::default());
        let valid = ReproducibleLoader::new(items, Arc::new(valid_item), batcher, evaluate::BATCH, device);
        PhaseData::new(self.train_loader(), valid)
    }

    fn train_loader(&self) -> ReproducibleLoader<B, Item, Batch<B>> {
        let (config, shape) = (self.config, self.valid.shape());
        let (mean, std) = (self.images.mean.clone(), self.images.std.clone());
        let (set, augmentation, distort) = (self.train.clone(), config.augmentation, self.distort);
        let train_item = move |key: ItemKey| {
            let mut pixels = vec![0.0; shape.iter().product()];
            let size = [shape[1], shape[2]];
            augmentation.apply(set.image(key.index), set.shape(), [&mean, &std], key.seed, size, distort, &mut pixels);
            Item { pixels, label: set.label(key.index) }
        };
        let (items, batcher) = (self.train.len(), Arc::new(ImageBatcher(shape)));
        let batch_size = config.batch_size.min(items).max(1);
        let device = self.devices[0].clone();
        ReproducibleLoader::new(items, Arc::new(train_item), batcher, batch_size, device)
            .shuffle(config.seed)
            .workers(std::thread::available_parallelism().map_or(1, usize::from).clamp(2, 8))
            .without_partial_batch()
    }
}

/// Creates the optimizer: the same rule for every group.
fn optimizer<B, N>(config: &RunConfig, phase: Phase) -> TernaryOptimizer<Rules<B, N>, Rules<B, N>, Rules<B, N>>
where
    B: AutodiffBackend,
    N: Network<B> + AutodiffModule<B> + ModuleDisplay + 'static,
    N::InnerModule: Network<B::InnerBackend> + ModuleDisplay,
{
    let (group, rates) = (|| ParamGroup::new(config.optimizer.init()), config.rates(phase));
    TernaryOptimizer::new(
        group().with_weight_decay(rates.latent_weight_decay),
        group().with_lr_factor(config.scale_lr_factor),
        group().with_weight_decay(rates.weight_decay),
    )
}

type Rules<B, N> = OptimizerAdaptor<Rule<<B as AutodiffBackend>::InnerBackend>, Model<B, N>, B>;

/// An image before it becomes part of a batch.
struct Item {
    pixels: Vec<f32>,
    label: u8,
}

/// Makes batches of images of the shape `[channels, height, width]`.
struct ImageBatcher([usize; 3]);

impl<B: Backend> Batcher<B, Item, Batch<B>> for ImageBatcher {
    fn batch(&self, items: Vec<Item>, device: &B::Device) -> Batch<B> {
        let labels: Vec<u8> = items.iter().map(|item| item.label).collect();
        let mut pixels = Vec::with_capacity(items.len() * self.0.iter().product::<usize>());
        items.iter().for_each(|item| pixels.extend_from_slice(&item.pixels));
        to_batch(pixels, &labels, self.0, device)
    }
}
