//! The learner step: the model's own `optimize`, its output and the metrics that read it.

use std::cell::Cell;
use std::sync::Arc;

use burn::backend::{Autodiff, Flex};
use burn::data::dataloader::batcher::Batcher;
use burn::module::{AutodiffModule, Param};
use burn::nn::{Linear, LinearConfig};
use burn::optim::lr_scheduler::constant::ConstantLr;
use burn::optim::{GradientsParams, MultiGradientsParams, Optimizer, SgdConfig};
use burn::prelude::*;
use burn::tensor::backend::AutodiffBackend;
use burn::train::metric::{
    AccuracyMetric, Adaptor, AurocMetric, CharErrorRate, FBetaScoreMetric, HammingScore, IterationSpeedMetric,
    LearningRateMetric, LossMetric, Metric, MetricMetadata, MetricName, Numeric, PerplexityMetric, PrecisionMetric,
    RecallMetric, SerializedEntry, TopKAccuracyMetric, WordErrorRate,
};
use burn::train::{
    ClassificationOutput, InferenceStep, ItemLazy, Learner, MultiLabelClassificationOutput, SequenceOutput,
    TrainOutput, TrainStep,
};
use ttq_core::{SCALE_FLOOR, Ternary, TernaryConfig};
use ttq_testing::points::{Batch, PointBatcher, point};
use ttq_testing::{classification, reproducible};
use ttq_train::*;

type A = Autodiff<Flex>;

thread_local! {
    static CALLS: Cell<[usize; 2]> = const { Cell::new([0, 0]) };
}

/// A model whose last bias is set to 1 after every update.
#[derive(Module, Debug)]
struct Own<B: Backend> {
    hidden: Linear<B>,
    last: Linear<B>,
    /// Its clones are those of the model.
    #[module(skip)]
    clones: Arc<()>,
}

impl<B: Backend> Own<B> {
    fn new() -> Self {
        let linear = |inputs, outputs| LinearConfig::new(inputs, outputs).init(&Default::default());
        reproducible(Self { hidden: linear(6, 12), last: linear(12, 3), clones: Arc::new(()) }, 2)
    }

    fn classify(&self, (x, targets): Batch<B>) -> ClassificationOutput<B> {
        classification(self.last.forward(self.hidden.forward(x).tanh()), targets)
    }

    fn after_update(mut self, calls: [usize; 2]) -> Self {
        CALLS.set([CALLS.get()[0] + calls[0], CALLS.get()[1] + calls[1]]);
        let trained = |bias: Tensor<B, 1>| bias.ones_like().detach().require_grad();
        self.last.bias = self.last.bias.map(|bias: Param<Tensor<B, 1>>| bias.map(trained));
        self
    }
}

impl<B: Backend> InferenceStep for Own<B> {
    type Input = Batch<B>;
    type Output = ClassificationOutput<B>;

    fn step(&self, batch: Batch<B>) -> Self::Output {
        self.classify(batch)
    }
}

impl<B: AutodiffBackend> TrainStep for Own<B> {
    type Input = Batch<B>;
    type Output = ClassificationOutput<B>;

    fn step(&self, batch: Batch<B>) -> TrainOutput<Self::Output> {
        let output = self.classify(batch);
        TrainOutput::new(self, output.loss.backward(), output)
    }

    fn optimize<B2, O>(self, optim: &mut O, lr: f64, grads: GradientsParams) -> Self
    where
        B2: AutodiffBackend,
        O: Optimizer<Self, B2>,
        Self: AutodiffModule<B2>,
    {
        optim.step(lr, self, grads).after_update([1, 0])
    }

    fn optimize_multi<B2, O>(self, optim: &mut O, lr: f64, grads: MultiGradientsParams) -> Self
    where
        B2: AutodiffBackend,
        O: Optimizer<Self, B2>,
        Self: AutodiffModule<B2>,
    {
        optim.step_multi(lr, self, grads).after_update([0, 1])
    }
}

fn wrapped() -> TernaryStep<A, Own<A>> {
    TernaryStep::new(Ternary::new(Own::new(), &TernaryConfig::default()).unwrap())
}

fn batch(number: usize) -> Batch<A> {
    let points = (0..12).map(|index| point(index + 12 * number, 0)).collect();
    Batcher::<A, _, _>::batch(&PointBatcher, points, &Default::default())
}

