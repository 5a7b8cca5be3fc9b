//! The rules that hold for every model, on every backend.

use std::collections::{BTreeMap, HashMap};

use burn::module::{AutodiffModule, HasAutodiffModule, ModuleDisplay, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::optim::{AdamConfig, GradientsParams, Optimizer};
use burn::prelude::*;
use burn::record::{BinBytesRecorder, FullPrecisionSettings, Recorder};
use burn::tensor::BasicOps;
use burn::tensor::backend::AutodiffBackend;
use burn::train::TrainStep;
use ttq_compile::{Capture, CaptureError, CompileOptions, Example, Network, capture};
use ttq_core::packed::{Coding, PackedModel, pack};
use ttq_core::{LayerValues, Selection, Ternary, TernaryConfig};
use ttq_inference::load;
use ttq_packed::network::Arena;
use ttq_testing::{normal, tensor, uniform};
use ttq_train::{TernaryOptimizer, TernaryStep};

/// A model with the data that it is tried on.
pub(crate) trait Stranger<B: Backend>: Module<B> + ModuleDisplay {
    /// Type of a batch: a tensor, `[n, ..]`.
    type Input;

    /// Returns a fixed batch.
    fn input() -> Self::Input;

    /// Computes the outputs of a batch of any size, `[n, outputs]`, or `[n k, outputs]` with several for each item.
    fn forward(&self, input: Self::Input) -> Tensor<B, 2>;

    /// Computes the outputs of the fixed batch.
    fn outputs(&self) -> Tensor<B, 2> {
        self.forward(Self::input())
    }

    /// Computes the loss on the fixed batch: by default the mean squared distance of the outputs from fixed targets.
    fn loss(&self) -> Tensor<B, 1> {
        let outputs = self.outputs();
        let targets = tensor(&normal(&outputs.dims(), 17));
        (outputs - targets).powi_scalar(2).mean()
    }
}

/// A [`Stranger`] on an autodiff backend, its training step and its inner module.
pub(crate) trait Trainable<B: AutodiffBackend>:
    'static + Stranger<B> + TrainStep<Input = ()> + AutodiffModule<B, InnerModule: Stranger<B::InnerBackend>>
{
}

impl<B, M> Trainable<B> for M
where
    B: AutodiffBackend,
    M: 'static + Stranger<B> + TrainStep<Input = ()> + AutodiffModule<B, InnerModule: Stranger<B::InnerBackend>>,
{
}

/// A [`Stranger`] that can be captured: its input is a tensor of the same kind on every backend.
pub(crate) trait Capturable<B: Backend>:
    Stranger<B, Input: Elements + Example<B, Tensor = <Self::TrainModule as Stranger<Capture<B>>>::Input>>
    + HasAutodiffModule<Capture<B>, TrainModule: Stranger<Capture<B>>>
{
}

impl<B, M> Capturable<B> for M
where
    B: Backend,
    M: Stranger<B> + HasAutodiffModule<Capture<B>, TrainModule: Stranger<Capture<B>>>,
    M::Input: Elements + Example<B, Tensor = <M::TrainModule as Stranger<Capture<B>>>::Input>,
{
}

/// The elements of a tensor as the input of a compiled network.
pub(crate) trait Elements {
    fn elements(&self) -> Vec<f32>;
}

impl<B: Backend, const D: usize, K: BasicOps<B>> Elements for Tensor<B, D, K> {
    fn elements(&self) -> Vec<f32> {
        self.to_data().iter::<f32>().collect()
    }
}

/// Implements burn-train's `TrainStep` for a [`Stranger`].
#[macro_export]
macro_rules! train_step {
    ($model:ident) => {
        impl<B: ::burn::tensor::backend::AutodiffBackend> ::burn::train::TrainStep for $model<B> {
            type Input = ();
            type Output = ();

            fn step(&self, (): ()) -> ::burn::train::TrainOutput<()> {
                let loss = $crate::harness::Stranger::loss(self);
                ::burn::train::TrainOutput::new(self, loss.backward(), ())
            }
        }
    };
}

/// The order that tells the first and the last layer of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// That of the fields of its structs.
    Declared,
    /// That of a forward pass.
    Traced,
}

/// A model, how it becomes ternary, and which of its weights must.
pub(crate) struct Case<M> {
    /// Creates the model.
    pub(crate) create: Box<dyn Fn() -> M>,
    /// The configuration of the wrapper.
    pub(crate) config: TernaryConfig,
    pub(crate) order: Order,
    /// Paths of the ternary weights in the order of the module, where they are known.
    pub(crate) ternary: Option<Vec<String>>,
}

