//! Whole trainings through burn-train: exact resume, several devices, gradient accumulation, both phases.

use std::path::Path;
use std::sync::{Arc, Mutex};

use burn::backend::{Autodiff, Flex};
use burn::data::dataloader::batcher::Batcher;
use burn::lr_scheduler::LrScheduler;
use burn::module::{AutodiffModule, Module};
use burn::optim::momentum::MomentumConfig;
use burn::optim::{AdamConfig, SgdConfig};
use burn::prelude::*;
use burn::record::{BinBytesRecorder, FullPrecisionSettings, PrettyJsonFileRecorder, Recorder};
use burn::train::metric::{AccuracyMetric, LossMetric};
use burn::train::{ExecutionStrategy, Learner, MultiDeviceOptim, SupervisedTraining, TrainStep, TrainingStrategy};
use ttq_core::{Ternary, TernaryConfig};
use ttq_testing::points::{Batch, Net, Point, PointBatcher, point};
use ttq_train::*;

type A = Autodiff<Flex>;

fn goal() -> MetricGoal {
    MetricGoal::maximize("Accuracy")
}

type Step = TernaryStep<A, Net<A>>;

fn loader<B: Backend>(len: usize, batch_size: usize) -> ReproducibleLoader<B, Point, Batch<B>> {
    ReproducibleLoader::new(
        len,
        Arc::new(|key: ItemKey| point(key.index, key.epoch)),
        Arc::new(PointBatcher),
        batch_size,
        Default::default(),
    )
}

/// The bytes of a wrapped model. (A clone would share its batch statistics with the training, and one made anew would
/// have other parameter ids.)
struct Start(Vec<u8>, bool);

impl Start {
    fn new(norm: bool) -> Self {
        let step = Self::wrap(norm);
        Self(Recorder::<A>::record(&recorder(), step.into_record(), ()).unwrap(), norm)
    }

    fn wrap(norm: bool) -> Step {
        TernaryStep::new(Ternary::new(Net::new(norm), &TernaryConfig::default()).unwrap())
    }

    fn step(&self) -> Step {
        let record = Recorder::<A>::load(&recorder(), self.0.clone(), &Default::default()).unwrap();
        Self::wrap(self.1).load_record(record)
    }
}

fn recorder() -> BinBytesRecorder<FullPrecisionSettings> {
    BinBytesRecorder::default()
}

/// Text, so that checkpoints can be compared.
type Json = PrettyJsonFileRecorder<FullPrecisionSettings>;

/// Trains to epoch `epochs`, from the newest checkpoint in `directory` if there is one.
fn train_to(epochs: usize, directory: &Path, start: &Start, schedule: &ScheduleConfig) -> History {
    let checkpoint = latest_checkpoint(directory);
    let history = match checkpoint {
        Some(epoch) => History::resume(directory, epoch).unwrap(),
        None => History::new(directory),
    };
    let loader = |len| loader(len, 8).shuffle(3).first_epoch(checkpoint.unwrap_or(0) + 1);
    let train = loader(40);
    // Validation has no augmentation: the same points in every epoch.
    let plain = Arc::new(|key: ItemKey| point(key.index, 0));
    let valid = ReproducibleLoader::new(21, plain, Arc::new(PointBatcher), 8, Default::default());
    let mut training = SupervisedTraining::new(directory, Arc::new(train), Arc::new(valid))
        .metrics((AccuracyMetric::new(), LossMetric::new()))
        .metric_train_numeric(SparsityMetric::new())
        .metric_train_numeric(PositiveScaleMetric::new())
        .metric_train_numeric(NegativeScaleMetric::new())
        .metric_train_numeric(FlipRatioMetric::new())
        .metric_train(LayersMetric::new())
        .with_metric_logger(history.clone())
        .with_file_checkpointer(Json::default())
        .with_checkpointing_strategy(KeepLastAndBest::new(history.clone(), goal()))
        .early_stopping(EarlyStoppingConfig::new(1.0).init(history.clone(), goal()))
        .num_epochs(epochs);
    if let Some(epoch) = checkpoint {
        training = training.checkpoint(epoch);
    }
    let sgd = SgdConfig::new().with_momentum(Some(MomentumConfig::new())).init();
    let optimizer = TernaryOptimizer::new(
        ParamGroup::new(AdamConfig::new().init()).with_lr_factor(0.1),
        ParamGroup::new(sgd).with_lr_factor(0.5),
        ParamGroup::new(AdamConfig::new().init()).with_lr_factor(0.1).with_weight_decay(1e-3),
    );
    let length = TrainingLength { epochs: epochs.max(6), steps_per_epoch: 5 };
    let schedule = schedule.init_with_metric(0.1, length, &history, &goal()).unwrap();
    training.launch(Learner::new(start.step().with_flip_ratio(true), optimizer, schedule));
    history
}

