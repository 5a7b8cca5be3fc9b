//! Training in phases: resume, stop, wrong metrics, two phases.

use std::path::Path;

use burn::backend::{Autodiff, Flex};
use burn::nn::LinearConfig;
use burn::optim::SgdConfig;
use burn::prelude::*;
use burn::train::metric::{AccuracyMetric, LossMetric};
use burn::train::{ExecutionStrategy, Interrupter, MultiDeviceOptim};
use ttq_core::{QuantizerConfig, RecordError, SelectionConfig, Ternary, TernaryConfig};
use ttq_testing::points::{Batch, Net, Point, PointBatcher, point};
use ttq_train::*;

type A = Autodiff<Flex>;
type Step = TernaryStep<A, Net<A>>;

fn wrapped() -> Step {
    TernaryStep::new(Ternary::new(Net::new(true), &TernaryConfig::default()).unwrap())
}

fn loader<B: Backend>(len: usize, item: fn(ItemKey) -> Point) -> ReproducibleLoader<B, Point, Batch<B>> {
    ReproducibleLoader::new(len, std::sync::Arc::new(item), std::sync::Arc::new(PointBatcher), 8, Default::default())
}

fn data(items: usize) -> PhaseData<A, Net<A>> {
    let train = loader(items, |key| point(key.index, key.epoch)).shuffle(3);
    PhaseData::new(train, loader(24, |key| point(key.index, key.epoch)))
}

fn config(phase: Phase, epochs: usize) -> PhaseConfig {
    PhaseConfig::new(phase, epochs, 0.2, MetricGoal::minimize("Loss"))
        .with_schedule(ScheduleConfig::WarmupCosine { warmup_epochs: 1, min_factor: 0.0 })
}

/// A phase that can continue with more epochs.
fn constant(phase: Phase, epochs: usize) -> PhaseConfig {
    config(phase, epochs).with_schedule(ScheduleConfig::Constant)
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
        PhaseOutcome::Completed { model, epoch, metrics } => {
            assert_eq!(metrics.epoch, epoch);
            (model, epoch)
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
    let anew = Ternary::new(model.ternary().latent().clone(), &TernaryConfig::default()).unwrap();
    let scales = |ternary: &Ternary<A, Net<A>>| ternary.scales()[0].val().into_data();
    assert_ne!(scales(model.ternary()), scales(&anew));
    // Its updates are lost in rounding.
    let still = PhaseConfig { learning_rate: 1e-30, ..config(Phase::Ternary, 1) };
    let (started, _) = completed(run(&directory.path().join("still"), still, model.clone()).unwrap());
    assert_eq!(scales(started.ternary()), scales(&anew));
    let (model, best) = completed(run(&second, config(Phase::Ternary, 3), model).unwrap());
    assert!((1..=3).contains(&best));
    assert_ne!(scales(model.ternary()), scales(&anew), "scales train");
    let history = History::resume(&second, 3).unwrap();
    assert!(history.epochs()[2].train.contains_key("Sparsity"));
    let losses: Vec<f64> = history.epochs().iter().map(|epoch| epoch.valid["Loss"]).collect();
    assert!(losses.iter().all(|loss| losses[best - 1] <= *loss), "epoch {best} of {losses:?}");
}

#[test]
fn a_phase_in_the_same_directory_continues_bit_for_bit() {
    let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let length = constant(Phase::Ternary, 4);
    let expected = completed(run(whole.path(), length.clone(), wrapped()).unwrap());
    for epochs in [1, 3, 4, 4] {
        let part = PhaseConfig { epochs, ..length.clone() };
        let found = completed(run(parts.path(), part, wrapped()).unwrap());
        if epochs == 4 {
            assert_eq!((latent(&found.0), found.1), (latent(&expected.0), expected.1));
        }
    }
    // Validation depends on the running statistics too.
    let metrics = |directory| History::resume(directory, 4).unwrap().epochs();
    for (whole, parts) in metrics(whole.path()).into_iter().zip(metrics(parts.path())) {
        assert_eq!((whole.train["Loss"], whole.valid), (parts.train["Loss"], parts.valid), "epoch {}", whole.epoch);
    }
}

#[test]
fn a_phase_does_not_continue_with_other_numbers_of_batches() {
    let directory = tempfile::tempdir().unwrap();
    completed(run(directory.path(), config(Phase::Ternary, 2), wrapped()).unwrap());
    let longer = constant(Phase::Ternary, 3);
    let error = run_with(directory.path(), longer.clone(), wrapped(), 32, Interrupter::new()).unwrap_err();
    assert!(matches!(error, PhaseError::EpochLength { epoch: 2, found: 5, batches: 4 }), "{error}");
    completed(run(directory.path(), longer, wrapped()).unwrap());
}

#[test]
fn a_directory_of_another_phase_or_another_course_is_refused_and_stays_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    completed(run(directory.path(), config(Phase::FullPrecision, 2), wrapped()).unwrap());
    let before = checkpoints(directory.path());
    let constant = |epochs| constant(Phase::FullPrecision, epochs);
    let error = |config| run(directory.path(), config, wrapped()).unwrap_err();
    for epochs in [2, 3] {
        let error = error(config(Phase::Ternary, epochs));
        assert!(matches!(error, PhaseError::OtherPhase { found: Phase::FullPrecision, .. }), "{error}");
    }
    assert!(matches!(error(config(Phase::FullPrecision, 3)), PhaseError::OtherLength { found: 2, wanted: 3, .. }));
    assert!(matches!(error(constant(1)), PhaseError::FewerEpochs { found: 2, wanted: 1, .. }));
    assert!(matches!(error(constant(0)), PhaseError::Number { .. }));
    assert_eq!(checkpoints(directory.path()), before);
    completed(run(directory.path(), constant(3), wrapped()).unwrap());
    let error = error(config(Phase::FullPrecision, 2));
    assert!(matches!(error, PhaseError::FewerEpochs { found: 3, .. }), "{error}");
}

