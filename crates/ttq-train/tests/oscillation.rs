//! Freezing of codes that oscillate: the definition, resume, metrics, errors.

use std::path::Path;
use std::sync::Arc;

use burn::backend::{Autodiff, Flex};
use burn::data::dataloader::batcher::Batcher;
use burn::module::Param;
use burn::nn::{Linear, LinearConfig};
use burn::optim::SgdConfig;
use burn::optim::lr_scheduler::constant::ConstantLr;
use burn::prelude::*;
use burn::train::metric::LossMetric;
use burn::train::{ExecutionStrategy, Interrupter, Learner};
use burn_ndarray::NdArray;
use ttq_core::{Granularity, QuantizerConfig, SelectionConfig, Ternary, TernaryConfig, Threshold};
use ttq_cpu::Cpu;
use ttq_testing::points::{Batch, Net, PointBatcher, point};
use ttq_testing::{normal, tensor};
use ttq_train::*;

const SHAPE: [usize; 2] = [40, 30];

/// The state of one weight by the definition.
#[derive(Clone, Default)]
struct Reference {
    code: f64,
    direction: f64,
    frequency: f64,
    mean: f64,
    frozen: bool,
}

fn code(latent: f64, threshold: f64) -> f64 {
    f64::from(i8::from(latent > threshold) - i8::from(latent < -threshold))
}

impl Reference {
    /// Returns the latent weight after freezing.
    fn update(&mut self, latent: f64, threshold: f64, momentum: f64, limit: f64) -> f64 {
        let code = code(latent, threshold);
        if !self.frozen {
            let change = code - self.code;
            let oscillates = change != 0.0 && change * self.direction < 0.0;
            if change != 0.0 {
                self.direction = change.signum();
            }
            self.frequency = momentum * f64::from(u8::from(oscillates)) + (1.0 - momentum) * self.frequency;
            self.frozen = self.frequency > limit;
            self.code = if self.frozen { self.mean.round() } else { code };
            self.mean = momentum * code + (1.0 - momentum) * self.mean;
        }
        match (self.frozen, self.code) {
            (false, _) => latent,
            (true, 0.0) => latent.clamp(-0.75 * threshold, 0.75 * threshold),
            (true, code) => code * f64::max(code * latent, f64::max(1.25 * threshold, f64::from(f32::MIN_POSITIVE))),
        }
    }
}

fn with_latent<A: burn::tensor::backend::AutodiffBackend>(linear: Linear<A>, seed: u64) -> Linear<A> {
    let value = |weight: Param<Tensor<A, 2>>| weight.map(|_| tensor(&normal(&SHAPE, seed)).set_require_grad(true));
    Linear { weight: value(linear.weight), bias: linear.bias }
}

/// Updates with random weights, of which most change their code.
fn assert_definition<B: Backend>(threshold: Threshold, granularity: Granularity) {
    type A<B> = Autodiff<B>;
    let quantizer = QuantizerConfig::ttq().with_threshold(threshold).with_granularity(granularity);
    let selection = SelectionConfig::new().with_keep_last_layer(false);
    let config = TernaryConfig::new().with_quantizer(quantizer).with_selection(selection);
    let linear: Linear<A<B>> = LinearConfig::new(SHAPE[0], SHAPE[1]).init(&Default::default());
    let mut ternary = Ternary::new(with_latent(linear, 0), &config).unwrap();
    let values = |ternary: &Ternary<A<B>, Linear<A<B>>>| ternary.layer_values().remove(0);

    let start = |code: &i8| Reference { code: f64::from(*code), mean: f64::from(*code), ..Reference::default() };
    let mut references: Vec<_> = values(&ternary).codes.iter().map(start).collect();
    let freezing = OscillationFreezing::new(0.75, 0.5).with_momentum(0.3);
    let mut oscillations = Oscillations::new(&ternary);
    for step in 1..=12 {
        ternary = ternary.map_latent(|linear| with_latent(linear, step));
        let before = values(&ternary);
        let progress = step as f64 / 12.0;
        (oscillations, ternary) = oscillations.freeze(ternary, freezing, progress);
        let after = values(&ternary);
        for (index, reference) in references.iter_mut().enumerate() {
            let group = if before.thresholds.len() == 1 { 0 } else { index % SHAPE[1] };
            let threshold = f64::from(before.thresholds[group]);
            let expected =
                reference.update(f64::from(before.latent[index]), threshold, 0.3, freezing.threshold(progress));
            let found = f64::from(after.latent[index]);
            assert!((found - expected).abs() < 1e-6, "weight {index} after step {step}: {found}, not {expected}");
            assert_eq!(code(found, threshold), reference.code, "weight {index} after step {step}");
        }
    }
    let frozen = references.iter().filter(|reference| reference.frozen).count();
    let all = threshold == Threshold::Sparsity(0.0);
    assert!(frozen > 100 && (all || frozen < 1100), "{frozen} of 1200 weights are frozen");
    for code in [-1.0, 0.0, 1.0] {
        assert!(references.iter().any(|reference| reference.frozen && reference.code == code), "{code}");
    }
}