impl<M> Case<M> {
    pub(crate) fn new(create: impl Fn() -> M + 'static, config: TernaryConfig, order: Order) -> Self {
        Self { create: Box::new(create), config, order, ternary: None }
    }

    /// Sets the paths of the ternary weights in the order of the module.
    pub(crate) fn with_ternary(mut self, paths: &[&str]) -> Self {
        self.ternary = Some(paths.iter().map(|path| (*path).into()).collect());
        self
    }

    /// Creates the model with parameters drawn with this seed.
    fn model<B: Backend>(&self, seed: u64) -> M
    where
        M: Module<B>,
    {
        (self.create)().map(&mut Redraw { path: Vec::new(), seeds: HashMap::new(), seed })
    }

    fn wrapped<B: AutodiffBackend>(&self, seed: u64) -> Ternary<B, M>
    where
        M: Trainable<B>,
    {
        let (model, config) = (self.model(seed), &self.config);
        let ternary = match self.order {
            Order::Declared => Ternary::new(model, config),
            Order::Traced => {
                let selection = Selection::traced(&model.valid(), &config.selection, Stranger::outputs)
                    .unwrap_or_else(|error| panic!("{error}"));
                Ternary::with_selection(model, config, selection)
            }
        };
        ternary.unwrap_or_else(|error| panic!("{error}"))
    }
}

/// Every rule, by name, for loops over many cases.
pub(crate) fn all<B: AutodiffBackend, M: Trainable<B, InnerModule: Capturable<B::InnerBackend>>>(case: &Case<M>) {
    every_matrix_is_listed_with_a_decision_or_a_reason(case);
    training_lowers_the_loss_and_changes_what_is_not_frozen(case);
    a_loop_on_the_view_lowers_the_loss_and_changes_what_is_not_frozen(case);
    both_views_have_the_same_gradients(case);
    a_materialized_weight_takes_the_three_values_of_its_scales(case);
    a_packed_file_computes_the_same(case);
    a_record_restores_every_view(case);
    copies_compute_the_same_and_train_apart(case);
    a_compiled_network_computes_the_same(case);
}

pub(crate) fn every_matrix_is_listed_with_a_decision_or_a_reason<B: AutodiffBackend, M: Trainable<B>>(case: &Case<M>) {
    let ternary = case.wrapped::<B>(1);
    let selection = ternary.selection();
    for parameter in parameters::<B, _>(ternary.latent()).iter().filter(|parameter| parameter.dims.len() >= 2) {
        let choice = selection.choices().iter().find(|choice| choice.path == parameter.path);
        let choice = choice.unwrap_or_else(|| panic!("`{}` is not listed:\n{selection}", parameter.path));
        assert_eq!(choice.shape, parameter.dims, "`{}`", parameter.path);
    }
    let selected: Vec<&str> = selection.ternary().map(|choice| choice.path.as_str()).collect();
    if let Some(expected) = &case.ternary {
        assert_eq!(&selected, expected, "\n{selection}");
    }
}

pub(crate) fn training_lowers_the_loss_and_changes_what_is_not_frozen<B: AutodiffBackend, M: Trainable<B>>(
    case: &Case<M>,
) {
    let ternary = case.wrapped::<B>(1);
    let before = (loss(&ternary), trainable(&ternary));
    let ternary = train_by_steps(ternary, STEPS);
    assert_trained(&before, &ternary);
}

pub(crate) fn a_loop_on_the_view_lowers_the_loss_and_changes_what_is_not_frozen<B: AutodiffBackend, M: Trainable<B>>(
    case: &Case<M>,
) {
    let mut ternary = case.wrapped::<B>(1);
    let before = (loss(&ternary), trainable(&ternary));
    let mut optimizer = AdamConfig::new().init();
    for _ in 0..STEPS {
        let grads = GradientsParams::from_grads(ternary.view().loss().backward(), &ternary);
        ternary = optimizer.step(LEARNING_RATE, ternary, grads).after_step();
    }
    assert_trained(&before, &ternary);
}

