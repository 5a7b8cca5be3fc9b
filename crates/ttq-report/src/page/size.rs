//! Bytes and operations of each layer and of the network.

use maud::{Markup, html};

use super::{missing, note, number};
use crate::Record;
use crate::operations::{self, Operations};
use crate::record::{Evidence, Summary};

pub(super) fn render(record: &Record) -> Markup {
    html! {
        h3 { "Bytes" }
        @match record.summary.as_ref().filter(|summary| summary.layers.is_some()) {
            Some(summary) => { (byte_tables(summary)) }
            None => { (missing("sizes of the layers", "summary.json")) }
        }
        h3 { "Operations" }
        @match record.evidence.as_ref().filter(|evidence| !evidence.layers.is_empty()) {
            Some(evidence) => { (operation_tables(evidence)) }
            None => { (missing("numbers of output positions of the layers", "evidence.json")) }
        }
    }
}

/// Table cell with a value and a bar of its share of `largest`.
pub(super) fn bar(value: f64, largest: f64, text: String, color: &str) -> Markup {
    html! {
        td.bar {
            div {
                i class=(color) style={ "width:" (format!("{:.2}", 100.0 * (value / largest.max(1.0)).clamp(0.0, 1.0))) "%" } {}
            }
            span { (text) }
        }
    }
}

fn byte_tables(summary: &Summary) -> Markup {
    let Some(layers) = &summary.layers else { return Markup::default() };
    let kept = 4 * layers.full_precision_parameters;
    let float: usize = layers.layers.iter().map(|layer| layer.float_bytes).sum::<usize>() + kept;
    let packed: usize = layers.layers.iter().map(|layer| layer.packed_bytes).sum::<usize>() + kept;
    let entropy = layers.entropy_bytes();
    let whole = float as f64;
    html! {
        (note("Float32: 4 bytes per weight. 2 bits: packed codes and scales. Entropy: lower bound for a coder that codes each \
               code independently; not the size of a file."))
        div.scroll { table.whole {
            thead { tr { th { "Whole network" } th { "Bytes" } th.n { "Compression" } } }
            tbody {
                @for (name, value, color) in [
                    ("Float32", whole, "c-train"), ("Ternary at 2 bits", packed as f64, "c-valid"), ("Ternary at its entropy", entropy, "c-valid"),
                ] {
                    tr { td { (name) } (bar(value, whole, number::bytes(value), color)) td.n { (number::ratio(whole / value.max(1.0))) } }
                }
            }
        } }
        details {
            summary { b { "Bytes of each layer" } }
            div.scroll { table {
                thead { tr { th { "Layer" } th.n { "Float32" } th.n { "2 bits" } th.n { "Entropy" } th.n { "Bits per weight" } } }
                tbody {
                    @for layer in &layers.layers {
                        tr {
                            td { (number::layer_name(&layer.path)) }
                            td.n { (number::count(layer.float_bytes as u64)) }
                            td.n { (number::count(layer.packed_bytes as u64)) }
                            td.n { (number::count(layer.entropy_bytes().round() as u64)) }
                            td.n { (number::fixed(layer.entropy_bits, 3, "")) }
                        }
                    }
                    tr.total { td { "Other parameters, in full precision" } @for _ in 0..3 { td.n { (number::count(kept as u64)) } } td.n { "32" } }
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

fn operation_tables(evidence: &Evidence) -> Markup {
    let Some((dense, ternary)) = operations::of_network(&evidence.layers, &evidence.dense) else {
        return missing("numbers of output positions of the layers", "evidence.json");
    };
    let most = dense.multiplications as f64;
    let row = |name: &str, now: u64, before: u64, color: &str| {
        html! { tr {
            td { (name) }
            (bar(before as f64, most, number::short_count(before as f64), "c-train"))
            (bar(now as f64, most, number::short_count(now as f64), color))
            td.n { (ratio(before, now)) }
        } }
    };
    html! {
        p.note {
            "Operations of all convolutions and linear layers for one input. A ternary output is Wₚ Σ" sub { "+" } " x − Wₙ Σ"
            sub { "−" } " x: one addition per nonzero weight, then two multiplications and one subtraction. Terms with zero weights are \
            skipped. These are counts, not timings: the speedup depends on the kernels."
        }
        div.scroll { table.whole {
            thead { tr { th { "Whole network" } th { "Dense float32" } th { "Ternary" } th.n { "Reduction" } } }
            tbody {
                (row("Multiplications", ternary.multiplications, dense.multiplications, "c-valid"))
                (row("Additions", ternary.additions, dense.additions, "c-valid"))
                (row("Skipped", ternary.skipped, 0, "c-zero"))
            }
        } }
        details {
            summary { b { "Operations of each layer" } }
            div.scroll { table {
                thead { tr {
                    th { "Layer" } th.n { "Positions" } th.n { "Dense × and +, each" } th.n { "Ternary ×" } th.n { "Ternary +" } th.n { "Skipped" }
                } }
                tbody {
                    @for layer in &evidence.dense {
                        @let positions = layer.positions.unwrap_or(0);
                        @let operations = operations::dense(layer.weights(), positions);
                        (layer_row(&layer.path, positions, operations, operations, " (full precision)"))
                    }
                    @for layer in &evidence.layers {
                        @let positions = layer.positions.unwrap_or(0);
                        @if let Some(after) = operations::of_layer(layer) {
                            (layer_row(&layer.path, positions, operations::dense(layer.weights(), positions), after, ""))
                        }
                    }
                    (layer_row("Whole network", 0, dense, ternary, ""))
                }
            } }
        }
    }
}

fn layer_row(path: &str, positions: usize, dense: Operations, ternary: Operations, remark: &str) -> Markup {
    html! {
        tr.total[positions == 0] {
            td { (number::layer_name(path)) span.muted { (remark) } }
            td.n { @if positions > 0 { (number::count(positions as u64)) } }
            td.n { (number::count(dense.multiplications)) }
            td.n { (number::count(ternary.multiplications)) }
            td.n { (number::count(ternary.additions)) }
            td.n { (number::count(ternary.skipped)) }
        }
    }
}

fn ratio(before: u64, now: u64) -> String {
    if before == 0 || now == 0 { "–".into() } else { number::ratio(before as f64 / now as f64) }
}
