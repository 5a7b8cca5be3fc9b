//! Averages over updates: the definition, resume, several devices, validation, packing.

use std::path::Path;
use std::sync::Arc;

use burn::backend::{Autodiff, Flex};
use burn::data::dataloader::DataLoader;
use burn::data::dataloader::batcher::Batcher;
use burn::module::{AutodiffModule, Param, ParamId};
use burn::nn::{Linear, LinearConfig};
use burn::optim::SgdConfig;
use burn::optim::lr_scheduler::constant::ConstantLr;
use burn::prelude::*;
use burn::tensor::DType;
use burn::tensor::backend::AutodiffBackend;
use burn::train::metric::LossMetric;
use burn::train::{ExecutionStrategy, Interrupter, Learner, MultiDeviceOptim, TrainStep};
use burn_ndarray::NdArray;
use ttq_core::packed::pack;
use ttq_core::{QuantizerConfig, ScaleParameter, Ternary, TernaryConfig, Threshold};
use ttq_cpu::Cpu;
use ttq_inference::load;
use ttq_testing::parameters;
use ttq_testing::points::{Batch, Net, Point, PointBatcher, point};
use ttq_train::*;

type Step<A> = TernaryStep<A, Net<A>>;

const DECAY: f64 = 0.4;

fn wrapped<A: AutodiffBackend>(parameter: ScaleParameter) -> Step<A> {
    let quantizer = QuantizerConfig { scale_parameter: parameter, ..QuantizerConfig::ttq() };
    let config = TernaryConfig::new().with_quantizer(quantizer.with_threshold(Threshold::Sparsity(0.4)));
    TernaryStep::new(Ternary::new(Net::new(true), &config).unwrap())
}

/// The names of all float parameters, and their values.
fn values<B: Backend>(module: &impl Module<B>) -> Vec<(String, Vec<f64>)> {
    parameters(module).into_iter().map(|(name, data)| (name, data.iter().collect())).collect()
}

fn batch<A: AutodiffBackend>(number: usize) -> Batch<A> {
    let points = (8 * number..8 * (number + 1)).map(|index| point(index, 1)).collect();
    Batcher::<A, _, Batch<A>>::batch(&PointBatcher, points, &Default::default())
}

/// Trains, two batches for each update, beside the sums of the definition in float64.
fn assert_definition<B: Backend>(parameter: ScaleParameter) {
    let step = wrapped::<Autodiff<B>>(parameter).with_averaging(Averaging::new(DECAY), 0).with_gradient_factor(0.5);
    let mut expected = values(step.ternary());
    let sgd = TernaryOptimizer::uniform(SgdConfig::new().init());
    let mut learner = Learner::new(step, Accumulated::new(sgd, 2, 100), ConstantLr::new(0.2));
    for number in 0..10 {
        learner.lr_step();
        let output = learner.train_step(batch(number));
        learner.optimizer_step(output.grads);
        let step = learner.model();
        if number % 2 == 1 {
            let t = (number / 2 + 1) as f64;
            let decay = f64::min(DECAY, (1.0 + t) / (10.0 + t));
            for ((_, average), (_, now)) in expected.iter_mut().zip(values(step.ternary())) {
                average
                    .iter_mut()
                    .zip(now)
                    .for_each(|(average, now)| *average = decay * *average + (1.0 - decay) * now);
            }
        }
        let (average, now) = (values(step.average().unwrap()), values(step.ternary()));
        for (((name, found), (_, expected)), (_, now)) in average.iter().zip(&expected).zip(&now) {
            let close = |(a, b): (&f64, &f64)| (a - b).abs() < 1e-6;
            assert!(found.iter().zip(expected).all(close), "{name} at batch {number}: {found:?}, not {expected:?}");
            assert!(number < 5 || name.contains("bias") || found != now, "{name} is averaged");
        }
    }
}

#[test]
fn the_average_after_every_update_is_that_of_the_definition() {
    assert_definition::<Flex>(ScaleParameter::Logarithm);
    assert_definition::<Flex>(ScaleParameter::Linear);
    assert_definition::<Cpu>(ScaleParameter::Logarithm);
    assert_definition::<NdArray>(ScaleParameter::Logarithm);
}

#[test]
fn frozen_parameters_and_constants_are_those_of_the_network() {
    type A = Autodiff<Flex>;
    let step = wrapped::<A>(ScaleParameter::Logarithm).map_ternary(|ternary| {
        // A mask of -∞ is a constant; its average would be NaN.
        let mask =
            |bias: Param<Tensor<A, 1>>| bias.set_require_grad(false).map(|bias| bias.mul_scalar(0.0) - f32::INFINITY);
        ternary.map_latent(|mut net| {
            net.second.bias = net.second.bias.map(mask);
            net
        })
    });
    let averaging = Averaging::new(DECAY);
    let average = averaging.update(step.ternary().valid(), step.ternary(), 1);
    let bias = average.latent().second.bias.as_ref().unwrap().val().into_data();
    assert!(bias.iter::<f32>().all(|bias| bias == f32::NEG_INFINITY), "{bias}");
}

