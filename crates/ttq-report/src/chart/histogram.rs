//! Histograms of one or more overlaid groups.

use std::fmt::Write;

use maud::{Markup, html};

use super::axis::{Axis, axes};
use super::{Size, coordinate, figure};

/// One group of a histogram: the heights of bins of equal width.
pub(crate) struct HistogramGroup {
    pub(crate) name: String,
    /// CSS class of the colour.
    pub(crate) color: &'static str,
    pub(crate) heights: Vec<f64>,
}

/// Histogram of one or more groups.
pub(crate) struct HistogramChart<'a> {
    pub(crate) title: &'a str,
    pub(crate) unit: &'a str,
    pub(crate) size: Size,
    pub(crate) low: f64,
    pub(crate) high: f64,
    pub(crate) groups: Vec<HistogramGroup>,
    /// Values marked by a vertical line, with their labels.
    pub(crate) marks: Vec<(f64, String)>,
    pub(crate) legend: bool,
    /// Whether heights are counts, so that the labels of the y axis are integers.
    pub(crate) counts: bool,
}

impl HistogramChart<'_> {
    pub(crate) fn render(&self) -> Markup {
        let highest = self.groups.iter().flat_map(|group| &group.heights).copied().fold(0.0, f64::max);
        let x = Axis::x(self.size, self.low, self.high);
        let y = Axis::y(self.size, 0.0, if highest > 0.0 { 1.08 * highest } else { 1.0 }, false, false);
        let svg = html! {
            svg viewBox={ "0 0 " (self.size.width) " " (self.size.height) } role="img" aria-label=(self.title) {
                (axes(self.size, &x, &y, "", [false, self.counts]))
                @for group in &self.groups {
                    path.area.(group.color) d=(self.outline(group, &x, &y)) {}
                }
                @for (value, name) in &self.marks {
                    @let position = x.position(*value);
                    line.mark x1=(coordinate(position)) x2=(coordinate(position)) y1=(coordinate(y.end())) y2=(coordinate(y.start())) {}
                    @if *value < 0.0 {
                        text.tick.end x=(coordinate(position - 3.0)) y=(coordinate(y.end() + 9.0)) { (name) }
                    } @else {
                        text.tick x=(coordinate(position + 3.0)) y=(coordinate(y.end() + 9.0)) { (name) }
                    }
                }
            }
        };
        let legend: Vec<_> = self.groups.iter().map(|g| (g.name.as_str(), g.color, String::new())).collect();
        figure(self.title, self.unit, if self.legend { &legend } else { &[] }, svg)
    }

    /// Returns an SVG path with one closed outline per run of nonempty bins.
    fn outline(&self, group: &HistogramGroup, x: &Axis, y: &Axis) -> String {
        let width = (self.high - self.low) / group.heights.len().max(1) as f64;
        let edge = |bin: usize| coordinate(x.position(self.low + bin as f64 * width));
        let (mut path, mut open) = (String::new(), false);
        for (bin, height) in group.heights.iter().enumerate() {
            if *height > 0.0 {
                if !open {
                    let _ = write!(path, "M{} {}", edge(bin), coordinate(y.start()));
                }
                let _ = write!(path, "V{}H{}", coordinate(y.position(*height)), edge(bin + 1));
            } else if open {
                let _ = write!(path, "V{}Z", coordinate(y.start()));
            }
            open = *height > 0.0;
        }
        if open {
            let _ = write!(path, "V{}Z", coordinate(y.start()));
        }
        path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_run_of_nonempty_bins_is_a_closed_outline() {
        let group = HistogramGroup { name: "a".into(), color: "c-pos", heights: vec![0.0, 1.0, 2.0, 0.0, 1.0] };
        let chart = HistogramChart {
            title: "",
            unit: "",
            size: Size::FULL,
            low: 0.0,
            high: 1.0,
            groups: vec![group],
            marks: vec![(0.5, "Δ".into())],
            legend: false,
            counts: false,
        };
        let svg = chart.render().into_string();
        let path = svg.split(" d=\"").nth(1).unwrap().split('"').next().unwrap();
        assert_eq!((path.matches('M').count(), path.matches('Z').count(), path.matches('H').count()), (2, 2, 3));
        assert!(svg.contains("Δ"));
    }
}
