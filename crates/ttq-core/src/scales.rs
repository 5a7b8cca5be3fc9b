//! The scales W_p and W_n: the magnitudes of the two nonzero values.

use burn::prelude::*;
use burn::tensor::TensorPrimitive;
use serde::{Deserialize, Serialize};

use crate::granularity::regroup;

/// Lower bound of measured scales and of linear learned scales, which are clamped to it so that they never cross zero.
pub const SCALE_FLOOR: f64 = 1e-6;

/// Rule for the scales W_p and W_n of a group with codes `c` and weights `w`.
///
/// | rule | W_p | W_n | source |
/// |---|---|---|---|
/// | [`Learned`](Self::Learned) | parameter | parameter | TTQ (arXiv 1612.01064) |
/// | [`SideMeans`](Self::SideMeans) | mean of `w` where `c = +1` | mean of `-w` where `c = -1` | least squares for fixed codes |
/// | [`SharedMean`](Self::SharedMean) | mean of `|w|` where `c ≠ 0` | the same | TWN (arXiv 1605.04711) |
/// | [`OverallMean`](Self::OverallMean) | mean of all `|w|` | the same | BitNet b1.58 (arXiv 2402.17764) |
///
/// All rules except [`Learned`](Self::Learned) compute the scales from the latent weights in every forward pass. These
/// scales are constants in the backward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ScaleRule {
    /// Two parameters, trained by gradient descent.
    #[default]
    Learned,
    /// Two scales: the mean magnitude of the weights with code +1 and of those with code -1.
    SideMeans,
    /// One scale: the mean magnitude of all weights with a nonzero code.
    SharedMean,
    /// One scale: the mean magnitude of all weights, including those with code 0.
    OverallMean,
}

/// Initial values of learned scales.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum InitialScales {
    /// The mean magnitude of the weights with code +1 and of those with code -1: the least-squares fit to the latent
    /// weights. Use it to start from a trained network, because it keeps the activations in range.
    #[default]
    LeastSquares,
    /// 1 and 1, as in the paper and its PyTorch port. Requires batch normalization after the layer.
    Ones,
}

impl InitialScales {
    /// Computes the initial scales of each group, `[groups, 2]`, from a latent weight `[groups, n]`.
    pub(crate) fn of_groups<B: Backend>(self, latent: Tensor<B, 2>, masks: CodeMasks<B>) -> Tensor<B, 2> {
        match self {
            Self::LeastSquares => ScaleRule::SideMeans.of_groups(latent, masks),
            Self::Ones => Tensor::ones([latent.dims()[0], 2], (&latent.device(), latent.dtype())),
        }
    }
}

/// The parameters that learned scales are trained as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ScaleParameter {
    /// The logarithms ρ of the scales:
    ///
    /// ```text
    /// W = exp(ρ)        ∂L/∂ρ = W · ∂L/∂W
    /// ```
    ///
    /// Scales are positive for every ρ. A step of an optimizer is a relative change of a scale, of about the same size
    /// as that of the weights, so that both can share a learning rate. Behind batch normalization
    /// `∂L/∂ρ_p + ∂L/∂ρ_n = 0`.
    #[default]
    Logarithm,
    /// The scales themselves, as in the paper. After each step they must be clamped to [`SCALE_FLOOR`]. With SGD they
    /// need a smaller learning rate than weights, by about one over the square root of the size of a group (Esser et
    /// al., "Learned Step Size Quantization", section 2.2). Behind batch normalization `W_p ∂L/∂W_p + W_n ∂L/∂W_n = 0`.
    Linear,
}

impl ScaleParameter {
    /// Computes the parameters of scales.
    pub(crate) fn parameters<B: Backend>(self, scales: Tensor<B, 2>) -> Tensor<B, 2> {
        match self {
            Self::Logarithm => scales.log(),
            Self::Linear => scales,
        }
    }

    /// Computes the scales of parameters, differentiable.
    pub(crate) fn scales<B: Backend>(self, parameters: Tensor<B, 2>) -> Tensor<B, 2> {
        match self {
            Self::Logarithm => parameters.exp(),
            Self::Linear => parameters,
        }
    }

    /// Computes the gradient with respect to the parameters from that with respect to the scales.
    pub(crate) fn gradient<B: Backend>(self, scales: Tensor<B, 2>, grad: Tensor<B, 2>) -> Tensor<B, 2> {
        match self {
            Self::Logarithm => scales * grad,
            Self::Linear => grad,
        }
    }
}

/// Raises scales below [`SCALE_FLOOR`] to it. NaN stays NaN.
pub(crate) fn at_least_floor<B: Backend>(scales: Tensor<B, 2>) -> Tensor<B, 2> {
    // `clamp_min` of some backends turns NaN into the bound.
    let below = scales.clone().lower_elem(SCALE_FLOOR);
    scales.mask_fill(below, SCALE_FLOOR)
}

