//! Picture of a graph: boxes from top to bottom in the order of computation.
//!
//! A line to the next box is straight, and one past other boxes runs in a lane beside them.

use std::ops::Range;

use maud::{Markup, html};

/// Sizes in SVG units: a box, the gap between boxes, the distance of lanes, and a line of text.
const WIDTH: usize = 460;
const GAP: usize = 20;
const LANE: usize = 14;
const LINE: usize = 16;
/// Distance of the picture from its edges, for lines of some width.
const MARGIN: usize = 4;
/// Maximum number of lines past other boxes.
const MOST_LINES: usize = 2000;

/// A box of the picture.
#[derive(Debug, Default)]
pub(crate) struct GraphBox {
    /// First line of text, at the left and at the right.
    pub(crate) title: [String; 2],
    /// Second line of text, at the left and at the right.
    pub(crate) subtitle: [String; 2],
    /// Third line of text, which can be empty.
    pub(crate) remark: String,
    /// Text that appears under the pointer.
    pub(crate) tooltip: String,
    /// Colour class of the stripe at the left.
    pub(crate) color: &'static str,
    /// Length of the bar at the bottom, from 0 to 1.
    pub(crate) share: f64,
    /// Indices of the boxes before, from which lines lead to this one, in ascending order and without repetition.
    pub(crate) from: Vec<usize>,
}

impl GraphBox {
    fn height(&self) -> usize {
        (if self.remark.is_empty() { 2 } else { 3 }) * LINE + 12
    }
}

/// Draws the picture, and returns how many lines are left out because there are too many.
pub(crate) fn graph_picture(boxes: &[GraphBox]) -> (Markup, usize) {
    let mut top = MARGIN;
    let mut tops = Vec::with_capacity(boxes.len());
    for item in boxes {
        tops.push(top);
        top += item.height() + GAP;
    }
    let lines = boxes.iter().enumerate().flat_map(|(to, item)| item.from.iter().map(move |from| *from..to));
    let (straight, mut past): (Vec<_>, Vec<_>) = lines.partition(|line| line.len() == 1);
    let left_out = past.len().saturating_sub(MOST_LINES);
    // Short lines get the lanes near the boxes.
    past.sort_by_key(|line| (line.len(), line.start));
    past.truncate(MOST_LINES);
    let lanes = lanes(&past);
    let width = MARGIN + WIDTH + (lanes.iter().map(|lane| lane + 2).max().unwrap_or(0)) * LANE + MARGIN;
    let height = (top - GAP + MARGIN).max(1);
    let middle = |i: usize| tops[i] + boxes[i].height() / 2;
    let svg = html! {
        svg viewBox={ "0 0 " (width) " " (height) } style={ "width:" (width) "px;max-width:none" } role="img" {
            @for line in &straight {
                @let (x, y) = (MARGIN + WIDTH / 2, tops[line.end]);
                path.edge d={ "M" (x) " " (y - GAP) "V" (y - 5) } {}
                path.tip d={ "M" (x - 4) " " (y - 6) "h8l-4 6z" } {}
            }
            @for (line, lane) in past.iter().zip(&lanes) {
                @let (x, lane) = (MARGIN + WIDTH, MARGIN + WIDTH + (lane + 1) * LANE);
                @let (start, end) = (middle(line.start) + 6, middle(line.end) - 6);
                path.edge.skip d={
                    "M" (x) " " (start) "H" (lane - 5) "q5 0 5 5V" (end - 5) "q0 5 -5 5H" (x + 5)
                } {}
                path.tip.skip d={ "M" (x + 6) " " (end - 4) "v8l-6 -4z" } {}
            }
            @for (item, y) in boxes.iter().zip(&tops) { (draw(item, *y)) }
        }
    };
    (svg, left_out)
}

fn draw(item: &GraphBox, y: usize) -> Markup {
    let (left, right, height) = (MARGIN + 14, MARGIN + WIDTH - 10, item.height());
    let bar = (item.share.clamp(0.0, 1.0) * (WIDTH - 4) as f64).round();
    html! {
        g {
            title { (item.tooltip) }
            rect.box x=(MARGIN) y=(y) width=(WIDTH) height=(height) rx="5" {}
            rect.dot.(item.color) x=(MARGIN) y=(y) width="4" height=(height) rx="2" {}
            @if bar > 0.0 {
                rect.bar-of-box x=(MARGIN + 4) y=(y + height - 3) width=(bar) height="3" {}
            }
            text.label x=(left) y=(y + LINE + 2) { (item.title[0]) }
            text.tick.end x=(right) y=(y + LINE + 2) { (item.title[1]) }
            text.tick x=(left) y=(y + 2 * LINE + 1) { (item.subtitle[0]) }
            text.tick.end x=(right) y=(y + 2 * LINE + 1) { (item.subtitle[1]) }
            @if !item.remark.is_empty() {
                text.tick x=(left) y=(y + 3 * LINE) { (item.remark) }
            }
        }
    }
}

/// Returns a lane for each line, the first one in which no line before overlaps it.
fn lanes<'a>(lines: &'a [Range<usize>]) -> Vec<usize> {
    let mut lanes: Vec<Vec<&'a Range<usize>>> = Vec::new();
    let place = |line: &'a Range<usize>| {
        let overlaps = |other: &&Range<usize>| other.start < line.end && line.start < other.end;
        let free = lanes.iter().position(|lane| !lane.iter().any(overlaps));
        let lane = free.unwrap_or_else(|| {
            lanes.push(Vec::new());
            lanes.len() - 1
        });
        lanes[lane].push(line);
        lane
    };
    lines.iter().map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_in_a_lane_do_not_overlap() {
        assert_eq!(lanes(&[0..2, 2..4, 0..4, 1..3, 4..6]), [0, 0, 1, 2, 0]);
    }

    #[test]
    fn a_line_past_a_box_runs_beside_it() {
        let item = |from: &[usize]| GraphBox { from: from.into(), ..GraphBox::default() };
        let (svg, left_out) = graph_picture(&[item(&[]), item(&[0]), item(&[0, 1])]);
        let svg = svg.into_string();
        assert_eq!((svg.matches("\"edge\"").count(), svg.matches("\"edge skip\"").count(), left_out), (2, 1, 0));
    }

    #[test]
    fn the_number_of_lines_is_limited() {
        let boxes: Vec<_> = (0..70).map(|to| GraphBox { from: (0..to).collect(), ..GraphBox::default() }).collect();
        assert_eq!(graph_picture(&boxes).1, 70 * 69 / 2 - 69 - MOST_LINES);
    }
}
