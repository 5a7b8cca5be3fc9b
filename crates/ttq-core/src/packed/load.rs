//! Conversion of a packed model to a module.

use std::collections::BTreeSet;

use burn::module::{ModuleMapper, ModuleVisitor, Param};
use burn::prelude::*;
use burn::tensor::{DType, TensorData};
use ttq_packed::{DenseTensor, PackedModel, TernaryWeight};

use super::dtype::{self, Kind};
use super::weight;
use crate::module_path::ModulePath;

/// A packed model that does not match a module. Lists all differences by path.
#[derive(Debug, Clone, Default, PartialEq, Eq, thiserror::Error)]
#[error("the file does not match this module:{}", self.list())]
#[non_exhaustive]
pub struct LoadError {
    /// Paths of parameters of the module that are missing from the file.
    pub missing: Vec<String>,
    /// Names of tensors of the file for which the module has no parameter.
    pub unexpected: Vec<String>,
    /// Tensors whose shape or type differs from that of the parameter.
    pub mismatched: Vec<Mismatch>,
}

/// A tensor whose shape or type differs from that of its parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Mismatch {
    /// Path of the parameter.
    pub path: String,
    /// Shape or type of the parameter.
    pub expected: String,
    /// Shape or type of the tensor in the file.
    pub found: String,
}

impl LoadError {
    fn list(&self) -> String {
        let missing = self.missing.iter().map(|path| format!("\n  {path} is missing from the file"));
        let unexpected = self.unexpected.iter().map(|path| format!("\n  {path} is not in the module"));
        let mismatched = self.mismatched.iter().map(|Mismatch { path, expected, found }| {
            format!("\n  {path} is {found} in the file and {expected} in the module")
        });
        missing.chain(unexpected).chain(mismatched).collect()
    }
}

/// Options of [`load_with`]. By default module and file must have the same parameters, as for [`load`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadOptions {
    prefix: String,
    allow_missing: bool,
    allow_unexpected: bool,
}

impl LoadOptions {
    /// Creates the options of a complete load.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads only the tensors of the file whose names start with `prefix`, for example `encoder.`, and removes it from
    /// the names. Other tensors are ignored.
    #[must_use]
    pub fn with_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Accepts a file that lacks parameters of the module. These keep their values; a new packed layer is all zeros.
    #[must_use]
    pub fn allow_missing(mut self) -> Self {
        self.allow_missing = true;
        self
    }

    /// Accepts a file with tensors for which the module has no parameter. They are ignored.
    #[must_use]
    pub fn allow_unexpected(mut self) -> Self {
        self.allow_unexpected = true;
        self
    }
}

/// What [`load_with`] loaded, and what it did not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoadReport {
    /// Paths of the parameters that were loaded, in the order of the module. A packed weight counts as one parameter.
    pub loaded: Vec<String>,
    /// Paths of parameters of the module that are missing from the file and keep their values.
    pub missing: Vec<String>,
    /// Names of tensors of the file with the prefix for which the module has no parameter.
    pub unexpected: Vec<String>,
}

/// Fills `module` with the tensors of a packed model, by parameter path.
///
/// Packed layers take packed weights. Burn's layers take the same weights as floats. The model must have exactly the
/// parameters of the module, in their shapes; [`load_with`] loads a part. Float tensors are converted to the type of
/// the parameter. A parameter keeps its identifier and whether it requires a gradient, so that a loaded model can be
/// fine-tuned. Files with PyTorch's names are converted by [`pytorch::to_burn`](super::pytorch::to_burn) first.
///
/// # Errors
/// Returns [`LoadError`], which lists all differences. Clones of `module` are then unchanged.
pub fn load<B: Backend, M: Module<B>>(module: M, packed: &PackedModel) -> Result<M, LoadError> {
    load_with(module, packed, &LoadOptions::default()).map(|(module, _)| module)
}

