//! Distillation: its loss against its definition, and trainings with a teacher.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::backend::{Autodiff, Flex};
use burn::data::dataloader::batcher::Batcher;
use burn::module::{AutodiffModule, ModuleVisitor, Param};
use burn::optim::{GradientsParams, SgdConfig};
use burn::prelude::*;
use burn::record::{BinBytesRecorder, FullPrecisionSettings, Recorder};
use burn::tensor::backend::AutodiffBackend;
use burn::train::metric::{AccuracyMetric, LossMetric};
use burn::train::{ClassificationOutput, ExecutionStrategy, InferenceStep, ItemLazy, TrainOutput, TrainStep};
use burn_ndarray::NdArray;
use ttq_core::{Ternary, TernaryConfig};
use ttq_cpu::Cpu;
use ttq_testing::points::{Batch, Net, Point, PointBatcher, point};
use ttq_testing::{classification, normal, tensor};
use ttq_train::*;

type A = Autodiff<Flex>;

/// A user's model that shows its logits.
#[derive(Module, Debug)]
struct Model<B: Backend> {
    net: Net<B>,
}

impl<B: Backend> InferenceStep for Model<B> {
    type Input = Batch<B>;
    type Output = ClassificationOutput<B>;

    fn step(&self, (x, targets): Batch<B>) -> Self::Output {
        classification(self.net.forward(x), targets)
    }
}

impl<B: AutodiffBackend> TrainStep for Model<B> {
    type Input = Batch<B>;
    type Output = ClassificationOutput<B>;

    fn step(&self, (x, targets): Batch<B>) -> TrainOutput<Self::Output> {
        let output = classification(self.net.forward(x), targets);
        TrainOutput::new(self, output.loss.backward(), output)
    }
}

impl<B: AutodiffBackend> Logits<B> for Model<B> {
    fn logits(&self, (x, _): &Batch<B>) -> Tensor<B, 2> {
        self.net.forward(x.clone())
    }

    fn output(&self, logits: Tensor<B, 2>, (_, targets): Batch<B>) -> (Tensor<B, 1>, Self::Output) {
        let output = classification(logits, targets);
        (output.loss.clone(), output)
    }
}

type Step = TernaryStep<A, Model<A>>;

/// The logits of a network on the inner backend.
fn logits(teacher: &Net<Flex>, (x, _): &Batch<A>) -> Tensor<Flex, 2> {
    teacher.forward(x.clone().inner())
}

fn wrapped(norm: bool) -> Step {
    TernaryStep::new(Ternary::new(Model { net: Net::new(norm) }, &TernaryConfig::default()).unwrap())
}

fn distilled(step: Step, weight: f64, teacher: Net<Flex>) -> Step {
    step.with_model_step(Distillation::new(weight).with_temperature(2.0).init(teacher, logits).unwrap())
}

fn batch(number: usize) -> Batch<A> {
    let points = (0..12).map(|index| point(index + 12 * number, 0)).collect();
    Batcher::<A, _, _>::batch(&PointBatcher, points, &Default::default())
}

/// The loss by its definition, with `own` the mean of z² / 2 over all logits.
fn naive(config: Distillation, student: &[f64], teacher: &[f64], classes: usize) -> f64 {
    let softmax = |row: &[f64]| -> Vec<f64> {
        let sum: f64 = row.iter().map(|z| (z / config.temperature).exp()).sum();
        row.iter().map(|z| (z / config.temperature).exp() / sum).collect()
    };
    let rows = student.len() / classes;
    let divergences = student.chunks(classes).zip(teacher.chunks(classes)).map(|(student, teacher)| -> f64 {
        let (q, p) = (softmax(student), softmax(teacher));
        p.iter().zip(&q).map(|(p, q)| p * (p / q).ln()).sum()
    });
    let own = student.iter().map(|z| z * z / 2.0).sum::<f64>() / student.len() as f64;
    (1.0 - config.weight) * own + config.weight * config.temperature.powi(2) * divergences.sum::<f64>() / rows as f64
}

