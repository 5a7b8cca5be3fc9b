//! Ternary layers at the end of training.

use maud::{Markup, html};

use super::{chart_row, missing, note, number};
use crate::Record;
use crate::chart::{HistogramChart, HistogramGroup, Size, kernel_picture};
use crate::distribution::{Histogram, quartiles};
use crate::record::{Layer, LayerSummary};

/// Up to this many layers are expanded; with more, only the first one is.
const MAX_EXPANDED: usize = 4;
/// Small pictures are enlarged to at most this width, in CSS pixels.
const PICTURE_WIDTH: usize = 480;

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
                (note("Left: histogram of the latent (full-precision) weights. Latent weights between −Δ and +Δ become zero. \
                       Right: the ternary weights, one pixel each."))
                @for (index, layer) in layers.iter().enumerate() {
                    (layer_details(layer, layers.len() <= MAX_EXPANDED || index == 0))
                }
            }
            None => { (missing("latent weights and ternary codes", "evidence.json")) }
        }
    }
}

fn warnings(layers: &[LayerSummary]) -> Markup {
    let warnings: Vec<(&str, String)> = layers
        .iter()
        .flat_map(|layer| layer.warnings.iter().map(|w| (number::layer_name(&layer.path), w.replace('_', " "))))
        .collect();
    html! {
        @if warnings.is_empty() {
            p.fine { "No warnings: no layer is all zero, one-sided or not finite, and no scale is near zero." }
        } @else {
            ul.warnings { @for (layer, warning) in &warnings { li { b { (layer) } ": " (warning) } } }
        }
    }
}

fn table(layers: &[LayerSummary], weights: &[Layer]) -> Markup {
    let scales = layers.iter().flat_map(|layer| [layer.w_pos, layer.w_neg]);
    let largest = scales.filter(|scale| scale.is_finite()).fold(0.0, f64::max);
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
                            td { (number::layer_name(&layer.path)) }
                            td.muted { (number::shape(&layer.shape)) }
                            td.n { (number::count(layer.weights as u64)) }
                            td { (code_shares(layer)) }
                            td.n { (number::fixed(100.0 * layer.sparsity, 1, " %")) }
                            td.n { (threshold(&layer.path)) }
                            td.n { (number::significant(layer.w_pos)) }
                            td.n { (number::significant(layer.w_neg)) }
                            td { (scale_plot(layer, largest)) }
                            td.n { (number::fixed(layer.entropy_bits, 3, "")) }
                        }
                    }
                }
            }
        }
        p.note { "Δ: threshold. Wₚ, Wₙ: scales; if each output channel has its own pair, their means. The plot shows both on an \
            axis from zero that all layers share. Bits: entropy of the codes, in bits per weight." }
    }
}

/// Formats one threshold, or the range of several.
fn thresholds(values: &[f32]) -> String {
    match quartiles(values.iter().map(|value| f64::from(*value))) {
        None => "–".into(),
        Some(range) if range.min == range.max => number::significant(range.min),
        Some(range) => format!("{} to {}", number::significant(range.min), number::significant(range.max)),
    }
}

/// Bar of the shares of -1, 0 and +1.
fn code_shares(layer: &LayerSummary) -> Markup {
    let width = |share: f64| format!("{:.2}", if share.is_finite() { 100.0 * share } else { 0.0 });
    let parts = [("c-neg", "−1", layer.negative), ("c-zero", "0", layer.sparsity), ("c-pos", "+1", layer.positive)];
    let title = parts.map(|(_, name, share)| format!("{name}: {}", number::percent(share))).join(", ");
    html! {
        div.stack title=(title) {
            @for (color, _, share) in parts { i class=(color) style={ "width:" (width(share)) "%" } {} }
        }
    }
}

/// Both scales as points on an axis from 0 to `largest`, which all layers share.
fn scale_plot(layer: &LayerSummary, largest: f64) -> Markup {
    let share =
        |value: f64| if value.is_finite() { (value / largest.max(f64::MIN_POSITIVE)).clamp(0.0, 1.0) } else { 0.0 };
    let position = |value: f64| format!("{:.1}", 4.0 + 92.0 * share(value));
    let [pos, neg] = [layer.w_pos, layer.w_neg].map(position);
    html! {
        svg.dumbbell viewBox="0 0 100 12" aria-hidden="true" {
            line.grid x1="4" x2="96" y1="6" y2="6" {}
            line.axis x1=(pos) x2=(neg) y1="6" y2="6" {}
            circle.dot.c-pos cx=(pos) cy="6" r="3" {}
            circle.dot.c-neg cx=(neg) cy="6" r="3" {}
        }
    }
}

