//! Metrics of every epoch, in the format of `ttq-train`'s `history.json`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::number::null_is_nan;

/// Metrics of one epoch by name. Each value is the mean over the epoch; a diverged metric is NaN.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Epoch {
    /// Number of the epoch, from 1.
    pub epoch: usize,
    /// Metrics of the training split.
    #[serde(default, deserialize_with = "null_is_nan")]
    pub train: BTreeMap<String, f64>,
    /// Metrics of the validation split.
    #[serde(default, deserialize_with = "null_is_nan")]
    pub valid: BTreeMap<String, f64>,
    /// State of each ternary layer at the end of the epoch.
    #[serde(default)]
    pub layers: Vec<LayerEpoch>,
}

/// State of a ternary layer at the end of an epoch.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LayerEpoch {
    /// Path of the weight in the module.
    pub path: String,
    /// Share of zeros, 0 to 1.
    #[serde(deserialize_with = "null_is_nan")]
    pub sparsity: f64,
    /// Scale W_p, as the mean over groups.
    #[serde(deserialize_with = "null_is_nan")]
    pub w_pos: f64,
    /// Scale W_n, as the mean over groups.
    #[serde(deserialize_with = "null_is_nan")]
    pub w_neg: f64,
}