#[test]
fn a_phase_does_not_continue_with_parameters_of_other_shapes() {
    let directory = tempfile::tempdir().unwrap();
    completed(run(directory.path(), config(Phase::Ternary, 2), wrapped()).unwrap());
    let mut wider = Net::new(true);
    wider.second = LinearConfig::new(16, 20).init(&Default::default());
    wider.last = LinearConfig::new(20, 3).init(&Default::default());
    let wider = || TernaryStep::new(Ternary::new(wider.clone(), &TernaryConfig::default()).unwrap());
    for config in [config(Phase::Ternary, 2), constant(Phase::Ternary, 3)] {
        let error = run(directory.path(), config, wider()).unwrap_err().to_string();
        assert!(error.contains("`last.weight` is [12, 3] in it and [20, 3] in the model"), "{error}");
    }
}

#[test]
fn the_best_epoch_is_one_that_has_a_checkpoint() {
    let directory = tempfile::tempdir().unwrap();
    // The largest loss is that of the first epoch.
    let config = PhaseConfig { goal: MetricGoal::maximize("Loss"), ..config(Phase::Ternary, 3) };
    assert_eq!(completed(run(directory.path(), config.clone(), wrapped()).unwrap()).1, 1);
    for part in ["model", "optim", "scheduler"] {
        std::fs::remove_file(directory.path().join(format!("checkpoint/{part}-1.mpk"))).unwrap();
    }
    assert_eq!(completed(run(directory.path(), config, wrapped()).unwrap()).1, 3);
}

