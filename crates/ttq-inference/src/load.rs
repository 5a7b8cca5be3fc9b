//! Conversion of a packed model to a module.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;

use burn::module::{ModuleMapper, ModuleVisitor, Param};
use burn::prelude::*;
use burn::tensor::{DType, TensorData};
use ttq_packed::{DenseTensor, PackedModel, TensorLayout, TernaryWeight};

use crate::dtype::{self, Kind};
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
    /// Names of two tensors of the file that [`LoadOptions::with_rename`] gives the same path.
    pub duplicates: Vec<[String; 2]>,
    /// Whether the file has PyTorch's layouts, in which a square linear weight has the shape of Burn's.
    pub is_pytorch: bool,
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
        let duplicates = self
            .duplicates
            .iter()
            .map(|[first, second]| format!("\n  {first} and {second} are for the same parameter"));
        let layout =
            "\n  the file has PyTorch's layouts: convert it by `pytorch::to_burn`, or pack it with `--layout burn`";
        let layout = self.is_pytorch.then(|| layout.to_owned());
        layout.into_iter().chain(missing).chain(unexpected).chain(mismatched).chain(duplicates).collect()
    }
}

/// Options of [`load_with`]. By default module and file must have the same parameters, as for [`load`].
#[derive(Clone, Default)]
pub struct LoadOptions {
    prefix: String,
    rename: Option<Rename>,
    allow_missing: bool,
    allow_unexpected: bool,
}

/// Maps the name of a tensor in a file to the path of a parameter.
type Rename = Arc<dyn Fn(&str) -> String + Send + Sync>;

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

    /// Maps the names of the tensors in the file, without the prefix, to the paths of parameters. Layouts do not change:
    /// for files with the layouts of PyTorch see [`pytorch::to_burn`](crate::pytorch::to_burn).
    #[must_use]
    pub fn with_rename(mut self, rename: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        self.rename = Some(Arc::new(rename));
        self
    }

    /// Accepts a file that lacks parameters of the module. These keep their values.
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
    /// Paths of the parameters that were loaded, in the order of the module.
    pub loaded: Vec<String>,
    /// Paths of parameters of the module that are missing from the file and keep their values.
    pub missing: Vec<String>,
    /// Names of tensors of the file with the prefix for which the module has no parameter.
    pub unexpected: Vec<String>,
}

/// Fills `module` with the tensors of a packed model, by parameter path.
///
/// On the backend [`Packed`](crate::Packed) ternary weights stay packed, on every other backend they are dense. The file
/// must have exactly the parameters of the module, in their shapes; [`load_with`] loads a part. Float tensors are
/// converted to the type of the parameter. A parameter keeps its identifier and whether it requires a gradient, so that
/// a loaded model can be fine-tuned. Files with PyTorch's names are converted by
/// [`pytorch::to_burn`](crate::pytorch::to_burn) first.
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
/// use ttq_inference::{LoadOptions, PackedModel, load_with};
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
    let (contents, duplicates) = contents(packed, options);
    let _initial_values = Replaced::begin();
    let mut check =
        Check { path: ModulePath::default(), contents: &contents, loaded: Vec::new(), error: LoadError::default() };
    module.visit(&mut check);
    let Check { loaded, mut error, .. } = check;
    let compared = |path: &String| loaded.contains(path) || error.mismatched.iter().any(|other| other.path == *path);
    let unexpected = contents.iter().filter(|(path, _)| !compared(path)).map(|(_, (name, _))| (*name).to_owned());
    error.unexpected = unexpected.collect();
    error.duplicates = duplicates;
    error.is_pytorch = packed.layout == TensorLayout::Pytorch;
    let accepted = !error.is_pytorch
        && error.mismatched.is_empty()
        && error.duplicates.is_empty()
        && (options.allow_missing || error.missing.is_empty())
        && (options.allow_unexpected || error.unexpected.is_empty())
        && (!loaded.is_empty() || error == LoadError::default());
    if !accepted {
        return Err(error);
    }
    // A record contains the average of the running statistics of all threads. They are replaced, and must not be
    // averaged with those of the file later.
    drop(module.clone().into_record());
    let module = module.map(&mut Loader { path: ModulePath::default(), contents: &contents });
    Ok((module, LoadReport { loaded, missing: error.missing, unexpected: error.unexpected }))
}

/// Returns the contents that `options` select, and pairs of tensors that would be for the same parameter.
fn contents<'a>(packed: &'a PackedModel, options: &LoadOptions) -> (Contents<'a>, Vec<[String; 2]>) {
    let weights = packed.weights.iter().map(|(name, weight)| (name, Content::Ternary(weight)));
    let tensors = packed.tensors.iter().map(|(name, tensor)| (name, Content::Dense(tensor)));
    let (mut contents, mut duplicates) = (Contents::new(), Vec::new());
    for (name, content) in weights.chain(tensors) {
        let Some(path) = name.strip_prefix(options.prefix.as_str()) else { continue };
        let path = options.rename.as_ref().map_or_else(|| path.to_owned(), |rename| rename(path));
        if let Some((other, _)) = contents.insert(path, (name, content)) {
            duplicates.push([other.to_owned(), name.clone()]);
        }
    }
    (contents, duplicates)
}

thread_local! {
    static REPLACED: Cell<bool> = const { Cell::new(false) };
}

/// While this value lives, the initial values of parameters on this thread are replaced by others, so that
/// [`Packed`](crate::Packed) draws no random numbers for them.
pub(crate) struct Replaced {
    before: bool,
}

impl Replaced {
    fn begin() -> Self {
        Self { before: REPLACED.replace(true) }
    }

