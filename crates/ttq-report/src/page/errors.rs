//! What the network gets wrong, and whether it knows.

use maud::{Markup, html};

use super::{missing, note, number, row};
use crate::Record;
use crate::calibration::{self, expected_calibration_error, reliability};
use crate::chart::{HistogramChart, LineChart, Series, Size, Steps, heat, photo};
use crate::classification::{Confusion, agreement, confusion};
use crate::distribution::Histogram;
use crate::record::{Evidence, Prediction, Predictions};

/// A matrix of more classes is drawn as a picture.
const READABLE: usize = 20;
/// So many rows of a list of classes or pairs.
const ROWS: usize = 8;

pub(super) fn render(record: &Record) -> Markup {
    let Some((evidence, (network, predictions))) =
        record.evidence.as_ref().and_then(|evidence| Some((evidence, evidence.predictions()?)))
    else {
        return missing("predictions of the test set", "evidence.json");
    };
    let matrix = confusion(predictions.iter(), predictions.classes());
    let other = evidence.ternary.as_ref().and(evidence.full_precision.as_ref());
    let other_matrix = other.map(|other| confusion(other.iter(), other.classes()));
    html! {
        p.note { "The " b { (network) " network" } " on the test set." }
        (scores(evidence))
        @if let Some(other) = other {
            @let [both, full, ternary, neither] = agreement(other.iter(), predictions.iter()).map(|n| number::count(n as u64));
            p.note {
                "Right in both: " b { (both) } "; only in full precision: " b { (full) } "; only with ternary weights: "
                b { (ternary) } "; in neither: " b { (neither) } "."
            }
        }
        h3 { "Confusion" }
        (note("Rows: the true class; columns: the prediction. Mistakes are shaded by their number."))
        (matrix_of(evidence, &matrix))
        div.lists {
            (worst(evidence, &matrix, other_matrix.as_ref()))
            (pairs(evidence, &matrix, other_matrix.as_ref()))
        }
        h3 { "Confidence" }
        (note("Right and wrong predictions, each group scaled to 100 %. Confidence: the highest probability; margin: the \
               highest minus the second; entropy: of all probabilities, in nats. A network that knows when it errs keeps the \
               two colours apart."))
        (row([
            Some(split("Confidence", predictions, 1.0, |p| p.confidence)),
            Some(split("Margin", predictions, 1.0, |p| p.margin())),
            Some(split("Entropy", predictions, (predictions.classes().max(2) as f64).ln(), |p| p.entropy)),
        ]))
        h3 { "Calibration" }
        (note("Accuracy of the predictions within each of 15 intervals of confidence, against their mean confidence: below \
               the diagonal the network is overconfident. Expected calibration error (ECE): the mean distance from the \
               diagonal, weighted by the number of predictions."))
        (row([calibration_chart(evidence), counts(predictions)]))
        h3 { "Most confident mistakes" }
        (mistakes(evidence))
    }
}

/// Both networks in figures.
fn scores(evidence: &Evidence) -> Markup {
    let networks = [("Full precision", &evidence.full_precision), ("Ternary", &evidence.ternary)];
    html! {
        div.scroll { table {
            thead { tr {
                th { "Network" } th.n { "Items" } th.n { "Wrong" } th.n { "Top-1" } th.n { "Cross-entropy" } th.n { "ECE" }
                th.n { "Confidence when right" } th.n { "when wrong" }
            } }
            tbody {
                @for (name, predictions) in networks {
                    @if let Some(predictions) = predictions {
                        tr {
                            td { (name) }
                            td.n { (number::count(predictions.len() as u64)) }
                            td.n { (number::count(predictions.iter().filter(|p| !p.is_right()).count() as u64)) }
                            td.n { (number::percent(predictions.accuracy())) }
                            td.n { (format!("{:.4}", predictions.cross_entropy())) }
                            td.n { (number::percent(ece(predictions))) }
                            @for right in [true, false] { td.n { (mean_confidence(predictions, right)) } }
                        }
                    }
                }
            }
        } }
    }
}

pub(super) fn ece(predictions: &Predictions) -> f64 {
    expected_calibration_error(&reliability(predictions.iter(), calibration::BINS))
}

fn mean_confidence(predictions: &Predictions, right: bool) -> String {
    let chosen: Vec<f64> = predictions.iter().filter(|p| p.is_right() == right).map(|p| p.confidence).collect();
    if chosen.is_empty() { "–".into() } else { format!("{:.3}", chosen.iter().sum::<f64>() / chosen.len() as f64) }
}

