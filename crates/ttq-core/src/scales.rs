//! The two values besides zero: W_p and W_n.

use burn::prelude::*;
use serde::{Deserialize, Serialize};

/// Learned scales are kept at or above this value, so that they never cross zero.
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
/// All but the first are computed anew from the latent weights in every forward pass and are constants in the
/// backward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScaleRule {
    /// Two parameters, trained by gradient descent.
    #[default]
    Learned,
    /// The mean magnitude of each side.
    SideMeans,
    /// One mean magnitude of all weights that are not zero.
    SharedMean,
    /// One mean magnitude of all weights, zeros included.
    OverallMean,
}

/// Where learned scales start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InitialScales {
    /// The mean magnitude of each side: the least-squares fit to the latent weights. The right start from a trained
    /// network, whose activations it keeps in range.
    #[default]
    LeastSquares,
    /// 1 and 1, as in the paper and its PyTorch port. Needs batch normalization behind the layer.
    Ones,
}

impl InitialScales {
    pub(crate) fn of_groups<B: Backend>(self, latent: Tensor<B, 2>, codes: Sides<B>) -> Tensor<B, 2> {
        match self {
            Self::LeastSquares => ScaleRule::SideMeans.of_groups(latent, codes),
            Self::Ones => Tensor::ones([latent.dims()[0], 2], &latent.device()),
        }
    }
}

/// The two sides of the codes as 0/1 masks, each `[groups, n]`.
#[derive(Clone)]
pub(crate) struct Sides<B: Backend> {
    /// 1 where the code is +1.
    pub(crate) positive: Tensor<B, 2>,
    /// 1 where the code is -1.
    pub(crate) negative: Tensor<B, 2>,
}

impl<B: Backend> Sides<B> {
    /// `w > Δ` and `w < -Δ`; a weight exactly at ±Δ is on neither side.
    pub(crate) fn new(latent: Tensor<B, 2>, threshold: Tensor<B, 2>) -> Self {
        let threshold = threshold.expand(latent.dims());
        Self {
            positive: latent.clone().greater(threshold.clone()).float(),
            negative: latent.lower(threshold.neg()).float(),
        }
    }

    /// `+1`, `0`, `-1`.
    pub(crate) fn codes(self) -> Tensor<B, 2> {
        self.positive - self.negative
    }

    /// `W_p` on the positive side, `-W_n` on the negative one, `0` between. Scales are `[groups, 2]`.
    pub(crate) fn scaled(self, w_pos: Tensor<B, 2>, w_neg: Tensor<B, 2>) -> Tensor<B, 2> {
        self.positive * w_pos - self.negative * w_neg
    }
}

impl ScaleRule {
    /// The scales of each group by a rule that computes them; for [`ScaleRule::Learned`] the values they start from.
    ///
    /// A side without weights takes the mean of the other, a group without any the mean of all magnitudes, and nothing
    /// falls below [`SCALE_FLOOR`].
    ///
    /// # Shapes
    /// - latent: `[groups, n]`
    /// - output: `[groups, 2]`, W_p then W_n
    pub(crate) fn of_groups<B: Backend>(self, latent: Tensor<B, 2>, sides: Sides<B>) -> Tensor<B, 2> {
        let magnitudes = latent.abs();
        let overall = magnitudes.clone().mean_dim(1);
        let shared = || {
            let kept = sides.positive.clone() + sides.negative.clone();
            mean_where(magnitudes.clone(), kept, overall.clone())
        };
        let (w_pos, w_neg) = match self {
            Self::Learned | Self::SideMeans => {
                let fallback = shared();
                (
                    mean_where(magnitudes.clone(), sides.positive.clone(), fallback.clone()),
                    mean_where(magnitudes.clone(), sides.negative.clone(), fallback),
                )
            }
            Self::SharedMean => {
                let scale = shared();
                (scale.clone(), scale)
            }
            Self::OverallMean => (overall.clone(), overall.clone()),
        };
        Tensor::cat(vec![w_pos, w_neg], 1).clamp_min(SCALE_FLOOR)
    }
}

/// Mean of each row over the places where `mask` is 1, or `fallback` where there is none. `[groups, 1]`.
fn mean_where<B: Backend>(values: Tensor<B, 2>, mask: Tensor<B, 2>, fallback: Tensor<B, 2>) -> Tensor<B, 2> {
    let count = mask.clone().sum_dim(1);
    let none = count.clone().equal_elem(0.0);
    let mean = (values * mask).sum_dim(1) / count.clamp_min(1.0);
    mean.mask_where(none, fallback)
}
