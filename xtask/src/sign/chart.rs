//! Line charts in one SVG file, arranged from left to right.

use std::error::Error;
use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;

pub(super) const BLUE: RGBColor = RGBColor(0x1f, 0x6f, 0xb4);
pub(super) const ORANGE: RGBColor = RGBColor(0xd9, 0x5f, 0x02);
const GRID: RGBColor = RGBColor(0xe0, 0xe0, 0xe0);
const FONT: &str = "sans-serif";

/// Ratio of largest to smallest value above which an axis is logarithmic.
const LOGARITHMIC_FROM: f64 = 100.0;

/// Width and height of the drawing in pixels.
const SIZE: (u32, u32) = (900, 340);

/// A line of a panel.
pub(super) struct Line {
    pub(super) name: &'static str,
    pub(super) color: RGBColor,
    pub(super) dashed: bool,
    pub(super) points: Vec<(f64, f64)>,
}

/// One chart.
pub(super) struct Panel {
    pub(super) title: &'static str,
    pub(super) lines: Vec<Line>,
}

/// Draws the panels from left to right under a common title.
///
/// # Errors
/// Returns an error if the file cannot be written.
pub(super) fn draw(path: &Path, title: &str, panels: &[Panel]) -> Result<()> {
    try_draw(path, title, panels).map_err(|error| anyhow!("cannot draw {}: {error}", path.display()))
}

fn try_draw(path: &Path, title: &str, panels: &[Panel]) -> Result<(), Box<dyn Error>> {
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let root = root.titled(title, (FONT, 16))?;
    for (area, panel) in root.split_evenly((1, panels.len())).iter().zip(panels) {
        let axis = Vertical::of(panel);
        let right = panel.lines.iter().flat_map(|line| &line.points).map(|point| point.0).fold(1.0, f64::max);
        let mut chart = ChartBuilder::on(area)
            .caption(panel.title, (FONT, 14))
            .margin(8)
            .x_label_area_size(32)
            .y_label_area_size(52)
            .build_cartesian_2d(0.0..right, axis.low..axis.high)?;
        let mut mesh = chart.configure_mesh();
        mesh.bold_line_style(GRID).light_line_style(TRANSPARENT).x_desc("step").x_labels(6).y_labels(6);
        mesh.x_label_formatter(&|step| format!("{step:.0}"))
            .y_label_formatter(&|position| axis.label(*position))
            .draw()?;
        for line in &panel.lines {
            let style = line.color.stroke_width(2);
            let points = line.points.iter().map(|(step, value)| (*step, axis.position(*value)));
            let drawn = if line.dashed {
                chart.draw_series(DashedLineSeries::new(points, 5, 4, style))?
            } else {
                chart.draw_series(LineSeries::new(points, style))?
            };
            let dashed = line.dashed;
            drawn.label(line.name).legend(move |(x, y)| {
                let end = if dashed { x + 9 } else { x + 18 };
                PathElement::new(vec![(x, y), (end, y)], style)
            });
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE.mix(0.8))
            .border_style(GRID)
            .label_font((FONT, 12))
            .draw()?;
    }
    root.present()?;
    Ok(())
}

/// The vertical axis of a panel.
struct Vertical {
    low: f64,
    high: f64,
    /// Whether positions are decimal logarithms of values.
    logarithmic: bool,
}

impl Vertical {
    /// Creates an axis that contains all points and leaves space for the legend above them.
    fn of(panel: &Panel) -> Self {
        let values = || panel.lines.iter().flat_map(|line| &line.points).map(|point| point.1);
        let (low, high) = values().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), y| (low.min(y), high.max(y)));
        let logarithmic = low > 0.0 && high / low > LOGARITHMIC_FROM;
        let axis = Self { low, high, logarithmic };
        let (low, high) = (axis.position(low), axis.position(high));
        let height = (high - low).max(0.01 * high.abs()).max(1e-9);
        Self { low: low - 0.05 * height, high: high + 0.6 * height, logarithmic }
    }

    /// Position of a value on the axis.
    fn position(&self, value: f64) -> f64 {
        if self.logarithmic { value.log10() } else { value }
    }

    /// Label of the value at a position.
    fn label(&self, position: f64) -> String {
        if self.logarithmic { format!("{:.0e}", 10f64.powf(position)) } else { format!("{position:.3}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn panel(values: &[f64]) -> Panel {
        let points = values.iter().enumerate().map(|(step, value)| (step as f64, *value)).collect();
        Panel { title: "a & b", lines: vec![Line { name: "W_p", color: BLUE, dashed: false, points }] }
    }

    #[test]
    fn an_axis_is_logarithmic_for_a_large_range_of_values() {
        assert!(!Vertical::of(&panel(&[1.0, 2.0])).logarithmic);
        assert!(!Vertical::of(&panel(&[-1.0, 1e6])).logarithmic);
        let axis = Vertical::of(&panel(&[1e-6, 400.0]));
        assert!(axis.logarithmic && axis.low < -6.0 && axis.high > 400f64.log10());
        assert_eq!(axis.label(2.0), "1e2");
    }

    #[test]
    fn a_chart_contains_its_titles_and_lines() {
        let path = std::env::temp_dir().join(format!("xtask-chart-{}.svg", std::process::id()));
        draw(&path, "scales", &[panel(&[1.0, 2.0, 1.5]), panel(&[1.0, 1.0])]).unwrap();
        let svg = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(svg.contains("scales") && svg.contains("a &amp; b") && svg.matches("<polyline").count() >= 2);
        assert!(!svg.contains("NaN"));
    }
}
