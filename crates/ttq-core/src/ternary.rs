//! Any Burn module with ternary weights.

use std::sync::Arc;

use burn::module::{AutodiffModule, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::optim::GradientsParams;
use burn::prelude::*;
use burn::tensor::backend::AutodiffBackend;
use serde::{Deserialize, Serialize};

use crate::leaf::leaf;
use crate::selection::Place;
use crate::{
    Choice, ConfigError, LayerStats, LayerValues, QuantizerConfig, SCALE_FLOOR, ScaleRule, Selection, SelectionConfig,
    SelectionError, TernaryQuantizer, TernaryStats,
};

/// Configuration of [`Ternary`]: how weights become ternary, and which.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TernaryConfig {
    /// How.
    pub quantizer: QuantizerConfig,
    /// Which.
    pub selection: SelectionConfig,
}

/// What can go wrong when a module is wrapped.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TernaryError {
    /// The quantizer's configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The selection of weights.
    #[error(transparent)]
    Selection(#[from] SelectionError),
}

/// A module `M`, unchanged, whose chosen weights are latent weights of ternary ones, together with their learned scales.
///
/// The wrapper is itself a Burn module: it trains, saves, loads and moves between devices like any other. What computes
/// is one of its views, which are modules of the user's own type:
///
/// | view | chosen weights are | for |
/// |---|---|---|
/// | [`view`](Self::view) | ternary, differentiable back to latents and scales | a training loop of one's own, evaluation |
/// | [`leaf_view`](Self::leaf_view) | ternary leaves; [`pull_back`](Self::pull_back) carries their gradients to latents and scales | training without a graph through the quantizer |
/// | [`materialize`](Self::materialize) | ternary constants | deployment |
///
/// Batch normalization's running state is shared between the wrapper and its views, so a view's forward pass in training
/// updates the wrapper's.
#[derive(Module, Debug)]
pub struct Ternary<B: Backend, M: Module<B>> {
    model: M,
    scales: Vec<Param<Tensor<B, 2>>>,
    #[module(skip)]
    plan: Arc<Plan>,
}

/// What does not change while a module trains.
#[derive(Debug)]
struct Plan {
    config: TernaryConfig,
    selection: Selection,
    layers: Vec<Choice>,
}

impl<B: Backend, M: Module<B>> Ternary<B, M> {
    /// Wraps `model`: chooses weights and initializes their scales from them.
    ///
    /// Every parameter is initialized by this (Burn's are lazy, and clones of an uninitialized one would each draw
    /// other values).
    ///
    /// # Errors
    /// [`TernaryError`] where the configuration makes no sense for this model.
    pub fn new(model: M, config: &TernaryConfig) -> Result<Self, TernaryError> {
        let quantizer: TernaryQuantizer<B> = config.quantizer.init()?;
        let selection = Selection::of(&model, &config.selection)?;
        let layers: Vec<Choice> = selection.ternary().cloned().collect();
        let plan = Arc::new(Plan { config: config.clone(), selection, layers });
        model.visit(&mut Initialize);
        let mut scales = Vec::new();
        if config.quantizer.scales == ScaleRule::Learned {
            visit(&model, &plan.layers, &mut InitialScalesOf { quantizer: &quantizer, scales: &mut scales });
        }
        Ok(Self { model, scales, plan })
    }

    /// The wrapped module; its chosen weights are the latent ones.
    pub fn latent(&self) -> &M {
        &self.model
    }

    /// The wrapped module by value.
    pub fn into_latent(self) -> M {
        self.model
    }

    /// The learned scales, `[groups, 2]` each, in the order of [`Selection::ternary`]. Empty for scale rules that learn
    /// nothing.
    pub fn scales(&self) -> &[Param<Tensor<B, 2>>] {
        &self.scales
    }

    /// The configuration it was made with.
    pub fn config(&self) -> &TernaryConfig {
        &self.plan.config
    }

    /// What was looked at and what was chosen, as a table.
    pub fn selection(&self) -> &Selection {
        &self.plan.selection
    }

    /// The quantizer of the chosen weights.
    pub fn quantizer(&self) -> TernaryQuantizer<B> {
        // The configuration was checked when the wrapper was made.
        match self.plan.config.quantizer.init() {
            Ok(quantizer) => quantizer,
            Err(error) => unreachable!("a checked configuration became invalid: {error}"),
        }
    }

    /// The module with ternary weights, differentiable back to the latent weights and the scales of this wrapper.
    ///
    /// Take gradients with `GradientsParams::from_grads(loss.backward(), &wrapper)`.
    pub fn view(&self) -> M {
        self.map_layers(Tracked)
    }

    /// A plain module whose chosen weights are ternary constants: what is deployed.
    pub fn materialize(&self) -> M {
        self.map_layers(Constant)
    }