#[test]
fn the_models_own_optimize_is_called_and_scales_are_clamped_after_it() {
    for phase in [Phase::FullPrecision, Phase::Ternary] {
        CALLS.set([0, 0]);
        let start = wrapped().with_phase(phase);
        // Burn's optimizer, which knows no scales: the step clamps them.
        let mut learner = Learner::new(start.clone(), SgdConfig::new().init(), ConstantLr::new(0.5));
        for number in 0..3 {
            learner.lr_step();
            let output = learner.train_step(batch(number));
            learner.optimizer_step(output.grads);
        }
        assert_eq!(CALLS.get(), [3, 0], "{phase}");
        let device = <A as burn::tensor::backend::BackendTypes>::Device::default().to_id();
        let grads = learner.train_step(batch(3)).grads;
        learner.optimizer_step_multi(MultiGradientsParams { grads: vec![(grads, device)] });
        assert_eq!(CALLS.get(), [3, 1], "{phase}");
        let (after, before) = (learner.model().into_ternary(), start.into_ternary());
        let bias = after.latent().last.bias.as_ref().unwrap().val().into_data();
        assert_eq!(bias.to_vec::<f32>().unwrap(), [1.0; 3], "what `optimize` does after the update remains");
        let (after, before) = (&after.layer_values()[0], &before.layer_values()[0]);
        assert_ne!(after.latent, before.latent, "{phase}");
        assert_eq!(after.scales == before.scales, phase == Phase::FullPrecision, "{phase}");
        assert!(after.scales.iter().all(|scale| *scale >= SCALE_FLOOR as f32), "{:?}", after.scales);
    }
}

#[test]
fn scales_are_fitted_to_the_weights_when_the_phase_changes_to_ternary() {
    let mut learner =
        Learner::new(wrapped().with_phase(Phase::FullPrecision), SgdConfig::new().init(), ConstantLr::new(0.5));
    for number in 0..5 {
        learner.lr_step();
        let output = learner.train_step(batch(number));
        learner.optimizer_step(output.grads);
    }
    let scales = |ternary: &Ternary<A, Own<A>>| ternary.layer_values()[0].scales.clone();
    let trained = learner.model();
    let anew = Ternary::new(trained.ternary().latent().clone(), &TernaryConfig::default()).unwrap();
    assert_ne!(scales(trained.ternary()), scales(&anew));
    assert_eq!(scales(trained.with_phase(Phase::Ternary).ternary()), scales(&anew));
}

#[test]
fn a_batch_that_is_only_accumulated_is_no_update() {
    for phase in [Phase::FullPrecision, Phase::Ternary] {
        let step = wrapped().with_phase(phase);
        // After a view, the first update must change a weight.
        step.ternary().view();
        let optimizer = Accumulated::new(SgdConfig::new().init(), 2, 4);
        let mut learner = Learner::new(step, optimizer, ConstantLr::new(0.5));
        let latent = |ternary: &Ternary<A, Own<A>>| ternary.layer_values()[0].latent.clone();
        let start = latent(learner.model().ternary());
        for number in 0..2 {
            learner.lr_step();
            let output = learner.train_step(batch(number));
            learner.optimizer_step(output.grads);
            assert_eq!(latent(learner.model().ternary()) == start, number == 0, "{phase}");
        }
    }
}

#[test]
fn every_update_has_a_flip_ratio_also_after_an_accumulation_that_was_not_finished() {
    let mut learner = Learner::new(
        wrapped().with_flip_ratio(true),
        Accumulated::new(SgdConfig::new().init(), 2, 4),
        ConstantLr::new(0.5),
    );
    learner.lr_step();
    let output = learner.train_step(batch(0));
    learner.optimizer_step(output.grads);
    let unfinished = learner.model();
    for batches in [1, 2] {
        let optimizer = Accumulated::new(SgdConfig::new().init(), batches, 4);
        let mut learner = Learner::new(unfinished.clone(), optimizer, ConstantLr::new(0.5));
        let mut ratio: f64 = 0.0;
        for number in 0..4 {
            learner.lr_step();
            let TrainOutput { grads, item } = learner.train_step(batch(number));
            learner.optimizer_step(grads);
            ratio = item.sync().state().unwrap().flip_ratio.unwrap().max(ratio);
        }
        assert!(ratio > 0.0, "{batches}");
    }
}

/// Notes how many clones of the model live while it steps.
#[derive(Clone, Default)]
struct CountClones(Vec<usize>);

impl Optimizer<TernaryStep<A, Own<A>>, A> for CountClones {
    type Record = ();

    fn step(&mut self, _lr: f64, step: TernaryStep<A, Own<A>>, _grads: GradientsParams) -> TernaryStep<A, Own<A>> {
        self.0.push(Arc::strong_count(&step.ternary().latent().clones));
        step
    }

    fn step_multi(
        &mut self,
        lr: f64,
        step: TernaryStep<A, Own<A>>,
        _grads: MultiGradientsParams,
    ) -> TernaryStep<A, Own<A>> {
        self.step(lr, step, GradientsParams::new())
    }

    fn to_record(&self) {}

    fn load_record(self, (): ()) -> Self {
        self
    }
}

