//! What can be wrong with a configuration or a selection.

use std::fmt::Write;

/// A quantizer's configuration that makes no sense.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ConfigError {
    /// The threshold's number lies outside of what its rule allows.
    #[error("threshold `{rule}:{value}` is out of range: `{rule}` takes {allowed}")]
    Threshold {
        /// Name of the rule, as written on a command line.
        rule: &'static str,
        /// The offending number.
        value: f64,
        /// The allowed range in words.
        allowed: &'static str,
    },
    /// A threshold's text could not be read.
    #[error("`{text}` is no threshold: write `max:0.05`, `mean:0.7` or `zeros:0.5`")]
    ThresholdText {
        /// The text as given.
        text: String,
    },
}

/// A selection of layers that cannot be made for a given model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectionError {
    /// A pattern is no regular expression.
    #[error("the layer pattern `{pattern}` is no valid regular expression: {reason}")]
    Pattern {
        /// The pattern as given.
        pattern: String,
        /// What the parser said.
        reason: String,
    },
    /// A pattern matches none of the weights that could become ternary.
    #[error("the layer pattern `{pattern}` matches no weight of the model; the candidates are:{}", list(candidates))]
    NoMatch {
        /// The pattern as given.
        pattern: String,
        /// Paths of the weights it could have matched.
        candidates: Vec<String>,
    },
    /// Nothing is left to become ternary.
    #[error(
        "no weight of the model was selected to become ternary; change the selection. What was looked at:{}",
        list(candidates)
    )]
    Empty {
        /// Paths of the weights that were looked at, each with the reason why it stays in full precision.
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
