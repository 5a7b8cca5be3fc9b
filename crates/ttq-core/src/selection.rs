//! Selection of the weights of a module that become ternary.

use std::collections::BTreeMap;
use std::fmt;

use burn::config::Config;
use burn::module::ParamId;
use burn::prelude::*;
use regex::Regex;
use serde::{Deserialize, Serialize};

use crate::order_of_use::order_of_use;
use crate::weights::Weights;
use crate::{LayerKind, SelectionError};

/// The dimension of the output channels of weights that Burn's layers do not tell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChannelAxis {
    /// Regular expression for parameter paths.
    pub pattern: String,
    /// The dimension that holds the output channels.
    pub channel_axis: usize,
}

/// Configuration of a [`Selection`].
///
/// The default is the paper's choice: every convolution and linear layer except the first convolution and the last
/// layer.
///
/// [`Selection::of`] takes first and last from the order in which the module declares its fields,
/// [`Selection::traced`] from the order in which a forward pass uses the weights.
///
/// The first linear layer of a network without convolutions is not kept: it usually has most of the weights, whereas a
/// first convolution has few. To keep it, name it in [`exclude`](Self::exclude).
///
/// The configuration implements Burn's [`Config`]: `save`, `load` and `load_binary` use JSON. A missing field takes its
/// default, and an unknown field is an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SelectionConfig {
    /// Kinds of layers whose weights can become ternary. Default: [`LayerKind::Linear`], [`LayerKind::Conv1d`],
    /// [`LayerKind::Conv2d`] and [`LayerKind::Conv3d`].
    pub kinds: Vec<LayerKind>,
    /// Regular expressions for parameter paths such as `blocks.0.conv1.weight`. A weight must match at least one of
    /// them. If the list is empty, every weight matches. Default: empty.
    pub include: Vec<String>,
    /// Regular expressions for parameter paths. A weight that matches one of them stays in full precision. Default:
    /// empty.
    pub exclude: Vec<String>,
    /// Weights that become ternary although they are not of these kinds, each with the dimension of its output channels:
    /// parameters of the user's own layers, raw parameters, transposed convolutions. Default: empty.
    pub axes: Vec<ChannelAxis>,
    /// Whether the first convolution stays in full precision. It reads the raw input, has few weights, and its
    /// quantization costs most accuracy. Default: `true`.
    ///
    /// By declaration this is the first convolution of the [`kinds`](Self::kinds) or [`axes`](Self::axes).
    pub keep_first_convolution: bool,
    /// Whether the last layer stays in full precision. It computes the logits, or the output image. Default: `true`.
    ///
    /// By declaration this is the last linear layer or, without linear layers, the last convolution of the
    /// [`kinds`](Self::kinds) or [`axes`](Self::axes). By use it is the last layer of any kind.
    pub keep_last_layer: bool,
}

