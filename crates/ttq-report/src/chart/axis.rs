//! Chart axes: mapping of values to SVG coordinates, and tick labels.

use maud::{Markup, html};

use super::{Size, coordinate};

/// Margins around the plotting area: left, right, top.
const MARGIN: [f64; 3] = [44.0, 8.0, 8.0];
/// Margin below the plotting area, without and with a name of the horizontal axis.
const BOTTOM: [f64; 2] = [20.0, 34.0];

/// Axis that maps the values from `low` to `high` (logarithms on a logarithmic axis) to coordinates from `start` to
/// `end`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Axis {
    low: f64,
    high: f64,
    start: f64,
    end: f64,
    log: bool,
}

impl Axis {
    pub(super) fn x(size: Size, low: f64, high: f64) -> Self {
        Self::new(low, high, MARGIN[0], size.width - MARGIN[1], false)
    }

    /// Creates a vertical axis. `named` says whether the horizontal axis of the chart has a name.
    pub(super) fn y(size: Size, low: f64, high: f64, log: bool, named: bool) -> Self {
        Self::new(low, high, size.height - BOTTOM[usize::from(named)], MARGIN[2], log)
    }

    fn new(low: f64, high: f64, start: f64, end: f64, log: bool) -> Self {
        let (low, high) = if log { (low.log10(), high.log10()) } else { (low, high) };
        // Avoids a division by zero in `position`.
        let (low, high) = if high > low { (low, high) } else { (low - 0.5, high + 0.5) };
        Self { low, high, start, end, log }
    }

    /// Returns the SVG coordinate of a value.
    pub(super) fn position(&self, value: f64) -> f64 {
        let value = if self.log { value.log10() } else { value };
        self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)
    }

    pub(super) fn start(&self) -> f64 {
        self.start
    }

    pub(super) fn end(&self) -> f64 {
        self.end
    }

    /// Returns about `count` round values with their labels; integers only if `integers` is set.
    fn ticks(&self, count: usize, integers: bool) -> Vec<(f64, String)> {
        if self.log {
            let powers = self.low.ceil() as i32..=self.high.floor() as i32;
            let stride = (powers.clone().count() / (count + 1) + 1) as i32;
            let powers = powers.filter(|power| power % stride == 0);
            return powers.map(|power| (10f64.powi(power), power_label(power))).collect();
        }
        let multiples = |step: f64| ((self.low / step - 1e-9).ceil() as i64, (self.high / step + 1e-9).floor() as i64);
        let mut step = tick_step(self.high - self.low, count);
        if multiples(step).0 == multiples(step).1 {
            // A single label does not show the axis' scale.
            step /= 2.0;
        }
        if integers {
            step = step.ceil();
        }
        // Half of a step of 5 needs one more decimal.
        let is_integer = |value: f64| (value - value.round()).abs() < 1e-6 * value.max(1.0);
        let decimals = (0..12).find(|d| is_integer(step * 10f64.powi(*d)) && step * 10f64.powi(*d) > 0.5).unwrap_or(12);
        let decimals = decimals as usize;
        let (first, last) = multiples(step);
        (first..=last).map(|i| i as f64 * step).map(|value| (value, format!("{value:.decimals$}"))).collect()
    }
}

fn power_label(power: i32) -> String {
    if (-3..=3).contains(&power) { format!("{}", 10f64.powi(power)) } else { format!("1e{power}") }
}

/// Returns the smallest step of 1, 2 or 5 times a power of ten that divides `span` into at most `count` parts.
fn tick_step(span: f64, count: usize) -> f64 {
    let rough = span / count as f64;
    let power = 10f64.powf(rough.log10().floor());
    let factor = [1.0, 2.0, 5.0, 10.0].into_iter().find(|factor| factor * power >= rough * 0.999);
    factor.unwrap_or(10.0) * power
}

/// Draws both axes with grid lines and tick labels, and the name of the horizontal axis. `integers` says whether the
/// labels of x and y are integers only.
pub(super) fn axes(size: Size, x: &Axis, y: &Axis, x_name: &str, integers: [bool; 2]) -> Markup {
    let bottom = y.start();
    html! {
        @for (value, text) in y.ticks(size.ticks[1], integers[1]) {
            @let position = y.position(value);
            line.grid x1=(coordinate(x.start())) x2=(coordinate(x.end())) y1=(coordinate(position)) y2=(coordinate(position)) {}
            text.tick.end x=(coordinate(x.start() - 5.0)) y=(coordinate(position + 3.5)) { (text.replace('-', "−")) }
        }
        line.axis x1=(coordinate(x.start())) x2=(coordinate(x.end())) y1=(coordinate(bottom)) y2=(coordinate(bottom)) {}
        @for (value, text) in x.ticks(size.ticks[0], integers[0]) {
            @let position = x.position(value);
            line.axis x1=(coordinate(position)) x2=(coordinate(position)) y1=(coordinate(bottom)) y2=(coordinate(bottom + 3.0)) {}
            text.tick.middle x=(coordinate(position)) y=(coordinate(bottom + 14.0)) { (text.replace('-', "−")) }
        }
        @if !x_name.is_empty() {
            text.tick.middle x=(coordinate((x.start() + x.end()) / 2.0)) y=(coordinate(bottom + 29.0)) { (x_name) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tick_steps_are_one_two_or_five_times_a_power_of_ten() {
        let steps = [(10.0, 5), (1.0, 4), (0.07, 5), (160.0, 6)].map(|(span, count)| tick_step(span, count));
        for (step, expected) in steps.into_iter().zip([2.0, 0.5, 0.02, 50.0]) {
            assert!((step / expected - 1.0).abs() < 1e-9, "{step} {expected}");
        }
    }

    #[test]
    fn an_axis_maps_its_ends_and_labels_round_numbers() {
        let axis = Axis::x(Size::FULL, 0.0, 10.0);
        assert_eq!((axis.position(0.0), axis.position(10.0)), (axis.start(), axis.end()));
        let texts: Vec<String> = axis.ticks(5, false).into_iter().map(|(_, text)| text).collect();
        assert_eq!(texts, ["0", "2", "4", "6", "8", "10"]);
        let axis = Axis::y(Size::FULL, 0.001, 0.1, true, false);
        let texts: Vec<String> = axis.ticks(5, false).into_iter().map(|(_, text)| text).collect();
        assert_eq!(texts, ["0.001", "0.01", "0.1"]);
    }

    #[test]
    fn an_axis_with_a_short_range_has_at_least_two_labels() {
        let axis = Axis::y(Size::SMALL, 0.1005, 0.116, false, false);
        let texts: Vec<String> = axis.ticks(3, false).into_iter().map(|(_, text)| text).collect();
        assert_eq!(texts, ["0.105", "0.110", "0.115"]);
        let axis = Axis::x(Size::SMALL, 1.0, 2.0);
        assert_eq!(axis.ticks(3, true).len(), 2);
    }

    #[test]
    fn an_axis_with_equal_ends_has_finite_positions() {
        let axis = Axis::x(Size::FULL, 3.0, 3.0);
        assert!(axis.position(3.0).is_finite());
    }
}
