//! The module wrapper [`Ternary`].

use std::sync::Arc;

use burn::config::Config;
use burn::module::{AutodiffModule, ModuleDisplay, Param, ParamId};
use burn::prelude::*;
use burn::tensor::backend::AutodiffBackend;
use serde::{Deserialize, Serialize};

use crate::leaf::{initialize_as_leaves, leaf};
use crate::learned_scales::LearnedScales;
use crate::plan::Plan;
use crate::scales::at_least_floor;
use crate::selected::{LayerVisitor, visit_selected};
use crate::views::{Constant, Leaf, Tracked, replace_selected};
use crate::{
    Choice, ConfigError, LayerStats, LayerValues, LeafView, QuantizerConfig, RecordError, ScaleParameter, ScaleRule,
    Selection, SelectionConfig, SelectionError, TernaryQuantizer, TernaryStats, Threshold,
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
/// | [`view`](Self::view) | ternary, differentiable in latents and scales | custom training loops |
/// | [`leaf_view`](Self::leaf_view) | ternary leaves; [`LeafView::pull_back`] computes the gradients of latents and scales | training without a graph through the quantizer |
/// | [`materialize`](Self::materialize) | ternary constants | evaluation, deployment |
///
/// Evaluate `ternary.valid().materialize()`: on the autodiff backend batch normalization and dropout behave as in training, and
/// Burn keeps what a forward pass records until the next backward pass.
///
/// # Frozen parameters
///
/// A parameter that does not require a gradient (`no_grad`), in the module or in the whole wrapper, stays as it is. The
/// scales of a frozen latent weight are frozen with it. Running statistics behave as in Burn without this wrapper: the
/// wrapper and its views share those of batch normalization, and a view's forward pass in training updates them, frozen
/// or not.
///
/// # Records
///
/// A record has the scales by the paths of their weights, in their own type, and the configuration of the quantizer.
/// `load_record` panics with a [`RecordError`] if the record is of another selection or quantizer; [`check_record`
/// ](Self::check_record) tells before. To load weights that were trained without this wrapper, use
/// [`with_latent`](Self::with_latent), which fits the scales to them.
///
/// Burn's `CompactRecorder` stores latent weights in half precision, as it does every float parameter: each changes by up
/// to 0.05 % of its value. About one code in 10,000 of normally distributed weights changes with it (0 to 56 of 400,000,
/// by threshold and standard deviation). To resume a training exactly, use a recorder with `FullPrecisionSettings`.
#[derive(Module, Debug)]
pub struct Ternary<B: Backend, M: Module<B>> {
    model: M,
    scales: LearnedScales<B>,
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
        let model = initialize_as_leaves(model);
        let selection = Selection::of(&model, &config.selection)?;
        Self::wrap(model, config, selection)
    }

    /// Wraps `model` with a selection that was made for it or for a copy of it on another backend
    /// ([`Selection::traced`]).
    ///
    /// # Errors
    /// Returns [`TernaryError`] if the threshold is out of range or the model has not the weights of the selection.
    pub fn with_selection(model: M, config: &TernaryConfig, selection: Selection) -> Result<Self, TernaryError> {
        let model = initialize_as_leaves(model);
        selection.check(&model)?;
        Self::wrap(model, config, selection)
    }

    fn wrap(model: M, config: &TernaryConfig, selection: Selection) -> Result<Self, TernaryError> {
        let quantizer: TernaryQuantizer<B> = config.quantizer.init()?;
        let plan = Arc::new(Plan::new(config.clone(), selection));
        let params = fitted_scales(&model, &quantizer, &plan.layers).into_iter().map(Param::from_tensor).collect();
        Ok(Self { model, scales: LearnedScales { params, plan, threshold: config.quantizer.threshold } })
    }

    /// Computes the learned scales from the latent weights, by [`QuantizerConfig::initial_scales`].
    ///
    /// Call it when latent weights were changed without their scales: trained in full precision, or loaded. It changes the
    /// scales of frozen weights too.
    #[must_use]
    pub fn refit(mut self) -> Self {
        let mut fitted = fitted_scales(&self.model, &self.quantizer(), self.layers()).into_iter();
        self.scales = self.scales.map_params(|param| match fitted.next() {
            Some(scales) => param.map(|old| scales.set_require_grad(old.is_require_grad())),
            None => param,
        });
        self
    }

    /// Replaces the wrapped module and fits the scales to its weights ([`refit`](Self::refit)).
    ///
    /// This loads a record of a module that was trained without the wrapper:
    ///
    /// ```
    /// # use burn::backend::Flex;
    /// # use burn::module::Module;
    /// # use burn::nn::{Linear, LinearConfig};
    /// # use burn::prelude::*;
    /// # use ttq_core::{SelectionConfig, Ternary, TernaryConfig};
    /// # let device = Default::default();
    /// # let config = TernaryConfig::new().with_selection(SelectionConfig::new().with_keep_last_layer(false));
    /// # let ternary = Ternary::new(LinearConfig::new(4, 4).init::<Flex>(&device), &config).unwrap();
    /// # let record = LinearConfig::new(4, 4).init::<Flex>(&device).into_record();
    /// let model = ternary.latent().clone().load_record(record);
    /// let ternary = ternary.with_latent(model).unwrap();
    /// ```
    ///
    /// # Errors
    /// Returns [`SelectionError`] if the module has not the weights of the selection.
    pub fn with_latent(mut self, model: M) -> Result<Self, SelectionError> {
        self.plan().selection.check(&model)?;
        self.model = model;
        Ok(self.refit())
    }

    pub(crate) fn plan(&self) -> &Plan {
        &self.scales.plan
    }

    /// Returns the selected weights, in the order of the module.
    pub(crate) fn layers(&self) -> &[Choice] {
        &self.plan().layers
    }

    /// Returns the wrapped module, whose selected weights are the latent weights.
    pub fn latent(&self) -> &M {
        &self.model
    }

    /// Returns the wrapped module by value.
    pub fn into_latent(self) -> M {
        self.model
    }

    /// Applies `map`, which must keep the paths and shapes of the selected weights, to the wrapped module. The scales stay.
    #[must_use]
    pub fn map_latent(mut self, map: impl FnOnce(M) -> M) -> Self {
        self.model = map(self.model);
        self
    }

    /// Returns the parameters of the learned scales, `[groups, 2]` each, in the order of [`Selection::ternary`]: the
    /// scales or their logarithms, by [`QuantizerConfig::scale_parameter`]. Empty for scale rules other than
    /// [`ScaleRule::Learned`].
    pub fn scales(&self) -> &[Param<Tensor<B, 2>>] {
        &self.scales.params
    }

    /// Applies `map`, which must keep shapes and identifiers, to each parameter of the learned scales.
    #[must_use]
    pub fn map_scales(mut self, map: impl FnMut(Param<Tensor<B, 2>>) -> Param<Tensor<B, 2>>) -> Self {
        self.scales = self.scales.map_params(map);
        self
    }

    /// Returns the configuration that the wrapper was created with.
    pub fn config(&self) -> &TernaryConfig {
        &self.plan().config
    }

    /// Returns which weights are ternary, and why the others are not. Its `Display` is a table.
    pub fn selection(&self) -> &Selection {
        &self.plan().selection
    }

    /// Sets the current threshold, with which views, gradients, snapshots, statistics and packing compute, until it is set
    /// again. It is not part of records, whose configuration keeps the one that the wrapper was created with. Scales stay.
    ///
    /// A loop that raises the share of zeros sets it in each step, [`Threshold::toward`]:
    ///
    /// ```
    /// # use burn::backend::Flex;
    /// # use burn::nn::LinearConfig;
    /// # use ttq_core::{SelectionConfig, Ternary, TernaryConfig, Threshold};
    /// # let config = TernaryConfig::new().with_selection(SelectionConfig::new().with_keep_last_layer(false));
    /// # let mut ternary = Ternary::new(LinearConfig::new(4, 4).init::<Flex>(&Default::default()), &config)?;
    /// # let (step, steps) = (1, 10);
    /// let (start, end) = (Threshold::Sparsity(0.0), Threshold::Sparsity(0.5));
    /// ternary = ternary.with_threshold(start.toward(end, f64::from(step) / f64::from(steps))?)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Returns [`ConfigError`] if its number is out of range.
    pub fn with_threshold(mut self, threshold: Threshold) -> Result<Self, ConfigError> {
        self.scales.threshold = threshold.check()?;
        Ok(self)
    }

    /// Returns the quantizer of the selected weights, with the current threshold ([`with_threshold`](Self::with_threshold)).
    pub fn quantizer(&self) -> TernaryQuantizer<B> {
        // `Ternary::new` has checked the configuration, `with_threshold` the threshold.
        match self.plan().config.quantizer.with_threshold(self.scales.threshold).init() {
            Ok(quantizer) => quantizer,
            Err(error) => unreachable!("a checked configuration became invalid: {error}"),
        }
    }

    /// Returns the module with ternary weights, differentiable in the latent weights and scales of this wrapper.
    ///
    /// Compute the gradients with `GradientsParams::from_grads(loss.backward(), &wrapper)`, and call
    /// [`after_step`](Self::after_step) after the optimizer step: it checks the first one.
    ///
    /// An optimizer with weight decay decays the scales too, whose parameters are logarithms by default: towards 1, and before
    /// a batch normalization nothing opposes it. `TernaryOptimizer` of `ttq-train` keeps decay from the scales.
    pub fn view(&self) -> M {
        let log = self.plan().first_step.watch_view(&self.model, &self.scales);
        replace_selected(self.model.clone(), &self.scales, self.quantizer(), &mut Tracked, log)
    }

    /// Returns a plain module whose selected weights are ternary constants, for evaluation and deployment.
    pub fn materialize(&self) -> M {
        replace_selected(self.model.clone(), &self.scales, self.quantizer(), &mut Constant, None)
    }

    /// Computes the statistics of each selected weight. Reads from the device.
    pub fn stats(&self) -> TernaryStats {
        TernaryStats::new(
            self.layer_values().iter().map(LayerStats::new).collect(),
            self.plan().selection.full_precision_parameters(),
        )
    }

    /// Returns latent values, thresholds, codes and scales of each selected weight, in the order of
    /// [`Selection::ternary`]. Reads from the device.
    pub fn layer_values(&self) -> Vec<LayerValues> {
        let quantizer = self.quantizer();
        let layers = self.layers();
        let mut values =
            CollectValues { quantizer: &quantizer, scales: &self.scales, choices: layers, layers: Vec::new() };
        visit_selected(&self.model, layers, &mut values);
        values.layers
    }
}