#[test]
fn no_clone_of_the_model_keeps_its_memory_while_the_optimizer_steps() {
    for flip_ratio in [false, true] {
        let mut optimizer = CountClones::default();
        let step = wrapped().with_flip_ratio(flip_ratio);
        let step = step.optimize::<A, _>(&mut optimizer, 0.1, GradientsParams::new());
        let _ = step.optimize_multi::<A, _>(&mut optimizer, 0.1, MultiGradientsParams { grads: Vec::new() });
        assert_eq!(optimizer.0, [1, 1]);
    }
}

fn metadata() -> MetricMetadata {
    MetricMetadata {
        progress: burn::data::dataloader::Progress::new(1, 1),
        global_progress: burn::data::dataloader::Progress::new(1, 1),
        iteration: Some(1),
        lr: None,
    }
}

#[test]
fn a_flip_ratio_is_shown_where_it_is_computed_and_otherwise_the_metric_says_how_to_compute_it() {
    for computed in [false, true] {
        let step = wrapped().with_flip_ratio(computed);
        let mut learner = Learner::new(step, SgdConfig::new().init(), ConstantLr::new(0.5));
        let mut metric = FlipRatioMetric::new();
        let mut found = Vec::new();
        for number in 0..3 {
            learner.lr_step();
            let TrainOutput { grads, item } = learner.train_step(batch(number));
            learner.optimizer_step(grads);
            let entry = metric.update(&item.sync().adapt(), &metadata());
            assert_eq!(entry.formatted.contains("with_flip_ratio"), !computed, "{}", entry.formatted);
            found.push(metric.value().current());
        }
        assert!(if computed { found[0] == 0.0 && found[2] > 0.0 } else { found[2].is_nan() }, "{found:?}");
    }
}

#[test]
fn the_state_of_a_step_is_that_of_its_weights_whatever_happens_to_them_later() {
    let mut learner = Learner::new(wrapped(), SgdConfig::new().init(), ConstantLr::new(0.9));
    learner.lr_step();
    let expected = learner.model().ternary().stats();
    let TrainOutput { grads, item } = learner.train_step(batch(0));
    learner.optimizer_step(grads);
    let item = item.sync();
    let state = item.state().unwrap();
    assert_eq!(state, item.state().unwrap());
    let [layer, stats] = [&expected.layers[0]; 2];
    assert!((f64::from(state.layers[0].sparsity) - layer.sparsity).abs() < 1e-6);
    assert!((state.w_pos - stats.w_pos).abs() < 1e-6 && (state.w_neg - stats.w_neg).abs() < 1e-6);
    assert_ne!(learner.model().ternary().stats().layers[0].w_pos, stats.w_pos, "the update moved the scales");
}

/// A metric of another crate: the largest logit.
#[derive(Clone)]
struct Largest(f64);

struct Logits(Tensor<Flex, 2>);

impl Adaptor<Logits> for ClassificationOutput<Flex> {
    fn adapt(&self) -> Logits {
        Logits(self.output.clone())
    }
}

impl Metric for Largest {
    type Input = Logits;

    fn name(&self) -> MetricName {
        std::sync::Arc::new("Largest".into())
    }

    fn update(&mut self, logits: &Logits, _metadata: &MetricMetadata) -> SerializedEntry {
        self.0 = f64::from(logits.0.clone().max().into_scalar());
        SerializedEntry::new(String::new(), self.0.to_string())
    }

    fn clear(&mut self) {}
}

#[test]
fn every_metric_that_works_on_the_models_output_works_on_that_of_the_step() {
    fn works<O, M: Metric>()
    where
        O: Adaptor<M::Input>,
        SyncedTernaryOutput<O>: Adaptor<M::Input> + Adaptor<<OnOutput<M> as Metric>::Input>,
    {
    }
    type Classes = ClassificationOutput<Flex>;
    works::<Classes, AccuracyMetric<Flex>>();
    works::<Classes, AurocMetric<Flex>>();
    works::<Classes, FBetaScoreMetric<Flex>>();
    works::<Classes, IterationSpeedMetric>();
    works::<Classes, LearningRateMetric>();
    works::<Classes, LossMetric<Flex>>();
    works::<Classes, PerplexityMetric<Flex>>();
    works::<Classes, PrecisionMetric<Flex>>();
    works::<Classes, RecallMetric<Flex>>();
    works::<Classes, TopKAccuracyMetric<Flex>>();
    works::<MultiLabelClassificationOutput<Flex>, HammingScore<Flex>>();
    works::<SequenceOutput<Flex>, CharErrorRate<Flex>>();
    works::<SequenceOutput<Flex>, WordErrorRate<Flex>>();

    let item = Learner::new(wrapped(), SgdConfig::new().init(), ConstantLr::new(0.1)).train_step(batch(0)).item.sync();
    let expected = f64::from(item.output.output.clone().max().into_scalar());
    let mut metric = OnOutput::new(Largest(0.0));
    let entry = metric.update(&item.adapt(), &metadata());
    assert_eq!((entry.serialized, metric.name().as_str()), (expected.to_string(), "Largest"));
}