impl Default for SelectionConfig {
    fn default() -> Self {
        Self {
            kinds: vec![LayerKind::Linear, LayerKind::Conv1d, LayerKind::Conv2d, LayerKind::Conv3d],
            include: Vec::new(),
            exclude: Vec::new(),
            axes: Vec::new(),
            keep_first_convolution: true,
            keep_last_layer: true,
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

    /// Makes the weights whose paths match `pattern` ternary, with their output channels along dimension
    /// `channel_axis`.
    ///
    /// ```
    /// use burn::backend::Flex;
    /// use burn::module::Param;
    /// use burn::prelude::*;
    /// use ttq_core::{Selection, SelectionConfig};
    ///
    /// #[derive(Module, Debug)]
    /// struct Projection<B: Backend> {
    ///     matrix: Param<Tensor<B, 2>>, // [in, out]
    /// }
    ///
    /// let model = Projection::<Flex> { matrix: Param::from_tensor(Tensor::ones([4, 8], &Default::default())) };
    /// let config = SelectionConfig::new().with_axis("^matrix$", 1).with_keep_last_layer(false);
    /// let selection = Selection::of(&model, &config).unwrap();
    /// assert_eq!(selection.ternary().next().unwrap().channel_axis, Some(1));
    /// ```
    #[must_use]
    pub fn with_axis(mut self, pattern: impl Into<String>, channel_axis: usize) -> Self {
        self.axes.push(ChannelAxis { pattern: pattern.into(), channel_axis });
        self
    }

    /// Sets whether the first convolution stays in full precision.
    #[must_use]
    pub fn with_keep_first_convolution(mut self, keep_first_convolution: bool) -> Self {
        self.keep_first_convolution = keep_first_convolution;
        self
    }

    /// Sets whether the last layer stays in full precision.
    #[must_use]
    pub fn with_keep_last_layer(mut self, keep_last_layer: bool) -> Self {
        self.keep_last_layer = keep_last_layer;
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
    /// The dimension of its output channels is not known. The text is the type of the module that holds the parameter.
    UnknownAxis(String),
    /// The layer is the first convolution of the module.
    FirstConvolution,
    /// The layer is the last of the module.
    LastLayer,
    /// The traced forward pass did not use the weight.
    NotUsed,
    /// No pattern of [`SelectionConfig::include`] matches.
    NotIncluded,
    /// This pattern of [`SelectionConfig::exclude`] matches.
    Excluded(String),
}

impl fmt::Display for KeepReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kind => f.write_str("kind not selected"),
            Self::UnknownAxis(owner) => write!(f, "a parameter of `{owner}`: name its channel axis by `with_axis`"),
            Self::FirstConvolution => f.write_str("first convolution"),
            Self::LastLayer => f.write_str("last layer"),
            Self::NotUsed => f.write_str("not used in the traced forward pass"),
            Self::NotIncluded => f.write_str("not included"),
            Self::Excluded(pattern) => write!(f, "excluded by `{pattern}`"),
        }
    }
}

/// Order that determines which layers of a module are the first and the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LayerOrder {
    /// The order in which the module declares its fields.
    #[default]
    Declaration,
    /// The order in which a forward pass first uses the weights.
    Use,
}

impl fmt::Display for LayerOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Declaration => "by declaration",
            Self::Use => "by use",
        })
    }
}

/// A weight of two or more dimensions, and whether it becomes ternary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Choice {
    /// Path of the parameter in the module, e.g. `blocks.0.conv1.weight`.
    pub path: String,
    /// Kind of the layer that holds the weight.
    pub kind: LayerKind,
    /// Shape of the weight.
    pub shape: Vec<usize>,
    /// Dimension of the weight that holds the output channels. `None` if it is not known; a ternary weight has one.
    pub channel_axis: Option<usize>,
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

    /// Returns the channel axis of a ternary weight.
    pub(crate) fn axis(&self) -> usize {
        match self.channel_axis {
            Some(axis) => axis,
            None => unreachable!("`{}` was selected without a channel axis", self.path),
        }
    }

    /// Returns whether the weight is one of a layer, and not a vector in the shape of its input, such as `[1, c, 1, 1]`.
    fn is_layer(&self) -> bool {
        self.kind != LayerKind::Embedding && self.shape.iter().filter(|n| **n > 1).count() > 1
            || self.kind == LayerKind::Linear
            || self.kind.is_convolution()
    }
}

/// All float parameters of a module with two or more dimensions, in the order in which the module declares them, each
/// with the decision whether it becomes ternary.
///
/// `Display` prints a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selection {
    choices: Vec<Choice>,
    other_parameters: usize,
    order: LayerOrder,
}

impl Selection {
    /// Selects the weights of `module` that become ternary. First and last layer are those by declaration.
    ///
    /// The kind of a layer is known by its Rust type: a `Linear` of the user's is a [`LayerKind::Parameter`]. This
    /// initializes every parameter of the module. To learn the types it makes a record of the module in host memory,
    /// which reads every parameter from the device once.
    ///
    /// # Errors
    /// Returns [`SelectionError`] if a pattern is not a regular expression or matches no weight, if a pattern of
    /// [`SelectionConfig::include`] matches only weights that cannot become ternary, if a channel axis is out of range, if
    /// a selected weight has the identifier of another parameter, or if no weight is selected.
    pub fn of<B: Backend, M: Module<B>>(module: &M, config: &SelectionConfig) -> Result<Self, SelectionError> {
        Self::new(Weights::of(module), config, None)
    }

