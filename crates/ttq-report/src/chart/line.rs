//! Lines over a common axis.

use std::fmt::Write;

use maud::{Markup, html};

use super::axis::{Axis, frame};
use super::{Size, at, figure};

/// Points are drawn, with their values to read, where a line has no more than this.
const READABLE: usize = 40;

/// One line.
pub(crate) struct Series {
    pub(crate) name: String,
    /// CSS class of its colour.
    pub(crate) color: &'static str,
    pub(crate) dashed: bool,
    /// `[x, y]`; a number that is not finite breaks the line.
    pub(crate) points: Vec<[f64; 2]>,
    /// What the legend says beside the name.
    pub(crate) value: String,
}

impl Series {
    pub(crate) fn new(name: impl Into<String>, color: &'static str, points: Vec<[f64; 2]>) -> Self {
        Self { name: name.into(), color, dashed: false, points, value: String::new() }
    }

    pub(crate) fn dashed(self) -> Self {
        Self { dashed: true, ..self }
    }

    /// Says something beside the name in the legend.
    pub(crate) fn saying(self, value: String) -> Self {
        Self { value, ..self }
    }

    /// The last number of the line.
    pub(crate) fn last(&self) -> Option<f64> {
        self.points.iter().rev().map(|point| point[1]).find(|y| y.is_finite())
    }
}

/// A line chart.
pub(crate) struct LineChart<'a> {
    pub(crate) title: &'a str,
    pub(crate) unit: &'a str,
    pub(crate) x_name: &'a str,
    pub(crate) size: Size,
    pub(crate) series: Vec<Series>,
    /// Where the ternary phase begins.
    pub(crate) switch: Option<f64>,
    /// Fixed ends of the axes instead of those of the points.
    pub(crate) x_range: Option<[f64; 2]>,
    pub(crate) y_range: Option<[f64; 2]>,
    pub(crate) log: bool,
    /// Whether the horizontal axis counts.
    pub(crate) whole: bool,
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
            switch: None,
            x_range: None,
            y_range: None,
            log: false,
            whole: true,
            legend: true,
        }
    }
}

impl LineChart<'_> {
    /// The chart; nothing where no line has a finite point.
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
                (self.band(&x, &y))
                (frame(self.size, &x, &y, self.x_name, [self.whole, false]))
                @for series in &self.series { (line(series, &x, &y)) }
            }
        };
        let legend: Vec<_> = self.series.iter().map(|s| (s.name.as_str(), s.color, s.value.clone())).collect();
        Some(figure(self.title, self.unit, if self.legend { &legend } else { &[] }, svg))
    }

    /// The ternary phase as a tinted band.
    fn band(&self, x: &Axis, y: &Axis) -> Markup {
        let Some(switch) = self.switch else { return Markup::default() };
        let (left, top, bottom) = (x.place(switch).max(x.start()), y.end(), y.start());
        html! {
            rect.band x=(at(left)) y=(at(top)) width=(at((x.end() - left).max(0.0))) height=(at(bottom - top)) {}
            line.switch x1=(at(left)) x2=(at(left)) y1=(at(top)) y2=(at(bottom)) {}
            @if self.size == Size::FULL { text.tick x=(at(left + 4.0)) y=(at(top + 10.0)) { "ternary" } }
        }
    }
}

fn range(values: impl Iterator<Item = f64>) -> Option<[f64; 2]> {
    values.fold(None, |range: Option<[f64; 2]>, value| {
        Some(range.map_or([value, value], |[low, high]| [low.min(value), high.max(value)]))
    })
}

/// A little more than the points take.
fn padded([low, high]: [f64; 2], log: bool) -> [f64; 2] {
    if log {
        return [low / 1.3, high * 1.3];
    }
    let pad = 0.05 * (high - low).max(1e-3 * high.abs());
    // Nothing below zero where nothing is negative.
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
        let _ = write!(path, "{pen}{} {}", at(x.place(*px)), at(y.place(*py)));
        pen = 'L';
    }
    let readable = series.points.len() <= READABLE;
    html! {
        path.line.dashed[series.dashed].(series.color) d=(path) {}
        @if readable {
            @for [px, py] in series.points.iter().filter(|point| point.iter().all(|value| value.is_finite())) {
                circle.dot.(series.color) cx=(at(x.place(*px))) cy=(at(y.place(*py))) r="2" {
                    title { (series.name) ", " (at(*px)) ": " (crate::page::number::significant(*py)) }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_breaks_where_a_number_is_missing() {
        let points = vec![[1.0, 1.0], [2.0, f64::NAN], [3.0, 2.0], [4.0, 3.0]];
        let chart =
            LineChart { title: "loss", series: vec![Series::new("a", "c-train", points)], ..Default::default() };
        let svg = chart.render().unwrap().into_string();
        let path = svg.split(" d=\"").nth(1).unwrap().split('"').next().unwrap();
        assert_eq!((path.matches('M').count(), path.matches('L').count()), (2, 1));
        assert!(!svg.contains("NaN"));
    }

    #[test]
    fn no_points_make_no_chart() {
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
