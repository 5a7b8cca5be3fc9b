//! Selection of the weights of a module that become ternary.

use std::fmt;

use burn::config::Config;
use burn::module::{ModuleVisitor, Param};
use burn::prelude::*;
use regex::Regex;
use serde::{Deserialize, Serialize};

use crate::SelectionError;

/// Kind of a layer whose weight can become ternary, recognized by the type of the Burn module that holds the weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LayerKind {
    /// `burn::nn::Linear`, weight `[in, out]`.
    Linear,
    /// `burn::nn::conv::Conv1d`, weight `[out, in / groups, k]`.
    Conv1d,
    /// `burn::nn::conv::Conv2d`, weight `[out, in / groups, kh, kw]`.
    Conv2d,
    /// `burn::nn::conv::Conv3d`, weight `[out, in / groups, kd, kh, kw]`.
    Conv3d,
}

impl LayerKind {
    /// Returns the kind for a container type as Burn's visitors name it, e.g. `Struct:Conv2d`.
    fn of_container(container: &str) -> Option<Self> {
        match container {
            "Struct:Linear" => Some(Self::Linear),
            "Struct:Conv1d" => Some(Self::Conv1d),
            "Struct:Conv2d" => Some(Self::Conv2d),
            "Struct:Conv3d" => Some(Self::Conv3d),
            _ => None,
        }
    }

    /// Returns the dimension of the weight that holds the output channels: 1 for linear layers, 0 for convolutions.
    pub fn channel_axis(self) -> usize {
        match self {
            Self::Linear => 1,
            Self::Conv1d | Self::Conv2d | Self::Conv3d => 0,
        }
    }

    fn is_convolution(self) -> bool {
        self != Self::Linear
    }
}

impl fmt::Display for LayerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Linear => "Linear",
            Self::Conv1d => "Conv1d",
            Self::Conv2d => "Conv2d",
            Self::Conv3d => "Conv3d",
        })
    }
}

/// Configuration of a [`Selection`].
///
/// The default is the paper's choice: every convolution and linear layer except the first convolution and the last
/// linear layer.
///
/// The configuration implements Burn's [`Config`]: `save`, `load` and `load_binary` use JSON. A missing field takes its
/// default, and an unknown field is an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SelectionConfig {
    /// Kinds of layers whose weights can become ternary. Default: all four.
    pub kinds: Vec<LayerKind>,
    /// Regular expressions for parameter paths such as `blocks.0.conv1.weight`. A weight must match at least one of
    /// them. If the list is empty, every weight matches. Default: empty.
    pub include: Vec<String>,
    /// Regular expressions for parameter paths. A weight that matches one of them stays in full precision. Default:
    /// empty.
    pub exclude: Vec<String>,
    /// Whether the first convolution stays in full precision: the first in the order in which the module declares its
    /// fields, whatever its name. It reads the raw input, has few weights, and its quantization costs most accuracy.
    /// Default: `true`.
    pub keep_first_convolution: bool,
    /// Whether the last linear layer stays in full precision: the last in the order in which the module declares its
    /// fields, whatever its name. It computes the logits. Default: `true`.
    pub keep_last_linear: bool,
}

impl Default for SelectionConfig {
    fn default() -> Self {
        Self {
            kinds: vec![LayerKind::Linear, LayerKind::Conv1d, LayerKind::Conv2d, LayerKind::Conv3d],
            include: Vec::new(),
            exclude: Vec::new(),
            keep_first_convolution: true,
            keep_last_linear: true,
        }
    }
}

impl Config for SelectionConfig {}

impl SelectionConfig {
    /// Creates a configuration with the default of every field.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the kinds of layers whose weights can become ternary.
    #[must_use]
    pub fn with_kinds(mut self, kinds: Vec<LayerKind>) -> Self {
        self.kinds = kinds;
        self
    }

    /// Sets the regular expressions of which a weight's path must match at least one. If the list is empty, every
    /// weight matches.
    #[must_use]
    pub fn with_include(mut self, include: Vec<String>) -> Self {
        self.include = include;
        self
    }

    /// Sets the regular expressions for the paths of weights that stay in full precision.
    #[must_use]
    pub fn with_exclude(mut self, exclude: Vec<String>) -> Self {
        self.exclude = exclude;
        self
    }

