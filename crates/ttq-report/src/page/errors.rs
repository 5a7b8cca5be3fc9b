//! Classification errors, confidence and calibration.

use maud::{Markup, html};

use super::{chart_row, missing, note, number};
use crate::Record;
use crate::calibration::{self, expected_calibration_error, reliability_bins};
use crate::chart::{HistogramChart, HistogramGroup, LineChart, Series, Size, heat_map, image_uri};
use crate::classification::{ConfusionMatrix, agreement, confusion_matrix};
use crate::distribution::Histogram;
use crate::record::{Evidence, Prediction, Predictions};

/// A confusion matrix with more classes is drawn as an image instead of a table.
const MAX_TABLE_CLASSES: usize = 20;
/// Rows of the tables of classes and of confused pairs.
const MAX_ROWS: usize = 8;

pub(super) fn render(record: &Record) -> Markup {
    let Some((evidence, (network, predictions))) =
        record.evidence.as_ref().and_then(|evidence| Some((evidence, evidence.predictions()?)))
    else {
        return missing("predictions of the test set", "evidence.json");
    };
    let matrix = confusion_matrix(predictions.iter(), predictions.classes());
    let other = evidence.ternary.as_ref().and(evidence.full_precision.as_ref());
    let other_matrix = other.map(|other| confusion_matrix(other.iter(), other.classes()));
    html! {
        p.note { "Predictions of the " b { (network) " network" } " on the test set." }
        (score_table(evidence))
        @if let Some(other) = other {
            @let [both, full, ternary, neither] = agreement(other.iter(), predictions.iter()).map(|n| number::count(n as u64));
            p.note {
                "Items classified correctly by both networks: " b { (both) } "; only by the full-precision network: " b { (full) }
                "; only by the ternary network: " b { (ternary) } "; by neither: " b { (neither) } "."
            }
        }
        h3 { "Confusion matrix" }
        (note("Rows are true classes, columns are predicted classes. The shading shows the number of mistakes."))
        (confusion_table(evidence, &matrix))
        div.lists {
            (worst_classes(evidence, &matrix, other_matrix.as_ref()))
            (confused_pairs(evidence, &matrix, other_matrix.as_ref()))
        }
        h3 { "Confidence" }
        (note("Histograms of correct and of wrong predictions, each normalized to 100 %. Confidence: the highest class \
               probability. Margin: the highest minus the second highest probability. Entropy: of all class probabilities, in \
               nats. The less the two histograms overlap, the better the confidence separates correct from wrong predictions."))
        (chart_row([
            Some(split_histogram("Confidence", predictions, 1.0, |p| p.confidence)),
            Some(split_histogram("Margin", predictions, 1.0, |p| p.margin())),
            Some(split_histogram("Entropy", predictions, (predictions.classes().max(2) as f64).ln(), |p| p.entropy)),
        ]))
        h3 { "Calibration" }
        (note("Accuracy against mean confidence of the predictions in 15 intervals of confidence. Below the diagonal the network \
               is overconfident. Expected calibration error (ECE): the mean distance from the diagonal, weighted by the number \
               of predictions in the interval."))
        (chart_row([calibration_chart(evidence), interval_shares(predictions)]))
        h3 { "Most confident mistakes" }
        (mistakes(evidence))
    }
}

/// Table of the main scores of both networks.
fn score_table(evidence: &Evidence) -> Markup {
    let networks = [("Full precision", &evidence.full_precision), ("Ternary", &evidence.ternary)];
    html! {
        div.scroll { table {
            thead { tr {
                th { "Network" } th.n { "Items" } th.n { "Wrong" } th.n { "Top-1" } th.n { "Cross-entropy" } th.n { "ECE" }
                th.n { "Confidence when correct" } th.n { "when wrong" }
            } }
            tbody {
                @for (name, predictions) in networks {
                    @if let Some(predictions) = predictions {
                        tr {
                            td { (name) }
                            td.n { (number::count(predictions.len() as u64)) }
                            td.n { (number::count(predictions.iter().filter(|p| !p.is_correct()).count() as u64)) }
                            td.n { (number::percent(predictions.accuracy())) }
                            td.n { (number::fixed(predictions.cross_entropy(), 4, "")) }
                            td.n { (number::percent(ece(predictions))) }
                            @for correct in [true, false] { td.n { (mean_confidence(predictions, correct)) } }
                        }
                    }
                }
            }
        } }
    }
}

