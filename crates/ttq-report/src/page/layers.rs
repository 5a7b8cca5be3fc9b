//! The ternary layers at the end of training.

use maud::{Markup, html};

use super::{missing, note, number, row};
use crate::Record;
use crate::chart::{HistogramChart, Size, Steps, kernels};
use crate::distribution::{Histogram, quartiles};
use crate::record::{Layer, LayerSummary};

/// So many layers lie open; of more, only the first.
const OPEN: usize = 4;
/// Small pictures are enlarged to about this width.
const CANVAS: usize = 480;

pub(super) fn render(record: &Record) -> Markup {
    let summaries = record.summary.as_ref().and_then(|summary| summary.layers.as_ref()).map(|layers| &layers.layers);
    let weights = record.evidence.as_ref().map(|evidence| &evidence.layers).filter(|layers| !layers.is_empty());
    html! {
        @match summaries {
            Some(layers) => {
                (warnings(layers))
                (table(layers, weights.map_or(&[], |weights| weights)))
                (distributions(layers))
            }
            None => { (missing("statistics of the ternary layers", "summary.json")) }
        }
        @match weights {
            Some(layers) => {
                h3 { "Latent weights and ternary kernels" }
                (note("Left: the full-precision weights behind a layer; those between −Δ and +Δ are zero in the ternary \
                       layer. Right: the ternary weights themselves, one pixel each."))
                @for (index, layer) in layers.iter().enumerate() { (card(layer, layers.len() <= OPEN || index == 0)) }
            }
            None => { (missing("latent weights and ternary codes", "evidence.json")) }
        }
    }
}

fn warnings(layers: &[LayerSummary]) -> Markup {
    let warnings: Vec<(&str, String)> = layers
        .iter()
        .flat_map(|layer| layer.warnings.iter().map(|w| (number::layer(&layer.path), w.replace('_', " "))))
        .collect();
    html! {
        @if warnings.is_empty() {
            p.fine { "No warnings: no layer is all zero or one-sided, no scale lies at its floor." }
        } @else {
            ul.warnings { @for (layer, warning) in &warnings { li { b { (layer) } ": " (warning) } } }
        }
    }
}

fn table(layers: &[LayerSummary], weights: &[Layer]) -> Markup {
    let largest = layers.iter().flat_map(|layer| [layer.w_pos, layer.w_neg]).fold(0.0, f64::max);
    let threshold = |path: &str| {
        let layer = weights.iter().find(|layer| layer.path == path);
        layer.map_or_else(|| "–".into(), |layer| thresholds(&layer.thresholds))
    };
    html! {
        div.scroll {
            table {
                thead { tr {
                    th { "Layer" } th { "Shape" } th.n { "Weights" }
                    th { span.key { i.c-neg {} "−1" } span.key { i.c-zero {} "0" } span.key { i.c-pos {} "+1" } }
                    th.n { "Zeros" } th.n { "Δ" } th.n { "Wₚ" } th.n { "Wₙ" } th { "" } th.n { "Bits" }
                } }
                tbody {
                    @for layer in layers {
                        tr {
                            td { (number::layer(&layer.path)) }
                            td.muted { (number::shape(&layer.shape)) }
                            td.n { (number::count(layer.weights as u64)) }
                            td { (shares(layer)) }
                            td.n { (format!("{:.1} %", 100.0 * layer.sparsity)) }
                            td.n { (threshold(&layer.path)) }
                            td.n { (number::significant(layer.w_pos)) }
                            td.n { (number::significant(layer.w_neg)) }
                            td { (dumbbell(layer, largest)) }
                            td.n { (format!("{:.3}", layer.entropy_bits)) }
                        }
                    }
                }
            }
        }
        p.note { "Δ: threshold; Wₚ, Wₙ: learned scales (with a pair for each channel, their means), \
            drawn on one axis from zero; bits: entropy of the codes." }
    }
}

/// One threshold, or the range of many.
fn thresholds(values: &[f32]) -> String {
    match quartiles(values.iter().map(|value| f64::from(*value))) {
        None => "–".into(),
        Some(range) if range.min == range.max => number::significant(range.min),
        Some(range) => format!("{} to {}", number::significant(range.min), number::significant(range.max)),
    }
}

/// The shares of -1, 0 and +1 as a bar.
fn shares(layer: &LayerSummary) -> Markup {
    let parts = [("c-neg", "−1", layer.negative), ("c-zero", "0", layer.sparsity), ("c-pos", "+1", layer.positive)];
    let title = parts.map(|(_, name, share)| format!("{name}: {}", number::percent(share))).join(", ");
    html! {
        div.stack title=(title) {
            @for (color, _, share) in parts { i class=(color) style={ "width:" (format!("{:.2}", 100.0 * share)) "%" } {} }
        }
    }
}

