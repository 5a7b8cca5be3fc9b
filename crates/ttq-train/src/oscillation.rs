//! Weights whose codes flip to and fro: their frequency, and freezing.

use std::f64::consts::PI;
use std::fmt;
use std::str::FromStr;

use burn::config::Config;
use burn::module::{AutodiffModule, Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::prelude::*;
use burn::tensor::DType;
use burn::tensor::backend::AutodiffBackend;
use serde::{Deserialize, Serialize};
use ttq_core::{Ternary, TernaryQuantizer};

use crate::optimizer::with_value;

/// Freezing of weights whose codes oscillate, once their frequency is above a threshold that falls during the training
/// (Nagel, Fournarakis, Bondarenko, Blankevoort, "Overcoming Oscillations in Quantization-Aware Training", ICML 2022,
/// arXiv 2203.11086, algorithm 1).
///
/// A weight near a boundary of the zero zone is pushed over it by one step and back by the next one. It never settles, and
/// the running statistics of batch normalization are those of neither state. With the code c_t of a weight after the update
/// t, and the momentum m:
///
/// ```text
/// o_t = 1 if c_t ≠ c_{t-1} and the last change before had the opposite direction, else 0
/// f_t = m · o_t + (1 - m) · f_{t-1}        frequency: oscillations per update
/// e_t = m · c_t + (1 - m) · e_{t-1}        mean code
/// ```
///
/// If f_t is above the threshold F(p), where p from 0 to 1 is the finished share of the training, the weight is frozen: its
/// code is e_{t-1}, rounded, in all later updates. F is `start` in the first quarter, then a half cosine to `end`:
///
/// ```text
/// F(p) = end + (start - end) · (1 + cos(π · max(0, (p - 1/4) / (3/4)))) / 2
/// ```
///
/// Thresholds Δ and scales go on moving, so that it is the code that is frozen: after each update a latent weight that would
/// have another one is set to the nearest value of its code, with a margin of Δ / 4.
///
/// `Display` and `FromStr` use the form `START:END:MOMENTUM`; the momentum can be left out.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OscillationFreezing {
    /// Threshold of the frequency at the start, not below that at the end. At 1 nothing is frozen.
    pub start: f64,
    /// Threshold of the frequency at the end, above the momentum: a single oscillation freezes nothing.
    pub end: f64,
    /// Weight of the last update in frequency and mean code, above 0. Defaults to 0.001, as in the authors' code.
    #[serde(default = "default_momentum")]
    pub momentum: f64,
}

fn default_momentum() -> f64 {
    0.001
}

impl Config for OscillationFreezing {}

/// An error of [`OscillationFreezing`].
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum OscillationError {
    /// The numbers are out of range.
    #[error(
        "the freezing of oscillations has {found}: choose 1 >= START >= END > MOMENTUM > 0, such as 0.1:0.01:0.001"
    )]
    Numbers {
        /// The numbers.
        found: OscillationFreezing,
    },
    /// A text is no freezing of oscillations.
    #[error("`{text}` is no freezing of oscillations: write START:END or START:END:MOMENTUM, such as 0.1:0.01")]
    Text {
        /// The text.
        text: String,
    },
}

/// Frequency above which a weight counts as oscillating in metrics (paper, section 2.3).
pub(crate) const OSCILLATING: f64 = 0.005;

/// Share of the training in which the threshold is that of the start, as in the authors' code.
const CONSTANT_SHARE: f64 = 0.25;

impl OscillationFreezing {
    /// Creates the configuration with the thresholds at the start and at the end, and the default momentum. The authors have
    /// 0.1 and 0.01 for weights of 4 bits, 0.1 and 0.011 for 3 bits.
    pub fn new(start: f64, end: f64) -> Self {
        Self { start, end, momentum: default_momentum() }
    }

    /// Sets the momentum. About the last 1 / momentum updates count.
    #[must_use]
    pub fn with_momentum(mut self, momentum: f64) -> Self {
        self.momentum = momentum;
        self
    }

    /// Returns the configuration unchanged if its numbers are in range.
    ///
    /// # Errors
    /// [`OscillationError::Numbers`].
    pub fn check(self) -> Result<Self, OscillationError> {
        let is_valid = 1.0 >= self.start && self.start >= self.end && self.end > self.momentum && self.momentum > 0.0;
        if is_valid { Ok(self) } else { Err(OscillationError::Numbers { found: self }) }
    }

    /// Returns the threshold F of the frequency when the share `progress` of the training is finished.
    pub fn threshold(self, progress: f64) -> f64 {
        let progress = ((progress - CONSTANT_SHARE) / (1.0 - CONSTANT_SHARE)).clamp(0.0, 1.0);
        self.end + (self.start - self.end) * (1.0 + (PI * progress).cos()) / 2.0
    }
}

impl fmt::Display for OscillationFreezing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.start, self.end, self.momentum)
    }
}