#[test]
#[cfg(target_os = "linux")]
fn a_checkpoint_that_cannot_be_read_for_now_is_an_error_and_stays() {
    let directory = tempfile::tempdir().unwrap();
    let constant = |epochs| constant(Phase::Ternary, epochs);
    completed(run(directory.path(), constant(1), wrapped()).unwrap());
    completed(run(directory.path(), constant(2), wrapped()).unwrap());
    let file = directory.path().join("checkpoint/model-2.mpk");
    let whole = std::fs::read(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    // Reading this file fails: address 0 is not mapped.
    std::os::unix::fs::symlink("/proc/self/mem", &file).unwrap();
    let before = checkpoints(directory.path());
    let error = run(directory.path(), constant(3), wrapped()).unwrap_err();
    assert!(matches!(error, PhaseError::Unreadable { .. }), "{error}");
    assert_eq!(checkpoints(directory.path()), before);
    std::fs::remove_file(&file).unwrap();
    std::fs::write(&file, whole).unwrap();
    completed(run(directory.path(), constant(3), wrapped()).unwrap());
}

#[test]
fn a_batch_with_fewer_items_than_devices_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let devices = ExecutionStrategy::MultiDevice(vec![Default::default(); 2], MultiDeviceOptim::OptimMainDevice);
    let training = PhaseTraining::<A>::new(directory.path(), config(Phase::Ternary, 1), devices);
    let error = training.check(&wrapped(), &data(41)).unwrap_err();
    assert!(matches!(error, PhaseError::BatchOverDevices { items: 1, devices: 2 }), "{error}");
    training.check(&wrapped(), &data(42)).unwrap();
}

#[test]
fn the_metrics_of_ternary_weights_can_be_left_out() {
    let directory = tempfile::tempdir().unwrap();
    completed(run(directory.path(), config(Phase::Ternary, 1).with_ternary_metrics(false), wrapped()).unwrap());
    let train = &History::resume(directory.path(), 1).unwrap().epochs()[0].train;
    let names: Vec<&String> = train.keys().collect();
    assert!(
        train.contains_key("Loss") && !train.contains_key("Sparsity") && !train.contains_key("Flip ratio"),
        "{names:?}"
    );
}

#[test]
fn the_last_epoch_is_returned_if_it_is_the_kept_one() {
    let directory = tempfile::tempdir().unwrap();
    // The largest loss is that of the first epoch.
    let best = PhaseConfig { goal: MetricGoal::maximize("Loss"), ..config(Phase::Ternary, 3) };
    let last = best.clone().with_kept_epoch(KeptEpoch::Last);
    let (last, epoch) = completed(run(directory.path(), last, wrapped()).unwrap());
    assert_eq!(epoch, 3);
    // The same checkpoints.
    let (best, epoch) = completed(run(directory.path(), best, wrapped()).unwrap());
    assert_eq!(epoch, 1);
    assert_ne!(latent(&last), latent(&best));
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
    let config = config(Phase::Ternary, 7).with_early_stopping(Some(EarlyStoppingConfig::new(1.0)));
    config.save(&path).unwrap();
    assert_eq!(PhaseConfig::load(&path).unwrap(), config);
}

/// Trains on items whose values are those of `value`.
fn run_on(
    directory: &Path,
    config: PhaseConfig,
    optimizer: impl Rule,
    value: impl Fn(usize, usize) -> Point + Send + Sync + 'static,
) -> Result<PhaseOutcome<Step>, PhaseError> {
    let item = std::sync::Arc::new(move |key: ItemKey| value(key.index, key.epoch));
    let train = ReproducibleLoader::new(40, item, std::sync::Arc::new(PointBatcher), 8, Default::default());
    PhaseTraining::new(directory, config, ExecutionStrategy::SingleDevice(Default::default())).run(
        wrapped(),
        optimizer,
        PhaseData::new(train, loader(24, |key| point(key.index, 0))),
        |training| training.metrics((AccuracyMetric::new(), LossMetric::new())),
    )
}

fn checkpoints(directory: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(directory.join("checkpoint")) else { return Vec::new() };
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name.ends_with(".mpk"));
    names.sort();
    names
}