pub(crate) fn both_views_have_the_same_gradients<B: AutodiffBackend, M: Trainable<B>>(case: &Case<M>) {
    let ternary = train_by_steps(case.wrapped::<B>(1), 2);
    let through = GradientsParams::from_grads(ternary.view().loss().backward(), &ternary);
    let view = ternary.leaf_view();
    let closed = view.pull_back(GradientsParams::from_grads(view.loss().backward(), &*view));
    for ((parameter, through), (_, closed)) in gradients(&ternary, &through).iter().zip(gradients(&ternary, &closed)) {
        let path = &parameter.path;
        match (through, closed) {
            (Some(through), Some(closed)) => {
                assert!(parameter.tracked, "`{path}` is frozen and has a gradient");
                assert_close(&closed, through, 1e-4, path);
            }
            (None, None) => assert!(!parameter.tracked, "`{path}` has no gradient"),
            (through, closed) => panic!("`{path}`: {} and {}", through.is_some(), closed.is_some()),
        }
    }
}

pub(crate) fn a_materialized_weight_takes_the_three_values_of_its_scales<B: AutodiffBackend, M: Trainable<B>>(
    case: &Case<M>,
) {
    let ternary = train_by_steps(case.wrapped::<B>(1), 3).valid();
    let plain = by_path(parameters::<B::InnerBackend, _>(&ternary.materialize()));
    let latent = by_path(parameters::<B::InnerBackend, _>(ternary.latent()));
    let layers = ternary.layer_values();
    for layer in &layers {
        let path = &layer.choice.path;
        let scales = layer.scales.as_chunks::<2>().0;
        let pair = |index: usize| if scales.len() == 1 { scales[0] } else { scales[channel(layer, index)] };
        for (index, (found, code)) in plain[path].values.iter().zip(&layer.codes).enumerate() {
            let [w_pos, w_neg] = pair(index);
            let expected = [-w_neg, 0.0, w_pos][(code + 1) as usize];
            assert_eq!(*found as f32, expected, "`{path}` at {index}");
        }
    }
    for (path, parameter) in &latent {
        if !layers.iter().any(|layer| layer.choice.path == *path) {
            assert_eq!(plain[path].values, parameter.values, "`{path}` is not ternary");
        }
    }
}

pub(crate) fn a_packed_file_computes_the_same<B: AutodiffBackend, M: Trainable<B>>(case: &Case<M>) {
    let trained = train_by_steps(case.wrapped::<B>(1), 3);
    let packed = pack(&trained).unwrap_or_else(|error| panic!("{error}"));
    let ternary = trained.valid();
    let bytes = packed.write(Coding::Archive).unwrap();
    assert_eq!(pack(&ternary).unwrap().write(Coding::Archive).unwrap(), bytes, "training and inference pack the same");
    let packed = PackedModel::read(&bytes).unwrap();
    let selected = || ternary.selection().ternary();
    assert!(selected().all(|choice| packed.weights.contains_key(&choice.path)), "{:?}", packed.weights.keys());
    assert_eq!(packed.weights.len(), selected().count());
    let plain = ternary.materialize();
    let loaded = load(case.model::<B>(99).valid(), &packed).unwrap_or_else(|error| panic!("{error}"));
    assert_same_parameters::<B::InnerBackend, _>(&loaded, &plain);
    assert_close(&floats(loaded.outputs()), &floats(plain.outputs()), 1e-5, "outputs");
}

pub(crate) fn a_record_restores_every_view<B: AutodiffBackend, M: Trainable<B>>(case: &Case<M>) {
    let recorder = BinBytesRecorder::<FullPrecisionSettings>::default();
    let ternary = train_by_steps(case.wrapped::<B>(1), 3);
    let bytes = Recorder::<B>::record(&recorder, ternary.clone().into_record(), ()).unwrap();
    let record = Recorder::<B>::load(&recorder, bytes, &Default::default()).unwrap();
    let loaded = case.wrapped::<B>(99).load_record(record);
    assert_same_parameters::<B, _>(&loaded, &ternary);
    assert_same_parameters::<B, _>(&loaded.materialize(), &ternary.materialize());
    assert_same_parameters::<B, _>(&loaded.view(), &ternary.view());
    assert_same_parameters::<B, _>(&*loaded.leaf_view(), &*ternary.leaf_view());
    assert_close(&floats(loaded.valid().view().outputs()), &floats(ternary.valid().view().outputs()), 1e-6, "outputs");
    // It can be trained on.
    let before = (loss(&loaded), trainable(&loaded));
    assert_trained(&before, &train_by_steps(loaded, 8));
}