fn loss_and_gradients_equal_the_definition<B: AutodiffBackend>() {
    let (rows, classes) = (5, 7);
    let data = [11, 12].map(|seed| normal(&[rows, classes], seed));
    let [z, v] = data.clone().map(|data| data.iter::<f64>().map(|z| 3.0 * z).collect::<Vec<f64>>());
    for (weight, temperature) in [(0.0, 2.0), (0.3, 1.0), (0.9, 4.0), (1.0, 0.5)] {
        let config = Distillation { weight, temperature };
        let [student, teacher] = data.clone().map(|data| (tensor::<B, 2>(&data) * 3.0).detach().require_grad());
        let own = student.clone().square().mean() / 2.0;
        let loss = config.loss(own, student.clone(), teacher.clone());
        let expected = naive(config, &z, &v, classes);
        let found: f64 = loss.clone().into_scalar().elem();
        assert!((found - expected).abs() < 1e-5 * expected.max(1.0), "{config}: {found} instead of {expected}");
        let grads = loss.backward();
        assert!(teacher.grad(&grads).is_none(), "a gradient flows to the teacher");
        let found: Vec<f64> = student.grad(&grads).unwrap().into_data().iter::<f64>().collect();
        for (index, found) in found.into_iter().enumerate() {
            let at = |change: f64| {
                let mut z = z.clone();
                z[index] += change;
                naive(config, &z, &v, classes)
            };
            let expected = (at(1e-5) - at(-1e-5)) / 2e-5;
            assert!((found - expected).abs() < 1e-5, "{config}, logit {index}: {found} instead of {expected}");
        }
    }
}

#[test]
fn the_loss_and_its_gradients_equal_the_definition_on_every_backend() {
    loss_and_gradients_equal_the_definition::<Autodiff<Flex>>();
    loss_and_gradients_equal_the_definition::<Autodiff<Cpu>>();
    loss_and_gradients_equal_the_definition::<Autodiff<NdArray>>();
}

/// The gradients of all parameters of a step, and the largest of them.
fn gradients(step: &Step, grads: &GradientsParams) -> (Vec<f32>, f32) {
    struct Collect<'a>(&'a GradientsParams, Vec<f32>);
    impl ModuleVisitor<A> for Collect<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<A, D>>) {
            if let Some(grad) = self.0.get::<Flex, D>(param.id) {
                self.1.extend(grad.into_data().iter::<f32>());
            }
        }
    }
    let mut collect = Collect(grads, Vec::new());
    step.visit(&mut collect);
    let largest = collect.1.iter().fold(0.0, |largest: f32, grad| largest.max(grad.abs()));
    (collect.1, largest)
}

/// A network with other weights than [`wrapped`]'s.
fn other_teacher() -> Net<Flex> {
    let mut teacher = Net::new(true);
    teacher.last.weight = teacher.last.weight.map(|weight| weight.flip([0]) * 3.0);
    teacher
}

#[test]
fn a_weight_of_zero_is_the_models_own_step_bit_for_bit() {
    for phase in [Phase::FullPrecision, Phase::Ternary] {
        let plain = |step: Step| {
            let output = TrainStep::step(&step, batch(0));
            (gradients(&step, &output.grads), output.item.sync().output.loss.into_data())
        };
        let expected = plain(wrapped(true).with_phase(phase));
        assert_eq!(plain(distilled(wrapped(true).with_phase(phase), 0.0, other_teacher())), expected, "{phase}");
        let with_teacher = plain(distilled(wrapped(true).with_phase(phase), 0.5, other_teacher()));
        assert_ne!(with_teacher.0, expected.0, "{phase}");
        assert_eq!(with_teacher.1, expected.1, "{phase}: metrics show the model's own loss");
    }
}

#[test]
fn a_student_with_the_weights_of_its_teacher_has_no_gradient() {
    for phase in [Phase::FullPrecision, Phase::Ternary] {
        // Without batch normalization, a network computes the same in training and evaluation.
        let step = wrapped(false).with_phase(phase);
        let own = match phase {
            Phase::FullPrecision => step.ternary().latent().net.valid(),
            Phase::Ternary => step.ternary().materialize().net.valid(),
        };
        let largest = |teacher| {
            let step = distilled(step.clone(), 1.0, teacher);
            gradients(&step, &TrainStep::step(&step, batch(0)).grads).1
        };
        let (same, other) = (largest(own), largest(other_teacher()));
        assert!(same < 1e-6 && other > 1e-2, "{phase}: {same}, {other}");
    }
}