impl<B: Backend, M: Module<B> + ModuleDisplay> Ternary<B, M> {
    /// Checks that a record has the selection and the quantizer of this wrapper, so that `load_record` does not panic.
    ///
    /// # Errors
    /// Returns [`RecordError`], which names the difference.
    pub fn check_record(&self, record: &<Self as Module<B>>::Record) -> Result<(), RecordError> {
        self.scales.check(&record.scales)
    }
}

impl<B: AutodiffBackend, M: AutodiffModule<B>> Ternary<B, M> {
    /// Returns the module with ternary weights that are leaves of the autodiff graph. The gradients of this view are
    /// those of the ternary weights; [`LeafView::pull_back`] converts them to gradients of latents and scales.
    ///
    /// The first view notes the order in which its forward pass uses the weights, and the first `pull_back` of the same
    /// thread compares it with the selection: it logs a warning for a first convolution or a last layer that is ternary
    /// because the module declares its fields in another order, and for a ternary weight without a gradient.
    /// [`Selection::traced`] avoids both. No later view has this cost.
    pub fn leaf_view(&self) -> LeafView<'_, B, M> {
        let log = self.plan().first_step.note_order();
        let mut map = Leaf { scales: Vec::with_capacity(self.layers().len()) };
        let module = replace_selected(self.model.clone(), &self.scales, self.quantizer(), &mut map, log);
        LeafView { ternary: self, module, scales: map.scales }
    }

    /// Checks the first step of a training with [`view`](Self::view), and raises every learned scale below
    /// [`SCALE_FLOOR`](crate::SCALE_FLOOR) to it if scales are trained as [`ScaleParameter::Linear`].
    ///
    /// Call it after each optimizer step of your own loop. (The learner step and the optimizer of `ttq-train` call it.) A
    /// linear scale that crosses zero would swap the meaning of its codes. Logarithms, the default, need no bound. A scale that
    /// is NaN stays NaN.
    ///
    /// After the first step it logs a warning if a first convolution or a last layer is ternary because the module declares
    /// its fields in another order than its forward pass uses them.
    ///
    /// # Panics
    /// Panics if the first optimizer step after a [`view`](Self::view) updated all other trainable parameters, but no latent
    /// weight and no scale: the gradients were taken from the view, which has none of theirs, instead of the wrapper. To train
    /// the other parameters alone, freeze the ternary weights with `no_grad`. Panics in the first step too if a latent weight
    /// that should train is no leaf of the autodiff graph (a layer of `LinearLayout::Col` that was used before it was wrapped).
    #[must_use]
    pub fn after_step(mut self) -> Self {
        self.plan().first_step.check_order(&self.model, self.plan(), None);
        self.plan().first_step.check_update(&self.model, &self.scales);
        if self.config().quantizer.scale_parameter == ScaleParameter::Linear {
            self.scales = self.scales.map_params(clamp);
        }
        self
    }

    /// Returns the identifiers of the latent weights and those of the learned scales, for optimizers with parameter
    /// groups.
    pub fn parameter_groups(&self) -> (Vec<ParamId>, Vec<ParamId>) {
        let mut ids = CollectIds { ids: Vec::new() };
        visit_selected(&self.model, self.layers(), &mut ids);
        (ids.ids, self.scales().iter().map(|param| param.id).collect())
    }
}

