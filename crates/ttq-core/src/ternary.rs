//! The module wrapper [`Ternary`].

use std::sync::Arc;

use burn::config::Config;
use burn::module::{AutodiffModule, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::optim::GradientsParams;
use burn::prelude::*;
use burn::tensor::backend::AutodiffBackend;
use serde::{Deserialize, Serialize};

use crate::granularity::widen;
use crate::leaf::leaf;
use crate::module_path::ModulePath;
use crate::scales::at_least_floor;
use crate::{
    Choice, ConfigError, LayerStats, LayerValues, QuantizerConfig, ScaleParameter, ScaleRule, Selection,
    SelectionConfig, SelectionError, TernaryQuantizer, TernaryStats,
};

/// Configuration of [`Ternary`].
///
/// The configuration implements Burn's [`Config`]: `save`, `load` and `load_binary` use JSON. A missing field takes its
/// default, and an unknown field is an error.
///
/// ```
/// use burn::config::Config;
/// use ttq_core::{SelectionConfig, TernaryConfig};
///
/// let config = TernaryConfig::load_binary(br#"{"selection": {"exclude": ["^stem"]}}"#).unwrap();
/// let selection = SelectionConfig::new().with_exclude(vec!["^stem".into()]);
/// assert_eq!(config, TernaryConfig::new().with_selection(selection));
/// ```
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TernaryConfig {
    /// How weights become ternary. Default: [`QuantizerConfig::ttq`].
    pub quantizer: QuantizerConfig,
    /// Which weights become ternary. Default: all of convolutions and linear layers but those of the first convolution
    /// and the last layer.
    pub selection: SelectionConfig,
}

impl Config for TernaryConfig {}

impl TernaryConfig {
    /// Creates a configuration with the default of every field.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how weights become ternary.
    #[must_use]
    pub fn with_quantizer(mut self, quantizer: QuantizerConfig) -> Self {
        self.quantizer = quantizer;
        self
    }

    /// Sets which weights become ternary.
    #[must_use]
    pub fn with_selection(mut self, selection: SelectionConfig) -> Self {
        self.selection = selection;
        self
    }
}

/// An error of [`Ternary::new`].
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TernaryError {
    /// The configuration of the quantizer is invalid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The selection of weights is not possible for this module.
    #[error(transparent)]
    Selection(#[from] SelectionError),
}

/// A module `M` whose selected weights are the float weights behind ternary ones, together with their learned scales.
///
/// The wrapper is a Burn module: it can be trained, saved, loaded and moved between devices like any other. It has no
/// forward pass of its own. Its views are modules of type `M`, which compute with ternary weights:
///
/// | view | selected weights | purpose |
/// |---|---|---|
/// | [`view`](Self::view) | ternary, differentiable in latents and scales | custom training loops, evaluation |
/// | [`leaf_view`](Self::leaf_view) | ternary leaves; [`pull_back`](Self::pull_back) computes the gradients of latents and scales | training without a graph through the quantizer |
/// | [`materialize`](Self::materialize) | ternary constants | deployment |
///
/// The wrapper and its views share the running statistics of batch normalization: a view's forward pass in training
/// updates those of the wrapper.
#[derive(Module, Debug)]
pub struct Ternary<B: Backend, M: Module<B>> {
    model: M,
    scales: Vec<Param<Tensor<B, 2>>>,
    #[module(skip)]
    plan: Arc<Plan>,
}

/// Configuration and selection, which do not change during training.
#[derive(Debug)]
struct Plan {
    config: TernaryConfig,
    selection: Selection,
    /// The selected layers, in the order of the module.
    layers: Vec<Choice>,
}

impl<B: Backend, M: Module<B>> Ternary<B, M> {
    /// Wraps `model`: selects its weights and initializes their scales from them.
    ///
    /// This initializes every parameter of the model. (Burn's parameters are lazy, and each clone of an uninitialized
    /// one would draw other values.)
    ///
    /// # Errors
    /// Returns [`TernaryError`] if the threshold is out of range or the selection is not possible for this model.
    pub fn new(model: M, config: &TernaryConfig) -> Result<Self, TernaryError> {
        let selection = Selection::of(&model, &config.selection)?;
        Self::wrap(model, config, selection)
    }

    /// Wraps `model` with a selection that was made for it or for a copy of it on another backend
    /// ([`Selection::traced`]).
    ///
    /// # Errors
    /// Returns [`TernaryError`] if the threshold is out of range or the model has not the weights of the selection.
    pub fn with_selection(model: M, config: &TernaryConfig, selection: Selection) -> Result<Self, TernaryError> {
        selection.check(&model)?;
        Self::wrap(model, config, selection)
    }

    fn wrap(model: M, config: &TernaryConfig, selection: Selection) -> Result<Self, TernaryError> {
        let quantizer: TernaryQuantizer<B> = config.quantizer.init()?;
        let layers: Vec<Choice> = selection.ternary().cloned().collect();
        let plan = Arc::new(Plan { config: config.clone(), selection, layers });
        let mut scales = Vec::new();
        if config.quantizer.scales == ScaleRule::Learned {
            let mut collect = CollectInitialScales { quantizer: &quantizer, scales: &mut scales };
            visit_selected(&model, &plan.layers, &mut collect);
        }
        Ok(Self { model, scales, plan })
    }

    /// Returns the wrapped module, whose selected weights are the latent weights.
    pub fn latent(&self) -> &M {
        &self.model
    }

    /// Returns the wrapped module by value.
    pub fn into_latent(self) -> M {
        self.model
    }

    /// Returns the parameters of the learned scales, `[groups, 2]` each, in the order of [`Selection::ternary`]: the
    /// scales or their logarithms, by [`QuantizerConfig::scale_parameter`]. Empty for scale rules other than
    /// [`ScaleRule::Learned`].
    pub fn scales(&self) -> &[Param<Tensor<B, 2>>] {
        &self.scales
    }

    /// Returns the configuration of the wrapper.
    pub fn config(&self) -> &TernaryConfig {
        &self.plan.config
    }

    /// Returns which weights are ternary, and why the others are not. Its `Display` is a table.
    pub fn selection(&self) -> &Selection {
        &self.plan.selection
    }

    /// Returns the quantizer of the selected weights.
    pub fn quantizer(&self) -> TernaryQuantizer<B> {
        // `Ternary::new` has checked the configuration.
        match self.plan.config.quantizer.init() {
            Ok(quantizer) => quantizer,
            Err(error) => unreachable!("a checked configuration became invalid: {error}"),
        }
    }

    /// Returns the module with ternary weights, differentiable in the latent weights and scales of this wrapper.
    ///
    /// Compute the gradients with `GradientsParams::from_grads(loss.backward(), &wrapper)`.
    pub fn view(&self) -> M {
        self.map_layers(Tracked)
    }

    /// Returns a plain module whose selected weights are ternary constants, for deployment.
    pub fn materialize(&self) -> M {
        self.map_layers(Constant)
    }

    /// Computes the flip ratio `[1]`: the share of codes, over all selected weights, that differ between this wrapper
    /// and `earlier`, from 0 to 1.
    ///
    /// # Panics
    /// Panics if the two do not wrap the same model.
    pub fn flip_ratio(&self, earlier: &Self) -> Tensor<B, 1> {
        let quantizer = self.quantizer();
        let mut codes = CollectCodes { quantizer: &quantizer, codes: Vec::new() };
        visit_selected(&earlier.model, &self.plan.layers, &mut codes);
        let before = Tensor::cat(codes.codes, 0);
        let mut codes = CollectCodes { quantizer: &quantizer, codes: Vec::new() };
        visit_selected(&self.model, &self.plan.layers, &mut codes);
        let after = Tensor::cat(codes.codes, 0);
        before.not_equal(after).float().mean()
    }

    /// Computes the statistics for training metrics on the device, without a read: one row for each selected weight,
    /// `[layers, 4]`: share of +1, share of -1, W_p, W_n. The scales are means over the groups.
    pub fn summary(&self) -> Tensor<B, 2> {
        let quantizer = self.quantizer();
        let mut rows = CollectSummary { quantizer: &quantizer, scales: &self.scales, index: 0, rows: Vec::new() };
        visit_selected(&self.model, &self.plan.layers, &mut rows);
        Tensor::cat(rows.rows, 0)
    }

    /// Computes the statistics of each selected weight. Reads from the device.
    pub fn stats(&self) -> TernaryStats {
        TernaryStats::new(
            self.layer_values().iter().map(LayerStats::new).collect(),
            self.plan.selection.full_precision_parameters(),
        )
    }

    /// Returns latent values, thresholds, codes and scales of each selected weight, in the order of
    /// [`Selection::ternary`]. Reads from the device.
    pub fn layer_values(&self) -> Vec<LayerValues> {
        let quantizer = self.quantizer();
        let layers = &self.plan.layers;
        let mut values =
            CollectValues { quantizer: &quantizer, scales: &self.scales, choices: layers, layers: Vec::new() };
        visit_selected(&self.model, layers, &mut values);
        values.layers
    }

    fn map_layers<F: LayerMapper<B>>(&self, map: F) -> M {
        let layers = SelectedLayers::new(&self.plan.layers);
        let mut mapper = ReplaceSelected { quantizer: self.quantizer(), scales: &self.scales, layers, map };
        self.model.clone().map(&mut mapper)
    }
}

impl<B: AutodiffBackend, M: AutodiffModule<B>> Ternary<B, M> {
    /// Returns the module with ternary weights that are leaves of the autodiff graph. The gradients of this view are
    /// those of the ternary weights; [`Ternary::pull_back`] converts them to gradients of latents and scales.
    pub fn leaf_view(&self) -> M {
        self.map_layers(Leaf)
    }

    /// Converts the gradients of a [`Ternary::leaf_view`] to gradients of this wrapper.
    ///
    /// For each ternary weight q with a gradient ∂L/∂q, the gradients of its latent weight and scales are computed in
    /// closed form ([`TernaryQuantizer::gradients`]). All other gradients are returned unchanged.
    pub fn pull_back(&self, mut grads: GradientsParams) -> GradientsParams {
        let quantizer = self.quantizer().on::<B::InnerBackend>();
        let mut visitor = PullBack { quantizer: &quantizer, scales: &self.scales, index: 0, grads: &mut grads };
        visit_selected(&self.model, &self.plan.layers, &mut visitor);
        grads
    }

    /// Raises every learned scale below [`SCALE_FLOOR`](crate::SCALE_FLOOR) to it, if scales are trained as
    /// [`ScaleParameter::Linear`]. Logarithms need no bound.
    ///
    /// Call it after each optimizer step: a scale that crosses zero would swap the meaning of its codes.
    #[must_use]
    pub fn clamp_scales(mut self) -> Self {
        if self.plan.config.quantizer.scale_parameter == ScaleParameter::Linear {
            self.scales = self.scales.into_iter().map(clamp).collect();
        }
        self
    }

    /// Returns the identifiers of the latent weights and those of the learned scales, for optimizers with parameter
    /// groups.
    pub fn parameter_groups(&self) -> (Vec<ParamId>, Vec<ParamId>) {
        let mut ids = CollectIds { ids: Vec::new() };
        visit_selected(&self.model, &self.plan.layers, &mut ids);
        (ids.ids, self.scales.iter().map(|param| param.id).collect())
    }
}

fn clamp<B: AutodiffBackend>(param: Param<Tensor<B, 2>>) -> Param<Tensor<B, 2>> {
    let id = param.id;
    param.map(|scales| {
        let clamped = at_least_floor(scales.clone().inner());
        leaf(clamped, scales.is_require_grad(), id, &scales)
    })
}

/// Returns the scales of the selected layer at `index`, `[groups, 2]`: those of its parameter, or the values that the
/// rule computes.
fn scales_of<B: Backend, const D: usize>(
    quantizer: &TernaryQuantizer<B>,
    learned: &[Param<Tensor<B, 2>>],
    index: usize,
    latent: &Tensor<B, D>,
    channel_axis: usize,
) -> Tensor<B, 2> {
    match learned.get(index) {
        Some(param) => quantizer.config.scale_parameter.scales(param.val()),
        None => quantizer.measured_scales(latent.clone(), channel_axis),
    }
}

/// Position in the list of selected layers while Burn visits or maps a module. Both have the same order.
struct SelectedLayers<'a> {
    path: ModulePath,
    layers: &'a [Choice],
    next: usize,
}

impl<'a> SelectedLayers<'a> {
    fn new(layers: &'a [Choice]) -> Self {
        Self { path: ModulePath::default(), layers, next: 0 }
    }

    /// Returns the index and the layer and advances, if the current parameter is the next selected weight.
    fn advance_if_selected(&mut self) -> Option<(usize, &'a Choice)> {
        let layer = self.layers.get(self.next)?;
        (self.path.joined() == layer.path).then(|| {
            self.next += 1;
            (self.next - 1, layer)
        })
    }
}

/// A visitor of the selected weights of a module.
trait LayerVisitor<B: Backend> {
    fn visit<const D: usize>(&mut self, param: &Param<Tensor<B, D>>, channel_axis: usize);
}

/// Visits the selected weights of a module in order.
///
/// # Panics
/// Panics if the module lacks one of them.
fn visit_selected<B: Backend, M: Module<B>, V: LayerVisitor<B>>(model: &M, layers: &[Choice], visitor: &mut V) {
    let mut visit = VisitSelected { layers: SelectedLayers::new(layers), visitor };
    model.visit(&mut visit);
    if let Some(missing) = layers.get(visit.layers.next) {
        panic!("Ternary: the module lacks `{}`, which was selected when it was wrapped", missing.path);
    }
}

struct VisitSelected<'a, V> {
    layers: SelectedLayers<'a>,
    visitor: &'a mut V,
}

