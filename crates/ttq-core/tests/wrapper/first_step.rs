//! Mistakes that the first training step finds.

use std::sync::Mutex;
use std::thread::{self, ThreadId};

use burn::module::{AutodiffModule, list_param_ids};
use burn::nn::{Linear, LinearConfig, LinearLayout};
use burn::optim::{GradientsParams, Optimizer, SgdConfig};
use burn::prelude::*;
use burn::tensor::DType;
use log::{Log, Metadata, Record};
use ttq_core::*;
use ttq_testing::{normal, reproducible, tensor};

use crate::{A, Net, input, wrapped};

/// Collects warnings of each thread.
struct Warnings(Mutex<Vec<(ThreadId, String)>>);

static WARNINGS: Warnings = Warnings(Mutex::new(Vec::new()));

impl Log for Warnings {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("ttq_core")
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            self.0.lock().unwrap().push((thread::current().id(), record.args().to_string()));
        }
    }

    fn flush(&self) {}
}

/// Returns the warnings of this thread during `run`.
fn warnings(run: impl FnOnce()) -> Vec<String> {
    // Another test may have set it.
    let _ = log::set_logger(&WARNINGS);
    log::set_max_level(log::LevelFilter::Warn);
    let count = || {
        let all = WARNINGS.0.lock().unwrap();
        all.iter().filter(|(id, _)| *id == thread::current().id()).map(|(_, text)| text.clone()).collect::<Vec<_>>()
    };
    let before = count().len();
    run();
    count().split_off(before)
}

/// A network that is declared backwards, with a layer that it does not use.
#[derive(Module, Debug)]
struct Backwards<B: Backend> {
    head: Linear<B>,
    unused: Linear<B>,
    second: Linear<B>,
    first: Linear<B>,
}

impl<B: Backend> Backwards<B> {
    fn new() -> Self {
        let linear = || LinearConfig::new(6, 6).init(&Default::default());
        reproducible(Self { head: linear(), unused: linear(), second: linear(), first: linear() }, 5)
    }

    fn forward(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        self.head.forward(self.second.forward(self.first.forward(x).tanh()).tanh())
    }
}

fn step(ternary: &Ternary<A, Backwards<A>>) {
    let view = ternary.leaf_view();
    let grads = view.forward(tensor(&normal(&[4, 6], 1))).sum().backward();
    view.pull_back(GradientsParams::from_grads(grads, &*view));
}

#[test]
fn the_first_step_warns_once_of_a_ternary_last_layer_and_of_an_unused_weight() {
    let ternary = Ternary::new(Backwards::<A>::new(), &TernaryConfig::default()).unwrap();
    let texts = warnings(|| step(&ternary));
    assert_eq!(texts.len(), 2, "{texts:?}");
    assert!(
        texts[0].contains("`head.weight` is the last layer") && texts[0].contains("`first.weight` is kept"),
        "{texts:?}"
    );
    assert!(texts[1].contains("`unused.weight` is ternary, but received no gradient"), "{texts:?}");
    assert!(warnings(|| step(&ternary.clone())).is_empty());
}

#[test]
fn a_traced_selection_and_one_in_the_right_order_need_no_warning() {
    let config = TernaryConfig::default();
    let x = tensor::<burn::backend::Flex, 2>(&normal(&[4, 6], 1));
    let selection = Selection::traced(&Backwards::new(), &config.selection, |model| model.forward(x)).unwrap();
    let ternary = Ternary::with_selection(Backwards::<A>::new(), &config, selection).unwrap();
    assert_eq!(warnings(|| step(&ternary)), [""; 0]);
    assert_eq!(
        ternary.selection().ternary().map(|choice| choice.path.as_str()).collect::<Vec<_>>(),
        ["second.weight", "first.weight"]
    );
    let ternary = wrapped(&config);
    let training = || {
        let view = ternary.leaf_view();
        view.pull_back(GradientsParams::from_grads(view.loss(input()).backward(), &*view));
    };
    assert_eq!(warnings(training), [""; 0]);
}

#[test]
#[should_panic(expected = "with the wrapper and not the view")]
fn gradients_that_are_taken_from_the_view_are_an_error() {
    let ternary = wrapped(&TernaryConfig::default());
    let view = ternary.view();
    let grads = GradientsParams::from_grads(view.loss(input()).backward(), &view);
    let _ = SgdConfig::new().init::<A, Ternary<A, Net<A>>>().step(0.1, ternary, grads).after_step();
}

#[test]
#[should_panic(expected = "with the wrapper and not the view")]
fn gradients_that_are_taken_from_the_view_are_an_error_after_views_without_a_step() {
    let ternary = wrapped(&TernaryConfig::default());
    ternary.valid().view();
    ternary.view();
    let ternary = ternary.after_step();
    let view = ternary.view();
    let grads = GradientsParams::from_grads(view.loss(input()).backward(), &view);
    let _ = SgdConfig::new().init::<A, Ternary<A, Net<A>>>().step(0.1, ternary, grads).after_step();
}

/// Returns the loss of a forward pass that leaves out the layer, as stochastic depth does.
fn loss_without(layer: &Linear<A>) -> Tensor<A, 1> {
    layer.bias.as_ref().unwrap().val().powi_scalar(2).sum()
}

