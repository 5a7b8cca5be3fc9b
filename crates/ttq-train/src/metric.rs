//! Metrics of the ternary weights for burn-train. Register them for training:
//! `.metric_train_numeric(SparsityMetric::new())`.

use std::sync::Arc;

use burn::train::metric::state::{FormatOptions, NumericMetricState};
use burn::train::metric::{
    Metric, MetricAttributes, MetricMetadata, MetricName, Numeric, NumericAttributes, NumericEntry, SerializedEntry,
};

use crate::{LayerState, TernaryState};

/// The text of a metric whose value the step does not compute.
fn not_computed(name: &str) -> String {
    let option = match name {
        FlipRatioMetric::NAME => "with_flip_ratio(true)",
        _ => "with_oscillation_freezing(…)",
    };
    format!("{name}: not computed, create the step with `.{option}`")
}

macro_rules! ternary_metric {
    ($(#[$doc:meta])* $metric:ident, $name:literal, $unit:expr, $value:expr) => {
        $(#[$doc])*
        #[derive(Clone, Default)]
        pub struct $metric {
            state: NumericMetricState,
        }

        impl $metric {
            /// Name in the dashboard and in the logs.
            pub const NAME: &str = $name;

            /// Creates the metric.
            pub fn new() -> Self {
                Self::default()
            }
        }

        impl Metric for $metric {
            type Input = Option<TernaryState>;

            fn name(&self) -> MetricName {
                Arc::new(Self::NAME.into())
            }

            fn attributes(&self) -> MetricAttributes {
                let unit: Option<&str> = $unit;
                NumericAttributes { unit: unit.map(Into::into), higher_is_better: true }.into()
            }

            fn update(&mut self, state: &Self::Input, _metadata: &MetricMetadata) -> SerializedEntry {
                let unit: Option<&str> = $unit;
                let value: fn(&TernaryState) -> Option<f64> = $value;
                let format = FormatOptions::new(self.name()).precision(4);
                let format = match unit {
                    Some(unit) => format.unit(unit),
                    None => format,
                };
                let value = state.as_ref().map(value);
                let entry = self.state.update(value.flatten().unwrap_or(f64::NAN), 1, format);
                match value {
                    Some(None) => SerializedEntry::new(not_computed(Self::NAME), entry.serialized),
                    _ => entry,
                }
            }

            fn clear(&mut self) {
                self.state.reset();
            }
        }

        impl Numeric for $metric {
            fn value(&self) -> NumericEntry {
                self.state.current_value()
            }

            fn running_value(&self) -> NumericEntry {
                self.state.running_value()
            }
        }
    };
}

ternary_metric!(
    /// Share of zeros among all ternary weights, in percent.
    SparsityMetric, "Sparsity", Some("%"), |state| Some(100.0 * state.sparsity)
);
ternary_metric!(
    /// Mean of W_p over layers.
    PositiveScaleMetric, "W_p", None, |state| Some(state.w_pos)
);
ternary_metric!(
    /// Mean of W_n over layers.
    NegativeScaleMetric, "W_n", None, |state| Some(state.w_neg)
);
ternary_metric!(
    /// Share of codes that an update changed, in percent. It falls towards zero as training converges.
    ///
    /// It needs [`TernaryStep::with_flip_ratio`](crate::TernaryStep::with_flip_ratio), without which its value is NaN
    /// and its text says so.
    FlipRatioMetric, "Flip ratio", Some("%"), |state| state.flip_ratio.map(|ratio| 100.0 * ratio)
);
ternary_metric!(
    /// Share of weights whose codes oscillate at a frequency above 0.005 and are not frozen, in percent
    /// ([`OscillationFreezing`](crate::OscillationFreezing)).
    ///
    /// It needs [`TernaryStep::with_oscillation_freezing`](crate::TernaryStep::with_oscillation_freezing).
    OscillatingMetric, "Oscillating", Some("%"), |state| state.oscillating.map(|share| 100.0 * share)
);
ternary_metric!(
    /// Share of weights whose codes are frozen, in percent ([`OscillationFreezing`](crate::OscillationFreezing)).
    ///
    /// It needs [`TernaryStep::with_oscillation_freezing`](crate::TernaryStep::with_oscillation_freezing).
    FrozenMetric, "Frozen", Some("%"), |state| state.frozen.map(|share| 100.0 * share)
);

/// Sparsity and scales of each layer: the dashboard shows their ranges, the [history](crate::EpochMetrics::layers)
/// holds all. Register it with `.metric_train(LayersMetric::new())`.
#[derive(Clone, Default)]
pub struct LayersMetric {}

impl LayersMetric {
    /// Name in the dashboard.
    pub const NAME: &str = "Layers";

    /// Creates the metric.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Metric for LayersMetric {
    type Input = Option<TernaryState>;

    fn name(&self) -> MetricName {
        Arc::new(Self::NAME.into())
    }

    fn update(&mut self, state: &Self::Input, _metadata: &MetricMetadata) -> SerializedEntry {
        let layers = state.as_ref().map_or(&[][..], |state| &state.layers);
        // Strings and numbers always have a JSON form.
        let json = serde_json::to_string(layers).unwrap_or_default();
        SerializedEntry::new(ranges(layers), json)
    }

    fn clear(&mut self) {}
}

/// Formats the smallest and largest sparsity and scales.
fn ranges(layers: &[LayerState]) -> String {
    let range = |value: fn(&LayerState) -> f32| {
        let ends = (f32::INFINITY, f32::NEG_INFINITY);
        layers.iter().map(value).fold(ends, |(low, high), value| (low.min(value), high.max(value)))
    };
    let (sparsity, w_pos, w_neg) =
        (range(|layer| 100.0 * layer.sparsity), range(|layer| layer.w_pos), range(|layer| layer.w_neg));
    format!(
        "{} layers: zeros {:.1} to {:.1} %, W_p {:.4} to {:.4}, W_n {:.4} to {:.4}",
        layers.len(),
        sparsity.0,
        sparsity.1,
        w_pos.0,
        w_pos.1,
        w_neg.0,
        w_neg.1
    )
}