#[test]
fn a_training_that_diverges_says_at_which_step_and_keeps_the_checkpoints_before() {
    for phase in [Phase::FullPrecision, Phase::Ternary] {
        let directory = tempfile::tempdir().unwrap();
        let broken = |index, epoch| {
            let (mut values, class) = point(index, epoch);
            // The third batch of the second epoch.
            values[0] = if epoch == 2 && index == 20 { f32::NAN } else { values[0] };
            (values, class)
        };
        let error = run_on(directory.path(), config(phase, 3), optimizer(), broken).unwrap_err();
        let text = error.to_string();
        let PhaseError::Diverged { epoch, batch, metric: Some((metric, value)), weight } = error else {
            panic!("{error}")
        };
        assert_eq!((epoch, batch, metric.as_str(), weight), (2, 3, "Loss", None));
        assert!(value.is_nan() && text.contains("`Loss` is NaN, and every weight is still finite"), "{text}");
        assert_eq!(checkpoints(directory.path()), ["model-1.mpk", "optim-1.mpk", "scheduler-1.mpk"]);
    }
}

#[test]
fn a_training_that_diverges_names_the_first_weight_that_is_not_finite() {
    for phase in [Phase::FullPrecision, Phase::Ternary] {
        let directory = tempfile::tempdir().unwrap();
        let sgd = || ParamGroup::new(SgdConfig::new().init::<A, Step>());
        let optimizer = TernaryOptimizer::new(sgd().with_lr_factor(1e300), sgd(), sgd());
        let constant = PhaseConfig::new(phase, 2, 0.1, MetricGoal::minimize("Loss"));
        let error = run_on(directory.path(), constant, optimizer, point).unwrap_err();
        let PhaseError::Diverged { epoch: 1, weight: Some(weight), .. } = &error else { panic!("{error}") };
        let first = wrapped().ternary().selection().ternary().next().unwrap().path.clone();
        assert_eq!(*weight, first);
        let text = error.to_string();
        assert!(text.contains("epoch 1 at batch") && text.contains(&first), "{text}");
        assert!(checkpoints(directory.path()).is_empty());
    }
}

