//! Charts as inline SVG. Colours are CSS classes (`c-train`, `c-pos`, …), so that a page's light and dark style applies to
//! them; ready-made SVG plotters write fixed colours.

mod axis;
mod histogram;
mod line;
mod picture;

pub(crate) use histogram::{HistogramChart, Steps};
pub(crate) use line::{LineChart, Series};
pub(crate) use picture::{heat, kernels, photo};

use maud::{Markup, html};

/// Width and height of a chart in its own units, one of which is about a CSS pixel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Size {
    width: f64,
    height: f64,
    /// Aim at so many ticks on the axes.
    ticks: [usize; 2],
}

impl Size {
    /// A chart of a row of two or three.
    pub(crate) const FULL: Self = Self { width: 400.0, height: 220.0, ticks: [6, 5] };
    /// A lower one of a row.
    pub(crate) const LOW: Self = Self { height: 160.0, ticks: [6, 3], ..Self::FULL };
    /// One of many.
    pub(crate) const SMALL: Self = Self { width: 210.0, height: 120.0, ticks: [3, 3] };
}

/// A chart with its title above and its legend below.
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

/// A number for an SVG attribute: two decimals at most.
fn at(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