pub(crate) fn copies_compute_the_same_and_train_apart<B: AutodiffBackend, M: Trainable<B>>(case: &Case<M>) {
    let device = Default::default();
    let ternary = case.wrapped::<B>(1);
    let before = parameters::<B, _>(&ternary);
    let expected = floats(ternary.valid().view().outputs());
    // On an autodiff backend, Burn's `to_device` records the copy: it computes, and only a fork trains.
    let [moved, copy, fork] = [ternary.clone().to_device(&device), ternary.clone(), ternary.clone().fork(&device)];
    for copy in [&moved, &copy, &fork] {
        assert_same_parameters::<B, _>(copy, &ternary);
        assert_close(&floats(copy.valid().view().outputs()), &expected, 1e-6, "outputs");
    }
    for copy in [copy, fork] {
        let start = (loss(&copy), trainable(&copy));
        assert_trained(&start, &train_by_steps(copy, 8));
    }
    for (before, after) in before.iter().zip(parameters::<B, _>(&ternary)) {
        // The running state of batch normalization is shared between a module and its clones.
        if !before.path.contains(".running_") {
            assert_eq!(before.values, after.values, "`{}`", before.path);
        }
    }
}

/// Operations that some of the models have and a graph does not.
const NOT_IN_GRAPHS: [&str; 2] = ["conv3d", "conv_transpose3d"];

/// Where a graph lacks an operation, the error names it and the module.
pub(crate) fn a_compiled_network_computes_the_same<B, M>(case: &Case<M>)
where
    B: AutodiffBackend,
    M: Trainable<B, InnerModule: Capturable<B::InnerBackend>>,
{
    let model = train_by_steps(case.wrapped::<B>(1), 3).valid().materialize();
    let graph = match capture(&model, M::InnerModule::input(), |model, x| model.forward(x)) {
        Ok(graph) => graph,
        Err(CaptureError::Unsupported { operation, module }) if NOT_IN_GRAPHS.contains(&&*operation) => {
            assert!(parameters::<B::InnerBackend, _>(&model).iter().any(|p| p.path == format!("{module}.weight")));
            return;
        }
        Err(error) => panic!("{error}"),
    };
    let network = Network::compile(&graph, &CompileOptions::default()).unwrap_or_else(|error| panic!("{error}"));
    let expected = floats(model.outputs());
    let mut found = vec![0.0; expected.len()];
    network.run(&mut Arena::new(), &M::InnerModule::input().elements(), &mut found).unwrap();
    assert_close(&found.into_iter().map(f64::from).collect::<Vec<_>>(), &expected, 1e-5, "outputs");
}

const LEARNING_RATE: f64 = 0.01;
const STEPS: usize = 10;

fn train_by_steps<B: AutodiffBackend, M: Trainable<B>>(ternary: Ternary<B, M>, steps: usize) -> Ternary<B, M> {
    let mut step = TernaryStep::new(ternary);
    let mut optimizer = TernaryOptimizer::uniform(AdamConfig::new().init::<B, TernaryStep<B, M>>());
    for _ in 0..steps {
        let grads = TrainStep::step(&step, ()).grads;
        step = step.optimize::<B, _>(&mut optimizer, LEARNING_RATE, grads);
    }
    step.into_ternary()
}

/// Asserts that the loss fell, and that exactly the parameters that are not frozen changed. The scales of a frozen
/// weight are frozen.
fn assert_trained<B: AutodiffBackend, M: Trainable<B>>(
    (loss_before, before): &(f64, Vec<Parameter>),
    after: &Ternary<B, M>,
) {
    let loss_after = loss(after);
    let trains = before.iter().any(|parameter| parameter.tracked);
    assert!(loss_after.is_finite() && (loss_after < *loss_before || !trains), "{loss_before} to {loss_after}");
    for (before, after) in before.iter().zip(trainable(after)) {
        assert_eq!((&before.path, before.tracked), (&after.path, after.tracked));
        if before.path.contains(".running_") {
            continue;
        }
        assert_eq!(before.values != after.values, before.tracked, "`{}` trains: {}", before.path, before.tracked);
    }
}

fn loss<B: AutodiffBackend, M: Trainable<B>>(ternary: &Ternary<B, M>) -> f64 {
    ternary.view().loss().into_scalar().elem()
}