    /// Selects the weights of `module` that become ternary. First and last layer are those by use in `forward`, which
    /// runs the module on an example input.
    ///
    /// The first convolution is the first that `forward` uses, and the last layer is the last that it uses, of whatever
    /// kind: the output convolution of a U-Net, a head that is declared first. Of a weight that is used more than once,
    /// the first use counts. A weight that is not used stays in full precision.
    ///
    /// A selection does not depend on the backend: with an autodiff module, trace `model.valid()` and pass the result to
    /// [`Ternary::with_selection`](crate::Ternary::with_selection). With new layers of `LinearLayout::Col`, trace
    /// `model.clone().valid()`: a weight of this layout that Burn has initialized for `valid` does not train.
    ///
    /// ```
    /// use burn::backend::{Autodiff, Flex};
    /// use burn::module::AutodiffModule;
    /// use burn::nn::{Linear, LinearConfig};
    /// use burn::prelude::*;
    /// use ttq_core::{Selection, Ternary, TernaryConfig};
    ///
    /// #[derive(Module, Debug)]
    /// struct Mlp<B: Backend> {
    ///     head: Linear<B>,
    ///     body: Linear<B>,
    /// }
    ///
    /// impl<B: Backend> Mlp<B> {
    ///     fn forward(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
    ///         self.head.forward(self.body.forward(x))
    ///     }
    /// }
    ///
    /// let device = Default::default();
    /// let linear = LinearConfig::new(8, 8);
    /// let model = Mlp::<Autodiff<Flex>> { head: linear.init(&device), body: linear.init(&device) };
    /// let config = TernaryConfig::default();
    /// let example = Tensor::ones([1, 8], &device);
    /// let selection = Selection::traced(&model.valid(), &config.selection, |model| model.forward(example)).unwrap();
    /// let ternary = Ternary::with_selection(model, &config, selection).unwrap();
    /// assert_eq!(ternary.selection().ternary().next().unwrap().path, "body.weight");
    /// ```
    ///
    /// # Errors
    /// As [`Selection::of`], and if the module is on an autodiff backend, where a forward pass changes the running
    /// statistics of batch normalization.
    pub fn traced<B: Backend, M: Module<B>, T>(
        module: &M,
        config: &SelectionConfig,
        forward: impl FnOnce(&M) -> T,
    ) -> Result<Self, SelectionError> {
        if B::ad_enabled(&module.devices().into_iter().next().unwrap_or_default()) {
            return Err(SelectionError::Autodiff);
        }
        let weights = Weights::of(module);
        let paths = weights.choices.iter().map(|choice| choice.path.clone()).collect();
        Self::new(weights, config, Some(order_of_use(module, paths, forward)))
    }

