//! Errors of configurations and selections.

use std::fmt::Write;

use crate::Threshold;

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
    /// The start and the end of a schedule of the threshold have different rules.
    #[error("a threshold cannot move from `{start}` to `{end}`: give both the same rule")]
    ThresholdRules {
        /// The start.
        start: Threshold,
        /// The end.
        end: Threshold,
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
    /// A pattern of [`SelectionConfig::include`](crate::SelectionConfig::include) matches only weights that cannot become
    /// ternary.
    #[error(
        "the pattern `{pattern}` of `include` matches no weight that can become ternary: add the kind by `with_kinds`, or \
         name the channel axis by `with_axis`:{}",
        list(weights)
    )]
    IncludedInVain {
        /// The pattern.
        pattern: String,
        /// Paths of the weights that it matches, each with its kind and the reason.
        weights: Vec<String>,
    },
    /// A pattern of [`SelectionConfig::axes`](crate::SelectionConfig::axes) names a dimension that a weight does not
    /// have.
    #[error("`with_axis(\"{pattern}\", {channel_axis})`: `{path}` of shape {shape:?} has no dimension {channel_axis}")]
    ChannelAxis {
        /// The pattern.
        pattern: String,
        /// The dimension.
        channel_axis: usize,
        /// Path of the weight.
        path: String,
        /// Shape of the weight.
        shape: Vec<usize>,
    },
    /// A selected weight has the identifier of another parameter.
    #[error(
        "`{path}` and `{other}` have the same parameter identifier, as clones have: Burn's optimizers update only one of \
         them, so that both cannot be one ternary weight. To share a weight, hold its layer once and use it twice in the \
         forward pass; otherwise initialize each layer on its own"
    )]
    Shared {
        /// Path of the selected weight.
        path: String,
        /// Path of the other parameter.
        other: String,
    },
    /// A module on an autodiff backend cannot be traced.
    #[error(
        "a module on an autodiff backend cannot be traced, because a forward pass changes its running statistics: trace \
         `model.valid()`"
    )]
    Autodiff,
    /// A module does not have the weights of a selection.
    #[error(
        "the selection was made for another module: `{path}` is {expected} in the selection and {found} in the module"
    )]
    Mismatch {
        /// Path of the weight.
        path: String,
        /// Kind and shape in the selection.
        expected: String,
        /// Kind and shape in the module.
        found: String,
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

/// A record that does not fit a wrapper.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The record is of another configuration of the quantizer.
    #[error(
        "the record was saved with {record}, and the wrapper has {wrapper}: wrap the model with the configuration of the \
         record"
    )]
    Quantizer {
        /// The differing fields of the record in JSON.
        record: String,
        /// The differing fields of the wrapper in JSON.
        wrapper: String,
    },
    /// The record is of another selection.
    #[error(
        "the record was saved with another selection (ternary only in the record: {}; only in the wrapper: {}): wrap the \
         model with the selection of the record",
        names(record),
        names(wrapper)
    )]
    Selection {
        /// Paths of weights that are ternary in the record alone.
        record: Vec<String>,
        /// Paths of weights that are ternary in the wrapper alone.
        wrapper: Vec<String>,
    },
    /// The scales of a weight have another shape in the record.
    #[error("the scales of `{path}` have shape {record:?} in the record and {wrapper:?} in the wrapper")]
    Shape {
        /// Path of the weight.
        path: String,
        /// Shape in the record.
        record: [usize; 2],
        /// Shape in the wrapper.
        wrapper: [usize; 2],
    },
}

fn names(paths: &[String]) -> String {
    match paths {
        [] => "no weight".into(),
        paths => paths.iter().map(|path| format!("`{path}`")).collect::<Vec<_>>().join(", "),
    }
}

fn list(lines: &[String]) -> String {
    if lines.is_empty() {
        return " none (the model has no parameter of two or more dimensions)".into();
    }
    lines.iter().fold(String::new(), |mut text, line| {
        let _ = write!(text, "\n  {line}");
        text
    })
}