/// A layer with a counter and a mask.
#[derive(Module, Debug)]
struct Counting<B: Backend> {
    layer: Linear<B>,
    steps: Param<Tensor<B, 1, Int>>,
    used: Param<Tensor<B, 1, Bool>>,
}

#[test]
fn integers_and_booleans_are_those_of_the_network() {
    type A = Autodiff<Flex>;
    let device = Default::default();
    let mut network = Counting::<A> {
        layer: LinearConfig::new(2, 2).init(&device),
        steps: Param::initialized(ParamId::new(), Tensor::from_ints([0], &device)),
        used: Param::initialized(ParamId::new(), Tensor::from_bool([false].into(), &device)),
    };
    let average = network.valid();
    network.steps = network.steps.map(|steps| steps + 3);
    network.used = network.used.map(Tensor::bool_not);
    let average = Averaging::new(DECAY).update(average, &network, 1);
    assert_eq!(average.steps.val().into_data().iter::<i64>().collect::<Vec<_>>(), [3]);
    assert!(average.used.val().into_data().iter::<bool>().all(|used| used));
}

#[test]
fn weights_of_16_bits_are_not_averaged() {
    let directory = tempfile::tempdir().unwrap();
    let half = |ternary: Ternary<A, Net<A>>| {
        ternary.map_latent(|mut net| {
            let cast = |weight: Tensor<A, 2>| Tensor::from_inner(weight.inner().cast(DType::BF16)).require_grad();
            net.second.weight = net.second.weight.map(cast);
            net
        })
    };
    let training =
        PhaseTraining::<A>::new(directory.path(), config(1), ExecutionStrategy::SingleDevice(Default::default()));
    let data = PhaseData::new(loader(40, |key| point(key.index, 0)), loader(24, |key| point(key.index, 0)));
    let error = training.check(&wrapped(ScaleParameter::Logarithm).map_ternary(half), &data).unwrap_err().to_string();
    assert!(error.starts_with("the weight second.weight has 16 bits"), "{error}");
}

#[test]
fn an_average_shares_no_running_statistics_with_the_network() {
    type A = Autodiff<Flex>;
    let step = wrapped::<A>(ScaleParameter::Logarithm).with_averaging(Averaging::new(DECAY), 0);
    let statistics = |ternary: &Ternary<A, Net<A>>| ternary.latent().norm.as_ref().unwrap().running_mean.value_sync();
    let before = statistics(step.average().unwrap()).into_data();
    (0..2).for_each(|number| drop(TrainStep::step(&step, batch(number))));
    assert_eq!(statistics(step.average().unwrap()).into_data(), before);
    assert_ne!(statistics(step.ternary()).into_data(), before);
}

type A = Autodiff<Flex>;

fn loader<B: Backend>(items: usize, item: impl Fn(ItemKey) -> Point + Send + Sync + 'static) -> Points<B> {
    ReproducibleLoader::new(items, Arc::new(item), Arc::new(PointBatcher), 8, Default::default())
}

type Points<B> = ReproducibleLoader<B, Point, Batch<B>>;

/// Five batches in an epoch, two for each update, the fifth one alone.
fn config(epochs: usize) -> PhaseConfig {
    PhaseConfig::new(Phase::Ternary, epochs, 0.2, MetricGoal::minimize("Loss"))
        .with_averaging(Some(Averaging::new(0.9)))
        .with_threshold_schedule(Some(ThresholdSchedule::new(Threshold::Sparsity(0.0), 0.5)))
        .with_accumulated_batches(2)
}

/// Trains; it is stopped in the epoch `stop`.
fn run(directory: &Path, config: PhaseConfig, stop: usize) -> Result<PhaseOutcome<Step<A>>, PhaseError> {
    run_on(directory, config, stop, ExecutionStrategy::SingleDevice(Default::default()))
}

fn run_on(
    directory: &Path,
    config: PhaseConfig,
    stop: usize,
    strategy: ExecutionStrategy<A>,
) -> Result<PhaseOutcome<Step<A>>, PhaseError> {
    let interrupter = Interrupter::new();
    let stopped = interrupter.clone();
    let item = move |key: ItemKey| {
        if key.epoch == stop {
            stopped.stop(Some("the test stops it"));
        }
        point(key.index, key.epoch)
    };
    let data = PhaseData::new(loader(40, item).shuffle(3), loader(24, |key| point(key.index, 0)));
    PhaseTraining::new(directory, config, strategy).with_interrupter(interrupter).run(
        wrapped(ScaleParameter::Logarithm),
        TernaryOptimizer::uniform(SgdConfig::new().init()),
        data,
        |training| training.metrics((LossMetric::new(),)),
    )
}