impl FromStr for OscillationFreezing {
    type Err = OscillationError;

    fn from_str(text: &str) -> Result<Self, OscillationError> {
        let numbers: Result<Vec<f64>, _> = text.split(':').map(|part| part.trim().parse()).collect();
        match numbers.as_deref() {
            Ok([start, end]) => Self::new(*start, *end).check(),
            Ok([start, end, momentum]) => Self::new(*start, *end).with_momentum(*momentum).check(),
            _ => Err(OscillationError::Text { text: text.into() }),
        }
    }
}

/// The freezing in a training: `finished` of its `steps` are done.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FreezingCourse {
    pub(crate) freezing: OscillationFreezing,
    pub(crate) steps: usize,
    pub(crate) finished: usize,
}

/// The oscillations of all ternary weights of a [`Ternary`], whose codes it freezes: [`OscillationFreezing`].
///
/// [`TernaryStep::with_oscillation_freezing`](crate::TernaryStep::with_oscillation_freezing) and
/// [`PhaseConfig`](crate::PhaseConfig) use it in a training with burn-train. In a loop of your own, call
/// [`freeze`](Self::freeze) after each step of the optimizer, and save it with the optimizer:
///
/// ```ignore
/// let mut oscillations = Oscillations::new(&ternary);
/// for step in 0..steps {
///     ternary = optimizer.step(lr, ternary, grads);
///     (oscillations, ternary) = oscillations.freeze(ternary, freezing, step as f64 / steps as f64);
/// }
/// ```
#[derive(Module, Debug)]
pub struct Oscillations<B: Backend> {
    layers: Vec<LayerOscillations<B>>,
}

/// The state of one weight of `n` elements, `[n]` in float32 each.
#[derive(Module, Debug)]
pub struct LayerOscillations<B: Backend> {
    code: Param<Tensor<B, 1>>,
    /// Direction of the last change of the code, -1 or 1; 0 before the first one.
    direction: Param<Tensor<B, 1>>,
    /// Infinite for frozen elements, which every later update keeps.
    frequency: Param<Tensor<B, 1>>,
    mean_code: Param<Tensor<B, 1>>,
}

impl<B: AutodiffBackend> Oscillations<B> {
    /// Begins with the codes of a wrapper.
    pub fn new<M: AutodiffModule<B>>(ternary: &Ternary<B, M>) -> Self {
        let mut begin = Begin { layers: Layers::of(ternary), states: Vec::new() };
        ternary.latent().visit(&mut begin);
        Self { layers: begin.states }
    }

    /// Counts the oscillations of an update, and freezes the codes of weights above the threshold of the frequency.
    /// `progress` is the finished share of the training. Latent weights that do not require a gradient stay as they are.
    #[must_use]
    pub fn freeze<M: AutodiffModule<B>>(
        self,
        ternary: Ternary<B, M>,
        freezing: OscillationFreezing,
        progress: f64,
    ) -> (Self, Ternary<B, M>) {
        let limit = freezing.threshold(progress);
        let layers = Layers::of(&ternary);
        let mut freeze = Freeze { layers, states: self.layers, momentum: freezing.momentum, limit };
        let ternary = ternary.map_latent(|model| model.map(&mut freeze));
        (Self { layers: freeze.states }, ternary)
    }

    /// Returns the frequencies of each layer, `[n]`, infinite where an element is frozen.
    pub(crate) fn frequencies(&self) -> Vec<Tensor<B::InnerBackend, 1>> {
        self.layers.iter().map(|layer| layer.frequency.val().inner()).collect()
    }
}

/// The ternary weights of a wrapper in order.
struct Layers<B: Backend> {
    ids: Vec<ParamId>,
    channel_axes: Vec<usize>,
    quantizer: TernaryQuantizer<B>,
}

impl<B: Backend> Layers<B> {
    fn of<A: AutodiffBackend<InnerBackend = B>, M: AutodiffModule<A>>(ternary: &Ternary<A, M>) -> Self {
        let axes = ternary.selection().ternary().map(|choice| choice.channel_axis.unwrap_or_default());
        Self { ids: ternary.parameter_groups().0, channel_axes: axes.collect(), quantizer: ternary.quantizer().on() }
    }

    fn position(&self, id: ParamId) -> Option<usize> {
        self.ids.iter().position(|known| *known == id)
    }

    /// Computes the threshold Δ of each element, and the codes in float32.
    fn codes<const D: usize>(&self, index: usize, latent: Tensor<B, D>) -> [Tensor<B, D>; 2] {
        let (axis, dims) = (self.channel_axes[index], latent.dims());
        let threshold = self.quantizer.threshold(latent.clone(), axis);
        let mut shape = [1; D];
        if threshold.dims()[0] > 1 {
            shape[axis] = dims[axis];
        }
        let threshold = threshold.reshape(shape).expand(dims);
        let positive = latent.clone().greater(threshold.clone()).float();
        let negative = latent.lower(threshold.clone().neg()).float();
        [threshold, to_type(positive - negative, DType::F32)]
    }
}