pub(super) fn ece(predictions: &Predictions) -> f64 {
    expected_calibration_error(&reliability_bins(predictions.iter(), calibration::BINS))
}

fn mean_confidence(predictions: &Predictions, correct: bool) -> String {
    let selected: Vec<f64> = predictions.iter().filter(|p| p.is_correct() == correct).map(|p| p.confidence).collect();
    if selected.is_empty() {
        "–".into()
    } else {
        number::fixed(selected.iter().sum::<f64>() / selected.len() as f64, 3, "")
    }
}

fn confusion_table(evidence: &Evidence, matrix: &ConfusionMatrix) -> Markup {
    let classes = matrix.classes();
    let cells = || (0..classes).flat_map(|label| (0..classes).map(move |predicted| (label, predicted)));
    let wrong = cells().filter(|(label, predicted)| label != predicted);
    let most = wrong.map(|(label, predicted)| matrix.count(label, predicted)).max().unwrap_or(0).max(1) as f64;
    if classes > MAX_TABLE_CLASSES {
        let shares: Vec<f64> = cells()
            .map(|(label, predicted)| match matrix.count(label, predicted) {
                count if label == predicted => 0.6 * count as f64 / matrix.items(label).max(1) as f64,
                count => count as f64 / most,
            })
            .collect();
        return html! {
            @if let Some(uri) = heat_map(classes, &shares) { img.heat src=(uri) alt="confusion matrix"; }
        };
    }
    let shade = |label: usize, predicted: usize| {
        let count = matrix.count(label, predicted);
        let share = if label == predicted { 0.0 } else { count as f64 / most };
        format!("--s:{:.0}%", 78.0 * share.sqrt() * f64::from(u8::from(count > 0)))
    };
    html! {
        div.scroll { table.matrix {
            thead { tr { th { "" } @for class in 0..classes { th { (evidence.class_name(class)) } } th.n { "Recall" } } }
            tbody { @for label in 0..classes {
                tr {
                    th { (evidence.class_name(label)) }
                    @for predicted in 0..classes {
                        td.diagonal[label == predicted] style=(shade(label, predicted))
                            title={ (evidence.class_name(label)) " predicted as " (evidence.class_name(predicted)) } {
                            @if matrix.count(label, predicted) > 0 { (matrix.count(label, predicted)) }
                        }
                    }
                    td.n { (share_text(matrix.count(label, label), matrix.items(label))) }
                }
            } }
        } }
    }
}

fn share_text(part: usize, whole: usize) -> String {
    if whole == 0 { "–".into() } else { format!("{:.1} %", 100.0 * part as f64 / whole as f64) }
}

fn worst_classes(evidence: &Evidence, matrix: &ConfusionMatrix, other: Option<&ConfusionMatrix>) -> Markup {
    html! {
        div { h4 { "Classes with the lowest recall" } div.scroll { table {
            thead { tr { th { "Class" } th.n { "Recall" } th.n { "Precision" } @if other.is_some() { th.n { "Recall, full precision" } } } }
            tbody { @for score in matrix.worst_classes().into_iter().take(MAX_ROWS) {
                tr {
                    td { (evidence.class_name(score.class)) }
                    td.n { (number::fixed(100.0 * score.recall, 1, " %")) }
                    td.n { (number::fixed(100.0 * score.precision, 1, " %")) }
                    @if let Some(other) = other {
                        td.n.muted { (share_text(other.count(score.class, score.class), other.items(score.class))) }
                    }
                }
            } }
        } } }
    }
}

