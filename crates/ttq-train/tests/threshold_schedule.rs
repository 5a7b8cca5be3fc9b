//! Schedules of the threshold: the threshold of every step, resume, the best epoch.

use std::path::Path;
use std::sync::Arc;

use burn::backend::{Autodiff, Flex};
use burn::data::dataloader::batcher::Batcher;
use burn::optim::SgdConfig;
use burn::optim::lr_scheduler::constant::ConstantLr;
use burn::train::metric::LossMetric;
use burn::train::{ExecutionStrategy, Interrupter, Learner};
use ttq_core::{QuantizerConfig, Ternary, TernaryConfig, Threshold};
use ttq_testing::points::{Batch, Net, PointBatcher, point};
use ttq_train::*;

type A = Autodiff<Flex>;
type Step = TernaryStep<A, Net<A>>;

const START: Threshold = Threshold::Sparsity(0.0);
const END: Threshold = Threshold::Sparsity(0.6);

fn wrapped() -> Step {
    let config = TernaryConfig::new().with_quantizer(QuantizerConfig::ttq().with_threshold(END));
    TernaryStep::new(Ternary::new(Net::new(true), &config).unwrap())
}

/// Returns the current threshold, as a number.
fn share(step: &Step) -> f64 {
    let Threshold::Sparsity(share) = step.ternary().quantizer().config().threshold else { panic!() };
    share
}

/// Five batches in an epoch.
fn config(epochs: usize, share: f64) -> PhaseConfig {
    PhaseConfig::new(Phase::Ternary, epochs, 0.1, MetricGoal::maximize("Loss"))
        .with_threshold_schedule(Some(ThresholdSchedule::new(START, share)))
}

/// Trains; it is stopped in the epoch `stop`.
fn run(directory: &Path, config: PhaseConfig, stop: usize) -> Result<PhaseOutcome<Step>, PhaseError> {
    let interrupter = Interrupter::new();
    let stopped = interrupter.clone();
    let item = Arc::new(move |key: ItemKey| {
        if key.epoch == stop {
            stopped.stop(Some("the test stops it"));
        }
        point(key.index, key.epoch)
    });
    let train = ReproducibleLoader::new(40, item, Arc::new(PointBatcher), 8, Default::default()).shuffle(3);
    let item = Arc::new(|key: ItemKey| point(key.index, 0));
    let valid = ReproducibleLoader::new(24, item, Arc::new(PointBatcher), 8, Default::default());
    PhaseTraining::new(directory, config, ExecutionStrategy::SingleDevice(Default::default()))
        .with_interrupter(interrupter)
        .run(wrapped(), TernaryOptimizer::uniform(SgdConfig::new().init()), PhaseData::new(train, valid), |training| {
            training.metrics((LossMetric::new(),))
        })
}

fn completed(outcome: PhaseOutcome<Step>) -> (Step, usize) {
    let PhaseOutcome::Completed { model, epoch, .. } = outcome else { panic!("{outcome:?}") };
    (model, epoch)
}

fn numbers(step: &Step) -> Vec<f32> {
    let layers = step.ternary().layer_values();
    layers.into_iter().flat_map(|layer| [layer.latent, layer.scales, layer.thresholds].concat()).collect()
}

#[test]
fn the_scales_start_as_those_of_the_threshold_at_the_start() {
    let directory = tempfile::tempdir().unwrap();
    // Its updates are lost in rounding.
    let still = PhaseConfig { learning_rate: 1e-30, ..config(1, 1.0) };
    let scales = |ternary: &Ternary<A, Net<A>>| ternary.scales()[0].val().into_data();
    let (model, _) = completed(run(directory.path(), still, 9).unwrap());
    let fitted = wrapped().into_ternary().with_threshold(START).unwrap().refit();
    assert_eq!(scales(model.ternary()), scales(&fitted));
    assert_ne!(scales(&fitted), scales(wrapped().ternary()));
}

#[test]
fn the_threshold_of_every_step_is_that_of_the_definition() {
    let start = wrapped().with_threshold_schedule(START, 6, 0).unwrap();
    assert_eq!(share(&start), 0.0);
    // Two batches for each update, the fifth one alone; the threshold stays between accumulated batches.
    for (accumulated, finished) in [(1, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]), (2, [0, 2, 2, 4, 5, 5, 7, 7, 9, 10])] {
        let optimizer = Accumulated::new(TernaryOptimizer::uniform(SgdConfig::new().init::<A, Step>()), accumulated, 5);
        let mut learner = Learner::new(start.clone(), optimizer, ConstantLr::new(0.1));
        for finished in finished {
            let points = (0..8).map(|index| point(index, 1)).collect();
            learner.lr_step();
            let output =
                learner.train_step(Batcher::<A, _, Batch<A>>::batch(&PointBatcher, points, &Default::default()));
            learner.optimizer_step(output.grads);
            let expected = START.toward(END, f64::from(finished) / 6.0).unwrap();
            assert_eq!(Threshold::Sparsity(share(&learner.model())), expected, "{finished} of {accumulated}");
        }
        let zeros = learner.model().ternary().stats().layers[0].sparsity;
        assert!((zeros - 0.6).abs() < 0.01, "{zeros}");
    }
}

#[test]
fn a_phase_that_is_stopped_while_the_threshold_moves_continues_bit_for_bit() {
    let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let expected = completed(run(whole.path(), config(4, 0.75), usize::MAX).unwrap());
    for stop in [2, 3] {
        let outcome = run(parts.path(), config(4, 0.75), stop).unwrap();
        let PhaseOutcome::Stopped { saved_epochs, .. } = outcome else { panic!("{outcome:?}") };
        assert_eq!(saved_epochs, stop - 1);
    }
    let found = completed(run(parts.path(), config(4, 0.75), usize::MAX).unwrap());
    assert_eq!((numbers(&found.0), found.1), (numbers(&expected.0), expected.1));
    let sparsity = |directory: &Path| -> Vec<f64> {
        History::resume(directory, 4).unwrap().epochs().iter().map(|epoch| epoch.train["Sparsity"]).collect()
    };
    let shares = sparsity(whole.path());
    assert_eq!(shares, sparsity(parts.path()));
    assert!(shares[0] < 15.0 && shares[1] < shares[2] && (shares[3] - 60.0).abs() < 0.5, "{shares:?}");
}

#[test]
fn the_best_epoch_has_the_threshold_of_the_configuration() {
    // The largest loss is that of the first epoch, so that it would be the best one.
    for (epochs, share_of_phase, first) in [(3, 0.5, 2), (3, 1.0, 3), (2, 0.01, 1)] {
        let directory = tempfile::tempdir().unwrap();
        let (model, best) = completed(run(directory.path(), config(epochs, share_of_phase), usize::MAX).unwrap());
        assert!(best >= first, "{best} for {share_of_phase}");
        assert_eq!(share(&model), 0.6);
    }
}

#[test]
fn a_schedule_that_does_not_fit_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    for (schedule, expected) in [
        (ThresholdSchedule::new(START, 1.5), "share of the threshold's schedule 1.5"),
        (ThresholdSchedule::new(START, 0.0), "share of the threshold's schedule 0"),
        (ThresholdSchedule::new(Threshold::MeanFraction(0.1), 0.5), "from `mean:0.1` to `zeros:0.6`"),
    ] {
        let config = config(2, 0.5).with_threshold_schedule(Some(schedule));
        let error = run(directory.path(), config, usize::MAX).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}
