//! Which weights of a module become ternary.

use std::fmt;

use burn::module::{ModuleVisitor, Param};
use burn::prelude::*;
use regex::Regex;
use serde::{Deserialize, Serialize};

use crate::SelectionError;

/// A kind of layer whose weight can become ternary, known by the type of the Burn module that holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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
    /// The kind behind a container type as Burn's visitors name it, e.g. `Struct:Conv2d`.
    fn of_container(container: &str) -> Option<Self> {
        match container {
            "Struct:Linear" => Some(Self::Linear),
            "Struct:Conv1d" => Some(Self::Conv1d),
            "Struct:Conv2d" => Some(Self::Conv2d),
            "Struct:Conv3d" => Some(Self::Conv3d),
            _ => None,
        }
    }

    /// The dimension of the weight along which its output channels lie.
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

/// What to choose. The default is the paper's choice: every convolution and linear layer except the first convolution
/// and the last linear layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SelectionConfig {
    /// Kinds of layers to look at.
    pub kinds: Vec<LayerKind>,
    /// Regular expressions on parameter paths such as `blocks.0.conv1.weight`; a weight must match one of them. Empty:
    /// every weight does.
    pub include: Vec<String>,
    /// Regular expressions on parameter paths; a weight that matches one stays in full precision.
    pub exclude: Vec<String>,
    /// Keep the first convolution in full precision: the first that the module declares, whatever its name. It sees the
    /// raw input, has few weights and costs most accuracy.
    pub keep_first_convolution: bool,
    /// Keep the last linear layer in full precision: the last that the module declares, whatever its name. It makes the
    /// logits.
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

/// Why a weight stays in full precision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeepReason {
    /// Its layer's kind is not among [`SelectionConfig::kinds`].
    Kind,
    /// The first convolution of the module.
    FirstConvolution,
    /// The last linear layer of the module.
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

/// A weight that was looked at, and what was decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    /// Path of the parameter in the module, e.g. `blocks.0.conv1.weight`.
    pub path: String,
    /// Kind of the layer that holds it.
    pub kind: LayerKind,
    /// Shape of the weight.
    pub shape: Vec<usize>,
    /// `None` for a ternary weight, else why it stays in full precision.
    pub kept: Option<KeepReason>,
}

impl Choice {
    /// Number of weights.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether the weight has no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Every weight that could become ternary, in the order in which the module declares them, with the decision on each.
///
/// Its `Display` is a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selection {
    choices: Vec<Choice>,
    other_parameters: usize,
}

impl Selection {
    /// Looks at `module` and decides.
    ///
    /// # Errors
    /// [`SelectionError`] where a pattern is no regular expression or matches nothing, and where nothing is selected.
    pub fn of<B: Backend, M: Module<B>>(module: &M, config: &SelectionConfig) -> Result<Self, SelectionError> {
        let mut candidates = Candidates::default();
        module.visit(&mut candidates);
        let mut choices = candidates.choices;
        let include = compile(&config.include, &choices)?;
        let exclude = compile(&config.exclude, &choices)?;
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

    /// Every weight looked at.
    pub fn choices(&self) -> &[Choice] {
        &self.choices
    }

    /// The weights that become ternary.
    pub fn ternary(&self) -> impl Iterator<Item = &Choice> {
        self.choices.iter().filter(|choice| choice.kept.is_none())
    }

    /// Number of float parameters that were not looked at: biases, normalization, running state and the like.
    pub fn other_parameters(&self) -> usize {
        self.other_parameters
    }

    /// Number of float parameters in full precision, those not looked at included.
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

fn compile(patterns: &[String], choices: &[Choice]) -> Result<Vec<Regex>, SelectionError> {
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

/// Follows the path and the container types while Burn walks through a module.
#[derive(Debug, Default)]
pub(crate) struct Place {
    names: Vec<String>,
    containers: Vec<String>,
}

impl Place {
    pub(crate) fn enter(&mut self, name: &str, container: &str) {
        self.names.push(name.into());
        self.containers.push(container.into());
    }

    pub(crate) fn exit(&mut self) {
        self.names.pop();
        self.containers.pop();
    }

    pub(crate) fn path(&self) -> String {
        self.names.join(".")
    }

    /// The path of the module that this is in.
    pub(crate) fn parent(&self) -> String {
        self.names[..self.names.len().saturating_sub(1)].join(".")
    }

    /// Where this is one of these parameters of such a container: the container's path and the parameter.
    pub(crate) fn part_of(&self, container: &str, parts: &[&'static str]) -> Option<(String, &'static str)> {
        let name = self.names.last().filter(|_| self.containers.last().is_some_and(|last| last == container))?;
        let part = parts.iter().find(|part| *part == name)?;
        Some((self.parent(), part))
    }

    /// The layer kind, if this is the place of a layer's weight.
    fn weight_of(&self) -> Option<LayerKind> {
        let container = self.containers.last()?;
        (self.names.last()? == "weight").then(|| LayerKind::of_container(container)).flatten()
    }
}

#[derive(Default)]
struct Candidates {
    place: Place,
    choices: Vec<Choice>,
    other_parameters: usize,
}

impl<B: Backend> ModuleVisitor<B> for Candidates {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.place.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.place.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        let shape = param.lazy_shape();
        match self.place.weight_of() {
            Some(kind) if shape.num_elements() > 0 => {
                self.choices.push(Choice { path: self.place.path(), kind, shape: shape.to_vec(), kept: None })
            }
            _ => self.other_parameters += shape.num_elements(),
        }
    }
}
