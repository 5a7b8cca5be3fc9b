//! Packed files of PyTorch checkpoints, converted to the names and layouts of a Burn module.

use std::collections::{BTreeMap, HashMap};

use burn::module::{ModuleVisitor, Param};
use burn::prelude::*;
use regex::Regex;
use ttq_packed::file::TensorError;
use ttq_packed::{Codes, DenseTensor, Dtype, PackedModel, TensorLayout, TernaryWeight};

use crate::module_path::ModulePath;

/// A packed model that cannot be converted.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PytorchError {
    /// A pattern is not a regular expression.
    #[error("the name pattern `{pattern}` is not a valid regular expression: {reason}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// The message of the regular expression parser.
        reason: String,
    },
    /// Two tensors of the file are for the same parameter.
    #[error("the tensors `{}` and `{}` are both for `{path}`: correct the name patterns", names[0], names[1])]
    Duplicate {
        /// Names in the file.
        names: [String; 2],
        /// Path of the parameter.
        path: String,
    },
    /// The weight of a linear layer cannot be transposed.
    #[error("the linear weight `{name}` cannot be transposed: {source}")]
    Transpose {
        /// Name of the tensor in the module.
        name: String,
        /// The cause.
        source: TensorError,
    },
}

/// Converts a packed model from the names and layouts of PyTorch to those of `module`, so that [`load`](crate::load)
/// accepts it.
///
/// Each pattern is a regular expression and its replacement. They are applied to every tensor's name in order, each to
/// the result of the previous one; a pattern replaces its first match. There are none if the names are the same.
///
/// - `weight` and `bias` are renamed `gamma` and `beta` if the module has a parameter of that name there (Burn's
///   normalization layers).
/// - Weights of linear layers, `[out, in]`, are transposed to `[in, out]`.
/// - Tensors named `num_batches_tracked` are removed.
///
/// A model with Burn's layouts ([`PackedModel::layout`]) is returned unchanged.
///
/// # Errors
/// Returns [`PytorchError`] if a pattern is not a regular expression, or if a linear weight is not of a float type.
///
/// # Examples
/// ```
/// use burn::backend::Flex;
/// use burn::nn::{Linear, LinearConfig};
/// use burn::prelude::*;
/// use ttq_inference::{load, pytorch};
/// use ttq_packed::{DenseTensor, PackedModel, TensorLayout};
///
/// #[derive(Module, Debug)]
/// struct Net<B: Backend> {
///     classes: Linear<B>,
/// }
///
/// let mut packed = PackedModel { layout: TensorLayout::Pytorch, ..PackedModel::default() };
/// packed.tensors.insert("fc.weight".into(), DenseTensor::from_f32([1, 2], &[3.0, 4.0])?);
///
/// let classes = LinearConfig::new(2, 1).with_bias(false).init(&Default::default());
/// let net = Net::<Flex> { classes };
/// let packed = pytorch::to_burn(&net, packed, &[(r"^fc\.", "classes.")])?;
/// let net = load(net, &packed)?;
/// assert_eq!(net.classes.weight.val().into_data(), TensorData::from([[3.0_f32], [4.0]]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn to_burn<B: Backend, M: Module<B>>(
    module: &M,
    packed: PackedModel,
    patterns: &[(impl AsRef<str>, impl AsRef<str>)],
) -> Result<PackedModel, PytorchError> {
    if packed.layout == TensorLayout::Burn {
        return Ok(packed);
    }
    let patterns = patterns
        .iter()
        .map(|(pattern, replacement)| {
            let pattern = pattern.as_ref();
            let regex = Regex::new(pattern)
                .map_err(|error| PytorchError::Pattern { pattern: pattern.into(), reason: error.to_string() })?;
            Ok((regex, replacement.as_ref()))
        })
        .collect::<Result<Vec<_>, PytorchError>>()?;
    let replaced = |name: &str| {
        patterns
            .iter()
            .fold(name.to_owned(), |name, (regex, replacement)| regex.replace(&name, *replacement).into_owned())
    };
    let mut parameters = Parameters::default();
    module.visit(&mut parameters);
    let containers = parameters.containers;
    let burn_name = |name: &str| {
        let name = replaced(name);
        let (path, last) = name.split_at(name.rfind('.').map_or(0, |dot| dot + 1));
        let of_norm = [("weight", "gamma"), ("bias", "beta")].into_iter().find_map(|(pytorch, burn)| {
            let name = format!("{path}{burn}");
            (last == pytorch && containers.contains_key(&name)).then_some(name)
        });
        of_norm.unwrap_or(name)
    };
    let is_linear = |name: &str| containers.get(name).is_some_and(|container| container == "Struct:Linear");
    let mut sources = BTreeMap::new();
    let mut taken = |path: &str, name: String| match sources.insert(path.to_owned(), name.clone()) {
        Some(other) => Err(PytorchError::Duplicate { names: [other, name], path: path.to_owned() }),
        None => Ok(()),
    };
    let mut weights = BTreeMap::new();
    for (source, weight) in packed.weights {
        let name = burn_name(&source);
        taken(&name, source)?;
        let is_transposed = is_linear(&name) && weight.shape().len() == 2 && weight.output_axis() == 0;
        let weight = if is_transposed { transposed_ternary(&weight) } else { weight };
        weights.insert(name, weight);
    }
    let mut tensors = BTreeMap::new();
    for (source, tensor) in packed.tensors {
        let name = burn_name(&source);
        if name.rsplit('.').next() == Some("num_batches_tracked") {
            continue;
        }
        taken(&name, source)?;
        let tensor = if is_linear(&name) {
            transposed(&tensor).map_err(|source| PytorchError::Transpose { name: name.clone(), source })?
        } else {
            tensor
        };
        tensors.insert(name, tensor);
    }
    Ok(PackedModel { weights, tensors, config: packed.config, layout: TensorLayout::Burn })
}

