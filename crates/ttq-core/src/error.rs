//! Errors of configurations and selections.

use std::fmt::Write;

/// An invalid configuration of a quantizer.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The number of a threshold rule is out of range.
    #[error("threshold `{rule}:{value}` is out of range: `{rule}` takes {allowed}")]
    Threshold {
        /// Name of the rule in its text form: `max`, `mean` or `zeros`.
        rule: &'static str,
        /// The number.
        value: f64,
        /// The allowed range in words.
        allowed: &'static str,
    },
    /// The text form of a threshold cannot be parsed.
    #[error("`{text}` is not a threshold: write `max:0.05`, `mean:0.7` or `zeros:0.5`")]
    ThresholdText {
        /// The text.
        text: String,
    },
    /// The field `granularity` of earlier versions, which sets both granularities, contradicts one of them.
    #[error("`granularity` and `{field}` have different values: remove `granularity`")]
    Granularity {
        /// Name of the contradicting field.
        field: &'static str,
    },
}

/// A selection of weights that is not possible for a model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SelectionError {
    /// A pattern is not a regular expression.
    #[error("the layer pattern `{pattern}` is not a valid regular expression: {reason}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// The message of the regular expression parser.
        reason: String,
    },
    /// A pattern matches none of the weights that can become ternary.
    #[error("the layer pattern `{pattern}` matches no weight of the model; the candidates are:{}", list(candidates))]
    NoMatch {
        /// The pattern.
        pattern: String,
        /// Paths of the weights that can become ternary.
        candidates: Vec<String>,
    },
    /// No weight is selected.
    #[error(
        "no weight of the model is selected to become ternary: change the selection; the candidates are:{}",
        list(candidates)
    )]
    Empty {
        /// Paths of the weights that can become ternary, each with the reason why it stays in full precision.
        candidates: Vec<String>,
    },
}

fn list(lines: &[String]) -> String {
    if lines.is_empty() {
        return " none (the model has no convolution and no linear layer)".into();
    }
    lines.iter().fold(String::new(), |mut text, line| {
        let _ = write!(text, "\n  {line}");
        text
    })
}