/// Returns `y` where `x > 0`, else 0.
///
/// Comparisons that return bool tensors are not fused with float operations on most CPU backends; this is one operation.
pub(crate) fn where_positive<B: Backend>(x: Tensor<B, 2>, y: Tensor<B, 2>) -> Tensor<B, 2> {
    let [x, y] = [x, y].map(|tensor| tensor.into_primitive().tensor());
    Tensor::from_primitive(TensorPrimitive::Float(B::relu_backward(x, y)))
}

/// The nonzero codes as two masks of zeros and ones, each `[groups, n]`.
#[derive(Clone)]
pub(crate) struct CodeMasks<B: Backend> {
    /// 1 where the code is +1.
    pub(crate) positive: Tensor<B, 2>,
    /// 1 where the code is -1.
    pub(crate) negative: Tensor<B, 2>,
    /// NaN for groups whose threshold is NaN, because a weight is not finite; 0 for all others, `[groups, 1]`.
    pub(crate) invalid: Tensor<B, 2>,
}

impl<B: Backend> CodeMasks<B> {
    /// Computes the masks `w > Δ` and `w < -Δ`. A weight of exactly ±Δ is in neither.
    pub(crate) fn new(latent: Tensor<B, 2>, threshold: Tensor<B, 2>) -> Self {
        // Not `Δ - Δ`, which compilers of shaders replace by 0.
        let invalid = threshold.clone().mul_scalar(0.0);
        let ones = latent.ones_like();
        Self {
            positive: where_positive(latent.clone() - threshold.clone(), ones.clone()),
            negative: where_positive(latent.neg() - threshold, ones),
            invalid,
        }
    }

    /// Divides the same weights into other groups. One of the two divisions consists of a single group.
    pub(crate) fn regroup(self, groups: usize) -> Self {
        let before = self.invalid.dims()[0];
        if groups == before {
            return self;
        }
        let invalid = if before == 1 { self.invalid.expand([groups, 1]) } else { self.invalid.sum_dim(0) };
        Self { positive: regroup(self.positive, groups), negative: regroup(self.negative, groups), invalid }
    }

    /// Returns the codes +1, 0 and -1, or NaN for all weights of an invalid group.
    pub(crate) fn codes(self) -> Tensor<B, 2> {
        self.positive - self.negative + self.invalid
    }

    /// Returns `W_p` where the code is +1, `-W_n` where it is -1, and `0` elsewhere, or NaN for all weights of an invalid
    /// group. `w_pos` and `w_neg` are `[groups, 1]`.
    pub(crate) fn scaled(self, w_pos: Tensor<B, 2>, w_neg: Tensor<B, 2>) -> Tensor<B, 2> {
        self.positive * (w_pos + self.invalid) - self.negative * w_neg
    }
}

impl ScaleRule {
    /// Computes the scales of each group. [`ScaleRule::Learned`] computes the same as [`ScaleRule::SideMeans`].
    ///
    /// If no weight has the code +1, W_p takes the value of W_n, and vice versa. If all codes are 0, both are the mean
    /// of all magnitudes. No scale is below [`SCALE_FLOOR`]. The scales of an invalid group are NaN.
    ///
    /// # Shapes
    /// - latent: `[groups, n]`
    /// - output: `[groups, 2]`, W_p then W_n
    pub(crate) fn of_groups<B: Backend>(self, latent: Tensor<B, 2>, masks: CodeMasks<B>) -> Tensor<B, 2> {
        let magnitudes = latent.abs();
        let overall = magnitudes.clone().mean_dim(1);
        let shared = || {
            let nonzero = masks.positive.clone() + masks.negative.clone();
            mean_where(magnitudes.clone(), nonzero, overall.clone())
        };
        let (w_pos, w_neg) = match self {
            Self::Learned | Self::SideMeans => {
                let fallback = shared();
                (
                    mean_where(magnitudes.clone(), masks.positive.clone(), fallback.clone()),
                    mean_where(magnitudes.clone(), masks.negative.clone(), fallback),
                )
            }
            Self::SharedMean => {
                let scale = shared();
                (scale.clone(), scale)
            }
            Self::OverallMean => (overall.clone(), overall.clone()),
        };
        at_least_floor(Tensor::cat(vec![w_pos, w_neg], 1) + masks.invalid)
    }
}

/// Computes the mean of each row over the elements where `mask` is 1, `[groups, 1]`. Rows without such an element take
/// their value from `fallback`.
fn mean_where<B: Backend>(values: Tensor<B, 2>, mask: Tensor<B, 2>, fallback: Tensor<B, 2>) -> Tensor<B, 2> {
    let count = mask.clone().sum_dim(1);
    let none = count.clone().equal_elem(0.0);
    let mean = (values * mask).sum_dim(1) / count.clamp_min(1.0);
    mean.mask_where(none, fallback)
}