/// Transposes a matrix. Returns a tensor of another rank unchanged.
fn transposed(tensor: &DenseTensor) -> Result<DenseTensor, TensorError> {
    let &[rows, columns] = tensor.shape() else { return Ok(tensor.clone()) };
    let dtype = tensor.dtype();
    if !matches!(dtype, Dtype::F64 | Dtype::F32 | Dtype::F16 | Dtype::BF16) {
        return Err(TensorError::NotFloat { dtype });
    }
    let size = dtype.bitsize() / 8;
    let element = |index: usize| &tensor.as_bytes()[(index % rows * columns + index / rows) * size..][..size];
    DenseTensor::new(dtype, [columns, rows], (0..rows * columns).flat_map(element).copied().collect())
}

/// Transposes a weight `[out, in]` to `[in, out]`.
fn transposed_ternary(weight: &TernaryWeight) -> TernaryWeight {
    let [outputs, inputs] = [weight.shape()[0], weight.shape()[1]];
    let codes = weight.codes().unpack();
    let codes: Vec<i8> = (0..codes.len()).map(|index| codes[index % outputs * inputs + index / outputs]).collect();
    Codes::pack(&codes)
        .ok()
        .and_then(|codes| TernaryWeight::new(codes, weight.scales(), [inputs, outputs], 1).ok())
        .unwrap_or_else(|| unreachable!("the codes and scales are those of a weight"))
}

/// Collects the types of the modules that hold the float parameters, by path.
#[derive(Default)]
struct Parameters {
    path: ModulePath,
    /// Type of the module that was entered last. It holds the current parameter: that is entered itself.
    container: String,
    containers: HashMap<String, String>,
}

impl<B: Backend> ModuleVisitor<B> for Parameters {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name);
        self.container = container.to_owned();
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, _param: &Param<Tensor<B, D>>) {
        self.containers.insert(self.path.joined(), self.container.clone());
    }
}

