//! Learning curves, and scales and sparsity of the ternary layers during training.

use maud::{Markup, html};

use super::{chart_row, missing, note, number, small_multiples};
use crate::Record;
use crate::chart::{LineChart, Series, Size};
use crate::record::Epoch;

/// The epoch whose network a phase keeps.
fn kept_epoch(record: &Record) -> &'static str {
    match record.config.as_ref().and_then(|config| config["checkpoint"].as_str()) {
        Some("last") => "last epoch",
        _ => "epoch with the best validation result",
    }
}

pub(super) fn render(record: &Record) -> Markup {
    if record.full_precision.is_empty() && record.ternary.is_empty() {
        return missing("metrics of the epochs", "full-precision/history.json and ternary/history.json");
    }
    let layers = layer_names(record);
    let accuracy = if record.is_language_model() { "Next byte right" } else { "Top-1 accuracy" };
    html! {
        (note(&format!(
            "Each point is the mean over one epoch. Training metrics are measured during the epoch, while the weights change. The \
             validation set is held out of the training set. The test set is evaluated once, at the end, with the weights of the \
             {}.",
            kept_epoch(record)
        )))
        (chart_row([
            curve(record, "Loss", "cross-entropy, nats", Metric::Named("Loss")),
            perplexity(record),
            curve(record, accuracy, "%", Metric::Named("Accuracy")),
            curve(record, "Top-5 accuracy", "%", Metric::Prefix("Top-K")),
            learning_rate(record),
            flip_ratio(record),
            aggregate(record, "Sparsity, all layers", "% zeros", "Sparsity", "c-zero"),
        ]))
        @if !record.ternary.is_empty() {
            h3 { "Wₚ" " and Wₙ over the epochs" }
            @if layers.is_empty() {
                (missing("scales of each layer (means over the layers are shown instead)", "ternary/history.json"))
                (chart_row([mean_scales(record)]))
            } @else {
                (note("One chart per layer, from input to output, each with its own vertical axis. The values of a ternary weight \
                       are +Wₚ, 0 and −Wₙ."))
                (small_multiples(layers.iter().map(|path| scales(record, path))))
                p.legend { span { i.c-pos {} "Wₚ" } span { i.c-neg {} "Wₙ" } }
                h3 { "Sparsity over the epochs" }
                (note("Share of zeros in each layer, in percent. All charts have the same vertical axis."))
                @let highest = record.ternary.iter().flat_map(|e| &e.layers).map(|l| l.sparsity).fold(0.0, f64::max);
                (small_multiples(layers.iter().map(|path| sparsity(record, path, 110.0 * highest))))
            }
        }
    }
}

