//! Training in phases: resume, stop, wrong metrics, two phases.

use std::path::Path;

use burn::backend::{Autodiff, Flex};
use burn::optim::SgdConfig;
use burn::prelude::*;
use burn::train::metric::{AccuracyMetric, LossMetric};
use burn::train::{ExecutionStrategy, Interrupter};
use ttq_core::{Ternary, TernaryConfig};
use ttq_testing::points::{Batch, Net, Point, PointBatcher, point};
use ttq_train::*;

type A = Autodiff<Flex>;
type Step = TernaryStep<A, Net<A>>;

fn wrapped() -> Step {
    TernaryStep::new(Ternary::new(Net::new(true), &TernaryConfig::default()).unwrap())
}

fn loader<B: Backend>(len: usize) -> ReproducibleLoader<B, Point, Batch<B>> {
    let item = std::sync::Arc::new(|key: ItemKey| point(key.index, key.epoch));
    ReproducibleLoader::new(len, item, std::sync::Arc::new(PointBatcher), 8, Default::default())
}

fn data(items: usize) -> PhaseData<A, Net<A>> {
    PhaseData::new(loader(items).shuffle(3), loader(24))
}

fn config(phase: Phase, epochs: usize) -> PhaseConfig {
    PhaseConfig::new(phase, epochs, 0.2, MetricGoal::minimize("Loss"))
        .with_schedule(ScheduleConfig::WarmupCosine { warmup_epochs: 1, min_factor: 0.0 })
}

fn optimizer() -> TernaryOptimizer<impl Rule, impl Rule, impl Rule> {
    let sgd = || ParamGroup::new(SgdConfig::new().init::<A, Step>());
    TernaryOptimizer::new(sgd(), sgd().with_lr_factor(0.1), sgd())
}

trait Rule: burn::optim::Optimizer<Step, A> + 'static {}
impl<O: burn::optim::Optimizer<Step, A> + 'static> Rule for O {}

fn run(directory: &Path, config: PhaseConfig, step: Step) -> Result<PhaseOutcome<Step>, PhaseError> {
    run_with(directory, config, step, 40, Interrupter::new())
}

fn run_with(
    directory: &Path,
    config: PhaseConfig,
    step: Step,
    items: usize,
    interrupter: Interrupter,
) -> Result<PhaseOutcome<Step>, PhaseError> {
    PhaseTraining::new(directory, config, ExecutionStrategy::SingleDevice(Default::default()))
        .with_interrupter(interrupter)
        .run(step, optimizer(), data(items), |training| training.metrics((AccuracyMetric::new(), LossMetric::new())))
}

fn completed(outcome: PhaseOutcome<Step>) -> (Step, usize) {
    match outcome {
        PhaseOutcome::Completed { model, best_epoch, metrics } => {
            assert_eq!(metrics.epoch, best_epoch);
            (model, best_epoch)
        }
        other => panic!("the phase did not complete: {other:?}"),
    }
}

fn latent(step: &Step) -> Vec<f32> {
    step.ternary().latent().second.weight.val().into_data().iter().collect()
}

#[test]
fn two_phases_train_a_network_whose_scales_start_from_the_trained_weights() {
    let directory = tempfile::tempdir().unwrap();
    let (first, second) = (directory.path().join("full-precision"), directory.path().join("ternary"));
    let start = wrapped();
    let before = latent(&start);
    let (model, _) = completed(run(&first, config(Phase::FullPrecision, 3), start).unwrap());
    assert_ne!(latent(&model), before);
    assert_eq!(model.phase(), Phase::FullPrecision);
    let wrapped = Ternary::new(model.into_ternary().into_latent(), &TernaryConfig::default()).unwrap();
    let scales = wrapped.scales()[0].val().into_data();
    let (model, best) = completed(run(&second, config(Phase::Ternary, 3), TernaryStep::new(wrapped)).unwrap());
    assert!((1..=3).contains(&best));
    assert_ne!(model.ternary().scales()[0].val().into_data(), scales, "scales train");
    let history = History::resume(&second, 3).unwrap();
    assert!(history.epochs()[2].train.contains_key("Sparsity"));
    let losses: Vec<f64> = history.epochs().iter().map(|epoch| epoch.valid["Loss"]).collect();
    assert!(losses.iter().all(|loss| losses[best - 1] <= *loss), "epoch {best} of {losses:?}");
}

#[test]
fn a_phase_in_the_same_directory_continues_bit_for_bit() {
    let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut length = config(Phase::Ternary, 4);
    length.schedule = ScheduleConfig::Constant;
    let expected = completed(run(whole.path(), length.clone(), wrapped()).unwrap());
    for epochs in [1, 3, 4, 4] {
        let part = PhaseConfig { epochs, ..length.clone() };
        let found = completed(run(parts.path(), part, wrapped()).unwrap());
        if epochs == 4 {
            assert_eq!((latent(&found.0), found.1), (latent(&expected.0), expected.1));
        }
    }
}

#[test]
fn a_stopped_phase_says_how_many_epochs_are_saved() {
    let directory = tempfile::tempdir().unwrap();
    let interrupter = Interrupter::new();
    interrupter.stop(Some("the test stops it"));
    let outcome = run_with(directory.path(), config(Phase::Ternary, 3), wrapped(), 40, interrupter).unwrap();
    let PhaseOutcome::Stopped { saved_epochs, reason } = outcome else { panic!("{outcome:?}") };
    assert_eq!((saved_epochs, reason.as_str()), (0, "the test stops it"));
}

#[test]
fn a_goal_that_no_metric_has_is_an_error_that_lists_the_metrics() {
    let directory = tempfile::tempdir().unwrap();
    let config = PhaseConfig::new(Phase::FullPrecision, 1, 0.1, MetricGoal::maximize("accuracy"));
    let error = run(directory.path(), config, wrapped()).unwrap_err().to_string();
    assert!(error.contains("`accuracy`") && error.contains("Accuracy, Loss"), "{error}");
}

#[test]
fn more_accumulated_batches_than_an_epoch_has_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    for batches in [0, 6] {
        let config = config(Phase::Ternary, 1).with_accumulated_batches(batches);
        let error = run(directory.path(), config, wrapped()).unwrap_err().to_string();
        assert!(error.contains("choose 1 to 5"), "{error}");
    }
}

#[test]
fn a_phase_without_data_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let outcome = run_with(directory.path(), config(Phase::Ternary, 1), wrapped(), 0, Interrupter::new());
    let error = outcome.unwrap_err().to_string();
    assert!(error.contains("0 training batches"), "{error}");
}

#[test]
fn a_phase_config_is_saved_and_loaded() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("phase.json");
    let config = config(Phase::Ternary, 7).with_early_stopping(Some(EarlyStoppingConfig::default()));
    config.save(&path).unwrap();
    assert_eq!(PhaseConfig::load(&path).unwrap(), config);
}
