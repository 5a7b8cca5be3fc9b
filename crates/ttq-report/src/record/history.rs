//! The metrics of every epoch, as `ttq-train`'s history writes them.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

/// The metrics of one epoch by name, means over the epoch. A metric that diverged is NaN.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Epoch {
    /// The epoch, from 1.
    pub epoch: usize,
    /// Metrics of the training split.
    #[serde(default, deserialize_with = "null_is_nan")]
    pub train: BTreeMap<String, f64>,
    /// Metrics of the validation split.
    #[serde(default, deserialize_with = "null_is_nan")]
    pub valid: BTreeMap<String, f64>,
    /// Each ternary layer at the end of the epoch.
    #[serde(default)]
    pub layers: Vec<LayerEpoch>,
}

/// A ternary layer at the end of an epoch.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LayerEpoch {
    /// Path of the weight.
    pub path: String,
    /// Share of zeros, 0 to 1.
    #[serde(deserialize_with = "nan")]
    pub sparsity: f64,
    /// W_p, the mean over groups.
    #[serde(deserialize_with = "nan")]
    pub w_pos: f64,
    /// W_n, the mean over groups.
    #[serde(deserialize_with = "nan")]
    pub w_neg: f64,
}

/// JSON has no NaN; `serde_json` writes `null`.
fn null_is_nan<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, f64>, D::Error> {
    let values = BTreeMap::<String, Option<f64>>::deserialize(deserializer)?;
    Ok(values.into_iter().map(|(name, value)| (name, value.unwrap_or(f64::NAN))).collect())
}

fn nan<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::<f64>::deserialize(deserializer)?.unwrap_or(f64::NAN))
}
