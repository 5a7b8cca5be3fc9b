//! Formatting of numbers, shapes and layer names.

/// Formats a share between 0 and 1 in percent: 97.01 %; `–` if it is not finite.
pub(crate) fn percent(share: f64) -> String {
    fixed(100.0 * share, 2, " %")
}

/// Formats a value with a number of decimals and a unit; `–` if it is not finite.
pub(crate) fn fixed(value: f64, decimals: usize, unit: &str) -> String {
    if value.is_finite() { format!("{value:.decimals$}{unit}") } else { "–".into() }
}

/// Formats a value with four significant digits; `–` if it is not finite.
pub(crate) fn significant(value: f64) -> String {
    if !value.is_finite() {
        return "–".into();
    }
    let magnitude = value.abs();
    if magnitude != 0.0 && !(1e-3..1e6).contains(&magnitude) {
        return format!("{value:.2e}").replace('-', "−");
    }
    let power = if magnitude > 0.0 { magnitude.log10().floor() as i32 } else { 0 };
    let decimals = usize::try_from(3 - power).unwrap_or(0);
    format!("{value:.decimals$}").replace('-', "−")
}

/// Formats a count with thin spaces between groups of three digits.
pub(crate) fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// Formats a count with a decimal prefix: 40.6 M.
pub(crate) fn short_count(value: f64) -> String {
    with_prefix(value, &["", " k", " M", " G", " T"])
}

/// Formats a number of bytes with a decimal prefix: 1.07 MB.
pub(crate) fn bytes(value: f64) -> String {
    with_prefix(value, &[" B", " kB", " MB", " GB", " TB"])
}

fn with_prefix(mut value: f64, units: &[&str]) -> String {
    if !value.is_finite() {
        return "–".into();
    }
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    let decimals = match value {
        _ if unit == 0 => 0,
        v if v < 9.995 => 2,
        v if v < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.decimals$}{}", units[unit])
}

/// Formats a duration in seconds: 12 s, 3 min 5 s, 2 h 40 min.
pub(crate) fn duration(seconds: f64) -> String {
    let seconds = seconds.max(0.0).round() as u64;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s} s"),
        (0, m, s) => format!("{m} min {s} s"),
        (h, m, _) => format!("{h} h {m} min"),
    }
}

/// Formats a ratio: 11.3×.
pub(crate) fn ratio(value: f64) -> String {
    format!("{value:.1}×")
}

/// Formats a shape: 64×32×3×3.
pub(crate) fn shape(dimensions: &[usize]) -> String {
    dimensions.iter().map(usize::to_string).collect::<Vec<_>>().join("×")
}

/// Returns the path of a weight without the prefix `network.` and the suffix `.weight`.
pub(crate) fn layer_name(path: &str) -> &str {
    let path = path.strip_prefix("network.").unwrap_or(path);
    path.strip_suffix(".weight").unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_formatted_with_units_and_a_fixed_precision() {
        assert_eq!([0.0, 999.0, 1_072_744.0, 40_551_168.0].map(bytes), ["0 B", "999 B", "1.07 MB", "40.6 MB"]);
        assert_eq!([40.0, 999_600.0].map(short_count), ["40", "1.00 M"]);
        assert_eq!([7, 1234, 1_234_567].map(count), ["7", "1\u{202f}234", "1\u{202f}234\u{202f}567"]);
        assert_eq!([0.0, 0.0634, 1.5, 97.01, -0.5].map(significant), ["0.000", "0.06340", "1.500", "97.01", "−0.5000"]);
        assert_eq!([1e-7, f64::NAN].map(significant), ["1.00e−7", "–"]);
        assert_eq!([59.6, 3725.0].map(duration), ["1 min 0 s", "1 h 2 min"]);
        assert_eq!((percent(0.9701), ratio(11.27)), ("97.01 %".into(), "11.3×".into()));
        assert_eq!((layer_name("network.blocks.0.conv1.weight"), layer_name("bias")), ("blocks.0.conv1", "bias"));
    }
}
