//! The output of a training step, from which metrics are computed.

use std::cell::LazyCell;

use burn::prelude::*;
use burn::train::ItemLazy;
use burn::train::metric::{
    AccuracyInput, Adaptor, AurocInput, CerInput, ConfusionStatsInput, HammingScoreInput, LossInput, Metric,
    MetricAttributes, MetricMetadata, MetricName, Numeric, NumericEntry, PerplexityInput, SerializedEntry,
    TopKAccuracyInput, WerInput,
};
use serde::{Deserialize, Deserializer, Serialize};
use ttq_core::TernarySnapshot;

use crate::divergence::{Watch, WeightProbe};
use crate::oscillation::OSCILLATING;

/// The output of the model's own training step, with the ternary weights of that step.
///
/// It holds handles of tensors. Their statistics are computed when a metric asks for them, and only once.
pub struct TernaryOutput<B: Backend, O> {
    output: O,
    state: Option<StepState<B>>,
    watch: Option<(Watch, WeightProbe)>,
}

/// The weights of a step, and the flip ratio and the frequencies of oscillations of the update before it.
struct StepState<B: Backend> {
    snapshot: TernarySnapshot<B>,
    flip_ratio: Option<Tensor<B, 1>>,
    frequencies: Option<Vec<Tensor<B, 1>>>,
}

impl<B: Backend, O> TernaryOutput<B, O> {
    pub(crate) fn full_precision(output: O) -> Self {
        Self { output, state: None, watch: None }
    }

    pub(crate) fn new(
        output: O,
        snapshot: TernarySnapshot<B>,
        flip_ratio: Option<Tensor<B, 1>>,
        frequencies: Option<Vec<Tensor<B, 1>>>,
    ) -> Self {
        Self { output, state: Some(StepState { snapshot, flip_ratio, frequencies }), watch: None }
    }

    /// Shows the weights of this step to `watch` when the output is synchronized.
    pub(crate) fn watched(self, watch: Watch, probe: WeightProbe) -> Self {
        Self { watch: Some((watch, probe)), ..self }
    }
}

/// The synchronized [`TernaryOutput`]. Metrics that read the model's own output read this one as well.
pub struct SyncedTernaryOutput<O> {
    /// The model's output.
    pub output: O,
    state: Option<LazyState>,
}

type LazyState = LazyCell<TernaryState, Box<dyn FnOnce() -> TernaryState + Send>>;

impl<O> SyncedTernaryOutput<O> {
    /// Returns the state of the ternary weights; `None` in full precision. The first call computes it and reads from
    /// the device.
    pub fn state(&self) -> Option<&TernaryState> {
        self.state.as_deref()
    }
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
    /// Share of codes that the last update changed, 0 to 1, and 0 before the first update; `None` without
    /// [`TernaryStep::with_flip_ratio`](crate::TernaryStep::with_flip_ratio).
    pub flip_ratio: Option<f64>,
    /// Share of weights that oscillate at a frequency above 0.005 and are not frozen, 0 to 1; `None` without
    /// [`TernaryStep::with_oscillation_freezing`](crate::TernaryStep::with_oscillation_freezing).
    pub oscillating: Option<f64>,
    /// Share of weights whose codes are frozen, 0 to 1; `None` without it.
    pub frozen: Option<f64>,
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

impl<B: Backend> StepState<B> {
    fn read(self) -> TernaryState {
        let summary: Vec<f64> = self.snapshot.summary().into_data().iter().collect();
        let rows = || summary.chunks_exact(4).zip(self.snapshot.layers());
        let count = self.snapshot.layers().count() as f64;
        let total: usize = self.snapshot.layers().map(|(_, weights)| weights).sum();
        let nonzero: f64 = rows().map(|(row, (_, weights))| (row[0] + row[1]) * weights as f64).sum();
        let [above, frozen] = self.frequencies.map_or([None; 2], |frequencies| shares_above(&frequencies).map(Some));
        TernaryState {
            sparsity: (1.0 - nonzero / total as f64).clamp(0.0, 1.0),
            w_pos: rows().map(|(row, _)| row[2]).sum::<f64>() / count,
            w_neg: rows().map(|(row, _)| row[3]).sum::<f64>() / count,
            flip_ratio: self.flip_ratio.and_then(|ratio| ratio.into_data().iter().next()),
            oscillating: above.zip(frozen).map(|(above, frozen)| above - frozen),
            frozen,
            layers: rows().map(|(row, (path, _))| LayerState::new(path, row)).collect(),
        }
    }
}

/// Computes the shares of frequencies above [`OSCILLATING`] and of infinite ones.
fn shares_above<B: Backend>(frequencies: &[Tensor<B, 1>]) -> [f64; 2] {
    let Some(device) = frequencies.first().map(Tensor::device) else { return [0.0; 2] };
    let total = frequencies.iter().map(|layer| layer.dims()[0]).sum::<usize>() as f64;
    let means = frequencies.iter().flat_map(|layer| {
        let above = |limit| layer.clone().greater_elem(limit).float().mean().to_device(&device);
        [above(OSCILLATING), above(f64::from(f32::MAX))]
    });
    let means: Vec<f64> = Tensor::cat(means.collect(), 0).into_data().iter().collect();
    [0, 1].map(|which| {
        let weighted = frequencies.iter().zip(means.iter().skip(which).step_by(2));
        weighted.map(|(layer, mean)| layer.dims()[0] as f64 * mean).sum::<f64>() / total
    })
}

impl LayerState {
    /// Creates the state from a row of [`TernarySnapshot::summary`].
    fn new(path: &str, row: &[f64]) -> Self {
        // `clamp` keeps NaN.
        let sparsity = (1.0 - row[0] - row[1]).clamp(0.0, 1.0);
        Self { path: path.into(), sparsity: sparsity as f32, w_pos: row[2] as f32, w_neg: row[3] as f32 }
    }
}

impl<B: Backend, O: ItemLazy> ItemLazy for TernaryOutput<B, O> {
    type ItemSync = SyncedTernaryOutput<O::ItemSync>;