#[test]
fn frequencies_frozen_codes_and_latent_weights_are_those_of_the_definition() {
    let (max, mean) = (Threshold::MaxFraction(0.2), Threshold::MeanFraction(0.7));
    assert_definition::<Flex>(max, Granularity::Tensor);
    assert_definition::<Flex>(mean, Granularity::Channel);
    assert_definition::<Cpu>(mean, Granularity::Tensor);
    assert_definition::<Cpu>(max, Granularity::Channel);
    assert_definition::<NdArray>(max, Granularity::Tensor);
    assert_definition::<NdArray>(mean, Granularity::Channel);
    // The threshold is 0.
    assert_definition::<Flex>(Threshold::Sparsity(0.0), Granularity::Tensor);
    assert_definition::<Cpu>(Threshold::Sparsity(0.0), Granularity::Channel);
}

#[test]
fn the_threshold_is_constant_in_the_first_quarter_and_falls_along_a_cosine() {
    let freezing = OscillationFreezing::new(0.1, 0.02);
    let found = [0.0, 0.25, 0.625, 1.0, 2.0].map(|progress| freezing.threshold(progress));
    for (found, expected) in found.iter().zip([0.1, 0.1, 0.06, 0.02, 0.02]) {
        assert!((found - expected).abs() < 1e-12, "{found} instead of {expected}");
    }
}

#[test]
fn a_freezing_parses_its_own_text_form_and_refuses_numbers_out_of_range() {
    let freezing: OscillationFreezing = "0.1:0.01".parse().unwrap();
    assert_eq!(freezing, OscillationFreezing::new(0.1, 0.01));
    assert_eq!(freezing.to_string(), "0.1:0.01:0.001");
    assert_eq!("0.5:0.4:0.3".parse(), Ok(OscillationFreezing::new(0.5, 0.4).with_momentum(0.3)));
    for text in ["0.01:0.1", "0.1:0.001", "2:0.1", "0.1:0.01:0", "nan:0.1", "0.1:nan", "0.2:0.1:nan"] {
        let error = text.parse::<OscillationFreezing>().unwrap_err().to_string();
        assert!(error.contains("START >= END"), "{text}: {error}");
    }
    for text in ["", "0.1", "a:b", "1:2:3:4"] {
        let error = text.parse::<OscillationFreezing>().unwrap_err().to_string();
        assert!(error.contains("START:END:MOMENTUM"), "{text}: {error}");
    }
}

type A = Autodiff<Flex>;
type Step = TernaryStep<A, Net<A>>;

fn wrapped() -> Step {
    let config =
        TernaryConfig::new().with_quantizer(QuantizerConfig::ttq().with_threshold(Threshold::MeanFraction(0.7)));
    TernaryStep::new(Ternary::new(Net::new(true), &config).unwrap())
}

/// At a learning rate of 2 codes flip to and fro.
const RATE: f64 = 2.0;

fn freezing() -> OscillationFreezing {
    OscillationFreezing::new(0.15, 0.07).with_momentum(0.05)
}

/// Counts the flips of the last 50 of 100 updates of two batches each.
fn late_flips(start: Step) -> usize {
    let optimizer = Accumulated::new(TernaryOptimizer::uniform(SgdConfig::new().init::<A, Step>()), 2, 200);
    let mut learner = Learner::new(start.with_gradient_factor(0.5), optimizer, ConstantLr::new(RATE));
    let codes =
        |step: &Step| -> Vec<i8> { step.ternary().layer_values().into_iter().flat_map(|layer| layer.codes).collect() };
    let (mut before, mut flips) = (codes(&learner.model()), 0);
    for number in 0..200 {
        let points = (8 * number..8 * (number + 1)).map(|index| point(index, 1)).collect();
        learner.lr_step();
        let output = learner.train_step(Batcher::<A, _, Batch<A>>::batch(&PointBatcher, points, &Default::default()));
        learner.optimizer_step(output.grads);
        let after = codes(&learner.model());
        let changed = before.iter().zip(&after).filter(|(before, after)| before != after).count();
        assert!(number % 2 == 1 || changed == 0, "accumulated batches change no code");
        flips += if number >= 100 { changed } else { 0 };
        before = after;
    }
    flips
}

