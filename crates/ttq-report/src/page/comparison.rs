//! Comparison of several runs.

use std::collections::BTreeMap;

use maud::{Markup, html};

use super::training::{Metric, points};
use super::{chart_row, errors, missing, note, number, setup};
use crate::Record;
use crate::chart::{LineChart, Series};
use crate::operations;

/// Colour classes of the runs. With more runs, the colours repeat.
const COLORS: [&str; 8] = ["c-0", "c-1", "c-2", "c-3", "c-4", "c-5", "c-6", "c-7"];

fn color(index: usize) -> &'static str {
    COLORS[index % COLORS.len()]
}

pub(super) fn results(records: &[Record]) -> Markup {
    html! {
        (note("Accuracies are measured on the test set, in percent, and perplexities of language models per byte; the best \
               ternary one is bold. Difference: ternary minus full precision, of accuracies in percentage points. Compression: float32 size divided by packed size. Multiplications: \
               of the ternary network for one input. ECE: expected calibration error of the ternary network."))
        div.scroll { table {
            thead { tr {
                th { "Run" } th { "Method" } th.n { "Seed" } th.n { "Epochs" } th.n { "Full precision" } th.n { "Ternary" }
                th.n { "Difference" } th.n { "Top-5" } th.n { "Zeros" } th.n { "Bytes" } th.n { "Compression" }
                th.n { "Multiplications" } th.n { "ECE" } th.n { "Time" }
            } }
            tbody { @for (index, record) in records.iter().enumerate() { (result_row(index, record, best_ternary_score(records))) } }
        } }
        (repeated_runs(records))
    }
}

fn best_ternary_score(records: &[Record]) -> Option<f64> {
    let best = if records.iter().any(Record::is_language_model) { f64::min } else { f64::max };
    records.iter().filter_map(|record| record.summary.as_ref()?.scores()[1]).reduce(best)
}

fn result_row(index: usize, record: &Record, best: Option<f64>) -> Markup {
    let summary = record.summary.clone().unwrap_or_default();
    let evidence = record.evidence.as_ref();
    let dash = |text: Option<String>| text.unwrap_or_else(|| "–".into());
    let number = |value: f64| format!("{value:.2}");
    let [full, ternary] = summary.scores();
    let difference = full.zip(ternary).map(|(full, ternary)| format!("{:+.2}", ternary - full).replace('-', "−"));
    let sizes = summary.float_bytes.zip(summary.packed_bytes).map(|(float, packed)| (float as f64, packed as f64));
    let counted = evidence.and_then(|evidence| operations::of_network(&evidence.layers, &evidence.dense));
    let ece = evidence.and_then(|evidence| evidence.ternary.as_ref()).map(errors::ece);
    html! {
        tr {
            td { span.key { i class=(color(index)) {} (record.name) } }
            td { (dash(record.setting("method"))) }
            td.n { (dash(record.setting("seed"))) }
            td.n { (record.full_precision.len()) " + " (record.ternary.len()) }
            td.n { (dash(full.map(number))) }
            td.n.best[ternary.is_some() && ternary == best] { (dash(ternary.map(number))) }
            td.n { (dash(difference)) }
            td.n { (dash(summary.ternary_top5.or(summary.full_precision_top5).map(number))) }
            td.n { (dash(summary.sparsity.map(|share| number::fixed(100.0 * share, 1, " %")))) }
            td.n { (dash(sizes.map(|(_, packed)| number::bytes(packed)))) }
            td.n { (dash(sizes.map(|(float, packed)| number::ratio(float / packed)))) }
            td.n { (dash(counted.map(|(_, ternary)| number::short_count(ternary.multiplications as f64)))) }
            td.n { (dash(ece.map(number::percent))) }
            td.n { (dash(summary.seconds.map(number::duration))) }
        }
    }
}