/// Fills `module` with the tensors of a packed model like [`load`], completely or in part.
///
/// # Errors
/// Returns [`LoadError`], which lists the differences that `options` do not allow. Different shapes or types are an
/// error in any case, and so is a file of which nothing can be loaded. Clones of `module` are then unchanged.
///
/// # Examples
/// A model whose classifier has another number of classes than the file:
/// ```
/// use burn::backend::Flex;
/// use burn::nn::{Linear, LinearConfig};
/// use burn::prelude::*;
/// use ttq_core::packed::{LoadOptions, PackedModel, load_with};
/// use ttq_packed::DenseTensor;
///
/// #[derive(Module, Debug)]
/// struct Net<B: Backend> {
///     hidden: Linear<B>,
///     classes: Linear<B>,
/// }
///
/// let linear = |outputs| LinearConfig::new(2, outputs).with_bias(false).init(&Default::default());
/// let net = Net::<Flex> { hidden: linear(2), classes: linear(5) };
///
/// let mut packed = PackedModel::default();
/// packed.tensors.insert("hidden.weight".into(), DenseTensor::from_f32([2, 2], &[1.0; 4])?);
/// packed.tensors.insert("classes.weight".into(), DenseTensor::from_f32([2, 3], &[1.0; 6])?);
///
/// packed.tensors.remove("classes.weight");
/// let (net, report) = load_with(net, &packed, &LoadOptions::new().allow_missing())?;
/// assert_eq!((report.loaded, report.missing), (vec!["hidden.weight".into()], vec!["classes.weight".into()]));
/// # let _ = net;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn load_with<B: Backend, M: Module<B>>(
    module: M,
    packed: &PackedModel,
    options: &LoadOptions,
) -> Result<(M, LoadReport), LoadError> {
    let file = File { packed, prefix: &options.prefix };
    let mut check = Check {
        path: ModulePath::default(),
        file,
        used: BTreeSet::new(),
        loaded: Vec::new(),
        error: LoadError::default(),
    };
    module.visit(&mut check);
    let Check { used, loaded, mut error, .. } = check;
    let names = packed.weights.keys().chain(packed.tensors.keys()).filter(|name| name.starts_with(&options.prefix));
    error.unexpected = names.filter(|name| !used.contains(*name)).cloned().collect();
    let accepted = error.mismatched.is_empty()
        && (options.allow_missing || error.missing.is_empty())
        && (options.allow_unexpected || error.unexpected.is_empty())
        && (!loaded.is_empty() || error == LoadError::default());
    if !accepted {
        return Err(error);
    }
    // A record contains the average of the running statistics of all threads. They are replaced, and must not be
    // averaged with those of the file later.
    drop(module.clone().into_record());
    let module = module.map(&mut Loader { path: ModulePath::default(), file });
    Ok((module, LoadReport { loaded, missing: error.missing, unexpected: error.unexpected }))
}

/// A packed model and the prefix of the names in it.
#[derive(Clone, Copy)]
struct File<'a> {
    packed: &'a PackedModel,
    prefix: &'a str,
}

/// Contents of a parameter.
enum Content<'a> {
    /// A parameter of a packed layer, by its name, and the weight.
    Packed(&'static str, &'a TernaryWeight),
    /// A ternary weight in floating point.
    Ternary(&'a TernaryWeight),
    /// Any other tensor.
    Dense(&'a DenseTensor),
}

impl<'a> File<'a> {
    /// Returns the contents of the parameter at `path`, and their name without prefix. A packed weight has the path of
    /// its module.
    fn content(self, path: &ModulePath) -> (String, Option<Content<'a>>) {
        let weight = |name: &str| self.packed.weights.get(&self.name(name));
        if let Some((name, parameter)) = path.parameter_of(weight::CONTAINER, &weight::PARAMETERS) {
            let content = weight(&name).map(|weight| Content::Packed(parameter, weight));
            return (name, content);
        }
        let name = path.joined();
        let dense = || self.packed.tensors.get(&self.name(&name)).map(Content::Dense);
        let content = weight(&name).map(Content::Ternary).or_else(dense);
        (name, content)
    }

    fn name(self, path: &str) -> String {
        format!("{}{path}", self.prefix)
    }
}

/// Compares the parameters of a module with a file.
struct Check<'a> {
    path: ModulePath,
    file: File<'a>,
    used: BTreeSet<String>,
    loaded: Vec<String>,
    error: LoadError,
}

impl Check<'_> {
    /// Compares the current parameter with its contents. Returns the layout of the weight if that has to be compared.
    fn compare(&mut self, kind: Kind, dtype: DType, shape: &[usize]) -> Option<Vec<i64>> {
        let (path, content) = self.file.content(&self.path);
        // A packed layer has several parameters with the same path: count the weight once.
        let is_first = self.used.insert(self.file.name(&path));
        let Some(content) = content else {
            if is_first {
                self.error.missing.push(path);
            }
            return None;
        };
        let compared = match &content {
            Content::Packed(weight::LAYOUT, weight) => {
                return Some(weight::layout(weight.shape(), weight.output_axis()));
            }
            Content::Packed(..) => Ok(()),
            Content::Ternary(weight) => compare(kind, shape, Some(Kind::Float), "F32", weight.shape()),
            Content::Dense(tensor) => {
                let found = tensor.dtype();
                compare(kind, shape, Kind::of(found), &found.to_string(), tensor.shape())
            }
        };
        let compared = compared.and_then(|()| match kind {
            Kind::Float => fits(&content, dtype),
            Kind::Int | Kind::Bool => Ok(()),
        });
        match compared {
            Ok(()) if is_first => self.loaded.push(path),
            Ok(()) => {}
            Err([expected, found]) => self.error.mismatched.push(Mismatch { path, expected, found }),
        }
        None
    }

    /// Compares the layout of a packed layer with that of its weight in the file.
    fn compare_layout(&mut self, expected: &[i64], found: &[i64]) {
        if found != expected {
            let text = |layout: &[i64]| match layout.split_last() {
                Some((axis, shape)) => format!("{shape:?} with the output channels along axis {axis}"),
                None => String::new(),
            };
            let (path, expected, found) = (self.path.parent(), text(expected), text(found));
            self.error.mismatched.push(Mismatch { path, expected, found });
        }
    }
}