#[test]
fn a_first_step_without_the_ternary_layers_is_no_error_and_the_check_waits() {
    let selection = SelectionConfig::new().with_keep_last_layer(false);
    let layer: Linear<A> = LinearConfig::new(6, 6).init(&Default::default());
    let mut ternary = Ternary::new(layer, &TernaryConfig::new().with_selection(selection)).unwrap();
    let mut sgd = SgdConfig::new().init();
    for _ in 0..2 {
        let grads = GradientsParams::from_grads(loss_without(&ternary.view()).backward(), &ternary);
        ternary = sgd.step(0.1, ternary, grads).after_step();
    }
    let wrong = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let view = ternary.view();
        let grads = view.forward(tensor::<A, 2>(&normal(&[4, 6], 1))).sum().backward();
        let grads = GradientsParams::from_grads(grads, &view);
        let _ = sgd.step(0.1, ternary.clone(), grads).after_step();
    }));
    assert!(wrong.is_err());
}

#[test]
fn an_accumulation_of_gradients_and_the_training_of_some_parameters_are_no_errors() {
    let ternary = wrapped(&TernaryConfig::default());
    let (latents, scales) = ternary.parameter_groups();
    let some_others = list_param_ids(ternary.latent()).into_iter().filter(|id| !latents.contains(id)).take(1).collect();
    for group in [latents, scales, some_others, Vec::new()] {
        let ternary = ternary.clone();
        let mut grads = ternary.view().loss(input()).backward();
        let grads = GradientsParams::from_params(&mut grads, &ternary, &group);
        let _ = SgdConfig::new().init::<A, Ternary<A, Net<A>>>().step(0.1, ternary, grads).after_step();
    }
}

#[test]
fn a_loop_on_the_view_warns_once_of_a_ternary_last_layer() {
    let mut ternary = Ternary::new(Backwards::<A>::new(), &TernaryConfig::default()).unwrap();
    let mut sgd = SgdConfig::new().init();
    let texts = warnings(|| {
        for _ in 0..2 {
            let loss = ternary.view().forward(tensor(&normal(&[4, 6], 1))).sum();
            let grads = GradientsParams::from_grads(loss.backward(), &ternary);
            ternary = sgd.step(0.1, ternary.clone(), grads).after_step();
        }
    });
    assert_eq!(texts.len(), 1, "{texts:?}");
    assert!(texts[0].contains("`head.weight` is the last layer"), "{texts:?}");
}

/// Runs the first step of a layer of column layout, after `prepare`.
fn first_step_of_column_layout(prepare: impl FnOnce(Linear<A>) -> Linear<A>) {
    let layer = LinearConfig::new(6, 6).with_layout(LinearLayout::Col).init(&Default::default());
    let selection = SelectionConfig::new().with_keep_last_layer(false);
    let ternary = Ternary::new(prepare(layer), &TernaryConfig::new().with_selection(selection)).unwrap();
    let view = ternary.leaf_view();
    let x: Tensor<A, 2> = tensor(&normal(&[4, 6], 1));
    view.pull_back(GradientsParams::from_grads(view.forward(x).sum().backward(), &*view));
}

#[test]
#[should_panic(expected = "`weight` should train, but its tensor is no leaf")]
fn a_weight_that_would_be_taken_for_frozen_is_an_error() {
    first_step_of_column_layout(|layer| {
        layer.valid();
        layer
    });
}

#[test]
fn a_weight_that_is_a_leaf_or_frozen_is_no_error() {
    first_step_of_column_layout(|layer| layer);
    first_step_of_column_layout(|layer| AutodiffModule::from_inner(layer.valid()));
    first_step_of_column_layout(Module::no_grad);
}

/// Two linear layers, of which the first one has 16 bits.
#[derive(Module, Debug)]
struct Mixed<B: Backend> {
    half: Linear<B>,
    single: Linear<B>,
}

impl<B: Backend> Mixed<B> {
    fn forward(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        self.single.forward(self.half.forward(x.cast(DType::BF16)).cast(DType::F32))
    }
}

#[test]
fn parameters_can_have_several_float_types() {
    let linear = || reproducible(LinearConfig::new(6, 6).with_bias(false).init::<A>(&Default::default()), 5);
    let mut half = linear();
    half.weight = half.weight.map(|weight| Tensor::from_inner(weight.inner().cast(DType::BF16)).require_grad());
    let selection = SelectionConfig::new().with_keep_last_layer(false);
    let config = TernaryConfig::new().with_selection(selection);
    let mut ternary = Ternary::new(Mixed { half, single: linear() }, &config).unwrap();
    let mut optimizer = SgdConfig::new().init();
    for _ in 0..2 {
        let loss = ternary.view().forward(tensor(&normal(&[4, 6], 1))).powi_scalar(2).mean();
        let grads = GradientsParams::from_grads(loss.backward(), &ternary);
        assert_eq!(grads.len(), 4);
        ternary = optimizer.step(0.1, ternary, grads).after_step();
    }
    let latent = ternary.latent();
    assert_eq!([latent.half.weight.val().dtype(), latent.single.weight.val().dtype()], [DType::BF16, DType::F32]);
}