    /// Share of codes, over all chosen weights, that differ between this wrapper and `earlier`: the flip ratio. `[1]`
    ///
    /// # Panics
    /// Where the two do not wrap the same model.
    pub fn flip_ratio(&self, earlier: &Self) -> Tensor<B, 1> {
        let quantizer = self.quantizer();
        let mut codes = CodesOf { quantizer: &quantizer, codes: Vec::new() };
        visit(&earlier.model, &self.plan.layers, &mut codes);
        let before = Tensor::cat(codes.codes, 0);
        let mut codes = CodesOf { quantizer: &quantizer, codes: Vec::new() };
        visit(&self.model, &self.plan.layers, &mut codes);
        let after = Tensor::cat(codes.codes, 0);
        before.not_equal(after).float().mean()
    }

    /// The numbers behind [`Ternary::stats`] and the training metrics, on the device: one row for each chosen weight,
    /// `[layers, 4]`: share of +1, share of -1, W_p, W_n (means over the groups).
    pub fn summary(&self) -> Tensor<B, 2> {
        let quantizer = self.quantizer();
        let mut rows = SummaryOf { quantizer: &quantizer, scales: &self.scales, index: 0, rows: Vec::new() };
        visit(&self.model, &self.plan.layers, &mut rows);
        Tensor::cat(rows.rows, 0)
    }

    /// Statistics of each chosen weight. Reads from the device.
    pub fn stats(&self) -> TernaryStats {
        TernaryStats::new(
            self.layer_values().iter().map(LayerStats::new).collect(),
            self.plan.selection.full_precision_parameters(),
        )
    }

    /// The numbers of each chosen weight, in the order of [`Selection::ternary`]. Reads from the device.
    pub fn layer_values(&self) -> Vec<LayerValues> {
        let quantizer = self.quantizer();
        let mut values =
            ValuesOf { quantizer: &quantizer, scales: &self.scales, choices: &self.plan.layers, layers: Vec::new() };
        visit(&self.model, &self.plan.layers, &mut values);
        values.layers
    }

    fn map_layers<F: MapLayer<B>>(&self, map: F) -> M {
        let mut mapper =
            Replace { quantizer: self.quantizer(), scales: &self.scales, layers: Walk::new(&self.plan.layers), map };
        self.model.clone().map(&mut mapper)
    }
}

impl<B: AutodiffBackend, M: AutodiffModule<B>> Ternary<B, M> {
    /// The module with ternary weights that are leaves of the autodiff graph: their gradients are those of the ternary
    /// weights themselves, and [`Ternary::pull_back`] carries them on.
    pub fn leaf_view(&self) -> M {
        self.map_layers(Leaf)
    }

    /// Turns the gradients of a [`Ternary::leaf_view`] into those of this wrapper: where the view's gradient is
    /// ∂L/∂q, latent weight and scales take theirs in closed form ([`TernaryQuantizer::gradients`]); all others stay.
    pub fn pull_back(&self, mut grads: GradientsParams) -> GradientsParams {
        let quantizer = self.quantizer().on::<B::InnerBackend>();
        let mut visitor = PullBack { quantizer: &quantizer, scales: &self.scales, index: 0, grads: &mut grads };
        visit(&self.model, &self.plan.layers, &mut visitor);
        grads
    }

    /// Sets every learned scale that fell below [`SCALE_FLOOR`] to it. Call it after each optimizer step: a scale that
    /// crosses zero would swap the meaning of its codes.
    #[must_use]
    pub fn clamp_scales(mut self) -> Self {
        self.scales = self.scales.into_iter().map(clamp).collect();
        self
    }

    /// Identifiers of the latent weights and of the learned scales, for optimizers that treat them apart.
    pub fn parameter_groups(&self) -> (Vec<ParamId>, Vec<ParamId>) {
        let mut ids = IdsOf { ids: Vec::new() };
        visit(&self.model, &self.plan.layers, &mut ids);
        (ids.ids, self.scales.iter().map(|param| param.id).collect())
    }
}

fn clamp<B: AutodiffBackend>(param: Param<Tensor<B, 2>>) -> Param<Tensor<B, 2>> {
    let id = param.id;
    param.map(|scales| {
        let clamped = scales.clone().inner().clamp_min(SCALE_FLOOR);
        leaf(clamped, scales.is_require_grad(), id, &scales)
    })
}

/// The scales of the layer at `index`: its parameter, or what the rule measures.
fn scales_of<B: Backend, const D: usize>(
    quantizer: &TernaryQuantizer<B>,
    learned: &[Param<Tensor<B, 2>>],
    index: usize,
    latent: &Tensor<B, D>,
    channel_axis: usize,
) -> Tensor<B, 2> {
    match learned.get(index) {
        Some(param) => param.val(),
        None => quantizer.measured_scales(latent.clone(), channel_axis),
    }
}

