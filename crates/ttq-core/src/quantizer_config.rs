//! The configuration of the quantizer, and the choices that it consists of.

use std::marker::PhantomData;

use burn::config::Config;
use burn::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{ConfigError, Granularity, InitialScales, ScaleParameter, ScaleRule, TernaryQuantizer, Threshold};

/// Gradient of the loss with respect to the latent weights: `∂L/∂w_i = g_i · slope`, with `g = ∂L/∂q` of the ternary
/// weight.
///
/// | estimator | slope on I_p | on I_0 | on I_n | source |
/// |---|---|---|---|---|
/// | [`Relative`](Self::Relative) | W_p / s | 1 | W_n / s | TTQ with `s = (W_p + W_n) / 2` |
/// | [`Scaled`](Self::Scaled) | W_p | 1 | W_n | TTQ (arXiv 1612.01064) |
/// | [`Identity`](Self::Identity) | 1 | 1 | 1 | TWN, BitNet b1.58 |
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LatentGradient {
    /// The slopes of TTQ, divided by the mean scale `s = (W_p + W_n) / 2` of the group, which is a constant in the
    /// backward pass. Equal to [`Scaled`](Self::Scaled) if `s = 1`.
    ///
    /// It does not depend on the unit of the weights: if latents, scales and threshold are multiplied by `c` and
    /// gradients by `1 / c`, as behind batch normalization, the codes are the same and the latent gradients are
    /// multiplied by `1 / c`, like the gradients of weights in full precision.
    #[default]
    Relative,
    /// The scaled straight-through estimator of TTQ. It supposes scales near 1: with smaller ones, weights with code 0
    /// move faster than the others by `1 / W` and leave the zero zone.
    Scaled,
    /// The plain straight-through estimator.
    Identity,
}

/// Sign of the gradient of W_n.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NegativeScaleGradient {
    /// `∂L/∂W_n = -Σ g` over the weights with code -1: the derivative of `-W_n`. The authors' own code computes this.
    #[default]
    Exact,
    /// `∂L/∂W_n = +Σ g`, as printed in the paper and computed by its PyTorch port. **Wrong**: the chain rule for a
    /// value `-W_n` requires the minus. If batch normalization follows the layer and the scales start equal, both
    /// updates are identical and W_p = W_n throughout training. Use it only to reproduce the port and to measure the
    /// effect of the error.
    Published,
}

/// Configuration of a [`TernaryQuantizer`].
///
/// The fields are independent: every threshold works with every scale rule, latent gradient and granularity. The
/// default is [`QuantizerConfig::ttq`].
///
/// The configuration implements Burn's [`Config`]: `save`, `load` and `load_binary` use JSON. A missing field takes its
/// default, and an unknown field is an error.
///
/// ```
/// use ttq_core::{Granularity, QuantizerConfig, Threshold};
///
/// let config = QuantizerConfig::new()
///     .with_threshold(Threshold::MeanFraction(0.7))
///     .with_scale_granularity(Granularity::Channel);
/// assert_eq!(config, QuantizerConfig {
///     threshold: Threshold::MeanFraction(0.7),
///     scale_granularity: Granularity::Channel,
///     ..QuantizerConfig::ttq()
/// });
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QuantizerConfig {
    /// Rule for the threshold Δ below which a weight becomes zero. Default: `MaxFraction(0.05)`.
    pub threshold: Threshold,
    /// Rule for the scales W_p and W_n. Default: [`ScaleRule::Learned`].
    pub scales: ScaleRule,
    /// Initial values of learned scales. Default: [`InitialScales::LeastSquares`].
    pub initial_scales: InitialScales,
    /// The parameters that learned scales are trained as. Default: [`ScaleParameter::Logarithm`].
    pub scale_parameter: ScaleParameter,
    /// Which weights share a threshold. Default: [`Granularity::Tensor`].
    pub threshold_granularity: Granularity,
    /// Which weights share a pair of scales. Default: [`Granularity::Tensor`].
    pub scale_granularity: Granularity,
    /// Straight-through estimator of the latent weights. Default: [`LatentGradient::Relative`].
    pub latent_gradient: LatentGradient,
    /// Sign of the gradient of W_n. Default: [`NegativeScaleGradient::Exact`].
    pub negative_scale_gradient: NegativeScaleGradient,
}