fn to_type<B: Backend, const D: usize>(tensor: Tensor<B, D>, dtype: DType) -> Tensor<B, D> {
    if tensor.dtype() == dtype { tensor } else { tensor.cast(dtype) }
}

fn flat<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Tensor<B, 1> {
    let n = tensor.shape().num_elements();
    tensor.reshape([n])
}

struct Begin<B: AutodiffBackend> {
    layers: Layers<B::InnerBackend>,
    states: Vec<LayerOscillations<B>>,
}

impl<B: AutodiffBackend> ModuleVisitor<B> for Begin<B> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        let Some(index) = self.layers.position(param.id) else { return };
        let [_, codes] = self.layers.codes(index, param.val().inner());
        let codes = flat(codes);
        let zeros = codes.zeros_like();
        let [code, direction, frequency, mean_code] = [codes.clone(), zeros.clone(), zeros, codes]
            .map(|state| Param::from_tensor(Tensor::from_inner(state)).set_require_grad(false));
        self.states.push(LayerOscillations { code, direction, frequency, mean_code });
    }
}

struct Freeze<B: AutodiffBackend> {
    layers: Layers<B::InnerBackend>,
    states: Vec<LayerOscillations<B>>,
    momentum: f64,
    limit: f64,
}

impl<B: AutodiffBackend> ModuleMapper<B> for Freeze<B> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let Some(index) = self.layers.position(param.id).filter(|_| param.is_require_grad()) else { return param };
        let latent = param.val().inner();
        let [threshold, codes] = self.layers.codes(index, latent.clone());
        let (codes, is_frozen) = self.states[index].update(flat(codes), self.momentum, self.limit);
        let codes = to_type(codes.reshape(latent.dims()), latent.dtype());
        let held = hold(latent.clone(), codes, threshold);
        with_value(param, latent.clone().mask_where(is_frozen.reshape(latent.dims()), held))
    }
}

impl<B: AutodiffBackend> LayerOscillations<B> {
    /// Counts the oscillations of an update by its codes, `[n]`. Returns the codes, those of frozen elements in place, and
    /// which are frozen.
    fn update(
        &mut self,
        codes: Tensor<B::InnerBackend, 1>,
        momentum: f64,
        limit: f64,
    ) -> (Tensor<B::InnerBackend, 1>, Tensor<B::InnerBackend, 1, Bool>) {
        let device = codes.device();
        let [before, direction, frequency, mean_code] = [&self.code, &self.direction, &self.frequency, &self.mean_code]
            .map(|state| state.val().inner().to_device(&device));
        let change = (codes.clone() - before).sign();
        let oscillates = (change.clone() * direction.clone()).neg().clamp_min(0.0);
        let direction = direction * change.clone().abs().neg().add_scalar(1.0) + change;
        let frequency = frequency.mul_scalar(1.0 - momentum) + oscillates.mul_scalar(momentum);
        let is_frozen = frequency.clone().greater_elem(limit);
        // The mean of a frozen element moves towards the code that it is rounded to.
        let codes = codes.mask_where(is_frozen.clone(), mean_code.clone().round());
        let mean_code = mean_code.mul_scalar(1.0 - momentum) + codes.clone().mul_scalar(momentum);
        let frequency = frequency.mask_fill(is_frozen.clone(), f32::INFINITY);
        let states = [&mut self.code, &mut self.direction, &mut self.frequency, &mut self.mean_code];
        for (state, value) in states.into_iter().zip([codes.clone(), direction, frequency, mean_code]) {
            *state = state.clone().map(|_| Tensor::from_inner(value));
        }
        (codes, is_frozen)
    }
}

/// Computes the values nearest to the latent weights, of the same shape, that have the given codes: at least a quarter of
/// the threshold Δ beyond its boundaries, so that small changes of Δ do not change the code.
///
/// ```text
/// c = ±1: c · max(c · w, 1.25 Δ)        c = 0: min(max(w, -0.75 Δ), 0.75 Δ)
/// ```
///
/// If Δ is 0, the bound of the first is the smallest positive number.
fn hold<B: Backend, const D: usize>(
    latent: Tensor<B, D>,
    codes: Tensor<B, D>,
    threshold: Tensor<B, D>,
) -> Tensor<B, D> {
    let smallest = latent.dtype().finfo().map_or(0.0, |info| info.min_positive);
    let [inner, outer] = [0.75, 1.25].map(|factor| threshold.clone().mul_scalar(factor));
    let outer = outer.clamp_min(smallest);
    let inside = latent.clone().max_pair(inner.clone().neg()).min_pair(inner);
    let outside = (latent * codes.clone()).max_pair(outer) * codes.clone();
    outside + inside * codes.abs().neg().add_scalar(1.0)
}