/// Raises scales to their floor. Frozen scales stay as they are.
fn clamp<B: AutodiffBackend>(param: Param<Tensor<B, 2>>) -> Param<Tensor<B, 2>> {
    if !param.is_require_grad() {
        return param;
    }
    let id = param.id;
    param.map(|scales| {
        let clamped = at_least_floor(scales.clone().inner());
        leaf(clamped, true, id, &scales)
    })
}

/// Computes the parameters of the scales of the selected weights by the rule for their initial values, `[groups, 2]`
/// each. Empty if the scales are not learned.
fn fitted_scales<B: Backend, M: Module<B>>(
    model: &M,
    quantizer: &TernaryQuantizer<B>,
    layers: &[Choice],
) -> Vec<Tensor<B, 2>> {
    let mut collect = CollectInitialScales { quantizer, scales: Vec::new() };
    if quantizer.config().scales == ScaleRule::Learned {
        visit_selected(model, layers, &mut collect);
    }
    collect.scales
}

struct CollectInitialScales<'a, B: Backend> {
    quantizer: &'a TernaryQuantizer<B>,
    scales: Vec<Tensor<B, 2>>,
}

impl<B: Backend> LayerVisitor<B> for CollectInitialScales<'_, B> {
    fn visit<const D: usize>(&mut self, param: &Param<Tensor<B, D>>, channel_axis: usize) {
        let scales = self.quantizer.initial_scales(param.val(), channel_axis).detach();
        self.scales.push(self.quantizer.config.scale_parameter.parameters(scales));
    }
}

struct CollectValues<'a, B: Backend> {
    quantizer: &'a TernaryQuantizer<B>,
    scales: &'a LearnedScales<B>,
    choices: &'a [Choice],
    layers: Vec<LayerValues>,
}

impl<B: Backend> LayerVisitor<B> for CollectValues<'_, B> {
    fn visit<const D: usize>(&mut self, param: &Param<Tensor<B, D>>, channel_axis: usize) {
        let latent = param.val().detach();
        let index = self.layers.len();
        let scales = self.scales.of_layer(self.quantizer, index, &latent, channel_axis);
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