impl Config for QuantizerConfig {}

impl QuantizerConfig {
    /// Creates a configuration with the default of every field: [`QuantizerConfig::ttq`].
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns trained ternary quantization, scale-free: Δ = 0.05 · max|w|, and a learned pair of scales as in the
    /// paper (arXiv 1612.01064), with [`LatentGradient::Relative`] and [`ScaleParameter::Logarithm`].
    ///
    /// The scales need no learning rate of their own, and the share of zeros does not depend on their size.
    #[must_use]
    pub fn ttq() -> Self {
        Self::default()
    }

    /// Returns trained ternary quantization as in the paper (arXiv 1612.01064): [`LatentGradient::Scaled`] and
    /// [`ScaleParameter::Linear`]. The sign of the gradient of W_n is exact. The paper starts from 1, 1:
    /// [`InitialScales::Ones`].
    ///
    /// The gradients of linear scales are sums over a group, so that they need a smaller learning rate than weights.
    #[must_use]
    pub fn paper() -> Self {
        Self { latent_gradient: LatentGradient::Scaled, scale_parameter: ScaleParameter::Linear, ..Self::default() }
    }

    /// Returns ternary weight networks: Δ = 0.7 · mean|w|, one shared mean as the scale (arXiv 1605.04711).
    #[must_use]
    pub fn twn() -> Self {
        Self {
            threshold: Threshold::MeanFraction(0.7),
            scales: ScaleRule::SharedMean,
            latent_gradient: LatentGradient::Identity,
            ..Self::default()
        }
    }

    /// Returns BitNet b1.58's absmean: Δ = 0.5 · mean|w|, the mean of all magnitudes as the scale (arXiv 2402.17764).
    #[must_use]
    pub fn absmean() -> Self {
        Self { threshold: Threshold::MeanFraction(0.5), scales: ScaleRule::OverallMean, ..Self::twn() }
    }

    /// Sets the rule for the threshold Δ.
    #[must_use]
    pub fn with_threshold(mut self, threshold: Threshold) -> Self {
        self.threshold = threshold;
        self
    }

    /// Sets the rule for the scales W_p and W_n.
    #[must_use]
    pub fn with_scales(mut self, scales: ScaleRule) -> Self {
        self.scales = scales;
        self
    }

    /// Sets the initial values of learned scales.
    #[must_use]
    pub fn with_initial_scales(mut self, initial_scales: InitialScales) -> Self {
        self.initial_scales = initial_scales;
        self
    }

    /// Sets the parameters that learned scales are trained as.
    #[must_use]
    pub fn with_scale_parameter(mut self, scale_parameter: ScaleParameter) -> Self {
        self.scale_parameter = scale_parameter;
        self
    }

    /// Sets which weights share a threshold and a pair of scales.
    #[must_use]
    pub fn with_granularity(self, granularity: Granularity) -> Self {
        self.with_threshold_granularity(granularity).with_scale_granularity(granularity)
    }

    /// Sets which weights share a threshold.
    #[must_use]
    pub fn with_threshold_granularity(mut self, granularity: Granularity) -> Self {
        self.threshold_granularity = granularity;
        self
    }

    /// Sets which weights share a pair of scales.
    #[must_use]
    pub fn with_scale_granularity(mut self, granularity: Granularity) -> Self {
        self.scale_granularity = granularity;
        self
    }

    /// Sets the straight-through estimator of the latent weights.
    #[must_use]
    pub fn with_latent_gradient(mut self, latent_gradient: LatentGradient) -> Self {
        self.latent_gradient = latent_gradient;
        self
    }

    /// Sets the sign of the gradient of W_n.
    #[must_use]
    pub fn with_negative_scale_gradient(mut self, negative_scale_gradient: NegativeScaleGradient) -> Self {
        self.negative_scale_gradient = negative_scale_gradient;
        self
    }

    /// Creates the quantizer.
    ///
    /// # Errors
    /// Returns [`ConfigError`] if the threshold is out of range.
    pub fn init<B: Backend>(self) -> Result<TernaryQuantizer<B>, ConfigError> {
        self.threshold.check()?;
        Ok(TernaryQuantizer { config: self, backend: PhantomData })
    }
}