/// Walks along a module's parameters beside the list of chosen layers, which is in the same order.
struct Walk<'a> {
    place: Place,
    layers: &'a [Choice],
    next: usize,
}

impl<'a> Walk<'a> {
    fn new(layers: &'a [Choice]) -> Self {
        Self { place: Place::default(), layers, next: 0 }
    }

    /// The index and the layer, if the parameter at the current place was chosen.
    fn arrive(&mut self) -> Option<(usize, &'a Choice)> {
        let layer = self.layers.get(self.next)?;
        (self.place.path() == layer.path).then(|| {
            self.next += 1;
            (self.next - 1, layer)
        })
    }
}

/// What happens at a chosen weight while a module is visited.
trait VisitLayer<B: Backend> {
    fn visit<const D: usize>(&mut self, param: &Param<Tensor<B, D>>, channel_axis: usize);
}

fn visit<B: Backend, M: Module<B>, V: VisitLayer<B>>(model: &M, layers: &[Choice], visitor: &mut V) {
    let mut visit = Visit { layers: Walk::new(layers), visitor };
    model.visit(&mut visit);
    assert_eq!(visit.layers.next, layers.len(), "the module has lost layers that were chosen when it was wrapped");
}

struct Visit<'a, V> {
    layers: Walk<'a>,
    visitor: &'a mut V,
}

impl<B: Backend, V: VisitLayer<B>> ModuleVisitor<B> for Visit<'_, V> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.layers.place.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.layers.place.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        if let Some((_, layer)) = self.layers.arrive() {
            self.visitor.visit(param, layer.kind.channel_axis());
        }
    }
}

struct Initialize;

impl<B: Backend> ModuleVisitor<B> for Initialize {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        param.val();
    }

    fn visit_int<const D: usize>(&mut self, param: &Param<Tensor<B, D, Int>>) {
        param.val();
    }

    fn visit_bool<const D: usize>(&mut self, param: &Param<Tensor<B, D, Bool>>) {
        param.val();
    }
}

struct InitialScalesOf<'a, B: Backend> {
    quantizer: &'a TernaryQuantizer<B>,
    scales: &'a mut Vec<Param<Tensor<B, 2>>>,
}

impl<B: Backend> VisitLayer<B> for InitialScalesOf<'_, B> {
    fn visit<const D: usize>(&mut self, param: &Param<Tensor<B, D>>, channel_axis: usize) {
        let scales = self.quantizer.initial_scales(param.val(), channel_axis);
        self.scales.push(Param::from_tensor(scales.detach()));
    }
}

struct CodesOf<'a, B: Backend> {
    quantizer: &'a TernaryQuantizer<B>,
    codes: Vec<Tensor<B, 1>>,
}

impl<B: Backend> VisitLayer<B> for CodesOf<'_, B> {
    fn visit<const D: usize>(&mut self, param: &Param<Tensor<B, D>>, channel_axis: usize) {
        let codes = self.quantizer.float_codes(param.val().detach(), channel_axis);
        let n = codes.shape().num_elements();
        self.codes.push(codes.reshape([n]));
    }
}

struct SummaryOf<'a, B: Backend> {
    quantizer: &'a TernaryQuantizer<B>,
    scales: &'a [Param<Tensor<B, 2>>],
    index: usize,
    rows: Vec<Tensor<B, 2>>,
}

impl<B: Backend> VisitLayer<B> for SummaryOf<'_, B> {
    fn visit<const D: usize>(&mut self, param: &Param<Tensor<B, D>>, channel_axis: usize) {
        let latent = param.val().detach();
        let scales = scales_of(self.quantizer, self.scales, self.index, &latent, channel_axis);
        let codes = self.quantizer.float_codes(latent, channel_axis);
        // With s = mean of the codes and m = mean of their magnitudes: share of +1 = (m + s)/2, of -1 = (m - s)/2.
        let sum = codes.clone().mean().reshape([1, 1]);
        let magnitude = codes.abs().mean().reshape([1, 1]);
        self.rows.push(Tensor::cat(
            vec![
                (magnitude.clone() + sum.clone()).mul_scalar(0.5),
                (magnitude - sum).mul_scalar(0.5),
                scales.detach().mean_dim(0),
            ],
            1,
        ));
        self.index += 1;
    }
}

struct ValuesOf<'a, B: Backend> {
    quantizer: &'a TernaryQuantizer<B>,
    scales: &'a [Param<Tensor<B, 2>>],
    choices: &'a [Choice],
    layers: Vec<LayerValues>,
}

