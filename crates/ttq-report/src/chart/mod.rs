//! Charts as inline SVG.
//!
//! Colours are CSS classes (`c-train`, `c-pos`, …), so that the light and the dark style of the page apply to them. SVG
//! plotting crates write fixed colours.

mod axis;
mod graph;
mod histogram;
mod line;
mod picture;

pub(crate) use graph::{GraphBox, graph_picture};
pub(crate) use histogram::{HistogramChart, HistogramGroup};
pub(crate) use line::{LineChart, Series};
pub(crate) use picture::{heat_map, image_uri, kernel_picture};

use maud::{Markup, html};

/// Width and height of a chart in SVG units; one unit is about one CSS pixel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Size {
    width: f64,
    height: f64,
    /// Target number of ticks on the x and the y axis.
    ticks: [usize; 2],
}

impl Size {
    /// Chart in a row of two or three.
    pub(crate) const FULL: Self = Self { width: 400.0, height: 220.0, ticks: [6, 5] };
    /// Chart in a row with less height.
    pub(crate) const LOW: Self = Self { height: 160.0, ticks: [6, 3], ..Self::FULL };
    /// Chart of a grid of small multiples.
    pub(crate) const SMALL: Self = Self { width: 210.0, height: 120.0, ticks: [3, 3] };
}

/// Wraps a chart in a figure with a title above and a legend (name, colour class, value) below.
fn figure(title: &str, unit: &str, legend: &[(&str, &str, String)], svg: Markup) -> Markup {
    html! {
        figure.chart {
            figcaption { b { (title) } @if !unit.is_empty() { " " span.muted { (unit) } } }
            (svg)
            @if !legend.is_empty() {
                p.legend {
                    @for (name, color, value) in legend {
                        span { i class=(color) {} (name) @if !value.is_empty() { " " b { (value) } } }
                    }
                }
            }
        }
    }
}

/// Formats an SVG coordinate with at most two decimals.
fn coordinate(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