/// A checkpoint's file as a value in which the order of maps does not matter.
fn checkpoint(directory: &Path, part: &str, epoch: usize) -> serde_json::Value {
    let path = directory.join("checkpoint").join(format!("{part}-{epoch}.json"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn a_resumed_run_is_bit_for_bit_the_uninterrupted_one() {
    let start = Start::new(true);
    let plateau = PlateauConfig::new(5.0).with_patience(0);
    for schedule in
        [ScheduleConfig::Plateau(plateau), ScheduleConfig::WarmupCosine { warmup_epochs: 1, min_factor: 0.0 }]
    {
        let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let whole_history = train_to(6, whole.path(), &start, &schedule);
        for epochs in [2, 3, 6] {
            train_to(epochs, parts.path(), &start, &schedule);
        }
        let parts_history = History::resume(parts.path(), 6).unwrap();
        assert_eq!(whole_history.epochs(), parts_history.epochs());
        assert_eq!(parts_history.epochs().len(), 6);
        for part in ["model", "optim", "scheduler"] {
            assert_eq!(checkpoint(whole.path(), part, 6), checkpoint(parts.path(), part, 6), "{part}");
        }
        for metric in ["Loss", "Sparsity", "W_p", "Flip_ratio"] {
            for epoch in 1..=6 {
                let log = format!("train/epoch-{epoch}/{metric}.log");
                let read = |directory: &Path| std::fs::read_to_string(directory.join(&log)).unwrap();
                assert_eq!(read(whole.path()), read(parts.path()), "{log}");
                assert_eq!(read(whole.path()).lines().count(), 5, "{log}");
            }
        }
        layers_agree_with_their_means(whole.path(), &whole_history);
        // It trained at all, and it was the ternary network that did.
        let epochs = whole_history.epochs();
        assert!(epochs[5].train["Loss"] < 0.8 * epochs[0].train["Loss"]);
        assert!(epochs.iter().any(|e| e.train["Flip ratio"] > 0.0));
        assert_ne!(checkpoint(whole.path(), "model", 6)["item"]["ternary"]["scales"], serde_json::Value::Null);
    }
}

/// The layers of an epoch are those whose means Burn logged for its last batch.
fn layers_agree_with_their_means(directory: &Path, history: &History) {
    for metrics in history.epochs() {
        let last = |metric: &str| -> f32 {
            let log = directory.join(format!("train/epoch-{}/{metric}.log", metrics.epoch));
            let text = std::fs::read_to_string(log).unwrap();
            text.lines().last().unwrap().split(',').next().unwrap().parse().unwrap()
        };
        let [first, second] = &metrics.layers[..] else { panic!("two layers are ternary: {:?}", metrics.layers) };
        assert_eq!((first.path.as_str(), second.path.as_str()), ("first.weight", "second.weight"));
        let sparsity = 100.0 * (96.0 * first.sparsity + 192.0 * second.sparsity) / 288.0;
        let found = [sparsity, (first.w_pos + second.w_pos) / 2.0, (first.w_neg + second.w_neg) / 2.0];
        assert_close(&found, &["Sparsity", "W_p", "W_n"].map(last));
    }
    // Burn's files do not hold them once more, for every batch.
    assert!(!directory.join("train/epoch-1/Layers.log").exists());
}

/// Latent weights and scales after two epochs of plain gradient descent on batches of 16.
fn train_split(strategy: ExecutionStrategy<A>, batch_size: usize, accumulate: usize, start: &Start) -> Vec<f32> {
    let directory = tempfile::tempdir().unwrap();
    let devices = match &strategy {
        ExecutionStrategy::MultiDevice(devices, _) => devices.len(),
        _ => 1,
    };
    let history = History::new(directory.path());
    let mut training =
        SupervisedTraining::new(directory.path(), Arc::new(loader(64, batch_size).shuffle(5)), Arc::new(loader(9, 9)))
            .metrics((AccuracyMetric::new(), LossMetric::new()))
            .with_metric_logger(history)
            .with_training_strategy(TrainingStrategy::Default(strategy))
            .num_epochs(2);
    if accumulate > 1 {
        training = training.grads_accumulation(accumulate);
    }
    let step = start.step().with_flip_ratio(true).with_gradient_factor(1.0 / (devices * accumulate) as f64);
    let momentum = MomentumConfig::new().with_momentum(0.9).with_dampening(0.0);
    let sgd = SgdConfig::new().with_momentum(Some(momentum)).init();
    let optimizer = TernaryOptimizer::uniform(sgd).with_weight_decay(1e-2);
    let schedule = ScheduleConfig::Constant.init(0.05, TrainingLength { epochs: 2, steps_per_epoch: 4 }).unwrap();
    let model = training.launch(Learner::new(step, optimizer, schedule)).model;
    let net = model.ternary().latent();
    let tensors = [&net.first, &net.second, &net.last].map(|layer| layer.weight.val().into_data());
    let scales = model.ternary().scales().iter().map(|param| param.val().into_data());
    tensors.into_iter().chain(scales).flat_map(|data| data.iter::<f32>().collect::<Vec<_>>()).collect()
}

fn assert_close(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() < 1e-4, "{found} instead of {expected}");
    }
}

#[test]
fn two_devices_give_the_result_of_one() {
    let start = Start::new(false);
    let one = train_split(ExecutionStrategy::SingleDevice(Default::default()), 16, 1, &start);
    for optim in [MultiDeviceOptim::OptimMainDevice, MultiDeviceOptim::OptimSharded] {
        let devices = vec![Default::default(); 2];
        assert_close(&train_split(ExecutionStrategy::MultiDevice(devices, optim), 16, 1, &start), &one);
    }
}

#[test]
fn batch_normalization_on_two_devices_has_the_statistics_of_burn_without_ttq() {
    // The learning rate is 0: both networks see the same batches with the same weights.
    macro_rules! trained {
        ($model:expr, $strategy:expr) => {{
            let directory = tempfile::tempdir().unwrap();
            let data = (Arc::new(loader(64, 16).shuffle(5)), Arc::new(loader(9, 9)));
            let rate = burn::optim::lr_scheduler::constant::ConstantLr::new(0.0);
            SupervisedTraining::new(directory.path(), data.0, data.1)
                .with_training_strategy(TrainingStrategy::Default($strategy))
                .num_epochs(2)
                .launch(Learner::new($model, SgdConfig::new().init(), rate))
                .model
        }};
    }
    let statistics = |net: &Net<Flex>| {
        let norm = net.norm.as_ref().unwrap();
        [norm.running_mean.value_sync(), norm.running_var.value_sync()].map(|values| values.into_data())
    };
    for optim in [MultiDeviceOptim::OptimMainDevice, MultiDeviceOptim::OptimSharded] {
        let strategy = || ExecutionStrategy::MultiDevice(vec![Default::default(); 2], optim);
        let burns = statistics(&trained!(Start::new(true).step().into_ternary().materialize(), strategy()));
        let found = trained!(Start::new(true).step().with_flip_ratio(true), strategy());
        for (found, expected) in statistics(found.ternary().latent()).iter().zip(&burns) {
            found.assert_approx_eq::<f32>(expected, burn::tensor::Tolerance::absolute(1e-6));
        }
        assert!(burns[0].iter::<f32>().any(|mean| mean.abs() > 0.01), "the statistics moved");
    }
}

#[test]
fn accumulated_batches_give_the_result_of_one_large_batch() {
    let start = Start::new(false);
    let one = train_split(ExecutionStrategy::SingleDevice(Default::default()), 16, 1, &start);
    assert_close(&train_split(ExecutionStrategy::SingleDevice(Default::default()), 8, 2, &start), &one);
}

/// A schedule that keeps the rates that it returned.
#[derive(Clone)]
struct Recorded(Schedule, Arc<Mutex<Vec<f64>>>);

impl LrScheduler for Recorded {
    type Record<B: Backend> = <Schedule as LrScheduler>::Record<B>;

    fn step(&mut self) -> f64 {
        let rate = self.0.step();
        self.1.lock().unwrap().push(rate);
        rate
    }

    fn to_record<B: Backend>(&self) -> Self::Record<B> {
        self.0.to_record::<B>()
    }

    fn load_record<B: Backend>(self, record: Self::Record<B>) -> Self {
        Self(self.0.load_record::<B>(record), self.1)
    }
}

#[test]
fn a_cosine_ends_with_the_last_step_of_every_strategy() {
    let two = |optim| ExecutionStrategy::MultiDevice(vec![Default::default(); 2], optim);
    for (strategy, accumulate) in [
        (ExecutionStrategy::SingleDevice(Default::default()), 1),
        (ExecutionStrategy::SingleDevice(Default::default()), 2),
        (two(MultiDeviceOptim::OptimMainDevice), 1),
        (two(MultiDeviceOptim::OptimSharded), 2),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let train = loader(40, 8).shuffle(5);
        let length =
            TrainingLength { epochs: 3, steps_per_epoch: steps_per_epoch(train.batches_per_epoch(), &strategy) };
        let cosine = ScheduleConfig::WarmupCosine { warmup_epochs: 0, min_factor: 0.1 };
        let rates = Arc::new(Mutex::new(Vec::new()));
        let schedule = Recorded(cosine.init(0.05, length).unwrap(), rates.clone());
        let mut training = SupervisedTraining::new(directory.path(), Arc::new(train), Arc::new(loader(9, 9)))
            .with_training_strategy(TrainingStrategy::Default(strategy))
            .num_epochs(3);
        if accumulate > 1 {
            training = training.grads_accumulation(accumulate);
        }
        let optimizer = TernaryOptimizer::uniform(SgdConfig::new().init());
        training.launch(Learner::new(Start::new(false).step(), optimizer, schedule.clone()));
        let rates = rates.lock().unwrap().clone();
        assert_eq!(rates.len(), 15);
        assert!(rates.windows(2).all(|pair| pair[1] < pair[0]), "{rates:?}");
        let mut schedule = cosine.init(0.05, length).unwrap();
        let next = (0..16).map(|_| schedule.step()).last().unwrap();
        assert!((next - 0.005).abs() < 1e-12, "the step after the last one would have the smallest rate, {next}");
    }
}

#[test]
fn batches_left_over_at_the_end_of_an_epoch_make_an_update_of_their_own() {
    // Five batches of 8, two for each update: 16, 16 and 8 points.
    let start = Start::new(false).step();
    let sgd = || TernaryOptimizer::uniform(SgdConfig::new().init());
    let mut learner = Learner::new(
        start.clone().with_flip_ratio(true).with_gradient_factor(0.5),
        Accumulated::new(sgd(), 2, 5),
        burn::optim::lr_scheduler::constant::ConstantLr::new(0.2),
    );
    let mut one = Learner::new(start, sgd(), burn::optim::lr_scheduler::constant::ConstantLr::new(0.2));
    let batch = |points: std::ops::Range<usize>| {
        let points = points.map(|index| point(index, 1)).collect();
        Batcher::<A, _, Batch<A>>::batch(&PointBatcher, points, &Default::default())
    };
    let numbers = |step: &Step| -> Vec<f32> {
        step.ternary().layer_values().into_iter().flat_map(|layer| [layer.latent, layer.scales].concat()).collect()
    };
    for _epoch in 0..2 {
        for (step, update) in [None, Some(0..16), None, Some(16..32), Some(32..40)].into_iter().enumerate() {
            learner.lr_step();
            let output = learner.train_step(batch(8 * step..8 * (step + 1)));
            learner.optimizer_step(output.grads);
            if let Some(points) = update {
                one.lr_step();
                let output = one.train_step(batch(points));
                one.optimizer_step(output.grads);
            }
            assert_close(&numbers(&learner.model()), &numbers(&one.model()));
        }
    }
}

#[test]
fn the_full_precision_phase_trains_latents_and_leaves_scales() {
    let start = Start::new(true);
    let step = start.step().with_phase(Phase::FullPrecision);
    let before = step.ternary().scales()[0].val().into_data();
    let optimizer = TernaryOptimizer::uniform(SgdConfig::new().init());
    let schedule = ScheduleConfig::Constant.init(0.1, TrainingLength { epochs: 1, steps_per_epoch: 1 }).unwrap();
    let mut learner = Learner::new(step.clone(), optimizer, schedule);
    let batch =
        Batcher::<A, _, Batch<A>>::batch(&PointBatcher, (0..8).map(|i| point(i, 1)).collect(), &Default::default());
    let full = TrainStep::step(step.ternary().latent(), batch.clone()).item;
    learner.lr_step();
    let output = learner.train_step(batch);
    learner.optimizer_step(output.grads);
    let loss = burn::train::ItemLazy::sync(output.item).output.loss.into_scalar();
    assert_eq!(loss, full.loss.into_scalar(), "the model itself computes");
    let after = learner.model();
    after.ternary().scales()[0].val().into_data().assert_eq(&before, true);
    let moved =
        after.valid().ternary().latent().second.weight.val() - step.valid().ternary().latent().second.weight.val();
    assert!(moved.abs().max().into_scalar() > 0.0);
}