fn confused_pairs(evidence: &Evidence, matrix: &ConfusionMatrix, other: Option<&ConfusionMatrix>) -> Markup {
    let pairs = matrix.confused_pairs();
    html! {
        div { h4 { "Most confused pairs" } div.scroll { table {
            thead { tr { th { "True class" } th { "Predicted class" } th.n { "Count" } @if other.is_some() { th.n { "Full precision" } } } }
            tbody {
                @if pairs.is_empty() { tr { td colspan="4" { "No mistakes." } } }
                @for pair in pairs.into_iter().take(MAX_ROWS) {
                    tr {
                        td { (evidence.class_name(pair.label)) }
                        td { (evidence.class_name(pair.predicted)) }
                        td.n { (pair.count) }
                        @if let Some(other) = other { td.n.muted { (other.count(pair.label, pair.predicted)) } }
                    }
                }
            }
        } } }
    }
}

/// Histograms of a quantity over the correct and over the wrong predictions.
fn split_histogram(title: &str, predictions: &Predictions, high: f64, value: fn(&Prediction) -> f64) -> Markup {
    let group = |name: &str, color, correct: bool| {
        let selected = predictions.iter().filter(|p| p.is_correct() == correct);
        // Rounding errors may put a value slightly outside of the range.
        let histogram = Histogram::new(selected.map(|p| value(&p).clamp(0.0, high)), 0.0, high, 25);
        let heights = histogram.shares().iter().map(|share| 100.0 * share).collect();
        HistogramGroup { name: format!("{name} ({})", histogram.total()), color, heights }
    };
    HistogramChart {
        title,
        unit: "% of each group",
        size: Size::FULL,
        low: 0.0,
        high,
        groups: vec![group("correct", "c-correct", true), group("wrong", "c-wrong", false)],
        marks: Vec::new(),
        legend: true,
        counts: false,
    }
    .render()
}

fn calibration_chart(evidence: &Evidence) -> Option<Markup> {
    let curve = |name: &str, color, predictions: &Predictions| {
        let bins = reliability_bins(predictions.iter(), calibration::BINS);
        let points = bins.iter().filter(|bin| bin.count > 0).map(|bin| [bin.confidence, bin.accuracy]).collect();
        Series::new(name, color, points)
            .with_value(format!("ECE {}", number::percent(expected_calibration_error(&bins))))
    };
    let mut series = vec![Series::new("perfect", "c-reference", vec![[0.0, 0.0], [1.0, 1.0]]).dashed()];
    series.extend(evidence.full_precision.as_ref().map(|p| curve("full precision", "c-train", p)));
    series.extend(evidence.ternary.as_ref().map(|p| curve("ternary", "c-valid", p)));
    LineChart {
        title: "Calibration",
        unit: "accuracy by confidence",
        x_name: "confidence",
        series,
        x_range: Some([0.0, 1.0]),
        y_range: Some([0.0, 1.0]),
        integer_x: false,
        ..Default::default()
    }
    .render()
}

/// Chart of the share of predictions in each interval of the calibration chart.
fn interval_shares(predictions: &Predictions) -> Option<Markup> {
    let bins = reliability_bins(predictions.iter(), calibration::BINS);
    let total = predictions.len().max(1) as f64;
    let heights = bins.iter().map(|bin| 100.0 * bin.count as f64 / total).collect();
    let chart = HistogramChart {
        title: "Predictions by confidence",
        unit: "% of all",
        size: Size::FULL,
        low: 0.0,
        high: 1.0,
        groups: vec![HistogramGroup { name: "predictions".into(), color: "c-valid", heights }],
        marks: Vec::new(),
        legend: false,
        counts: false,
    };
    Some(chart.render())
}

fn mistakes(evidence: &Evidence) -> Markup {
    if evidence.mistakes.is_empty() {
        return html! { p.note { "No mistakes are recorded." } };
    }
    html! {
        div.mistakes { @for mistake in &evidence.mistakes {
            figure {
                @match image_uri(&mistake.picture) {
                    Some(uri) => { img src=(uri) alt={ "test item " (mistake.index) }; }
                    None => { div.nothing {} }
                }
                figcaption {
                    b { (evidence.class_name(mistake.predicted)) } " " (number::fixed(100.0 * mistake.confidence, 1, "\u{a0}%")) br;
                    span.muted { "true: " (evidence.class_name(mistake.label)) " " (number::fixed(100.0 * mistake.label_probability, 1, "\u{a0}%")) }
                    br; span.muted.small { "test item " (mistake.index) }
                }
            }
        } }
    }
}