/// Mean and standard deviation over runs whose configurations differ at most in the seed.
fn repeated_runs(records: &[Record]) -> Markup {
    let mut groups: BTreeMap<Vec<(String, String)>, Vec<&Record>> = BTreeMap::new();
    for record in records {
        let Some(config) = &record.config else { continue };
        let settings = setup::flatten(config).into_iter().filter(|(name, _)| name != "seed");
        groups.entry(settings.collect()).or_default().push(record);
    }
    let scores = |runs: &[&Record], of: fn(&crate::record::Summary) -> Option<f64>| -> String {
        let values: Vec<f64> = runs.iter().filter_map(|run| of(run.summary.as_ref()?)).collect();
        mean_and_deviation(&values).map_or_else(|| "–".into(), |(mean, sd)| format!("{mean:.2} ± {sd:.2}"))
    };
    let repeated: Vec<_> = groups.into_values().filter(|runs| runs.len() > 1).collect();
    html! {
        @if !repeated.is_empty() {
            h3 { "Repeated runs" }
            (note("Mean ± sample standard deviation over runs whose configurations differ at most in the seed."))
            div.scroll { table {
                thead { tr { th { "Runs" } th.n { "Count" } th.n { "Full precision" } th.n { "Ternary" } } }
                tbody { @for runs in &repeated {
                    tr {
                        td { (runs.iter().map(|run| run.name.as_str()).collect::<Vec<_>>().join(", ")) }
                        td.n { (runs.len()) }
                        td.n { (scores(runs, |summary| summary.scores()[0])) }
                        td.n { (scores(runs, |summary| summary.scores()[1])) }
                    }
                } }
            } }
        }
    }
}

/// Computes the mean and the sample standard deviation `sqrt(Σ (x - mean)² / (n - 1))`. Returns `None` for fewer than
/// two values.
fn mean_and_deviation(values: &[f64]) -> Option<(f64, f64)> {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (values.len() > 1).then(|| (mean, (squares / (n - 1.0)).sqrt()))
}

pub(super) fn curves(records: &[Record]) -> Markup {
    let chart = |title: &'static str, unit: &'static str, value: fn(&crate::record::Epoch) -> f64| {
        let series = records.iter().enumerate().map(|(i, record)| {
            let series = Series::new(record.name.clone(), color(i), points(record, value));
            match series.last() {
                Some(last) => series.with_value(number::significant(last)),
                None => series,
            }
        });
        LineChart { title, unit, x_name: "epoch", series: series.collect(), ..Default::default() }.render()
    };
    if records.iter().all(|record| record.full_precision.is_empty() && record.ternary.is_empty()) {
        return missing("metrics of the epochs", "history.json of each phase");
    }
    html! {
        (note("The epochs of the ternary phase follow the last epoch in full precision."))
        (chart_row([
            chart("Validation loss", "cross-entropy, nats", |epoch| Metric::Named("Loss").valid(epoch)),
            chart("Validation accuracy", "%", |epoch| Metric::Named("Accuracy").valid(epoch)),
            chart("Sparsity, all layers", "% zeros", |epoch| epoch.train.get("Sparsity").copied().unwrap_or(f64::NAN)),
        ]))
    }
}

/// Settings that differ between the runs, then the settings that all runs share.
pub(super) fn settings(records: &[Record]) -> Markup {
    let configs: Vec<BTreeMap<String, String>> = records
        .iter()
        .map(|r| r.config.as_ref().map(setup::flatten).unwrap_or_default().into_iter().collect())
        .collect();
    if configs.iter().all(BTreeMap::is_empty) {
        return missing("configurations", "config.json of each run");
    }
    let mut names: Vec<&String> = configs.iter().flat_map(BTreeMap::keys).collect();
    names.sort();
    names.dedup();
    let (same, different): (Vec<&String>, Vec<&String>) =
        names.into_iter().partition(|name| configs.iter().all(|config| config.get(*name) == configs[0].get(*name)));
    html! {
        h3 { "Different settings" }
        @if different.is_empty() { p.note { "None." } } @else {
            div.scroll { table {
                thead { tr { th { "Setting" } @for record in records { th { (record.name) } } } }
                tbody { @for name in different {
                    tr {
                        td { (name) }
                        @for config in &configs { td { (config.get(name).map_or("–", String::as_str)) } }
                    }
                } }
            } }
        }
        details {
            summary { b { "Common settings" } }
            dl { @for name in same { div { dt { (name) } dd { (configs[0][name]) } } } }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_standard_deviation_is_the_sample_standard_deviation() {
        let (mean, deviation) = mean_and_deviation(&[1.0, 2.0, 3.0, 4.0]).unwrap();
        assert_eq!(mean, 2.5);
        assert!((deviation - (5.0f64 / 3.0).sqrt()).abs() < 1e-12);
        assert_eq!(mean_and_deviation(&[1.0]), None);
    }
}