/// Returns the output channel of the element of a weight at `index`.
fn channel(layer: &LayerValues, index: usize) -> usize {
    let (axis, shape) = (layer.choice.channel_axis.unwrap(), &layer.choice.shape);
    index / shape[axis + 1..].iter().product::<usize>() % shape[axis]
}

/// A float parameter of a module.
struct Parameter {
    path: String,
    dims: Vec<usize>,
    tracked: bool,
    values: Vec<f64>,
}

fn by_path(parameters: Vec<Parameter>) -> BTreeMap<String, Parameter> {
    parameters.into_iter().map(|parameter| (parameter.path.clone(), parameter)).collect()
}

/// Returns the float parameters of a module in its order.
fn parameters<B: Backend, M: Module<B>>(module: &M) -> Vec<Parameter> {
    let mut collect = Collect { path: Vec::new(), visit: Vec::new() };
    module.visit(&mut collect);
    collect.visit
}

/// Returns the float parameters of a wrapper. The scales of a frozen weight are frozen with it.
fn trainable<B: AutodiffBackend, M: Trainable<B>>(ternary: &Ternary<B, M>) -> Vec<Parameter> {
    let mut found = parameters::<B, _>(ternary);
    let tracked: HashMap<String, bool> = found.iter().map(|p| (p.path.clone(), p.tracked)).collect();
    for parameter in &mut found {
        if let Some(path) = parameter.path.strip_prefix("scales.") {
            parameter.tracked &= tracked[&format!("model.{path}")];
        }
    }
    found
}

struct Collect {
    path: Vec<String>,
    visit: Vec<Parameter>,
}

impl<B: Backend> ModuleVisitor<B> for Collect {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        self.visit.push(Parameter {
            path: self.path.join("."),
            dims: param.val().dims().to_vec(),
            tracked: param.val().is_require_grad(),
            values: floats(param.val()),
        });
    }
}

/// Returns the parameters of a wrapper with their gradients.
fn gradients<B: AutodiffBackend, M: Trainable<B>>(
    module: &Ternary<B, M>,
    grads: &GradientsParams,
) -> Vec<(Parameter, Option<Vec<f64>>)> {
    struct Read<'a>(&'a GradientsParams, Vec<Option<Vec<f64>>>);
    impl<B: AutodiffBackend> ModuleVisitor<B> for Read<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
            self.1.push(self.0.get::<B::InnerBackend, D>(param.id).map(floats));
        }
    }
    let mut read = Read(grads, Vec::new());
    module.visit(&mut read);
    trainable(module).into_iter().zip(read.1).collect()
}

fn floats<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Vec<f64> {
    tensor.into_data().iter::<f64>().collect()
}

fn assert_same_parameters<B: Backend, M: Module<B>>(found: &M, expected: &M) {
    let (found, expected) = (parameters::<B, _>(found), parameters::<B, _>(expected));
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!((&found.path, &found.dims), (&expected.path, &expected.dims));
        // Files and records hold float32.
        let float32 = |values: &[f64]| values.iter().map(|value| *value as f32).collect::<Vec<f32>>();
        assert_eq!(float32(&found.values), float32(&expected.values), "`{}`", found.path);
    }
}

fn assert_close(found: &[f64], expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "`{what}`");
    let largest = expected.iter().fold(1e-3_f64, |largest, value| largest.max(value.abs()));
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() <= tolerance * largest, "`{what}`: {found} for {expected}");
    }
}

/// Draws weights and biases of every layer, uniform between -k and k with k = 1 / √(fan in); the parameters of
/// normalization stay. A parameter at two places has one value.
struct Redraw {
    path: Vec<String>,
    seeds: HashMap<ParamId, u64>,
    seed: u64,
}

impl<B: Backend> ModuleMapper<B> for Redraw {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let name = self.path.last().map_or("", String::as_str);
        if ["gamma", "beta", "alpha", "running_mean", "running_var"].contains(&name) {
            return param;
        }
        let next = self.seed * 1000 + self.seeds.len() as u64;
        let seed = *self.seeds.entry(param.id).or_insert(next);
        // As a record replaces it: in the layout of files, frozen or not as before.
        let lazy = param.clone();
        let dims = param.transform_for_save().val().dims();
        let fan_in = if D > 2 { dims[1..].iter().product() } else { dims[0] };
        let new: Tensor<B, D> = tensor(&uniform(&dims, seed));
        lazy.transform_for_load((new / (fan_in as f32).sqrt()).detach(), param.id)
    }
}
