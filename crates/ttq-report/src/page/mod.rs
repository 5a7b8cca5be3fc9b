//! From a record to one HTML string.

mod cards;
mod comparison;
mod errors;
mod layers;
pub(crate) mod number;
mod setup;
mod size;
mod training;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::Record;

/// Everything about how a page looks.
const STYLE: &str = include_str!("style.css");

/// One part of a page with its entry in the navigation.
struct Section {
    id: &'static str,
    title: &'static str,
    body: Markup,
}

/// The page of one run.
pub fn render(record: &Record) -> String {
    let sections = [
        Section { id: "training", title: "Training", body: training::render(record) },
        Section { id: "layers", title: "Ternary layers", body: layers::render(record) },
        Section { id: "errors", title: "Errors", body: errors::render(record) },
        Section { id: "size", title: "Size and operations", body: size::render(record) },
        Section { id: "setup", title: "Set-up", body: setup::render(record) },
    ];
    let head = html! {
        p.kicker { (setup::kicker(record)) }
        h1 { (record.name) }
        (cards::render(record))
    };
    document(&format!("{} – ternary training report", record.name), head, &sections)
}

/// One page about several runs.
pub fn render_comparison(records: &[Record]) -> String {
    let sections = [
        Section { id: "results", title: "Results", body: comparison::results(records) },
        Section { id: "curves", title: "Training", body: comparison::curves(records) },
        Section { id: "settings", title: "Settings", body: comparison::settings(records) },
    ];
    let head = html! {
        p.kicker { "Comparison" }
        h1 { (records.len()) " runs" }
    };
    document(&format!("{} runs compared", records.len()), head, &sections)
}

fn document(title: &str, head: Markup, sections: &[Section]) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="generator" content={ "ttq-report " (env!("CARGO_PKG_VERSION")) };
                // A browser asks for an icon unless it is told that there is none.
                link rel="icon" href="data:,";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                nav { div { @for section in sections { a href={ "#" (section.id) } { (section.title) } } } }
                main {
                    header { (head) }
                    @for section in sections {
                        section id=(section.id) {
                            h2 { (section.title) }
                            (section.body)
                        }
                    }
                }
                footer { "Written by ttq-report " (env!("CARGO_PKG_VERSION")) ". One file, no scripts, nothing loaded." }
            }
        }
    };
    page.into_string()
}

/// Says what a record lacks.
fn missing(what: &str, file: &str) -> Markup {
    html! { p.missing { b { "Not recorded: " } (what) ". It is read from " code { (file) } "." } }
}

/// A paragraph under a heading that says what is seen.
fn note(text: &str) -> Markup {
    html! { p.note { (text) } }
}

/// Charts side by side.
fn row(charts: impl IntoIterator<Item = Option<Markup>>) -> Markup {
    html! { div.charts { @for chart in charts.into_iter().flatten() { (chart) } } }
}

/// Many small charts side by side.
fn multiples(charts: impl IntoIterator<Item = Option<Markup>>) -> Markup {
    html! { div.multiples { @for chart in charts.into_iter().flatten() { (chart) } } }
}