    /// Sets whether the first convolution stays in full precision.
    #[must_use]
    pub fn with_keep_first_convolution(mut self, keep_first_convolution: bool) -> Self {
        self.keep_first_convolution = keep_first_convolution;
        self
    }

    /// Sets whether the last linear layer stays in full precision.
    #[must_use]
    pub fn with_keep_last_linear(mut self, keep_last_linear: bool) -> Self {
        self.keep_last_linear = keep_last_linear;
        self
    }
}

/// Reason why a weight stays in full precision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum KeepReason {
    /// The kind of its layer is not in [`SelectionConfig::kinds`].
    Kind,
    /// The layer is the first convolution of the module.
    FirstConvolution,
    /// The layer is the last linear layer of the module.
    LastLinear,
    /// No pattern of [`SelectionConfig::include`] matches.
    NotIncluded,
    /// This pattern of [`SelectionConfig::exclude`] matches.
    Excluded(String),
}

impl fmt::Display for KeepReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kind => f.write_str("kind not selected"),
            Self::FirstConvolution => f.write_str("first convolution"),
            Self::LastLinear => f.write_str("last linear layer"),
            Self::NotIncluded => f.write_str("not included"),
            Self::Excluded(pattern) => write!(f, "excluded by `{pattern}`"),
        }
    }
}

/// A weight that can become ternary, and whether it does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Choice {
    /// Path of the parameter in the module, e.g. `blocks.0.conv1.weight`.
    pub path: String,
    /// Kind of the layer that holds the weight.
    pub kind: LayerKind,
    /// Shape of the weight.
    pub shape: Vec<usize>,
    /// `None` for a ternary weight, otherwise the reason why it stays in full precision.
    pub kept: Option<KeepReason>,
}

impl Choice {
    /// Returns the number of elements of the weight.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Returns whether the weight has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// All weights of a module that can become ternary, in the order in which the module declares them, each with the
/// decision whether it does.
///
/// `Display` prints a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selection {
    choices: Vec<Choice>,
    other_parameters: usize,
}

impl Selection {
    /// Selects the weights of `module` that become ternary. Does not change the module.
    ///
    /// # Errors
    /// Returns [`SelectionError`] if a pattern is not a regular expression or matches no weight, or if no weight is
    /// selected.
    pub fn of<B: Backend, M: Module<B>>(module: &M, config: &SelectionConfig) -> Result<Self, SelectionError> {
        let mut candidates = Candidates::default();
        module.visit(&mut candidates);
        let mut choices = candidates.choices;
        let include = compile_patterns(&config.include, &choices)?;
        let exclude = compile_patterns(&config.exclude, &choices)?;
        let first_convolution = choices.iter().position(|c| c.kind.is_convolution());
        let last_linear = choices.iter().rposition(|c| c.kind == LayerKind::Linear);
        for (index, choice) in choices.iter_mut().enumerate() {
            let excluded = exclude.iter().find(|pattern| pattern.is_match(&choice.path));
            choice.kept = if !config.kinds.contains(&choice.kind) {
                Some(KeepReason::Kind)
            } else if config.keep_first_convolution && first_convolution == Some(index) {
                Some(KeepReason::FirstConvolution)
            } else if config.keep_last_linear && last_linear == Some(index) {
                Some(KeepReason::LastLinear)
            } else if let Some(pattern) = excluded {
                Some(KeepReason::Excluded(pattern.as_str().into()))
            } else if !include.is_empty() && !include.iter().any(|pattern| pattern.is_match(&choice.path)) {
                Some(KeepReason::NotIncluded)
            } else {
                None
            };
        }
        if choices.iter().all(|choice| choice.kept.is_some()) {
            let candidates =
                choices.iter().filter_map(|c| c.kept.as_ref().map(|reason| format!("{} ({reason})", c.path)));
            return Err(SelectionError::Empty { candidates: candidates.collect() });
        }
        Ok(Self { choices, other_parameters: candidates.other_parameters })
    }

    /// Returns all weights that can become ternary, in the order of the module.
    pub fn choices(&self) -> &[Choice] {
        &self.choices
    }

    /// Returns the weights that become ternary, in the order of the module.
    pub fn ternary(&self) -> impl Iterator<Item = &Choice> {
        self.choices.iter().filter(|choice| choice.kept.is_none())
    }

    /// Returns the number of float parameters that cannot become ternary: biases, normalization, running statistics and
    /// the like.
    pub fn other_parameters(&self) -> usize {
        self.other_parameters
    }