impl<B: Backend, V: LayerVisitor<B>> ModuleVisitor<B> for VisitSelected<'_, V> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.layers.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.layers.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        if let Some((_, layer)) = self.layers.advance_if_selected() {
            self.visitor.visit(param, layer.axis());
        }
    }
}

struct CollectInitialScales<'a, B: Backend> {
    quantizer: &'a TernaryQuantizer<B>,
    scales: &'a mut Vec<Param<Tensor<B, 2>>>,
}

impl<B: Backend> LayerVisitor<B> for CollectInitialScales<'_, B> {
    fn visit<const D: usize>(&mut self, param: &Param<Tensor<B, D>>, channel_axis: usize) {
        let scales = self.quantizer.initial_scales(param.val(), channel_axis);
        let parameters = self.quantizer.config.scale_parameter.parameters(scales.detach());
        self.scales.push(Param::from_tensor(parameters));
    }
}

struct CollectCodes<'a, B: Backend> {
    quantizer: &'a TernaryQuantizer<B>,
    codes: Vec<Tensor<B, 1>>,
}

impl<B: Backend> LayerVisitor<B> for CollectCodes<'_, B> {
    fn visit<const D: usize>(&mut self, param: &Param<Tensor<B, D>>, channel_axis: usize) {
        let codes = self.quantizer.float_codes(param.val().detach(), channel_axis);
        let n = codes.shape().num_elements();
        self.codes.push(codes.reshape([n]));
    }
}

