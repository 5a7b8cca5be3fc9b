//! One phase of training: a launch of burn-train with everything plugged in.

use std::io::IsTerminal;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use burn::data::dataloader::batcher::Batcher;
use burn::module::{AutodiffModule, Module, ModuleDisplay};
use burn::optim::adaptor::OptimizerAdaptor;
use burn::prelude::*;
use burn::record::{FullPrecisionSettings, NamedMpkFileRecorder, Recorder};
use burn::tensor::backend::AutodiffBackend;
use burn::train::metric::{AccuracyMetric, LearningRateMetric, LossMetric, TopKAccuracyMetric};
use burn::train::{Interrupter, Learner, SupervisedTraining, TrainingStrategy};
use ttq_train::{
    AtomicRecorder, EarlyStopping, FlipRatioMetric, History, KeepLastAndBest, LayersMetric, NegativeScaleMetric,
    ParamGroup, Phase, PositiveScaleMetric, ReproducibleLoader, SparsityMetric, TernaryOptimizer, TernaryStep,
    latest_checkpoint,
};

use crate::data::{ImageSet, Images, mix, normalize};
use crate::evaluate;
use crate::model::{Batch, Classifier, Network};
use crate::optimizer::Rule;
use crate::progress::{EpochLines, PlainRenderer};
use crate::{RunConfig, Trains};

/// Burn's name of the accuracy.
pub(crate) const ACCURACY: &str = "Accuracy";
/// Burn's name of the loss.
pub(crate) const LOSS: &str = "Loss";

type FileRecorder = AtomicRecorder<NamedMpkFileRecorder<FullPrecisionSettings>>;

/// A learner's model in these examples.
pub(crate) type Model<B, N> = TernaryStep<B, Classifier<B, N>>;

/// What a phase needs to know.
pub(crate) struct Plan<'a, B: Backend> {
    pub(crate) config: &'a RunConfig,
    pub(crate) epochs: usize,
    pub(crate) phase: Phase,
    pub(crate) directory: &'a Path,
    pub(crate) train: Arc<ImageSet>,
    pub(crate) valid: Arc<ImageSet>,
    pub(crate) images: &'a Images,
    pub(crate) devices: &'a [B::Device],
    pub(crate) interrupter: &'a Interrupter,
    pub(crate) dashboard: bool,
}

/// How a phase ended.
pub(crate) enum End<M> {
    /// With the model of the epoch that validates best.
    Done(M),
    /// The user stopped it; so many epochs are in checkpoints.
    Stopped(usize),
}

/// Trains `model`, from the newest checkpoint in the phase's directory if there is one.
pub(crate) fn train<B, N>(model: Model<B, N>, plan: &Plan<B>) -> Result<End<Model<B, N>>>
where
    B: Trains,
    N: Network<B> + AutodiffModule<B> + ModuleDisplay + 'static,
    N::InnerModule: Network<B::InnerBackend> + ModuleDisplay,
{
    let checkpoint = latest_checkpoint(plan.directory);
    let history = match checkpoint {
        Some(epoch) => History::resume(plan.directory, epoch)?,
        None => History::new(plan.directory),
    };
    let early_stopping = plan.config.early_stopping.then(|| EarlyStopping::new(history.clone(), ACCURACY));
    let ended_early = early_stopping.is_some_and(|rule| rule.is_met());
    if !ended_early && checkpoint.is_none_or(|epoch| epoch < plan.epochs) {
        launch(model.clone(), plan, checkpoint, &history)?;
        // Burn's dashboard resets the state of the interrupter at the end; the message stays.
        if let Some(reason) = plan.interrupter.get_message() {
            println!("{}: {reason}", name(plan.phase));
            return Ok(End::Stopped(latest_checkpoint(plan.directory).unwrap_or(0)));
        }
    }
    let best = history
        .best_epoch(ACCURACY)
        .with_context(|| format!("no epoch was validated in {}: train at least one epoch", plan.directory.display()))?;
    println!("{}: epoch {best} validates best", name(plan.phase));
    let path = plan.directory.join("checkpoint").join(format!("model-{best}"));
    let record = Recorder::<B>::load(&FileRecorder::default(), path.clone(), &plan.devices[0])
        .map_err(|error| anyhow::anyhow!("cannot read the checkpoint {}: {error}", path.display()))?;
    Ok(End::Done(model.load_record(record)))
}

fn name(phase: Phase) -> &'static str {
    match phase {
        Phase::FullPrecision => "full precision",
        Phase::Ternary => "ternary",
    }
}

