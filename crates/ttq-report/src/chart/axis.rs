//! Axes: from numbers to places, and the round numbers written beside them.

use maud::{Markup, html};

use super::{Size, at};

/// Space around the plotting area: left, right, top.
const MARGIN: [f64; 3] = [44.0, 8.0, 8.0];
/// Space below it for numbers and, where there is one, for the axis' name.
const BOTTOM: [f64; 2] = [20.0, 34.0];

/// One axis.
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

    /// The vertical axis of a chart whose horizontal one has a name or not.
    pub(super) fn y(size: Size, low: f64, high: f64, log: bool, named: bool) -> Self {
        Self::new(low, high, size.height - BOTTOM[usize::from(named)], MARGIN[2], log)
    }

    fn new(low: f64, high: f64, start: f64, end: f64, log: bool) -> Self {
        let (low, high) = if log { (low.log10(), high.log10()) } else { (low, high) };
        // An axis needs a length.
        let (low, high) = if high > low { (low, high) } else { (low - 0.5, high + 0.5) };
        Self { low, high, start, end, log }
    }

    /// The place of a number.
    pub(super) fn place(&self, value: f64) -> f64 {
        let value = if self.log { value.log10() } else { value };
        self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)
    }

    pub(super) fn start(&self) -> f64 {
        self.start
    }

    pub(super) fn end(&self) -> f64 {
        self.end
    }

    /// Round numbers along the axis with their text.
    fn ticks(&self, count: usize, whole: bool) -> Vec<(f64, String)> {
        if self.log {
            let powers = self.low.ceil() as i32..=self.high.floor() as i32;
            let stride = (powers.clone().count() / (count + 1) + 1) as i32;
            let powers = powers.filter(|power| power % stride == 0);
            return powers.map(|power| (10f64.powi(power), power_text(power))).collect();
        }
        let multiples = |step: f64| ((self.low / step - 1e-9).ceil() as i64, (self.high / step + 1e-9).floor() as i64);
        let mut step = step(self.high - self.low, count);
        if multiples(step).0 == multiples(step).1 {
            // One number alone gives no measure.
            step /= 2.0;
        }
        if whole {
            step = step.ceil();
        }
        // Halves of 5 have a decimal more.
        let is_whole = |value: f64| (value - value.round()).abs() < 1e-6 * value.max(1.0);
        let decimals = (0..12).find(|d| is_whole(step * 10f64.powi(*d)) && step * 10f64.powi(*d) > 0.5).unwrap_or(12);
        let decimals = decimals as usize;
        let (first, last) = multiples(step);
        (first..=last).map(|i| i as f64 * step).map(|value| (value, format!("{value:.decimals$}"))).collect()
    }
}

fn power_text(power: i32) -> String {
    if (-3..=3).contains(&power) { format!("{}", 10f64.powi(power)) } else { format!("1e{power}") }
}

/// The smallest of 1, 2, 5 times a power of ten that divides `span` into `count` parts or fewer.
fn step(span: f64, count: usize) -> f64 {
    let rough = span / count as f64;
    let power = 10f64.powf(rough.log10().floor());
    let factor = [1.0, 2.0, 5.0, 10.0].into_iter().find(|factor| factor * power >= rough * 0.999);
    factor.unwrap_or(10.0) * power
}

/// Lines and numbers of both axes, with the name of the horizontal one. `whole`: which of the two, x and y, counts.
pub(super) fn frame(size: Size, x: &Axis, y: &Axis, x_name: &str, whole: [bool; 2]) -> Markup {
    let bottom = y.start();
    html! {
        @for (value, text) in y.ticks(size.ticks[1], whole[1]) {
            @let place = y.place(value);
            line.grid x1=(at(x.start())) x2=(at(x.end())) y1=(at(place)) y2=(at(place)) {}
            text.tick.end x=(at(x.start() - 5.0)) y=(at(place + 3.5)) { (text.replace('-', "−")) }
        }
        line.axis x1=(at(x.start())) x2=(at(x.end())) y1=(at(bottom)) y2=(at(bottom)) {}
        @for (value, text) in x.ticks(size.ticks[0], whole[0]) {
            @let place = x.place(value);
            line.axis x1=(at(place)) x2=(at(place)) y1=(at(bottom)) y2=(at(bottom + 3.0)) {}
            text.tick.middle x=(at(place)) y=(at(bottom + 14.0)) { (text.replace('-', "−")) }
        }
        @if !x_name.is_empty() {
            text.tick.middle x=(at((x.start() + x.end()) / 2.0)) y=(at(bottom + 29.0)) { (x_name) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_one_two_or_five_times_a_power_of_ten() {
        let steps = [(10.0, 5), (1.0, 4), (0.07, 5), (160.0, 6)].map(|(span, count)| step(span, count));
        for (step, expected) in steps.into_iter().zip([2.0, 0.5, 0.02, 50.0]) {
            assert!((step / expected - 1.0).abs() < 1e-9, "{step} {expected}");
        }
    }

    #[test]
    fn an_axis_places_its_ends_and_writes_round_numbers() {
        let axis = Axis::x(Size::FULL, 0.0, 10.0);
        assert_eq!((axis.place(0.0), axis.place(10.0)), (axis.start(), axis.end()));
        let texts: Vec<String> = axis.ticks(5, false).into_iter().map(|(_, text)| text).collect();
        assert_eq!(texts, ["0", "2", "4", "6", "8", "10"]);
        let axis = Axis::y(Size::FULL, 0.001, 0.1, true, false);
        let texts: Vec<String> = axis.ticks(5, false).into_iter().map(|(_, text)| text).collect();
        assert_eq!(texts, ["0.001", "0.01", "0.1"]);
    }

    #[test]
    fn a_short_axis_still_has_two_numbers() {
        let axis = Axis::y(Size::SMALL, 0.1005, 0.116, false, false);
        let texts: Vec<String> = axis.ticks(3, false).into_iter().map(|(_, text)| text).collect();
        assert_eq!(texts, ["0.105", "0.110", "0.115"]);
        let axis = Axis::x(Size::SMALL, 1.0, 2.0);
        assert_eq!(axis.ticks(3, true).len(), 2);
    }

    #[test]
    fn equal_ends_still_make_an_axis() {
        let axis = Axis::x(Size::FULL, 3.0, 3.0);
        assert!(axis.place(3.0).is_finite());
    }
}