fn matrix_of(evidence: &Evidence, matrix: &Confusion) -> Markup {
    let classes = matrix.classes();
    let cells = || (0..classes).flat_map(|label| (0..classes).map(move |predicted| (label, predicted)));
    let wrong = cells().filter(|(label, predicted)| label != predicted);
    let most = wrong.map(|(label, predicted)| matrix.count(label, predicted)).max().unwrap_or(0).max(1) as f64;
    if classes > READABLE {
        let shares: Vec<f64> = cells()
            .map(|(label, predicted)| match matrix.count(label, predicted) {
                count if label == predicted => 0.6 * count as f64 / matrix.items(label).max(1) as f64,
                count => count as f64 / most,
            })
            .collect();
        return html! {
            @if let Some(uri) = heat(classes, &shares) { img.heat src=(uri) alt="confusion matrix"; }
        };
    }
    let shade = |label: usize, predicted: usize| {
        let count = matrix.count(label, predicted);
        let share = if label == predicted { 0.0 } else { count as f64 / most };
        format!("--s:{:.0}%", 78.0 * share.sqrt() * f64::from(u8::from(count > 0)))
    };
    html! {
        div.scroll { table.matrix {
            thead { tr { th { "" } @for class in 0..classes { th { (evidence.class(class)) } } th.n { "Recall" } } }
            tbody { @for label in 0..classes {
                tr {
                    th { (evidence.class(label)) }
                    @for predicted in 0..classes {
                        td.diagonal[label == predicted] style=(shade(label, predicted))
                            title={ (evidence.class(label)) " taken for " (evidence.class(predicted)) } {
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

fn worst(evidence: &Evidence, matrix: &Confusion, other: Option<&Confusion>) -> Markup {
    html! {
        div { h4 { "Worst classes" } div.scroll { table {
            thead { tr { th { "Class" } th.n { "Recall" } th.n { "Precision" } @if other.is_some() { th.n { "Recall, full precision" } } } }
            tbody { @for score in matrix.worst_classes().into_iter().take(ROWS) {
                tr {
                    td { (evidence.class(score.class)) }
                    td.n { (format!("{:.1} %", 100.0 * score.recall)) }
                    td.n { (format!("{:.1} %", 100.0 * score.precision)) }
                    @if let Some(other) = other {
                        td.n.muted { (share_text(other.count(score.class, score.class), other.items(score.class))) }
                    }
                }
            } }
        } } }
    }
}

fn pairs(evidence: &Evidence, matrix: &Confusion, other: Option<&Confusion>) -> Markup {
    let pairs = matrix.confused_pairs();
    html! {
        div { h4 { "Most confused pairs" } div.scroll { table {
            thead { tr { th { "Class" } th { "taken for" } th.n { "Times" } @if other.is_some() { th.n { "Full precision" } } } }
            tbody {
                @if pairs.is_empty() { tr { td colspan="4" { "No mistakes." } } }
                @for pair in pairs.into_iter().take(ROWS) {
                    tr {
                        td { (evidence.class(pair.label)) }
                        td { (evidence.class(pair.predicted)) }
                        td.n { (pair.count) }
                        @if let Some(other) = other { td.n.muted { (other.count(pair.label, pair.predicted)) } }
                    }
                }
            }
        } } }
    }
}

/// A quantity's histogram among right and among wrong predictions.
fn split(title: &str, predictions: &Predictions, high: f64, value: fn(&Prediction) -> f64) -> Markup {
    let group = |name: &str, color, right: bool| {
        let chosen = predictions.iter().filter(|p| p.is_right() == right);
        // Rounding may put a number a hair outside.
        let histogram = Histogram::of(chosen.map(|p| value(&p).clamp(0.0, high)), 0.0, high, 25);
        let heights = histogram.shares().iter().map(|share| 100.0 * share).collect();
        Steps { name: format!("{name} ({})", histogram.total()), color, heights }
    };
    HistogramChart {
        title,
        unit: "% of each group",
        size: Size::FULL,
        low: 0.0,
        high,
        groups: vec![group("right", "c-right", true), group("wrong", "c-wrong", false)],
        marks: Vec::new(),
        legend: true,
        whole: false,
    }
    .render()
}

fn calibration_chart(evidence: &Evidence) -> Option<Markup> {
    let curve = |name: &str, color, predictions: &Predictions| {
        let bins = reliability(predictions.iter(), calibration::BINS);
        let points = bins.iter().filter(|bin| bin.count > 0).map(|bin| [bin.confidence, bin.accuracy]).collect();
        Series::new(name, color, points).saying(format!("ECE {}", number::percent(expected_calibration_error(&bins))))
    };
    let mut series = vec![Series::new("perfect", "c-reference", vec![[0.0, 0.0], [1.0, 1.0]]).dashed()];
    series.extend(evidence.full_precision.as_ref().map(|p| curve("full precision", "c-train", p)));
    series.extend(evidence.ternary.as_ref().map(|p| curve("ternary", "c-valid", p)));
    LineChart {
        title: "Calibration",
        unit: "accuracy against confidence",
        x_name: "confidence",
        series,
        x_range: Some([0.0, 1.0]),
        y_range: Some([0.0, 1.0]),
        whole: false,
        ..Default::default()
    }
    .render()
}

/// How many predictions stand behind each point of the calibration.
fn counts(predictions: &Predictions) -> Option<Markup> {
    let bins = reliability(predictions.iter(), calibration::BINS);
    let total = predictions.len().max(1) as f64;
    let heights = bins.iter().map(|bin| 100.0 * bin.count as f64 / total).collect();
    let chart = HistogramChart {
        title: "Predictions in each interval",
        unit: "% of all",
        size: Size::FULL,
        low: 0.0,
        high: 1.0,
        groups: vec![Steps { name: "predictions".into(), color: "c-valid", heights }],
        marks: Vec::new(),
        legend: false,
        whole: false,
    };
    Some(chart.render())
}

fn mistakes(evidence: &Evidence) -> Markup {
    if evidence.mistakes.is_empty() {
        return html! { p.note { "No mistake is recorded." } };
    }
    html! {
        div.mistakes { @for mistake in &evidence.mistakes {
            figure {
                @match photo(&mistake.picture) {
                    Some(uri) => { img src=(uri) alt={ "test item " (mistake.index) }; }
                    None => { div.nothing {} }
                }
                figcaption {
                    b { (evidence.class(mistake.predicted)) } " " (format!("{:.1}\u{a0}%", 100.0 * mistake.confidence)) br;
                    span.muted { "is " (evidence.class(mistake.label)) " " (format!("{:.1}\u{a0}%", 100.0 * mistake.label_probability)) }
                    br; span.muted.small { "test item " (mistake.index) }
                }
            }
        } }
    }
}