#[cfg(test)]
mod tests {
    use burn::backend::Flex;
    use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig};

    use super::*;

    #[derive(Module, Debug)]
    struct Net<B: Backend> {
        norm: BatchNorm<B>,
        classes: Linear<B>,
    }

    fn net() -> Net<Flex> {
        let device = Default::default();
        Net { norm: BatchNormConfig::new(2).init(&device), classes: LinearConfig::new(2, 3).init(&device) }
    }

    fn pytorch_model() -> PackedModel {
        let mut packed = PackedModel { layout: TensorLayout::Pytorch, ..PackedModel::default() };
        let mut add = |name: &str, tensor: DenseTensor| packed.tensors.insert(name.into(), tensor);
        for name in ["bn.weight", "bn.bias", "bn.running_mean", "bn.running_var"] {
            add(name, DenseTensor::from_f32([2], &[1.0, 2.0]).unwrap());
        }
        add("bn.num_batches_tracked", DenseTensor::new(Dtype::I64, [1], vec![0; 8]).unwrap());
        add("fc.weight", DenseTensor::from_f32([3, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap());
        add("fc.bias", DenseTensor::from_f32([3], &[7.0, 8.0, 9.0]).unwrap());
        packed
    }

    const PATTERNS: [(&str, &str); 2] = [(r"^bn\.", "norm."), (r"^fc\.", "classes.")];

    #[test]
    fn a_model_with_the_names_of_pytorch_loads_after_the_conversion() {
        let packed = to_burn(&net(), pytorch_model(), &PATTERNS).unwrap();
        let loaded = crate::load(net(), &packed).unwrap();
        assert_eq!(loaded.norm.gamma.val().into_data(), TensorData::from([1.0_f32, 2.0]));
        let weight = loaded.classes.weight.val().into_data();
        assert_eq!(weight, TensorData::from([[1.0_f32, 3.0, 5.0], [2.0, 4.0, 6.0]]));
        // Burn's layouts stay as they are.
        assert_eq!(to_burn(&net(), packed.clone(), &PATTERNS).unwrap(), packed);
    }

    #[test]
    fn a_model_with_the_same_names_is_converted_too() {
        #[derive(Module, Debug)]
        struct Net<B: Backend> {
            fc1: Linear<B>,
            fc2: Linear<B>,
        }
        let device = Default::default();
        let linear = |outputs| LinearConfig::new(3, outputs).with_bias(false);
        // A square weight has the shape that Burn expects in both layouts.
        for outputs in [3, 2] {
            let net = || Net::<Flex> { fc1: linear(outputs).init(&device), fc2: linear(3).init(&device) };
            let n = 3 * outputs;
            let codes: Vec<i8> = (0..n).map(|index| [1, 0, -1, -1][index % 4]).collect();
            let scales: Vec<[f32; 2]> = (0..outputs).map(|output| [1.0 + output as f32, 0.5]).collect();
            let ternary = TernaryWeight::new(Codes::pack(&codes).unwrap(), scales, [outputs, 3], 0).unwrap();
            let floats: Vec<f32> = (0..9).map(|index| index as f32).collect();
            let mut packed = PackedModel { layout: TensorLayout::Pytorch, ..PackedModel::default() };
            packed.weights.insert("fc1.weight".into(), ternary.clone());
            packed.tensors.insert("fc2.weight".into(), DenseTensor::from_f32([3, 3], &floats).unwrap());

            let error = crate::load(net(), &packed).unwrap_err();
            assert!(error.to_string().contains("convert it by `pytorch::to_burn`"), "{error}");
            let none: [(&str, &str); 0] = [];
            let loaded = crate::load(net(), &to_burn(&net(), packed, &none).unwrap()).unwrap();
            let rows =
                |data: Vec<f32>, outputs| Tensor::<Flex, 2>::from_data(TensorData::new(data, [outputs, 3]), &device);
            let expected = [rows(ternary.dequantize(), outputs), rows(floats, 3)].map(|w| w.transpose().into_data());
            assert_eq!([loaded.fc1, loaded.fc2].map(|layer| layer.weight.val().into_data()), expected);
        }
    }

    #[test]
    fn two_tensors_for_one_parameter_are_an_error() {
        let mut packed = pytorch_model();
        packed.tensors.insert("norm.gamma".into(), DenseTensor::from_f32([2], &[3.0, 4.0]).unwrap());
        let error = to_burn(&net(), packed, &PATTERNS).unwrap_err().to_string();
        assert!(error.contains("`bn.weight` and `norm.gamma` are both for `norm.gamma`"), "{error}");
    }

    #[test]
    fn a_layer_alone_is_converted_as_in_a_network() {
        let mut packed = PackedModel { layout: TensorLayout::Pytorch, ..PackedModel::default() };
        for name in ["weight", "bias", "running_mean", "running_var"] {
            packed.tensors.insert(name.into(), DenseTensor::from_f32([2], &[1.0, 2.0]).unwrap());
        }
        packed.tensors.insert("num_batches_tracked".into(), DenseTensor::new(Dtype::I64, [1], vec![0; 8]).unwrap());
        let norm = || BatchNormConfig::new(2).init::<Flex>(&Default::default());
        let none: [(&str, &str); 0] = [];
        let loaded: BatchNorm<Flex> = crate::load(norm(), &to_burn(&norm(), packed, &none).unwrap()).unwrap();
        assert_eq!(loaded.gamma.val().into_data(), TensorData::from([1.0_f32, 2.0]));
    }

    #[test]
    fn an_invalid_pattern_is_an_error_that_names_it() {
        let error = to_burn(&net(), pytorch_model(), &[("(", "")]).unwrap_err();
        assert!(error.to_string().contains("`(` is not a valid regular expression"), "{error}");
    }

    #[test]
    fn a_linear_weight_of_integers_is_an_error_that_names_it() {
        let mut packed = pytorch_model();
        let integers = DenseTensor::new(Dtype::I8, [3, 2], vec![0; 6]).unwrap();
        packed.tensors.insert("fc.weight".into(), integers);
        let error = to_burn(&net(), packed, &PATTERNS).unwrap_err();
        assert!(error.to_string().contains("`classes.weight` cannot be transposed"), "{error}");
    }

    #[test]
    fn a_transposed_matrix_has_its_axes_exchanged() {
        let tensor = DenseTensor::from_f32([2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
        let matrix = transposed(&tensor).unwrap();
        assert_eq!((matrix.shape(), matrix.to_f32().unwrap()), (&[3, 2][..], vec![1.0, 4.0, 2.0, 5.0, 3.0, 6.0]));
        assert_eq!(transposed(&tensor.to_f16().unwrap()).unwrap(), matrix.to_f16().unwrap());
        let vector = DenseTensor::from_f32([2], &[1.0, 2.0]).unwrap();
        assert_eq!(transposed(&vector).unwrap(), vector);
    }
}