#[test]
fn the_teacher_evaluates_and_is_in_no_record() {
    let record =
        |step: Step| Recorder::<A>::record(&BinBytesRecorder::<FullPrecisionSettings>::new(), step.into_record(), ());
    let calls = Arc::new(AtomicUsize::new(0));
    let teacher = other_teacher();
    let step = wrapped(true);
    let expected = record(step.clone()).unwrap();
    let (counted, statistics) = (calls.clone(), teacher.norm.as_ref().unwrap().running_mean.value().into_data());
    let distill = Distillation::new(0.5).init(teacher.clone(), move |teacher: &Net<Flex>, batch: &Batch<A>| {
        counted.fetch_add(1, Ordering::Relaxed);
        logits(teacher, batch)
    });
    let step = step.with_model_step(distill.unwrap());
    assert_eq!(record(step.clone()).unwrap(), expected);
    TrainStep::step(&step, batch(0));
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    InferenceStep::step(&step.valid(), {
        let (x, targets) = batch(0);
        (x.inner(), targets.inner())
    });
    assert_eq!(calls.load(Ordering::Relaxed), 1, "validation is the model's own");
    assert_eq!(teacher.norm.unwrap().running_mean.value().into_data(), statistics);
}

fn loader<B: Backend>(len: usize, class: fn(i32) -> i32) -> ReproducibleLoader<B, Point, Batch<B>> {
    let item = move |key: ItemKey| {
        let (x, targets) = point(key.index, key.epoch);
        (x, class(targets))
    };
    ReproducibleLoader::new(len, Arc::new(item), Arc::new(PointBatcher), 8, Default::default())
}

/// Trains on points with other classes; validation has the true ones.
fn train(directory: &Path, phase: Phase, epochs: usize, step: Step, class: fn(i32) -> i32) -> (Step, f64) {
    let config = PhaseConfig::new(phase, epochs, 0.2, MetricGoal::maximize("Accuracy")).with_accumulated_batches(2);
    let optimizer = TernaryOptimizer::uniform(SgdConfig::new().init());
    let data = PhaseData::new(loader(40, class).shuffle(3), loader(24, |class| class));
    let outcome = PhaseTraining::new(directory, config, ExecutionStrategy::SingleDevice(Default::default()))
        .run(step, optimizer, data, |training| training.metrics((AccuracyMetric::new(), LossMetric::new())))
        .unwrap();
    let PhaseOutcome::Completed { model, metrics, .. } = outcome else { panic!("{outcome:?}") };
    (model, metrics.valid["Accuracy"])
}

#[test]
fn a_ternary_student_learns_from_its_teacher_what_its_own_classes_do_not_say() {
    let directory = tempfile::tempdir().unwrap();
    let [first, taught, untaught] = ["teacher", "taught", "untaught"].map(|name| directory.path().join(name));
    let (teacher, accuracy) = train(&first, Phase::FullPrecision, 12, wrapped(true), |class| class);
    assert!(accuracy > 95.0, "{accuracy}");
    let teacher = teacher.ternary().latent().net.valid();
    let all_zero = |_| 0;
    let (_, taught) = train(&taught, Phase::Ternary, 12, distilled(wrapped(true), 1.0, teacher), all_zero);
    let (_, untaught) = train(&untaught, Phase::Ternary, 12, wrapped(true), all_zero);
    assert!(taught > 95.0 && untaught < 50.0, "{taught}, {untaught}");
}

#[test]
fn a_resumed_training_with_a_teacher_is_bit_for_bit_the_uninterrupted_one() {
    for phase in [Phase::FullPrecision, Phase::Ternary] {
        let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let run = |directory: &Path, epochs| {
            let step = distilled(wrapped(true), 0.5, other_teacher());
            train(directory, phase, epochs, step, |class| class)
        };
        let values = |(step, accuracy): (Step, f64)| {
            let ternary = step.into_ternary();
            (ternary.layer_values().into_iter().map(|layer| (layer.latent, layer.scales)).collect::<Vec<_>>(), accuracy)
        };
        let expected = values(run(whole.path(), 3));
        run(parts.path(), 1);
        assert_eq!(values(run(parts.path(), 3)), expected, "{phase}");
    }
}