impl<B: Backend> VisitLayer<B> for ValuesOf<'_, B> {
    fn visit<const D: usize>(&mut self, param: &Param<Tensor<B, D>>, channel_axis: usize) {
        let latent = param.val().detach();
        let index = self.layers.len();
        let scales = scales_of(self.quantizer, self.scales, index, &latent, channel_axis);
        let thresholds = self.quantizer.threshold(latent.clone(), channel_axis);
        let codes = floats(self.quantizer.float_codes(latent.clone(), channel_axis));
        self.layers.push(LayerValues {
            choice: self.choices[index].clone(),
            latent: floats(latent),
            thresholds: floats(thresholds),
            codes: codes.into_iter().map(|code| code as i8).collect(),
            scales: floats(scales.detach()),
        });
    }
}

fn floats<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}

struct IdsOf {
    ids: Vec<ParamId>,
}

impl<B: Backend> VisitLayer<B> for IdsOf {
    fn visit<const D: usize>(&mut self, param: &Param<Tensor<B, D>>, _channel_axis: usize) {
        self.ids.push(param.id);
    }
}

struct PullBack<'a, B: AutodiffBackend> {
    quantizer: &'a TernaryQuantizer<B::InnerBackend>,
    scales: &'a [Param<Tensor<B, 2>>],
    index: usize,
    grads: &'a mut GradientsParams,
}

impl<B: AutodiffBackend> VisitLayer<B> for PullBack<'_, B> {
    fn visit<const D: usize>(&mut self, param: &Param<Tensor<B, D>>, channel_axis: usize) {
        let learned = self.scales.get(self.index);
        self.index += 1;
        let Some(grad) = self.grads.remove::<B::InnerBackend, D>(param.id) else { return };
        let latent = param.val().inner();
        let scales = match learned {
            Some(param) => param.val().inner(),
            None => self.quantizer.measured_scales(latent.clone(), channel_axis),
        };
        let gradients = self.quantizer.gradients(grad, latent, scales, channel_axis);
        self.grads.register(param.id, gradients.latent);
        if let Some(param) = learned {
            self.grads.register(param.id, gradients.scales);
        }
    }
}

/// What a chosen weight is replaced by.
trait MapLayer<B: Backend> {
    fn map<const D: usize>(
        &self,
        quantizer: &TernaryQuantizer<B>,
        id: ParamId,
        latent: Tensor<B, D>,
        scales: Tensor<B, 2>,
        channel_axis: usize,
    ) -> Tensor<B, D>;
}

struct Tracked;
struct Leaf;
struct Constant;

impl<B: Backend> MapLayer<B> for Tracked {
    fn map<const D: usize>(
        &self,
        quantizer: &TernaryQuantizer<B>,
        _id: ParamId,
        latent: Tensor<B, D>,
        scales: Tensor<B, 2>,
        channel_axis: usize,
    ) -> Tensor<B, D> {
        quantizer.ternarize(latent, scales, channel_axis)
    }
}

impl<B: AutodiffBackend> MapLayer<B> for Leaf {
    fn map<const D: usize>(
        &self,
        quantizer: &TernaryQuantizer<B>,
        id: ParamId,
        latent: Tensor<B, D>,
        scales: Tensor<B, 2>,
        channel_axis: usize,
    ) -> Tensor<B, D> {
        let quantizer = quantizer.on::<B::InnerBackend>();
        let ternary = quantizer.ternarize(latent.clone().inner(), scales.inner(), channel_axis);
        leaf(ternary, true, id, &latent)
    }
}

impl<B: Backend> MapLayer<B> for Constant {
    fn map<const D: usize>(
        &self,
        quantizer: &TernaryQuantizer<B>,
        _id: ParamId,
        latent: Tensor<B, D>,
        scales: Tensor<B, 2>,
        channel_axis: usize,
    ) -> Tensor<B, D> {
        quantizer.ternarize(latent.detach(), scales.detach(), channel_axis).detach()
    }
}

struct Replace<'a, B: Backend, F> {
    quantizer: TernaryQuantizer<B>,
    scales: &'a [Param<Tensor<B, 2>>],
    layers: Walk<'a>,
    map: F,
}

impl<B: Backend, F: MapLayer<B>> ModuleMapper<B> for Replace<'_, B, F> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.layers.place.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.layers.place.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let Some((index, layer)) = self.layers.arrive() else { return param };
        let (id, latent, mapper) = param.consume();
        let axis = layer.kind.channel_axis();
        let scales = scales_of(&self.quantizer, self.scales, index, &latent, axis);
        let ternary = self.map.map(&self.quantizer, id, latent, scales, axis);
        Param::from_mapped_value(id, ternary, mapper)
    }
}