fn launch<B, N>(model: Model<B, N>, plan: &Plan<B>, checkpoint: Option<usize>, history: &History) -> Result<()>
where
    B: Trains,
    N: Network<B> + AutodiffModule<B> + ModuleDisplay + 'static,
    N::InnerModule: Network<B::InnerBackend> + ModuleDisplay,
{
    let config = plan.config;
    if plan.train.is_empty() || plan.valid.is_empty() {
        bail!(
            "there are {} images to train on and {} to validate on: raise --limit",
            plan.train.len(),
            plan.valid.len()
        );
    }
    let first_epoch = checkpoint.unwrap_or(0) + 1;
    let batch_size = config.batch_size.min(plan.train.len());
    let steps_per_epoch = plan.train.len() / batch_size * config.strategy.schedule_steps(plan.devices.len());
    let schedule =
        config.schedule(plan.epochs).build(config.learning_rate, steps_per_epoch, plan.epochs, history, ACCURACY)?;

    let device = &plan.devices[0];
    let [channels, height, width] = plan.valid.shape();
    let training = {
        let set = plan.train.clone();
        let (mean, std, augmentation, seed) =
            (plan.images.mean.clone(), plan.images.std.clone(), config.augmentation, config.seed);
        let item = move |index: usize, epoch: usize| {
            let mut pixels = vec![0.0; channels * height * width];
            let seed = mix(seed, epoch as u64, index as u64);
            augmentation.apply(set.image(index), set.shape(), [&mean, &std], seed, [height, width], &mut pixels);
            Item { pixels, label: set.label(index) }
        };
        ReproducibleLoader::<B, Item, Batch<B>>::new(
            plan.train.len(),
            Arc::new(item),
            Arc::new(Images2Batch(plan.valid.shape())),
            batch_size,
            device.clone(),
        )
        .shuffle(config.seed)
        .first_epoch(first_epoch)
        .workers(std::thread::available_parallelism().map_or(1, usize::from).clamp(2, 8))
        .without_partial_batch()
    };
    let validation = {
        let set = plan.valid.clone();
        let (mean, std) = (plan.images.mean.clone(), plan.images.std.clone());
        let item = move |index: usize, _epoch: usize| {
            let mut pixels = vec![0.0; set.shape().iter().product()];
            normalize(set.image(index), set.shape(), &mean, &std, &mut pixels);
            Item { pixels, label: set.label(index) }
        };
        ReproducibleLoader::<B::InnerBackend, Item, Batch<B::InnerBackend>>::new(
            plan.valid.len(),
            Arc::new(item),
            Arc::new(Images2Batch(plan.valid.shape())),
            evaluate::BATCH,
            Default::default(),
        )
    };

    let dashboard = plan.dashboard && std::io::stdout().is_terminal() && cfg!(feature = "tui");
    let mut supervised = SupervisedTraining::new(plan.directory, Arc::new(training), Arc::new(validation))
        .metrics((AccuracyMetric::new(), TopKAccuracyMetric::new(5), LossMetric::new()))
        .metric_train_numeric(LearningRateMetric::new())
        .num_epochs(plan.epochs)
        .with_interrupter(plan.interrupter.clone())
        .with_file_checkpointer(FileRecorder::default())
        .with_checkpointing_strategy(
            KeepLastAndBest::new(history.clone(), ACCURACY).with_interrupter(plan.interrupter.clone()),
        )
        .with_training_strategy(TrainingStrategy::Default(B::execution(config.strategy, plan.devices.to_vec())));
    if plan.phase == Phase::Ternary {
        supervised = supervised
            .metric_train_numeric(SparsityMetric::new())
            .metric_train_numeric(PositiveScaleMetric::new())
            .metric_train_numeric(NegativeScaleMetric::new())
            .metric_train_numeric(FlipRatioMetric::new())
            .metric_train(LayersMetric::new());
    }
    if config.early_stopping {
        supervised = supervised.early_stopping(EarlyStopping::new(history.clone(), ACCURACY));
    }
    if let Some(epoch) = checkpoint {
        println!("{}: goes on after epoch {epoch}", name(plan.phase));
        supervised = supervised.checkpoint(epoch);
    }
    if dashboard {
        supervised = supervised.with_metric_logger(history.clone());
    } else {
        supervised = supervised
            .with_metric_logger(EpochLines::new(history.clone(), name(plan.phase), plan.epochs))
            .renderer(PlainRenderer::new(name(plan.phase)));
    }
    if config.accumulate > 1 {
        supervised = supervised.grads_accumulation(config.accumulate);
    }

    // Burn adds the gradients of devices and of accumulated batches; this makes them a mean.
    let factor = 1.0 / (plan.devices.len() * config.accumulate) as f64;
    let model = model.with_phase(plan.phase).with_gradient_factor(factor);
    drop(supervised.launch(Learner::new(model, optimizer(config), schedule)));
    Ok(())
}

/// The same rule for every group, each with a state of its own.
fn optimizer<B, N>(config: &RunConfig) -> TernaryOptimizer<Rules<B, N>, Rules<B, N>, Rules<B, N>>
where
    B: AutodiffBackend,
    N: Network<B> + AutodiffModule<B> + ModuleDisplay + 'static,
    N::InnerModule: Network<B::InnerBackend> + ModuleDisplay,
{
    let group = || ParamGroup::new(config.optimizer.init());
    TernaryOptimizer::new(
        group().with_weight_decay(config.latent_weight_decay),
        group().with_lr_factor(config.scale_lr_factor),
        group().with_weight_decay(config.weight_decay),
    )
}

type Rules<B, N> = OptimizerAdaptor<Rule<<B as AutodiffBackend>::InnerBackend>, Model<B, N>, B>;

/// One image on its way into a batch.
struct Item {
    pixels: Vec<f32>,
    label: u8,
}

/// Makes batches of images of one shape, `[channels, height, width]`.
struct Images2Batch([usize; 3]);

impl<B: Backend> Batcher<B, Item, Batch<B>> for Images2Batch {
    fn batch(&self, items: Vec<Item>, device: &B::Device) -> Batch<B> {
        let [channels, height, width] = self.0;
        let n = items.len();
        let targets: Vec<i32> = items.iter().map(|item| i32::from(item.label)).collect();
        let pixels: Vec<f32> = items.into_iter().flat_map(|item| item.pixels).collect();
        Batch {
            images: Tensor::from_data(TensorData::new(pixels, [n, channels, height, width]), device),
            targets: Tensor::from_ints(targets.as_slice(), device),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::backend::Flex;
    use burn::train::metric::Metric;

    #[test]
    fn metric_names_are_those_of_burn() {
        assert_eq!(*AccuracyMetric::<Flex>::new().name(), ACCURACY);
        assert_eq!(*LossMetric::<Flex>::new().name(), LOSS);
    }
}