    /// Returns whether the initial values of parameters are replaced by others.
    pub(crate) fn is_active() -> bool {
        REPLACED.get()
    }
}

impl Drop for Replaced {
    fn drop(&mut self) {
        REPLACED.set(self.before);
    }
}

/// The contents of a parameter in a file.
#[derive(Clone, Copy)]
enum Content<'a> {
    Ternary(&'a TernaryWeight),
    Dense(&'a DenseTensor),
}

impl Content<'_> {
    /// Returns the contents of an integer or boolean parameter.
    fn data(self) -> Option<TensorData> {
        match self {
            Self::Dense(tensor) => dtype::to_burn(tensor),
            Self::Ternary(_) => None,
        }
    }
}

/// The contents of a file by the path of the parameter that they are for, with their names in the file.
type Contents<'a> = BTreeMap<String, (&'a str, Content<'a>)>;

/// Compares the parameters of a module with a file.
struct Check<'a> {
    path: ModulePath,
    contents: &'a Contents<'a>,
    loaded: Vec<String>,
    error: LoadError,
}

impl Check<'_> {
    /// Compares the current parameter with its contents.
    fn compare(&mut self, kind: Kind, dtype: DType, shape: &[usize]) {
        let path = self.path.joined();
        let Some((_, content)) = self.contents.get(&path) else { return self.error.missing.push(path) };
        let compared = match content {
            Content::Ternary(weight) => compare(kind, shape, Some(Kind::Float), "F32", weight.shape()),
            Content::Dense(tensor) => {
                let found = tensor.dtype();
                compare(kind, shape, Kind::of(found), &found.to_string(), tensor.shape())
            }
        };
        let compared = compared.and_then(|()| match kind {
            Kind::Float => fits(*content, dtype),
            Kind::Int => integers_fit(*content, dtype),
            Kind::Bool => Ok(()),
        });
        match compared {
            Ok(()) => self.loaded.push(path),
            Err([expected, found]) => self.error.mismatched.push(Mismatch { path, expected, found }),
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
fn fits(content: Content<'_>, dtype: DType) -> Result<(), [String; 2]> {
    let data = match content {
        Content::Ternary(weight) => TensorData::from(weight.scales().as_flattened()),
        Content::Dense(tensor) if tensor.dtype().bitsize() / 8 < dtype.size() => return Ok(()),
        Content::Dense(tensor) => match dtype::to_burn(tensor) {
            Some(data) => data,
            None => return Ok(()),
        },
    };
    let overflow = |value: f64| [format!("of type {dtype:?}, in which it overflows"), format!("{value:e}")];
    dtype::convert_floats(data, dtype).map_err(overflow).map(drop)
}

/// Checks that the type of the parameter has all integers.
fn integers_fit(content: Content<'_>, dtype: DType) -> Result<(), [String; 2]> {
    let data = content.data();
    let outside = data.and_then(|data| dtype::convert_integers(data, dtype).err());
    outside.map_or(Ok(()), |value| Err([format!("of type {dtype:?}, which lacks this value"), value.to_string()]))
}

impl<B: Backend> ModuleVisitor<B> for Check<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.enter(name);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    // Parameters are initialized: the shape that Burn knows before can be that of a transposed weight. It is a copy that
    // is initialized, so that no more than one of them takes memory.
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        let value = param.clone().val();
        self.compare(Kind::Float, value.dtype(), &value.dims());
    }

    fn visit_int<const D: usize>(&mut self, param: &Param<Tensor<B, D, Int>>) {
        let value = param.clone().val();
        self.compare(Kind::Int, value.dtype(), &value.dims());
    }

    fn visit_bool<const D: usize>(&mut self, param: &Param<Tensor<B, D, Bool>>) {
        let value = param.clone().val();
        self.compare(Kind::Bool, value.dtype(), &value.dims());
    }
}

/// Fills the parameters of a module from a file that was compared with it.
struct Loader<'a> {
    path: ModulePath,
    contents: &'a Contents<'a>,
}

impl Loader<'_> {
    fn content(&self) -> Option<Content<'_>> {
        self.contents.get(&self.path.joined()).map(|(_, content)| *content)
    }
}

impl<B: Backend> ModuleMapper<B> for Loader<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.enter(name);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let Some(content) = self.content() else { return param };
        let (id, value, mapper) = param.consume();
        let (device, dtype, require_grad) = (value.device(), value.dtype(), value.is_require_grad());
        drop(value);
        let loaded = match content {
            Content::Ternary(weight) => crate::tensor(weight, &device).cast(dtype),
            Content::Dense(tensor) => match dtype::to_burn(tensor).map(|data| dtype::convert_floats(data, dtype)) {
                Some(Ok(data)) => Tensor::from_data(data, (&device, dtype)),
                _ => unreachable!("the file was compared with the module"),
            },
        };
        Param::from_mapped_value(id, loaded.set_require_grad(require_grad), mapper)
    }

    fn map_int<const D: usize>(&mut self, param: Param<Tensor<B, D, Int>>) -> Param<Tensor<B, D, Int>> {
        let Some(data) = self.content().and_then(Content::data) else { return param };
        let (id, value, mapper) = param.consume();
        let data = dtype::convert_integers(data, value.dtype()).expect("the file was compared with the module");
        Param::from_mapped_value(id, Tensor::from_data(data, (&value.device(), value.dtype())), mapper)
    }

    fn map_bool<const D: usize>(&mut self, param: Param<Tensor<B, D, Bool>>) -> Param<Tensor<B, D, Bool>> {
        let Some(data) = self.content().and_then(Content::data) else { return param };
        let (id, value, mapper) = param.consume();
        Param::from_mapped_value(id, Tensor::from_data(data, &value.device()), mapper)
    }
}