fn completed(outcome: PhaseOutcome<Step<A>>) -> (Step<A>, EpochMetrics) {
    let PhaseOutcome::Completed { model, metrics, .. } = outcome else { panic!("{outcome:?}") };
    (model, metrics)
}

fn validation_loss(step: &Step<A>) -> f64 {
    let network = step.valid().ternary().materialize();
    let batches: Vec<Batch<Flex>> = loader(24, |key| point(key.index, 0)).iter().collect();
    let losses = batches.iter().map(|batch| {
        let output = ttq_testing::classification(network.forward(batch.0.clone()), batch.1.clone());
        output.loss.into_scalar().elem::<f64>()
    });
    losses.sum::<f64>() / batches.len() as f64
}

#[test]
fn a_phase_that_is_stopped_continues_with_its_average_bit_for_bit() {
    let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (expected, _) = completed(run(whole.path(), config(4), usize::MAX).unwrap());
    for stop in [2, 4] {
        let outcome = run(parts.path(), config(4), stop).unwrap();
        assert!(
            matches!(outcome, PhaseOutcome::Stopped { saved_epochs, .. } if saved_epochs == stop - 1),
            "{outcome:?}"
        );
    }
    let (found, _) = completed(run(parts.path(), config(4), usize::MAX).unwrap());
    assert_eq!(values(&found.valid()), values(&expected.valid()));
    let metrics = |directory| -> Vec<_> {
        let epochs = History::resume(directory, 4).unwrap().epochs();
        epochs.into_iter().map(|epoch| (epoch.train["Loss"], epoch.valid)).collect()
    };
    assert_eq!(metrics(parts.path()), metrics(whole.path()));
}

#[test]
fn the_network_of_a_phase_is_the_average_that_validated_and_packs_as_such() {
    let directory = tempfile::tempdir().unwrap();
    let (model, metrics) = completed(run(directory.path(), config(3), usize::MAX).unwrap());
    assert!((metrics.valid["Loss"] - validation_loss(&model)).abs() < 1e-6);
    let plain = tempfile::tempdir().unwrap();
    let (_, without) = completed(run(plain.path(), config(3).with_averaging(None), usize::MAX).unwrap());
    assert_ne!(metrics.valid["Loss"], without.valid["Loss"]);
    // It trains on like any other.
    assert!(model.average().is_none() && model.ternary().latent().second.weight.is_require_grad());

    let ternary = model.valid().into_ternary();
    let loaded = load(Net::<Flex>::new(true), &pack(&ternary).unwrap()).unwrap();
    assert_eq!(values(&loaded), values(&ternary.materialize()));
}

#[test]
fn the_average_of_two_devices_does_not_depend_on_where_the_optimizer_runs() {
    let numbers = |strategy| {
        let directory = tempfile::tempdir().unwrap();
        let (model, _) = completed(run_on(directory.path(), config(2), usize::MAX, strategy).unwrap());
        values(&model.valid()).into_iter().map(|(_, values)| values).collect::<Vec<_>>()
    };
    let devices = || vec![Default::default(); 2];
    let main = numbers(ExecutionStrategy::MultiDevice(devices(), MultiDeviceOptim::OptimMainDevice));
    let sharded = numbers(ExecutionStrategy::MultiDevice(devices(), MultiDeviceOptim::OptimSharded));
    for (main, sharded) in main.iter().flatten().zip(sharded.iter().flatten()) {
        assert!((main - sharded).abs() < 1e-5, "{main} and {sharded}");
    }
}

#[test]
fn a_phase_without_averages_continues_and_averages_from_there() {
    let directory = tempfile::tempdir().unwrap();
    let config = |epochs| config(epochs).with_threshold_schedule(None);
    completed(run(directory.path(), config(1).with_averaging(None), usize::MAX).unwrap());
    let (model, metrics) = completed(run(directory.path(), config(3), usize::MAX).unwrap());
    assert!(metrics.epoch > 1 && (metrics.valid["Loss"] - validation_loss(&model)).abs() < 1e-6);
    // And back: the average is dropped.
    let (model, metrics) = completed(run(directory.path(), config(5).with_averaging(None), usize::MAX).unwrap());
    assert!((metrics.valid["Loss"] - validation_loss(&model)).abs() < 1e-6);
}

#[test]
fn a_decay_out_of_range_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    for decay in [0.0, 1.0, -0.5, f64::NAN] {
        let config = config(1).with_averaging(Some(Averaging::new(decay)));
        let error = run(directory.path(), config, usize::MAX).unwrap_err().to_string();
        assert!(error.contains("the decay of the average"), "{error}");
    }
}
