//! Line charts side by side in one SVG file.

use std::error::Error;
use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;

pub(super) const BLUE: RGBColor = RGBColor(0x1f, 0x6f, 0xb4);
pub(super) const ORANGE: RGBColor = RGBColor(0xd9, 0x5f, 0x02);
const GRID: RGBColor = RGBColor(0xe0, 0xe0, 0xe0);
const FONT: &str = "sans-serif";

/// Width and height of the file, in pixels.
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
/// A file that cannot be written.
pub(super) fn draw(path: &Path, title: &str, panels: &[Panel]) -> Result<()> {
    try_draw(path, title, panels).map_err(|error| anyhow!("cannot draw {}: {error}", path.display()))
}

fn try_draw(path: &Path, title: &str, panels: &[Panel]) -> Result<(), Box<dyn Error>> {
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let root = root.titled(title, (FONT, 16))?;
    for (area, panel) in root.split_evenly((1, panels.len())).iter().zip(panels) {
        let points = || panel.lines.iter().flat_map(|line| &line.points);
        let right = points().map(|point| point.0).fold(1.0, f64::max);
        let (low, high) =
            points().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), (_, y)| (low.min(*y), high.max(*y)));
        let margin = 0.08 * (high - low).max(0.01 * high.abs());
        let mut chart = ChartBuilder::on(area)
            .caption(panel.title, (FONT, 14))
            .margin(8)
            .x_label_area_size(32)
            .y_label_area_size(52)
            .build_cartesian_2d(0.0..right, (low - margin)..(high + margin))?;
        let mut mesh = chart.configure_mesh();
        mesh.bold_line_style(GRID).light_line_style(TRANSPARENT).x_desc("step").x_labels(6).y_labels(6);
        mesh.x_label_formatter(&|step| format!("{step:.0}"))
            .y_label_formatter(&|value| format!("{value:.3}"))
            .draw()?;
        for line in &panel.lines {
            let style = line.color.stroke_width(2);
            let points = line.points.iter().copied();
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