#[test]
fn a_weight_that_is_not_finite_is_refused_before_anything_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let mut net = Net::new(true);
    net.second.weight = net.second.weight.map(|weight| weight.slice_fill([3..4, 5..6], f32::NAN));
    let step = TernaryStep::new(Ternary::new(net, &TernaryConfig::default()).unwrap());
    let error = run(directory.path(), config(Phase::FullPrecision, 1), step).unwrap_err();
    let PhaseError::NotFinite { weight, origin: NotFinite::Start } = &error else { panic!("{error}") };
    assert_eq!(weight, "second.weight");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn a_frozen_parameter_may_be_infinite_but_not_nan() {
    let directory = tempfile::tempdir().unwrap();
    let training = PhaseTraining::new(
        directory.path(),
        config(Phase::Ternary, 1),
        ExecutionStrategy::SingleDevice(Default::default()),
    );
    for (value, frozen, refused) in
        [(f32::NEG_INFINITY, true, false), (f32::NAN, true, true), (f32::NEG_INFINITY, false, true)]
    {
        let mut net = Net::new(true);
        net.last.bias = net.last.bias.map(|bias| {
            bias.map(|bias| bias.slice_fill(1..2, value).detach().require_grad()).set_require_grad(!frozen)
        });
        let step = TernaryStep::new(Ternary::new(net, &TernaryConfig::default()).unwrap());
        match training.check(&step, &data(40)) {
            Ok(()) => assert!(!refused, "{value}, frozen: {frozen}"),
            Err(PhaseError::NotFinite { weight, .. }) => assert!(refused && weight == "last.bias", "{weight} {value}"),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_checkpoint_of_another_selection_or_quantizer_is_an_error_that_names_the_difference() {
    let directory = tempfile::tempdir().unwrap();
    run(directory.path(), constant(Phase::Ternary, 1), wrapped()).unwrap();
    let files = checkpoints(directory.path());
    let selection = SelectionConfig::new().with_exclude(vec!["^second".into()]);
    let others =
        [TernaryConfig::new().with_selection(selection), TernaryConfig::new().with_quantizer(QuantizerConfig::paper())];
    for other in &others {
        // With the phase complete, and with epochs left.
        for epochs in [1, 2] {
            let step = TernaryStep::new(Ternary::new(Net::new(true), other).unwrap());
            let error = run(directory.path(), constant(Phase::Ternary, epochs), step).unwrap_err();
            let text = error.to_string();
            assert!(text.contains("epoch 1") && text.contains("another directory"), "{text}");
            let PhaseError::Record { epoch: 1, source } = error else { panic!("{error}") };
            let is_selection = matches!(source, RecordError::Selection { .. });
            assert_eq!(is_selection, other.quantizer == QuantizerConfig::ttq(), "{source}");
        }
    }
    assert_eq!(checkpoints(directory.path()), files);
    run(directory.path(), constant(Phase::Ternary, 2), wrapped()).unwrap();
}

#[test]
fn a_checkpoint_that_cannot_be_written_is_an_error_and_the_one_before_it_is_kept() {
    let whole = tempfile::tempdir().unwrap();
    let expected = completed(run(whole.path(), config(Phase::Ternary, 3), wrapped()).unwrap());
    for part in ["model", "optim", "scheduler"] {
        let parts = tempfile::tempdir().unwrap();
        // A directory in the way: the file cannot be renamed to its name.
        let blocked = parts.path().join(format!("checkpoint/{part}-2.mpk"));
        std::fs::create_dir_all(&blocked).unwrap();
        let error = run(parts.path(), config(Phase::Ternary, 3), wrapped()).unwrap_err();
        let PhaseError::Write { path, .. } = &error else { panic!("{error}") };
        assert_eq!(*path, blocked);
        // Files are written beside the training, which may end one more epoch before it notices the error.
        let latest = latest_checkpoint(parts.path());
        assert!(matches!(latest, Some(1 | 3)), "{latest:?}");
        std::fs::remove_dir(blocked).unwrap();
        let found = completed(run(parts.path(), config(Phase::Ternary, 3), wrapped()).unwrap());
        assert_eq!((latent(&found.0), found.1), (latent(&expected.0), expected.1));
    }
}

#[test]
fn a_damaged_checkpoint_is_replaced_by_the_one_before_it() {
    let whole = tempfile::tempdir().unwrap();
    // The worst epoch is the best: two checkpoints are kept.
    let config = |epochs| PhaseConfig::new(Phase::Ternary, epochs, 0.1, MetricGoal::maximize("Loss"));
    let expected = completed(run(whole.path(), config(4), wrapped()).unwrap());
    for (part, keep) in [("model", 0.5), ("optim", 0.5), ("scheduler", 0.0), ("model", 0.0), ("model", 0.99)] {
        let parts = tempfile::tempdir().unwrap();
        run(parts.path(), config(3), wrapped()).unwrap();
        assert_eq!(checkpoints(parts.path()).len(), 6);
        let path = parts.path().join(format!("checkpoint/{part}-3.mpk"));
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..(keep * bytes.len() as f64) as usize]).unwrap();
        let found = completed(run(parts.path(), config(4), wrapped()).unwrap());
        assert_eq!((latent(&found.0), found.1), (latent(&expected.0), expected.1), "{part} {keep}");
    }
}

#[test]
fn a_damaged_checkpoint_without_another_one_is_named() {
    let directory = tempfile::tempdir().unwrap();
    run(directory.path(), constant(Phase::Ternary, 1), wrapped()).unwrap();
    std::fs::write(directory.path().join("checkpoint/optim-1.mpk"), "").unwrap();
    let error = run(directory.path(), constant(Phase::Ternary, 2), wrapped()).unwrap_err().to_string();
    assert!(error.contains("optim-1") && error.contains("start a new run"), "{error}");
}
