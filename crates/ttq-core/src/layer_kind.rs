//! Kinds of layers whose weights can become ternary.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Kind of a layer that holds a weight, recognized by the Rust type of the layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LayerKind {
    /// `burn::nn::Linear`, weight `[in, out]`.
    Linear,
    /// `burn::nn::conv::Conv1d`, weight `[out, in / groups, k]`.
    Conv1d,
    /// `burn::nn::conv::Conv2d`, weight `[out, in / groups, kh, kw]`.
    Conv2d,
    /// `burn::nn::conv::Conv3d`, weight `[out, in / groups, kd, kh, kw]`.
    Conv3d,
    /// `burn::nn::conv::ConvTranspose1d`, weight `[in, out / groups, k]`.
    ConvTranspose1d,
    /// `burn::nn::conv::ConvTranspose2d`, weight `[in, out / groups, kh, kw]`.
    ConvTranspose2d,
    /// `burn::nn::conv::ConvTranspose3d`, weight `[in, out / groups, kd, kh, kw]`.
    ConvTranspose3d,
    /// `burn::nn::Embedding`, weight `[rows, width]`.
    Embedding,
    /// Any other parameter of two or more dimensions: one of a module of the user's, or of a layer that is not in this
    /// list.
    Parameter,
}

impl LayerKind {
    /// Returns the kind of a parameter by the type of the module that holds it, e.g.
    /// `burn_nn::modules::linear::Linear`, the name of the parameter and its number of dimensions.
    pub(crate) fn of(module_type: Option<&str>, parameter: Option<&str>, rank: usize) -> Self {
        let burn = module_type.filter(|name| name.starts_with("burn_nn::") && parameter == Some("weight"));
        match (burn.and_then(|name| name.rsplit("::").next()), rank) {
            (Some("Linear"), 2) => Self::Linear,
            (Some("Conv1d"), 3) => Self::Conv1d,
            (Some("Conv2d"), 4) => Self::Conv2d,
            (Some("Conv3d"), 5) => Self::Conv3d,
            (Some("ConvTranspose1d"), 3) => Self::ConvTranspose1d,
            (Some("ConvTranspose2d"), 4) => Self::ConvTranspose2d,
            (Some("ConvTranspose3d"), 5) => Self::ConvTranspose3d,
            (Some("Embedding"), 2) => Self::Embedding,
            _ => Self::Parameter,
        }
    }

    /// Returns the dimension of the weight that holds the output channels: 1 for linear layers and transposed
    /// convolutions, 0 for convolutions and for the rows of an embedding. `None` for a parameter, whose meaning only its
    /// user knows.
    pub fn channel_axis(self) -> Option<usize> {
        match self {
            Self::Linear | Self::ConvTranspose1d | Self::ConvTranspose2d | Self::ConvTranspose3d => Some(1),
            Self::Conv1d | Self::Conv2d | Self::Conv3d | Self::Embedding => Some(0),
            Self::Parameter => None,
        }
    }

    pub(crate) fn is_convolution(self) -> bool {
        !matches!(self, Self::Linear | Self::Embedding | Self::Parameter)
    }
}

impl fmt::Display for LayerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Linear => "Linear",
            Self::Conv1d => "Conv1d",
            Self::Conv2d => "Conv2d",
            Self::Conv3d => "Conv3d",
            Self::ConvTranspose1d => "ConvTranspose1d",
            Self::ConvTranspose2d => "ConvTranspose2d",
            Self::ConvTranspose3d => "ConvTranspose3d",
            Self::Embedding => "Embedding",
            Self::Parameter => "Parameter",
        })
    }
}
