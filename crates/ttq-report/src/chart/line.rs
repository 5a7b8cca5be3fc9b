//! Line charts.

use std::fmt::Write;

use maud::{Markup, html};

use super::axis::{Axis, axes};
use super::{Size, coordinate, figure};

/// Lines with at most this many points have a marker with a tooltip at each point.
const MAX_MARKERS: usize = 40;

/// One line of a chart.
pub(crate) struct Series {
    pub(crate) name: String,
    /// CSS class of the colour.
    pub(crate) color: &'static str,
    pub(crate) dashed: bool,
    /// Points `[x, y]`. A value that is not finite interrupts the line.
    pub(crate) points: Vec<[f64; 2]>,
    /// Text after the name in the legend.
    pub(crate) value: String,
}

impl Series {
    pub(crate) fn new(name: impl Into<String>, color: &'static str, points: Vec<[f64; 2]>) -> Self {
        Self { name: name.into(), color, dashed: false, points, value: String::new() }
    }

    pub(crate) fn dashed(self) -> Self {
        Self { dashed: true, ..self }
    }

    /// Sets the text after the name in the legend.
    pub(crate) fn with_value(self, value: String) -> Self {
        Self { value, ..self }
    }

    /// Returns the last finite y value.
    pub(crate) fn last(&self) -> Option<f64> {
        self.points.iter().rev().map(|point| point[1]).find(|y| y.is_finite())
    }
}

/// Line chart.
pub(crate) struct LineChart<'a> {
    pub(crate) title: &'a str,
    pub(crate) unit: &'a str,
    pub(crate) x_name: &'a str,
    pub(crate) size: Size,
    pub(crate) series: Vec<Series>,
    /// Epoch at which the ternary phase starts.
    pub(crate) ternary_start: Option<f64>,
    /// Fixed range of the x axis instead of the range of the points.
    pub(crate) x_range: Option<[f64; 2]>,
    /// Fixed range of the y axis instead of the range of the points.
    pub(crate) y_range: Option<[f64; 2]>,
    /// Whether the y axis is logarithmic. It is linear if a value is not positive.
    pub(crate) log: bool,
    /// Whether the labels of the x axis are integers only.
    pub(crate) integer_x: bool,
    pub(crate) legend: bool,
}

impl Default for LineChart<'_> {
    fn default() -> Self {
        Self {
            title: "",
            unit: "",
            x_name: "",
            size: Size::FULL,
            series: Vec::new(),
            ternary_start: None,
            x_range: None,
            y_range: None,
            log: false,
            integer_x: true,
            legend: true,
        }
    }
}

impl LineChart<'_> {
    /// Renders the chart. Returns `None` if no line has a finite point.
    pub(crate) fn render(&self) -> Option<Markup> {
        let finite = || self.series.iter().flat_map(|s| &s.points).filter(|p| p.iter().all(|value| value.is_finite()));
        let log = self.log && finite().all(|point| point[1] > 0.0);
        let x_range = self.x_range.or_else(|| range(finite().map(|point| point[0])))?;
        let y_range = match self.y_range {
            Some(range) => range,
            None => padded(range(finite().map(|point| point[1]))?, log),
        };
        let x = Axis::x(self.size, x_range[0], x_range[1]);
        let y = Axis::y(self.size, y_range[0], y_range[1], log, !self.x_name.is_empty());
        let svg = html! {
            svg viewBox={ "0 0 " (self.size.width) " " (self.size.height) } role="img" aria-label=(self.title) {
                (self.ternary_phase(&x, &y))
                (axes(self.size, &x, &y, self.x_name, [self.integer_x, false]))
                @for series in &self.series { (line(series, &x, &y)) }
            }
        };
        let legend: Vec<_> = self.series.iter().map(|s| (s.name.as_str(), s.color, s.value.clone())).collect();
        Some(figure(self.title, self.unit, if self.legend { &legend } else { &[] }, svg))
    }

    /// Draws the ternary phase as a tinted band.
    fn ternary_phase(&self, x: &Axis, y: &Axis) -> Markup {
        let Some(start) = self.ternary_start else { return Markup::default() };
        let (left, top, bottom) = (x.position(start).max(x.start()), y.end(), y.start());
        html! {
            rect.band x=(coordinate(left)) y=(coordinate(top)) width=(coordinate((x.end() - left).max(0.0))) height=(coordinate(bottom - top)) {}
            line.switch x1=(coordinate(left)) x2=(coordinate(left)) y1=(coordinate(top)) y2=(coordinate(bottom)) {}
            @if self.size == Size::FULL { text.tick x=(coordinate(left + 4.0)) y=(coordinate(top + 10.0)) { "ternary" } }
        }
    }
}

fn range(values: impl Iterator<Item = f64>) -> Option<[f64; 2]> {
    values.fold(None, |range: Option<[f64; 2]>, value| {
        Some(range.map_or([value, value], |[low, high]| [low.min(value), high.max(value)]))
    })
}

/// Extends a range so that the points do not touch the edges of the chart.
fn padded([low, high]: [f64; 2], log: bool) -> [f64; 2] {
    if log {
        return [low / 1.3, high * 1.3];
    }
    let pad = 0.05 * (high - low).max(1e-3 * high.abs());
    // The axis does not extend below zero if no value is negative.
    [if low >= 0.0 { (low - pad).max(0.0) } else { low - pad }, high + pad]
}

fn line(series: &Series, x: &Axis, y: &Axis) -> Markup {
    let mut path = String::new();
    let mut pen = 'M';
    for [px, py] in &series.points {
        if !(px.is_finite() && py.is_finite()) {
            pen = 'M';
            continue;
        }
        let _ = write!(path, "{pen}{} {}", coordinate(x.position(*px)), coordinate(y.position(*py)));
        pen = 'L';
    }
    let markers = series.points.len() <= MAX_MARKERS;
    html! {
        path.line.dashed[series.dashed].(series.color) d=(path) {}
        @if markers {
            @for [px, py] in series.points.iter().filter(|point| point.iter().all(|value| value.is_finite())) {
                circle.dot.(series.color) cx=(coordinate(x.position(*px))) cy=(coordinate(y.position(*py))) r="2" {
                    title { (series.name) ", " (coordinate(*px)) ": " (crate::page::number::significant(*py)) }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_is_not_finite_interrupts_the_line() {
        let points = vec![[1.0, 1.0], [2.0, f64::NAN], [3.0, 2.0], [4.0, 3.0]];
        let chart =
            LineChart { title: "loss", series: vec![Series::new("a", "c-train", points)], ..Default::default() };
        let svg = chart.render().unwrap().into_string();
        let path = svg.split(" d=\"").nth(1).unwrap().split('"').next().unwrap();
        assert_eq!((path.matches('M').count(), path.matches('L').count()), (2, 1));
        assert!(!svg.contains("NaN"));
    }

    #[test]
    fn a_chart_without_finite_points_is_not_rendered() {
        let series = vec![Series::new("a", "c-train", vec![[1.0, f64::NAN]])];
        assert!(LineChart { series, ..Default::default() }.render().is_none());
    }

    #[test]
    fn text_is_escaped() {
        let series = vec![Series::new("<script>", "c-train", vec![[1.0, 1.0], [2.0, 2.0]])];
        let svg = LineChart { title: "a & b", series, ..Default::default() }.render().unwrap().into_string();
        assert!(svg.contains("a &amp; b") && svg.contains("&lt;script&gt;") && !svg.contains("<script>"));
    }
}
