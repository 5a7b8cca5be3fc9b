//! Metrics of every epoch, in the format of `ttq-train`'s `history.json`.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

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
    #[serde(deserialize_with = "nan")]
    pub sparsity: f64,
    /// Scale W_p, as the mean over groups.
    #[serde(deserialize_with = "nan")]
    pub w_pos: f64,
    /// Scale W_n, as the mean over groups.
    #[serde(deserialize_with = "nan")]
    pub w_neg: f64,
}

/// Reads `null` as NaN: JSON has no NaN, and `serde_json` writes `null` for it.
fn null_is_nan<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, f64>, D::Error> {
    let values = BTreeMap::<String, Option<f64>>::deserialize(deserializer)?;
    Ok(values.into_iter().map(|(name, value)| (name, value.unwrap_or(f64::NAN))).collect())
}

fn nan<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::<f64>::deserialize(deserializer)?.unwrap_or(f64::NAN))
}