struct CollectSummary<'a, B: Backend> {
    quantizer: &'a TernaryQuantizer<B>,
    scales: &'a [Param<Tensor<B, 2>>],
    index: usize,
    rows: Vec<Tensor<B, 2>>,
}

impl<B: Backend> LayerVisitor<B> for CollectSummary<'_, B> {
    fn visit<const D: usize>(&mut self, param: &Param<Tensor<B, D>>, channel_axis: usize) {
        let latent = param.val().detach();
        let scales = scales_of(self.quantizer, self.scales, self.index, &latent, channel_axis);
        let codes = self.quantizer.float_codes(latent, channel_axis);
        // With s = mean of the codes and m = mean of their magnitudes: share of +1 = (m + s) / 2, of -1 = (m - s) / 2.
        let sum = codes.clone().mean().reshape([1, 1]);
        let magnitude = codes.abs().mean().reshape([1, 1]);
        self.rows.push(Tensor::cat(
            vec![
                (magnitude.clone() + sum.clone()).mul_scalar(0.5),
                (magnitude - sum).mul_scalar(0.5),
                widen(scales.detach()).mean_dim(0),
            ],
            1,
        ));
        self.index += 1;
    }
}

struct CollectValues<'a, B: Backend> {
    quantizer: &'a TernaryQuantizer<B>,
    scales: &'a [Param<Tensor<B, 2>>],
    choices: &'a [Choice],
    layers: Vec<LayerValues>,
}