/// Metric of an epoch.
#[derive(Clone, Copy)]
pub(super) enum Metric {
    /// The metric with this name.
    Named(&'static str),
    /// The first metric whose name starts with this prefix.
    Prefix(&'static str),
}

impl Metric {
    fn of(self, values: &std::collections::BTreeMap<String, f64>) -> f64 {
        let found = match self {
            Self::Named(name) => values.get(name),
            Self::Prefix(prefix) => values.iter().find(|(name, _)| name.starts_with(prefix)).map(|(_, value)| value),
        };
        found.copied().unwrap_or(f64::NAN)
    }

    pub(super) fn valid(self, epoch: &Epoch) -> f64 {
        self.of(&epoch.valid)
    }

    fn train(self, epoch: &Epoch) -> f64 {
        self.of(&epoch.train)
    }
}

/// Points of both phases; the epochs of the ternary phase follow the last epoch in full precision.
pub(super) fn points(record: &Record, value: impl Fn(&Epoch) -> f64) -> Vec<[f64; 2]> {
    let offset = record.full_precision.last().map_or(0, |epoch| epoch.epoch);
    let first = record.full_precision.iter().map(|epoch| (epoch.epoch, epoch));
    let second = record.ternary.iter().map(|epoch| (offset + epoch.epoch, epoch));
    first.chain(second).map(|(number, epoch)| [number as f64, value(epoch)]).collect()
}

/// Returns the start of the ternary phase on the epoch axis, midway between two epochs.
fn ternary_start(record: &Record) -> Option<f64> {
    let last = record.full_precision.last()?.epoch;
    (!record.ternary.is_empty()).then_some(last as f64 + 0.5)
}

fn curve(record: &Record, title: &'static str, unit: &'static str, metric: Metric) -> Option<Markup> {
    let with_last = |series: Series| match series.last() {
        Some(last) => series.with_value(number::significant(last)),
        None => series,
    };
    let train = Series::new("training", "c-train", points(record, |epoch| metric.train(epoch)));
    let valid = Series::new("validation", "c-valid", points(record, |epoch| metric.valid(epoch)));
    let series = vec![with_last(train.dashed()), with_last(valid)];
    LineChart { title, unit, x_name: "epoch", series, ternary_start: ternary_start(record), ..Default::default() }
        .render()
}

/// The exponential of the mean loss, of a language model.
fn perplexity(record: &Record) -> Option<Markup> {
    let points = points(record, |epoch| Metric::Named("Loss").valid(epoch).exp());
    let series = Series::new("validation", "c-valid", points);
    let chart = LineChart {
        title: "Perplexity",
        unit: "per byte, validation",
        x_name: "epoch",
        series: vec![series],
        ternary_start: ternary_start(record),
        legend: false,
        ..Default::default()
    };
    record.is_language_model().then(|| chart.render()).flatten()
}

fn learning_rate(record: &Record) -> Option<Markup> {
    let metric = Metric::Named("Learning Rate");
    let series = vec![Series::new("learning rate", "c-train", points(record, |epoch| metric.train(epoch)))];
    let chart = LineChart {
        title: "Learning rate",
        unit: "mean over the epoch, logarithmic",
        x_name: "epoch",
        series,
        ternary_start: ternary_start(record),
        log: true,
        legend: false,
        ..Default::default()
    };
    Some(chart.render().unwrap_or_else(|| missing("learning rate", "history.json, metric “Learning Rate”")))
}

fn flip_ratio(record: &Record) -> Option<Markup> {
    let points = ternary(record, |epoch| Metric::Named("Flip ratio").train(epoch));
    LineChart {
        title: "Flip ratio",
        unit: "% of codes changed per update",
        x_name: "ternary epoch",
        series: vec![Series::new("flip ratio", "c-flip", points)],
        log: true,
        legend: false,
        ..Default::default()
    }
    .render()
}

fn aggregate(
    record: &Record,
    title: &'static str,
    unit: &'static str,
    name: &'static str,
    color: &'static str,
) -> Option<Markup> {
    let series = vec![Series::new(name, color, ternary(record, |epoch| Metric::Named(name).train(epoch)))];
    LineChart { title, unit, x_name: "ternary epoch", series, legend: false, ..Default::default() }.render()
}

fn mean_scales(record: &Record) -> Option<Markup> {
    let series = |name, color| Series::new(name, color, ternary(record, |epoch| Metric::Named(name).train(epoch)));
    LineChart {
        title: "Scales",
        unit: "mean over layers",
        x_name: "ternary epoch",
        series: vec![series("W_p", "c-pos"), series("W_n", "c-neg")],
        ..Default::default()
    }
    .render()
}

fn ternary(record: &Record, value: impl Fn(&Epoch) -> f64) -> Vec<[f64; 2]> {
    record.ternary.iter().map(|epoch| [epoch.epoch as f64, value(epoch)]).collect()
}

/// Returns the paths of the ternary layers in the history.
fn layer_names(record: &Record) -> Vec<String> {
    let first = record.ternary.iter().find(|epoch| !epoch.layers.is_empty());
    first.map_or_else(Vec::new, |epoch| epoch.layers.iter().map(|layer| layer.path.clone()).collect())
}

fn of_layer(record: &Record, path: &str, value: impl Fn(&crate::record::LayerEpoch) -> f64) -> Vec<[f64; 2]> {
    ternary(record, |epoch| epoch.layers.iter().find(|layer| layer.path == path).map_or(f64::NAN, &value))
}

fn scales(record: &Record, path: &str) -> Option<Markup> {
    LineChart {
        title: number::layer_name(path),
        size: Size::SMALL,
        series: vec![
            Series::new("Wₚ", "c-pos", of_layer(record, path, |layer| layer.w_pos)),
            Series::new("Wₙ", "c-neg", of_layer(record, path, |layer| layer.w_neg)),
        ],
        legend: false,
        ..Default::default()
    }
    .render()
}

fn sparsity(record: &Record, path: &str, highest: f64) -> Option<Markup> {
    let points = of_layer(record, path, |layer| 100.0 * layer.sparsity);
    let last = points.last().map_or_else(String::new, |point| format!("{:.1} %", point[1]));
    LineChart {
        title: number::layer_name(path),
        unit: &last,
        size: Size::SMALL,
        series: vec![Series::new("zeros", "c-zero", points)],
        y_range: Some([0.0, highest.clamp(1.0, 100.0)]),
        legend: false,
        ..Default::default()
    }
    .render()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_text_says_which_epoch_was_tested() {
        let text = |checkpoint: &str| {
            let epoch = Epoch { epoch: 1, ..Default::default() };
            let config = Some(json!({ "checkpoint": checkpoint }));
            render(&Record { config, ternary: vec![epoch], ..Default::default() }).into_string()
        };
        assert!(text("last").contains("with the weights of the last epoch."));
        assert!(text("best").contains("with the weights of the epoch with the best validation result."));
    }
}