    /// Selects by the order of declaration, or by the order of use: indices of the weights.
    fn new(weights: Weights, config: &SelectionConfig, used: Option<Vec<usize>>) -> Result<Self, SelectionError> {
        let Weights { mut choices, ids, owners, other_parameters, .. } = weights;
        let include = compile_patterns(config.include.iter().map(String::as_str), &choices)?;
        let exclude = compile_patterns(config.exclude.iter().map(String::as_str), &choices)?;
        let named = name_axes(&config.axes, &mut choices)?;
        let obstacles: Vec<Option<KeepReason>> = (0..choices.len())
            .map(|index| match &choices[index] {
                _ if named[index] => None,
                choice if choice.channel_axis.is_none() => Some(KeepReason::UnknownAxis(owners[index].clone())),
                choice => (!config.kinds.contains(&choice.kind)).then_some(KeepReason::Kind),
            })
            .collect();
        check_included(&include, &choices, &obstacles)?;
        let (first, last) = match &used {
            Some(used) => first_and_last_used(&choices, used),
            None => first_and_last_declared(&choices, &named, &obstacles),
        };
        for (index, choice) in choices.iter_mut().enumerate() {
            let excluded = exclude.iter().find(|pattern| pattern.is_match(&choice.path));
            choice.kept = if obstacles[index].is_some() {
                obstacles[index].clone()
            } else if used.as_ref().is_some_and(|used| !used.contains(&index)) {
                Some(KeepReason::NotUsed)
            } else if config.keep_first_convolution && first == Some(index) {
                Some(KeepReason::FirstConvolution)
            } else if config.keep_last_layer && last == Some(index) {
                Some(KeepReason::LastLayer)
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
        check_identifiers(&choices, &ids)?;
        let order = if used.is_some() { LayerOrder::Use } else { LayerOrder::Declaration };
        Ok(Self { choices, other_parameters, order })
    }

    /// Returns all float parameters of two or more dimensions, in the order of the module.
    pub fn choices(&self) -> &[Choice] {
        &self.choices
    }

    /// Returns the weights that become ternary, in the order of the module.
    pub fn ternary(&self) -> impl Iterator<Item = &Choice> {
        self.choices.iter().filter(|choice| choice.kept.is_none())
    }

    /// Returns the order that determines the first and the last layer.
    pub fn order(&self) -> LayerOrder {
        self.order
    }

    /// Returns the number of other float parameters: biases, normalization, running statistics and other vectors.
    pub fn other_parameters(&self) -> usize {
        self.other_parameters
    }

    /// Returns the number of float parameters in full precision: the weights that are kept and
    /// [`other_parameters`](Self::other_parameters).
    pub fn full_precision_parameters(&self) -> usize {
        let kept: usize = self.choices.iter().filter(|choice| choice.kept.is_some()).map(Choice::len).sum();
        kept + self.other_parameters
    }

    /// Checks that `module` has the weights of this selection. Reads nothing from the device.
    pub(crate) fn check<B: Backend, M: Module<B>>(&self, module: &M) -> Result<(), SelectionError> {
        let weights = Weights::by_type_names(module);
        let describe = |choice: &Choice| format!("{} {:?}", choice.kind, choice.shape);
        for choice in self.choices.iter().filter(|choice| choice.kept.is_none()) {
            let found = weights.choices.iter().find(|found| found.path == choice.path);
            // A user's `Linear` has the kind of Burn's here.
            let same_kind = |found: &Choice| choice.kind == LayerKind::Parameter || found.kind == choice.kind;
            if !found.is_some_and(|found| found.shape == choice.shape && same_kind(found)) {
                return Err(SelectionError::Mismatch {
                    path: choice.path.clone(),
                    expected: describe(choice),
                    found: found.map_or("missing".into(), describe),
                });
            }
        }
        check_identifiers(&self.choices, &weights.ids)
    }
}

impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.choices.iter().map(|choice| choice.path.len()).max().unwrap_or(0).max(6);
        let kind = self.choices.iter().map(|choice| choice.kind.to_string().len()).max().unwrap_or(0).max(8);
        writeln!(f, "{:path$}  {:kind$} {:>18} {:>10}  precision", "weight", "layer", "shape", "weights")?;
        for choice in &self.choices {
            let shape = format!("{:?}", choice.shape);
            write!(f, "{:path$}  {:kind$} {shape:>18} {:>10}  ", choice.path, choice.kind, choice.len())?;
            match &choice.kept {
                None => writeln!(f, "ternary")?,
                Some(reason @ (KeepReason::FirstConvolution | KeepReason::LastLayer)) => {
                    writeln!(f, "full ({reason}, {})", self.order)?
                }
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
fn compile_patterns<'a>(
    patterns: impl Iterator<Item = &'a str>,
    choices: &[Choice],
) -> Result<Vec<Regex>, SelectionError> {
    patterns
        .map(|pattern| {
            let regex = Regex::new(pattern).map_err(|error| {
                // The lines before show the place in the pattern.
                let reason = error.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").into();
                SelectionError::Pattern { pattern: pattern.into(), reason }
            })?;
            if choices.iter().any(|choice| regex.is_match(&choice.path)) {
                return Ok(regex);
            }
            let candidates = choices.iter().map(|choice| choice.path.clone()).collect();
            Err(SelectionError::NoMatch { pattern: pattern.into(), candidates })
        })
        .collect()
}

/// Checks that each pattern matches a weight that can become ternary: one without an obstacle.
fn check_included(
    patterns: &[Regex],
    choices: &[Choice],
    obstacles: &[Option<KeepReason>],
) -> Result<(), SelectionError> {
    for pattern in patterns {
        let matches = || choices.iter().zip(obstacles).filter(|(choice, _)| pattern.is_match(&choice.path));
        if matches().all(|(_, obstacle)| obstacle.is_some()) {
            let weight = |(c, obstacle): (&Choice, &Option<KeepReason>)| {
                obstacle.as_ref().map(|reason| format!("{} ({}, {reason})", c.path, c.kind))
            };
            let weights = matches().filter_map(weight).collect();
            return Err(SelectionError::IncludedInVain { pattern: pattern.as_str().into(), weights });
        }
    }
    Ok(())
}

/// Sets the channel axes that the configuration names and returns, for each choice, whether it was named.
fn name_axes(axes: &[ChannelAxis], choices: &mut [Choice]) -> Result<Vec<bool>, SelectionError> {
    let patterns = compile_patterns(axes.iter().map(|axis| axis.pattern.as_str()), choices)?;
    let mut named = vec![false; choices.len()];
    for (pattern, axis) in patterns.iter().zip(axes) {
        for (choice, named) in choices.iter_mut().zip(&mut named).filter(|(c, _)| pattern.is_match(&c.path)) {
            if axis.channel_axis >= choice.shape.len() {
                return Err(SelectionError::ChannelAxis {
                    pattern: axis.pattern.clone(),
                    channel_axis: axis.channel_axis,
                    path: choice.path.clone(),
                    shape: choice.shape.clone(),
                });
            }
            (choice.channel_axis, *named) = (Some(axis.channel_axis), true);
        }
    }
    Ok(named)
}

/// Returns the first convolution and the last layer among the weights in the order of their use.
pub(crate) fn first_and_last_used(choices: &[Choice], used: &[usize]) -> (Option<usize>, Option<usize>) {
    let first = used.iter().copied().find(|index| choices[*index].kind.is_convolution());
    let last = used.iter().copied().rfind(|index| choices[*index].is_layer());
    (first, last)
}

/// Returns the first convolution, and the last linear layer or, without one, the last matrix that the configuration
/// names or the last convolution.
///
/// Convolutions with an obstacle, such as transposed ones, stay in full precision anyway and do not count.
fn first_and_last_declared(
    choices: &[Choice],
    named: &[bool],
    obstacles: &[Option<KeepReason>],
) -> (Option<usize>, Option<usize>) {
    let mut convolutions =
        (0..choices.len()).filter(|index| choices[*index].kind.is_convolution() && obstacles[*index].is_none());
    let (first, last) = (convolutions.clone().next(), convolutions.next_back());
    let linear = choices.iter().rposition(|choice| choice.kind == LayerKind::Linear);
    let matrix = || (0..choices.len()).rfind(|index| named[*index] && choices[*index].shape.len() == 2);
    (first, linear.or_else(matrix).or(last))
}

/// Checks that no selected weight has the identifier of another parameter.
fn check_identifiers(choices: &[Choice], ids: &BTreeMap<String, ParamId>) -> Result<(), SelectionError> {
    for choice in choices.iter().filter(|choice| choice.kept.is_none()) {
        let id = ids.get(&choice.path);
        if let Some((other, _)) = ids.iter().find(|(path, other)| **path != choice.path && Some(*other) == id) {
            return Err(SelectionError::Shared { path: choice.path.clone(), other: other.clone() });
        }
    }
    Ok(())
}