impl<B: Backend> LayerVisitor<B> for CollectValues<'_, B> {
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

struct CollectIds {
    ids: Vec<ParamId>,
}

impl<B: Backend> LayerVisitor<B> for CollectIds {
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

impl<B: AutodiffBackend> LayerVisitor<B> for PullBack<'_, B> {
    fn visit<const D: usize>(&mut self, param: &Param<Tensor<B, D>>, channel_axis: usize) {
        let learned = self.scales.get(self.index);
        self.index += 1;
        let Some(grad) = self.grads.remove::<B::InnerBackend, D>(param.id) else { return };
        let latent = param.val().inner();
        let parameter = self.quantizer.config.scale_parameter;
        let scales = match learned {
            Some(param) => parameter.scales(param.val().inner()),
            None => self.quantizer.measured_scales(latent.clone(), channel_axis),
        };
        let gradients = self.quantizer.gradients(grad, latent, scales.clone(), channel_axis);
        self.grads.register(param.id, gradients.latent);
        if let Some(param) = learned {
            self.grads.register(param.id, parameter.gradient(scales, gradients.scales));
        }
    }
}

/// Computes the replacement of a selected weight from its latent weight and scales.
trait LayerMapper<B: Backend> {
    fn map<const D: usize>(
        &self,
        quantizer: &TernaryQuantizer<B>,
        id: ParamId,
        latent: Tensor<B, D>,
        scales: Tensor<B, 2>,
        channel_axis: usize,
    ) -> Tensor<B, D>;
}

/// Ternary weights that are differentiable in latents and scales.
struct Tracked;
/// Ternary weights that are leaves of the autodiff graph.
struct Leaf;
/// Ternary weights without a gradient.
struct Constant;

impl<B: Backend> LayerMapper<B> for Tracked {
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

impl<B: AutodiffBackend> LayerMapper<B> for Leaf {
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

impl<B: Backend> LayerMapper<B> for Constant {
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

/// Replaces the selected weights of a module.
struct ReplaceSelected<'a, B: Backend, F> {
    quantizer: TernaryQuantizer<B>,
    scales: &'a [Param<Tensor<B, 2>>],
    layers: SelectedLayers<'a>,
    map: F,
}

impl<B: Backend, F: LayerMapper<B>> ModuleMapper<B> for ReplaceSelected<'_, B, F> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.layers.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.layers.path.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let Some((index, layer)) = self.layers.advance_if_selected() else { return param };
        let (id, latent, mapper) = param.consume();
        let axis = layer.axis();
        let scales = scales_of(&self.quantizer, self.scales, index, &latent, axis);
        let ternary = self.map.map(&self.quantizer, id, latent, scales, axis);
        Param::from_mapped_value(id, ternary, mapper)
    }
}