    /// Returns the number of float parameters in full precision: the weights that are kept and
    /// [`other_parameters`](Self::other_parameters).
    pub fn full_precision_parameters(&self) -> usize {
        let kept: usize = self.choices.iter().filter(|choice| choice.kept.is_some()).map(Choice::len).sum();
        kept + self.other_parameters
    }
}

impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.choices.iter().map(|choice| choice.path.len()).max().unwrap_or(0).max(6);
        writeln!(f, "{:width$}  {:8} {:>18} {:>10}  precision", "weight", "layer", "shape", "weights")?;
        for choice in &self.choices {
            let shape = format!("{:?}", choice.shape);
            write!(f, "{:width$}  {:8} {shape:>18} {:>10}  ", choice.path, choice.kind, choice.len())?;
            match &choice.kept {
                None => writeln!(f, "ternary")?,
                Some(reason) => writeln!(f, "full ({reason})")?,
            }
        }
        let ternary: usize = self.ternary().map(Choice::len).sum();
        let total = ternary + self.full_precision_parameters();
        let share = 100.0 * ternary as f64 / total.max(1) as f64;
        write!(
            f,
            "{} weights of {} layers are ternary, {share:.1} % of {total} parameters",
            ternary,
            self.ternary().count()
        )
    }
}

/// Compiles the patterns. Each must match at least one of the choices.
fn compile_patterns(patterns: &[String], choices: &[Choice]) -> Result<Vec<Regex>, SelectionError> {
    patterns
        .iter()
        .map(|pattern| {
            let regex = Regex::new(pattern)
                .map_err(|e| SelectionError::Pattern { pattern: pattern.clone(), reason: e.to_string() })?;
            if choices.iter().any(|choice| regex.is_match(&choice.path)) {
                return Ok(regex);
            }
            let candidates = choices.iter().map(|choice| choice.path.clone()).collect();
            Err(SelectionError::NoMatch { pattern: pattern.clone(), candidates })
        })
        .collect()
}

/// The current path and container types while Burn visits or maps a module.
#[derive(Debug, Default)]
pub(crate) struct ModulePath {
    names: Vec<String>,
    containers: Vec<String>,
}

impl ModulePath {
    /// Appends a name; call it from `enter_module`.
    pub(crate) fn enter(&mut self, name: &str, container: &str) {
        self.names.push(name.into());
        self.containers.push(container.into());
    }

    /// Removes the last name; call it from `exit_module`.
    pub(crate) fn exit(&mut self) {
        self.names.pop();
        self.containers.pop();
    }

    /// Returns the path with its names joined by dots.
    pub(crate) fn joined(&self) -> String {
        self.names.join(".")
    }

    /// Returns the path of the enclosing module.
    pub(crate) fn parent(&self) -> String {
        self.names[..self.names.len().saturating_sub(1)].join(".")
    }

    /// Returns the type of the module that holds the current parameter, as Burn names it, e.g. `Struct:Linear`.
    pub(crate) fn container(&self) -> Option<&str> {
        self.containers.last().map(String::as_str)
    }

    /// Returns the path of the enclosing module and the parameter's name, if that module is of type `container` and the
    /// name is one of `names`.
    pub(crate) fn parameter_of(&self, container: &str, names: &[&'static str]) -> Option<(String, &'static str)> {
        let current = self.names.last().filter(|_| self.container() == Some(container))?;
        let name = names.iter().find(|name| *name == current)?;
        Some((self.parent(), name))
    }

    /// Returns the kind of the layer, if the current parameter is the weight of one.
    fn layer_kind(&self) -> Option<LayerKind> {
        let container = self.container()?;
        (self.names.last()? == "weight").then(|| LayerKind::of_container(container)).flatten()
    }
}

/// Collects the weights that can become ternary and counts the other parameters.
#[derive(Default)]
struct Candidates {
    path: ModulePath,
    choices: Vec<Choice>,
    other_parameters: usize,
}

impl<B: Backend> ModuleVisitor<B> for Candidates {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        let shape = param.lazy_shape();
        match self.path.layer_kind() {
            Some(kind) if shape.num_elements() > 0 => {
                self.choices.push(Choice { path: self.path.joined(), kind, shape: shape.to_vec(), kept: None })
            }
            _ => self.other_parameters += shape.num_elements(),
        }
    }
}
