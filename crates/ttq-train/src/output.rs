//! The output of a training step, from which metrics are computed.

use burn::prelude::*;
use burn::train::ItemLazy;
use burn::train::metric::{
    AccuracyInput, Adaptor, AurocInput, CerInput, ConfusionStatsInput, HammingScoreInput, LossInput, PerplexityInput,
    TopKAccuracyInput, WerInput,
};
use serde::{Deserialize, Deserializer, Serialize};
use ttq_core::Ternary;

use crate::divergence::{Watch, WeightProbe};

/// The output of the model's own training step, with the state of the ternary weights in that step.
///
/// The state stays on the device until the metrics' thread reads it.
pub struct TernaryOutput<B: Backend, O> {
    output: O,
    state: Option<LazyState<B>>,
    watch: Option<(Watch, WeightProbe)>,
}

struct LazyState<B: Backend> {
    /// `[layers, 4]`, see [`Ternary::summary`].
    summary: Tensor<B, 2>,
    /// Path and number of weights of each layer.
    layers: Vec<(String, usize)>,
    flip_ratio: Tensor<B, 1>,
}

impl<B: Backend, O> TernaryOutput<B, O> {
    pub(crate) fn full_precision(output: O) -> Self {
        Self { output, state: None, watch: None }
    }

    pub(crate) fn new<M: Module<B>>(output: O, ternary: &Ternary<B, M>, flip_ratio: Tensor<B, 1>) -> Self {
        let layers = ternary.selection().ternary().map(|choice| (choice.path.clone(), choice.len())).collect();
        Self { output, state: Some(LazyState { summary: ternary.summary(), layers, flip_ratio }), watch: None }
    }
}

impl<B: Backend, O> TernaryOutput<B, O> {
    /// Shows the weights of this step to `watch` when the output is synchronized.
    pub(crate) fn watched(self, watch: Watch, probe: WeightProbe) -> Self {
        Self { watch: Some((watch, probe)), ..self }
    }
}

/// The synchronized [`TernaryOutput`]. Metrics that read the model's own output read this one as well.
pub struct SyncedTernaryOutput<O> {
    /// The model's output.
    pub output: O,
    /// The state of the ternary weights; `None` in full precision.
    pub state: Option<TernaryState>,
}

/// State of all ternary weights at one training step. The input of this crate's metrics.
#[derive(Debug, Clone, PartialEq)]
pub struct TernaryState {
    /// Share of zeros among all ternary weights, 0 to 1.
    pub sparsity: f64,
    /// Mean of W_p over layers.
    pub w_pos: f64,
    /// Mean of W_n over layers.
    pub w_neg: f64,
    /// Share of codes that the last update changed, 0 to 1.
    pub flip_ratio: f64,
    /// State of each layer, in the order of the network.
    pub layers: Vec<LayerState>,
}

/// State of one ternary weight at one training step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LayerState {
    /// Path of the weight.
    pub path: String,
    /// Share of zeros, 0 to 1.
    #[serde(deserialize_with = "null_is_nan")]
    pub sparsity: f32,
    /// Mean of W_p over groups.
    #[serde(deserialize_with = "null_is_nan")]
    pub w_pos: f32,
    /// Mean of W_n over groups.
    #[serde(deserialize_with = "null_is_nan")]
    pub w_neg: f32,
}

/// JSON has no NaN: `serde_json` writes `null` and does not read it back as a number.
fn null_is_nan<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f32, D::Error> {
    Ok(Option::<f32>::deserialize(deserializer)?.unwrap_or(f32::NAN))
}

impl<B: Backend> LazyState<B> {
    fn sync(self) -> TernaryState {
        let summary: Vec<f64> = self.summary.into_data().iter().collect();
        let count = self.layers.len() as f64;
        let total: usize = self.layers.iter().map(|(_, weights)| weights).sum();
        let rows = || summary.chunks_exact(4);
        let nonzero: f64 = rows().zip(&self.layers).map(|(row, (_, n))| (row[0] + row[1]) * *n as f64).sum();
        TernaryState {
            sparsity: 1.0 - nonzero / total as f64,
            w_pos: rows().map(|row| row[2]).sum::<f64>() / count,
            w_neg: rows().map(|row| row[3]).sum::<f64>() / count,
            flip_ratio: self.flip_ratio.into_data().iter().next().unwrap_or(0.0),
            layers: rows().zip(&self.layers).map(|(row, (path, _))| LayerState::new(path, row)).collect(),
        }
    }
}

impl LayerState {
    /// Creates the state from a row of [`Ternary::summary`].
    fn new(path: &str, row: &[f64]) -> Self {
        let sparsity = (1.0 - row[0] - row[1]).max(0.0);
        Self { path: path.into(), sparsity: sparsity as f32, w_pos: row[2] as f32, w_neg: row[3] as f32 }
    }
}

impl<B: Backend, O: ItemLazy> ItemLazy for TernaryOutput<B, O> {
    type ItemSync = SyncedTernaryOutput<O::ItemSync>;

    fn sync(self) -> Self::ItemSync {
        if let Some((watch, probe)) = self.watch {
            watch.push(probe);
        }
        SyncedTernaryOutput { output: self.output.sync(), state: self.state.map(LazyState::sync) }
    }
}

impl<O> Adaptor<Option<TernaryState>> for SyncedTernaryOutput<O> {
    fn adapt(&self) -> Option<TernaryState> {
        self.state.clone()
    }
}

/// Passes through the inputs of Burn's own metrics. (One implementation for all inputs is not possible: Burn implements the
/// input `()` for every type.) For an input of your own, implement `Adaptor<MyInput> for SyncedTernaryOutput<MyOutput>`.
macro_rules! pass_through {
    ($($input:ident),*) => {$(
        impl<B: Backend, O: Adaptor<$input<B>>> Adaptor<$input<B>> for SyncedTernaryOutput<O> {
            fn adapt(&self) -> $input<B> {
                self.output.adapt()
            }
        }
    )*};
}

pass_through!(
    AccuracyInput,
    AurocInput,
    CerInput,
    ConfusionStatsInput,
    HammingScoreInput,
    LossInput,
    PerplexityInput,
    TopKAccuracyInput,
    WerInput
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_whose_scale_diverged_reads_back() {
        let layer = LayerState::new("a", &[0.25, 0.25, f64::NAN, 0.5]);
        let text = serde_json::to_string(&layer).unwrap();
        assert!(text.contains(r#""w_pos":null"#), "{text}");
        let read: LayerState = serde_json::from_str(&text).unwrap();
        assert!(read.w_pos.is_nan());
        assert_eq!((read.path.as_str(), read.sparsity, read.w_neg), ("a", 0.5, 0.5));
    }
}