/// Both scales on an axis that all layers share.
fn dumbbell(layer: &LayerSummary, largest: f64) -> Markup {
    let place = |value: f64| format!("{:.1}", 4.0 + 92.0 * (value / largest.max(f64::MIN_POSITIVE)).clamp(0.0, 1.0));
    let [pos, neg] = [layer.w_pos, layer.w_neg].map(place);
    html! {
        svg.dumbbell viewBox="0 0 100 12" aria-hidden="true" {
            line.grid x1="4" x2="96" y1="6" y2="6" {}
            line.axis x1=(pos) x2=(neg) y1="6" y2="6" {}
            circle.dot.c-pos cx=(pos) cy="6" r="3" {}
            circle.dot.c-neg cx=(neg) cy="6" r="3" {}
        }
    }
}

/// Sparsity and scales over the layers.
fn distributions(layers: &[LayerSummary]) -> Markup {
    let over = |title: &'static str, color: &'static str, values: Vec<f64>| {
        let range = quartiles(values.iter().copied())?;
        let (low, high) = (0.0, 1.05 * range.max);
        let histogram = Histogram::of(values, low, high, 20);
        let text = [range.min, range.median, range.max].map(number::significant);
        let unit = format!("min {}, median {}, max {}", text[0], text[1], text[2]);
        let heights = histogram.counts.iter().map(|count| *count as f64).collect();
        let chart = HistogramChart {
            title,
            unit: &unit,
            size: Size::LOW,
            low,
            high,
            groups: vec![Steps { name: title.into(), color, heights }],
            marks: Vec::new(),
            legend: false,
            whole: true,
        };
        Some(chart.render())
    };
    html! {
        h3 { "Distribution over the layers" }
        (note("How many layers have which value."))
        (row([
            over("Sparsity, %", "c-zero", layers.iter().map(|layer| 100.0 * layer.sparsity).collect()),
            over("Wₚ", "c-pos", layers.iter().map(|layer| layer.w_pos).collect()),
            over("Wₙ", "c-neg", layers.iter().map(|layer| layer.w_neg).collect()),
        ]))
    }
}

fn card(layer: &Layer, open: bool) -> Markup {
    html! {
        details.layer open[open] {
            summary {
                b { (number::layer(&layer.path)) } " " span.muted { (number::shape(&layer.shape)) ", "
                (number::count(layer.weights() as u64)) " weights" }
            }
            div.pair {
                (latents(layer))
                @if let Some(picture) = kernels(layer) {
                    figure.chart.kernels {
                        figcaption { b { "Ternary weights" } " " span.muted { (picture.caption) } }
                        @let scale = (CANVAS / picture.width).clamp(1, 6);
                        img src=(picture.uri) width=(scale * picture.width) height=(scale * picture.height) alt={ "ternary weights of " (number::layer(&layer.path)) };
                        p.legend { span { i.c-neg {} "−1" } span { i.c-faint {} "0" } span { i.c-pos {} "+1" } }
                    }
                }
            }
        }
    }
}

/// The latent weights' histogram in three colours, split at the thresholds.
fn latents(layer: &Layer) -> Markup {
    let histogram = &layer.histogram;
    let range = quartiles(layer.thresholds.iter().map(|value| f64::from(*value)));
    let threshold = range.map_or(0.0, |range| range.median);
    let side = |name: &str, color: &'static str, belongs: fn(f64, f64) -> bool| {
        let heights = histogram.shares().into_iter().enumerate().map(|(bin, share)| {
            let middle = histogram.low + (bin as f64 + 0.5) * histogram.width();
            if belongs(middle, threshold) { 100.0 * share } else { 0.0 }
        });
        Steps { name: name.into(), color, heights: heights.collect() }
    };
    let mut marks = Vec::new();
    if let Some(range) = range {
        let name = |sign| if range.min == range.max { format!("{sign}Δ") } else { format!("{sign}Δ median") };
        marks = vec![(-threshold, name("−")), (threshold, name("+"))];
    }
    HistogramChart {
        title: "Latent weights",
        unit: "% in each bin",
        size: Size::FULL,
        low: histogram.low,
        high: histogram.high,
        groups: vec![
            side("becomes −1", "c-neg", |w, t| w < -t),
            side("becomes 0", "c-zero", |w, t| w.abs() <= t),
            side("becomes +1", "c-pos", |w, t| w > t),
        ],
        marks,
        legend: true,
        whole: false,
    }
    .render()
}