    fn sync(self) -> Self::ItemSync {
        if let Some((watch, probe)) = self.watch {
            watch.push(probe);
        }
        let lazy = |state: StepState<B>| -> LazyState { LazyCell::new(Box::new(move || state.read())) };
        SyncedTernaryOutput { output: self.output.sync(), state: self.state.map(lazy) }
    }
}

impl<O> Adaptor<Option<TernaryState>> for SyncedTernaryOutput<O> {
    fn adapt(&self) -> Option<TernaryState> {
        self.state().cloned()
    }
}

/// Passes through the inputs of burn-train's metrics. (One implementation for all inputs is not possible: burn-train
/// implements the input `()` for every type.)
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

/// Makes any metric of the model's own output a metric of a [`TernaryStep`](crate::TernaryStep).
///
/// Burn's metrics without a feature need no wrapper. All others do: those of burn-train's features `vision` and `rl`,
/// those of other crates and your own. Wrap them for the training split,
/// `.metric_train_numeric(OnOutput::new(metric))`; the output of validation is the model's own.
#[derive(Debug, Clone)]
pub struct OnOutput<M> {
    metric: M,
}

impl<M: Metric> OnOutput<M> {
    /// Wraps a metric.
    pub fn new(metric: M) -> Self {
        Self { metric }
    }
}

/// The input of a metric, taken from the model's own output by [`OnOutput`].
pub struct OutputInput<I>(I);

impl<I, O: Adaptor<I>> Adaptor<OutputInput<I>> for SyncedTernaryOutput<O> {
    fn adapt(&self) -> OutputInput<I> {
        OutputInput(self.output.adapt())
    }
}

impl<M: Metric> Metric for OnOutput<M> {
    type Input = OutputInput<M::Input>;

    fn name(&self) -> MetricName {
        self.metric.name()
    }

    fn description(&self) -> Option<String> {
        self.metric.description()
    }

    fn attributes(&self) -> MetricAttributes {
        self.metric.attributes()
    }

    fn update(&mut self, OutputInput(input): &Self::Input, metadata: &MetricMetadata) -> SerializedEntry {
        self.metric.update(input, metadata)
    }

    fn clear(&mut self) {
        self.metric.clear();
    }
}

impl<M: Metric + Numeric> Numeric for OnOutput<M> {
    fn value(&self) -> NumericEntry {
        self.metric.value()
    }

    fn running_value(&self) -> NumericEntry {
        self.metric.running_value()
    }
}

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

    #[test]
    fn a_layer_whose_codes_are_nan_has_a_sparsity_of_nan() {
        for row in [[f64::NAN, 0.25, 0.5, 0.5], [0.25, f64::NAN, 0.5, 0.5], [f64::NAN; 4]] {
            assert!(LayerState::new("a", &row).sparsity.is_nan(), "{row:?}");
        }
        // Shares rounded to float32 add up to a little more than 1.
        assert_eq!(LayerState::new("a", &[0.6, 0.400_000_1, 0.5, 0.5]).sparsity, 0.0);
    }
}