/// Histograms of sparsity and scales over the layers.
fn distributions(layers: &[LayerSummary]) -> Markup {
    let histogram_chart = |title: &'static str, color: &'static str, values: Vec<f64>| {
        let range = quartiles(values.iter().copied())?;
        let (low, high) = (0.0, 1.05 * range.max);
        let histogram = Histogram::new(values, low, high, 20);
        let text = [range.min, range.median, range.max].map(number::significant);
        let unit = format!("min {}, median {}, max {}", text[0], text[1], text[2]);
        let heights = histogram.counts.iter().map(|count| *count as f64).collect();
        let chart = HistogramChart {
            title,
            unit: &unit,
            size: Size::LOW,
            low,
            high,
            groups: vec![HistogramGroup { name: title.into(), color, heights }],
            marks: Vec::new(),
            legend: false,
            counts: true,
        };
        Some(chart.render())
    };
    html! {
        h3 { "Distribution over the layers" }
        (note("Number of layers by value."))
        (chart_row([
            histogram_chart("Sparsity, %", "c-zero", layers.iter().map(|layer| 100.0 * layer.sparsity).collect()),
            histogram_chart("Wₚ", "c-pos", layers.iter().map(|layer| layer.w_pos).collect()),
            histogram_chart("Wₙ", "c-neg", layers.iter().map(|layer| layer.w_neg).collect()),
        ]))
    }
}

fn layer_details(layer: &Layer, expanded: bool) -> Markup {
    html! {
        details.layer open[expanded] {
            summary {
                b { (number::layer_name(&layer.path)) } " " span.muted { (number::shape(&layer.shape)) ", "
                (number::count(layer.weights() as u64)) " weights" }
            }
            div.pair {
                (latent_histogram(layer))
                @if let Some(picture) = kernel_picture(layer) {
                    figure.chart.kernels {
                        figcaption { b { "Ternary weights" } " " span.muted { (picture.caption) } }
                        @let scale = (PICTURE_WIDTH / picture.width).clamp(1, 6);
                        img src=(picture.uri) width=(scale * picture.width) height=(scale * picture.height) alt={ "ternary weights of " (number::layer_name(&layer.path)) };
                        p.legend { span { i.c-neg {} "−1" } span { i.c-faint {} "0" } span { i.c-pos {} "+1" } }
                    }
                }
            }
        }
    }
}

/// Histogram of the latent weights, coloured by the codes that they become.
fn latent_histogram(layer: &Layer) -> Markup {
    let histogram = &layer.histogram;
    let range = quartiles(layer.thresholds.iter().map(|value| f64::from(*value)));
    let threshold = range.map_or(0.0, |range| range.median);
    let group = |name: &str, color: &'static str, belongs: fn(f64, f64) -> bool| {
        let heights = histogram.shares().into_iter().enumerate().map(|(bin, share)| {
            let center = histogram.low + (bin as f64 + 0.5) * histogram.width();
            if belongs(center, threshold) { 100.0 * share } else { 0.0 }
        });
        HistogramGroup { name: name.into(), color, heights: heights.collect() }
    };
    let mut marks = Vec::new();
    if let Some(range) = range {
        let name = |sign| if range.min == range.max { format!("{sign}Δ") } else { format!("{sign}Δ median") };
        marks = vec![(-threshold, name("−")), (threshold, name("+"))];
    }
    HistogramChart {
        title: "Latent weights",
        unit: "% per bin",
        size: Size::FULL,
        low: histogram.low,
        high: histogram.high,
        groups: vec![
            group("becomes −1", "c-neg", |w, t| w < -t),
            group("becomes 0", "c-zero", |w, t| w.abs() <= t),
            group("becomes +1", "c-pos", |w, t| w > t),
        ],
        marks,
        legend: true,
        counts: false,
    }
    .render()
}