/// Compares kind and shape of a parameter with those of a tensor. An error contains what is expected and found.
fn compare(
    kind: Kind,
    shape: &[usize],
    found: Option<Kind>,
    dtype: &str,
    found_shape: &[usize],
) -> Result<(), [String; 2]> {
    if found != Some(kind) {
        return Err([kind.name().into(), dtype.into()]);
    }
    if found_shape != shape {
        return Err([format!("{shape:?}"), format!("{found_shape:?}")]);
    }
    Ok(())
}

/// Checks that no value overflows in the type of the parameter.
fn fits(content: &Content<'_>, dtype: DType) -> Result<(), [String; 2]> {
    let overflow = |value: f64| [format!("of type {dtype:?}, in which it overflows"), format!("{value:e}")];
    let bytes = match content {
        Content::Packed(..) | Content::Ternary(_) => size_of::<f32>(),
        Content::Dense(tensor) => tensor.dtype().bitsize() / 8,
    };
    if bytes < dtype.size() {
        return Ok(());
    }
    match floats(content, dtype) {
        Some(Err(value)) => Err(overflow(value)),
        Some(Ok(_)) | None => Ok(()),
    }
}

/// Returns the elements of a dense parameter in its type, or the first one that overflows.
fn floats(content: &Content<'_>, dtype: DType) -> Option<Result<TensorData, f64>> {
    let data = match content {
        Content::Packed(..) => return None,
        Content::Ternary(weight) => TensorData::new(weight.dequantize(), weight.shape().to_vec()),
        Content::Dense(tensor) => dtype::to_burn(tensor)?,
    };
    Some(dtype::convert_floats(data, dtype))
}

impl<B: Backend> ModuleVisitor<B> for Check<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    // Parameters are initialized: the shape that Burn knows before can be that of a transposed weight.
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        let value = param.val();
        self.compare(Kind::Float, value.dtype(), &value.dims());
    }

    fn visit_int<const D: usize>(&mut self, param: &Param<Tensor<B, D, Int>>) {
        let value = param.val();
        if let Some(found) = self.compare(Kind::Int, value.dtype(), &value.dims()) {
            let expected: Vec<i64> = value.into_data().iter().collect();
            self.compare_layout(&expected, &found);
        }
    }

    fn visit_bool<const D: usize>(&mut self, param: &Param<Tensor<B, D, Bool>>) {
        let value = param.val();
        self.compare(Kind::Bool, value.dtype(), &value.dims());
    }
}

/// Fills the parameters of a module from a file that was compared with it.
struct Loader<'a> {
    path: ModulePath,
    file: File<'a>,
}

impl Loader<'_> {
    fn data(&self) -> Option<TensorData> {
        match self.file.content(&self.path).1 {
            Some(Content::Dense(tensor)) => dtype::to_burn(tensor),
            _ => None,
        }
    }
}

impl<B: Backend> ModuleMapper<B> for Loader<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let Some(content) = self.file.content(&self.path).1 else { return param };
        let (id, value, mapper) = param.consume();
        let options = (&value.device(), value.dtype());
        let loaded = match &content {
            // The scales. The file determines their number: one pair, or one for each output channel.
            Content::Packed(_, weight) => Tensor::from_data(weight::scales(weight), options),
            _ => match floats(&content, value.dtype()) {
                Some(Ok(data)) => Tensor::from_data(data, options),
                _ => unreachable!("the file was compared with the module"),
            },
        };
        Param::from_mapped_value(id, loaded.set_require_grad(value.is_require_grad()), mapper)
    }

    fn map_int<const D: usize>(&mut self, param: Param<Tensor<B, D, Int>>) -> Param<Tensor<B, D, Int>> {
        let data = match self.file.content(&self.path).1 {
            Some(Content::Packed(weight::LAYOUT, _)) => None,
            Some(Content::Packed(_, weight)) => Some(weight::words(weight.codes())),
            _ => self.data(),
        };
        let Some(data) = data else { return param };
        let (id, value, mapper) = param.consume();
        Param::from_mapped_value(id, Tensor::from_data(data, (&value.device(), value.dtype())), mapper)
    }

    fn map_bool<const D: usize>(&mut self, param: Param<Tensor<B, D, Bool>>) -> Param<Tensor<B, D, Bool>> {
        let Some(data) = self.data() else { return param };
        let (id, value, mapper) = param.consume();
        Param::from_mapped_value(id, Tensor::from_data(data, &value.device()), mapper)
    }
}
