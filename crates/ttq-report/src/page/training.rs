//! Learning curves, and the ternary weights while they are trained.

use maud::{Markup, html};

use super::{missing, multiples, note, number, row};
use crate::Record;
use crate::chart::{LineChart, Series, Size};
use crate::record::Epoch;

pub(super) fn render(record: &Record) -> Markup {
    if record.full_precision.is_empty() && record.ternary.is_empty() {
        return missing("the metrics of the epochs", "full-precision/history.json and ternary/history.json");
    }
    let layers = layer_names(record);
    html! {
        (note("Means over each epoch; training accuracy is measured while weights still move. Validation images are held \
               out of the training set; the test set is looked at once, at the end, with the weights of the epoch that validates best."))
        (row([
            curve(record, "Loss", "cross-entropy, nats", Metric::Named("Loss")),
            curve(record, "Top-1 accuracy", "%", Metric::Named("Accuracy")),
            curve(record, "Top-5 accuracy", "%", Metric::Prefix("Top-K")),
            learning_rate(record),
            flip_ratio(record),
            aggregate(record, "Sparsity, all layers", "% zeros", "Sparsity", "c-zero"),
        ]))
        @if !record.ternary.is_empty() {
            h3 { "Wₚ" " and Wₙ over the epochs" }
            @if layers.is_empty() {
                (missing("the scales of each layer, only their means over layers are", "ternary/history.json"))
                (row([mean_scales(record)]))
            } @else {
                (note("One small chart a layer, from the input to the output, each with its own scale. The ternary values \
                       of a layer are +Wₚ, 0 and −Wₙ."))
                (multiples(layers.iter().map(|path| scales(record, path))))
                p.legend { span { i.c-pos {} "Wₚ" } span { i.c-neg {} "Wₙ" } }
                h3 { "Sparsity over the epochs" }
                (note("Share of zeros in each layer, in percent; all charts share one axis."))
                @let highest = record.ternary.iter().flat_map(|e| &e.layers).map(|l| l.sparsity).fold(0.0, f64::max);
                (multiples(layers.iter().map(|path| sparsity(record, path, 110.0 * highest))))
            }
        }
    }
}

/// Which metric of an epoch.
#[derive(Clone, Copy)]
pub(super) enum Metric {
    Named(&'static str),
    /// The first whose name begins so.
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

/// Both phases, one after the other; ternary epochs count on.
pub(super) fn points(record: &Record, value: impl Fn(&Epoch) -> f64) -> Vec<[f64; 2]> {
    let offset = record.full_precision.last().map_or(0, |epoch| epoch.epoch);
    let first = record.full_precision.iter().map(|epoch| (epoch.epoch, epoch));
    let second = record.ternary.iter().map(|epoch| (offset + epoch.epoch, epoch));
    first.chain(second).map(|(number, epoch)| [number as f64, value(epoch)]).collect()
}

/// Where the ternary phase begins, between two epochs.
pub(super) fn switch(record: &Record) -> Option<f64> {
    let last = record.full_precision.last()?.epoch;
    (!record.ternary.is_empty()).then_some(last as f64 + 0.5)
}

fn curve(record: &Record, title: &'static str, unit: &'static str, metric: Metric) -> Option<Markup> {
    let with_last = |series: Series| match series.last() {
        Some(last) => series.saying(number::significant(last)),
        None => series,
    };
    let train = Series::new("training", "c-train", points(record, |epoch| metric.train(epoch)));
    let valid = Series::new("validation", "c-valid", points(record, |epoch| metric.valid(epoch)));
    let series = vec![with_last(train.dashed()), with_last(valid)];
    LineChart { title, unit, x_name: "epoch", series, switch: switch(record), ..Default::default() }.render()
}

fn learning_rate(record: &Record) -> Option<Markup> {
    let metric = Metric::Named("Learning Rate");
    let series = vec![Series::new("learning rate", "c-train", points(record, |epoch| metric.train(epoch)))];
    let chart = LineChart {
        title: "Learning rate",
        unit: "mean over the epoch, logarithmic",
        x_name: "epoch",
        series,
        switch: switch(record),
        log: true,
        legend: false,
        ..Default::default()
    };
    Some(chart.render().unwrap_or_else(|| missing("the learning rate", "history.json, metric “Learning Rate”")))
}

fn flip_ratio(record: &Record) -> Option<Markup> {
    let points = ternary(record, |epoch| Metric::Named("Flip ratio").train(epoch));
    LineChart {
        title: "Flip ratio",
        unit: "% of codes changed by an update",
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

/// Paths of the ternary layers that the history knows.
fn layer_names(record: &Record) -> Vec<String> {
    let known = record.ternary.iter().find(|epoch| !epoch.layers.is_empty());
    known.map_or_else(Vec::new, |epoch| epoch.layers.iter().map(|layer| layer.path.clone()).collect())
}

fn of_layer(record: &Record, path: &str, value: impl Fn(&crate::record::LayerEpoch) -> f64) -> Vec<[f64; 2]> {
    ternary(record, |epoch| epoch.layers.iter().find(|layer| layer.path == path).map_or(f64::NAN, &value))
}

fn scales(record: &Record, path: &str) -> Option<Markup> {
    LineChart {
        title: number::layer(path),
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
        title: number::layer(path),
        unit: &last,
        size: Size::SMALL,
        series: vec![Series::new("zeros", "c-zero", points)],
        y_range: Some([0.0, highest.clamp(1.0, 100.0)]),
        legend: false,
        ..Default::default()
    }
    .render()
}
