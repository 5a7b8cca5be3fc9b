//! Bytes and operations, layer by layer.

use maud::{Markup, html};

use super::{missing, note, number};
use crate::Record;
use crate::operations::{self, Operations};
use crate::record::{Evidence, Summary};

pub(super) fn render(record: &Record) -> Markup {
    html! {
        h3 { "Bytes" }
        @match record.summary.as_ref().filter(|summary| summary.layers.is_some()) {
            Some(summary) => { (bytes(summary)) }
            None => { (missing("bytes of the layers", "summary.json")) }
        }
        h3 { "Operations" }
        @match record.evidence.as_ref().filter(|evidence| !evidence.layers.is_empty()) {
            Some(evidence) => { (counted(evidence)) }
            None => { (missing("the number of output positions of each layer", "evidence.json")) }
        }
    }
}

/// A number with a bar that shows its share of `largest`.
fn bar(value: f64, largest: f64, text: String, color: &str) -> Markup {
    html! {
        td.bar {
            div {
                i class=(color) style={ "width:" (format!("{:.2}", 100.0 * (value / largest.max(1.0)).clamp(0.0, 1.0))) "%" } {}
            }
            span { (text) }
        }
    }
}

fn bytes(summary: &Summary) -> Markup {
    let Some(layers) = &summary.layers else { return Markup::default() };
    let kept = 4 * layers.full_precision_parameters;
    let float: usize = layers.layers.iter().map(|layer| layer.float_bytes).sum::<usize>() + kept;
    let packed: usize = layers.layers.iter().map(|layer| layer.packed_bytes).sum::<usize>() + kept;
    let entropy = layers.entropy_bytes();
    let whole = float as f64;
    html! {
        (note("Float32: 4 bytes a weight. 2 bits: the packed codes with their scales. Entropy: what an ideal coder of \
               independent codes would need; a bound, not a file."))
        div.scroll { table.whole {
            thead { tr { th { "Whole network" } th { "Bytes" } th.n { "Smaller by" } } }
            tbody {
                @for (name, value, color) in [
                    ("Float32", whole, "c-train"), ("Ternary at 2 bits", packed as f64, "c-valid"), ("Ternary at its entropy", entropy, "c-valid"),
                ] {
                    tr { td { (name) } (bar(value, whole, number::bytes(value), color)) td.n { (number::times(whole / value.max(1.0))) } }
                }
            }
        } }
        details {
            summary { b { "Bytes of each layer" } }
            div.scroll { table {
                thead { tr { th { "Layer" } th.n { "Float32" } th.n { "2 bits" } th.n { "Entropy" } th.n { "Bits a weight" } } }
                tbody {
                    @for layer in &layers.layers {
                        tr {
                            td { (number::layer(&layer.path)) }
                            td.n { (number::count(layer.float_bytes as u64)) }
                            td.n { (number::count(layer.packed_bytes as u64)) }
                            td.n { (number::count(layer.entropy_bytes().round() as u64)) }
                            td.n { (format!("{:.3}", layer.entropy_bits)) }
                        }
                    }
                    tr.total { td { "In full precision" } @for _ in 0..3 { td.n { (number::count(kept as u64)) } } td.n { "32" } }
                    tr.total {
                        td { "Whole network" }
                        td.n { (number::count(float as u64)) } td.n { (number::count(packed as u64)) }
                        td.n { (number::count(entropy.round() as u64)) } td {}
                    }
                }
            } }
        }
    }
}

fn counted(evidence: &Evidence) -> Markup {
    let Some((dense, ternary)) = operations::of_network(&evidence.layers, &evidence.dense) else {
        return missing("the number of output positions of each layer", "evidence.json");
    };
    let most = dense.multiplications as f64;
    let line = |name: &str, now: u64, before: u64, color: &str| {
        html! { tr {
            td { (name) }
            (bar(before as f64, most, number::short(before as f64), "c-train"))
            (bar(now as f64, most, number::short(now as f64), color))
            td.n { (ratio(before, now)) }
        } }
    };
    html! {
        p.note {
            "Of convolutions and linear layers, for one item. A ternary output is Wₚ Σ" sub { "+" } " x − Wₙ Σ"
            sub { "−" } " x: one addition for each weight that is not zero, then two products and their difference; the terms of the zeros \
            are skipped. Counts, not times: how much of this a machine turns into speed depends on its kernels."
        }
        div.scroll { table.whole {
            thead { tr { th { "Whole network" } th { "Dense float32" } th { "Ternary" } th.n { "Fewer by" } } }
            tbody {
                (line("Multiplications", ternary.multiplications, dense.multiplications, "c-valid"))
                (line("Additions", ternary.additions, dense.additions, "c-valid"))
                (line("Skipped", ternary.skipped, 0, "c-zero"))
            }
        } }
        details {
            summary { b { "Operations of each layer" } }
            div.scroll { table {
                thead { tr {
                    th { "Layer" } th.n { "Positions" } th.n { "Dense: × and +, each" } th.n { "Ternary ×" } th.n { "Ternary +" } th.n { "Skipped" }
                } }
                tbody {
                    @for layer in &evidence.dense {
                        @let positions = layer.positions.unwrap_or(0);
                        @let operations = operations::dense(layer.weights(), positions);
                        (layer_line(&layer.path, positions, operations, operations, " (full precision)"))
                    }
                    @for layer in &evidence.layers {
                        @let positions = layer.positions.unwrap_or(0);
                        @if let Some(after) = operations::of_layer(layer) {
                            (layer_line(&layer.path, positions, operations::dense(layer.weights(), positions), after, ""))
                        }
                    }
                    (layer_line("Whole network", 0, dense, ternary, ""))
                }
            } }
        }
    }
}

fn layer_line(path: &str, positions: usize, dense: Operations, ternary: Operations, remark: &str) -> Markup {
    html! {
        tr.total[positions == 0] {
            td { (number::layer(path)) span.muted { (remark) } }
            td.n { @if positions > 0 { (number::count(positions as u64)) } }
            td.n { (number::count(dense.multiplications)) }
            td.n { (number::count(ternary.multiplications)) }
            td.n { (number::count(ternary.additions)) }
            td.n { (number::count(ternary.skipped)) }
        }
    }
}

fn ratio(before: u64, now: u64) -> String {
    if before == 0 || now == 0 { "–".into() } else { number::times(before as f64 / now as f64) }
}