#[test]
fn codes_flip_less_with_freezing() {
    let plain = late_flips(wrapped());
    let frozen = late_flips(wrapped().with_oscillation_freezing(freezing(), 200, 0));
    assert!(plain > 20 && frozen < plain / 2, "{frozen} flips, {plain} without");
}

/// Trains, five batches in an epoch; it is stopped in the epoch `stop`.
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

fn config(epochs: usize) -> PhaseConfig {
    PhaseConfig::new(Phase::Ternary, epochs, 1.0, MetricGoal::minimize("Loss"))
        .with_oscillation_freezing(Some(freezing()))
        .with_averaging(Some(Averaging::new(0.5)))
        .with_kept_epoch(KeptEpoch::Last)
}

fn completed(outcome: PhaseOutcome<Step>) -> Step {
    let PhaseOutcome::Completed { model, .. } = outcome else { panic!("{outcome:?}") };
    model
}

fn numbers(step: &Step) -> Vec<f32> {
    let layers = step.ternary().layer_values();
    layers.into_iter().flat_map(|layer| [layer.latent, layer.scales].concat()).collect()
}

fn metrics(directory: &Path, epochs: usize) -> Vec<[f64; 4]> {
    let history = History::resume(directory, epochs).unwrap().epochs();
    let names = ["Oscillating", "Frozen", "Flip ratio", "Loss"];
    history.into_iter().map(|epoch| names.map(|name| epoch.train[name])).collect()
}

#[test]
fn a_phase_that_is_stopped_continues_with_its_frozen_codes_bit_for_bit() {
    let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let expected = completed(run(whole.path(), config(12), usize::MAX).unwrap());
    for stop in [5, 9] {
        let outcome = run(parts.path(), config(12), stop).unwrap();
        assert!(
            matches!(outcome, PhaseOutcome::Stopped { saved_epochs, .. } if saved_epochs == stop - 1),
            "{outcome:?}"
        );
    }
    let found = completed(run(parts.path(), config(12), usize::MAX).unwrap());
    assert_eq!(numbers(&found), numbers(&expected));
    let expected = metrics(whole.path(), 12);
    assert_eq!(metrics(parts.path(), 12), expected);
    let [first, last] = [expected[0], expected[11]];
    assert!(first[1] == 0.0 && last[1] > 1.0 && first[0] + last[0] > 0.0, "{expected:?}");
}

#[test]
fn a_phase_without_freezing_continues_and_freezes_from_there() {
    let directory = tempfile::tempdir().unwrap();
    let plain = config(1).with_averaging(None).with_oscillation_freezing(None);
    completed(run(directory.path(), plain, usize::MAX).unwrap());
    assert!(!History::resume(directory.path(), 1).unwrap().epochs()[0].train.contains_key("Frozen"));
    completed(run(directory.path(), config(12), usize::MAX).unwrap());
    let last = History::resume(directory.path(), 12).unwrap().epochs()[11].train["Frozen"];
    assert!(last > 1.0, "{last}");
    // And back: nothing is frozen any more.
    let plain = config(13).with_oscillation_freezing(None);
    completed(run(directory.path(), plain, usize::MAX).unwrap());
}

#[test]
fn numbers_out_of_range_are_an_error_of_the_phase() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(1).with_oscillation_freezing(Some(OscillationFreezing::new(0.1, 0.2)));
    let error = run(directory.path(), config, usize::MAX).unwrap_err().to_string();
    assert!(error.contains("0.1:0.2:0.001"), "{error}");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn frozen_parameters_keep_their_latent_weights() {
    let step = wrapped().map_ternary(|ternary| ternary.map_latent(Module::no_grad));
    let before = numbers(&step);
    let (_, ternary) = Oscillations::new(step.ternary()).freeze(step.into_ternary(), freezing(), 1.0);
    assert_eq!(numbers(&TernaryStep::new(ternary)), before);
}
