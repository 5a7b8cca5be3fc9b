//! Cards with the main results at the top of the page.

use maud::{Markup, html};

use super::number;
use crate::Record;
use crate::operations;
use crate::record::Summary;

/// One result: its name, its value, and a detail such as the value to compare it with.
pub(super) struct Card {
    pub(super) name: &'static str,
    pub(super) value: String,
    pub(super) detail: String,
}

pub(super) fn render(record: &Record) -> Markup {
    let Some(summary) = &record.summary else {
        return super::missing("the final results", "summary.json");
    };
    let mut results = Vec::new();
    results.extend(accuracy("Top-1, test", summary.full_precision_accuracy, summary.ternary_accuracy));
    results.extend(accuracy("Top-5, test", summary.full_precision_top5, summary.ternary_top5));
    results.extend(perplexity(summary));
    if let Some(sparsity) = summary.sparsity {
        let weights = summary.layers.as_ref().map(|l| l.layers.iter().map(|layer| layer.weights as u64).sum::<u64>());
        let detail = weights.map_or_else(String::new, |n| format!("of {} ternary weights are zero", number::count(n)));
        results.push(Card { name: "Sparsity", value: number::fixed(100.0 * sparsity, 1, " %"), detail });
    }
    if let (Some(float), Some(packed)) = (summary.float_bytes, summary.packed_bytes) {
        let (float, packed) = (float as f64, packed as f64);
        let detail = format!("files: {} → {}", number::bytes(float), number::bytes(packed));
        results.push(Card { name: "Compression", value: number::ratio(float / packed), detail });
    }
    let counted = record.evidence.as_ref().and_then(|e| operations::of_network(&e.layers, &e.dense));
    if let Some((dense, ternary)) = counted {
        let ratio = dense.multiplications as f64 / ternary.multiplications.max(1) as f64;
        let [before, after] = [dense, ternary].map(|o| number::short_count(o.multiplications as f64));
        let detail = format!("{before} → {after} per input");
        results.push(Card { name: "Multiplications", value: format!("÷ {ratio:.1}"), detail });
    }
    if let Some(seconds) = summary.seconds {
        let epochs = record.full_precision.len() + record.ternary.len();
        let detail =
            if epochs > 0 { format!("{epochs} epochs on {}", summary.backend) } else { summary.backend.clone() };
        results.push(Card { name: "Time", value: number::duration(seconds), detail });
    }
    cards(&results)
}

/// Renders a row of cards.
pub(super) fn cards(cards: &[Card]) -> Markup {
    html! {
        div.cards {
            @for card in cards {
                div.card { span.name { (card.name) } span.value { (card.value) } span.detail { (card.detail) } }
            }
        }
    }
}

fn perplexity(summary: &Summary) -> Option<Card> {
    let text = |value: f64| format!("{value:.3} ({:.3} bits)", value.log2());
    let (value, detail) = match (summary.full_precision_perplexity, summary.ternary_perplexity) {
        (Some(full), Some(ternary)) => (ternary, format!("per byte, test; {} in full precision", text(full))),
        (Some(full), None) => (full, "per byte, test; in full precision".into()),
        (None, Some(ternary)) => (ternary, "per byte, test; full precision not evaluated".into()),
        (None, None) => return None,
    };
    Some(Card { name: "Perplexity", value: text(value), detail })
}

fn accuracy(name: &'static str, full_precision: Option<f64>, ternary: Option<f64>) -> Option<Card> {
    let text = |value: f64| format!("{value:.2} %");
    Some(match (full_precision, ternary) {
        (Some(full), Some(ternary)) => {
            let difference = format!("{:+.2}", ternary - full).replace('-', "−");
            let detail = format!("{} in full precision, {difference} points", text(full));
            Card { name, value: text(ternary), detail }
        }
        (Some(full), None) => Card { name, value: text(full), detail: "in full precision".into() },
        (None, Some(ternary)) => {
            Card { name, value: text(ternary), detail: "ternary; full precision not evaluated".into() }
        }
        (None, None) => return None,
    })
}
