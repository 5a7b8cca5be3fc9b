//! Loading of a packed model: completely, in part, in other types, for fine-tuning.

use burn::backend::{Autodiff, Flex};
use burn::module::{ModuleMapper, Param, list_param_ids};
use burn::optim::{GradientsParams, Optimizer, SgdConfig};
use burn::prelude::*;
use burn::tensor::DType;
use burn_ndarray::NdArray;
use ttq_core::Granularity;
use ttq_core::packed::{LoadOptions, load, load_with, pack};
use ttq_packed::{Coding, DenseTensor, Dtype, PackedModel};

use crate::{Dense, Packed, assert_close, random, ternary};

fn file() -> PackedModel {
    pack(&ternary::<Flex>(Granularity::Channel, 1)).unwrap()
}

fn new<B: Backend>() -> Dense<B> {
    ttq_testing::reproducible(Dense::new(5, &Default::default()), 50)
}

#[test]
fn a_loaded_model_can_be_fine_tuned_and_what_was_frozen_stays_frozen() {
    type A = Autodiff<Flex>;
    let mut net = new::<A>();
    net.stem = net.stem.no_grad();
    let ids = list_param_ids(&net);
    let net = load(net, &file()).unwrap();
    assert_eq!(list_param_ids(&net), ids);
    let before = net.clone();
    let gradients = net.forward(random([3, 2, 8, 8], 51)).powi_scalar(2).mean().backward();
    let gradients = GradientsParams::from_grads(gradients, &net);
    // Two parameters each of `conv`, `norm`, `hidden` and `classes`; `conv` has no bias.
    assert_eq!(gradients.len(), 7);
    let net = SgdConfig::new().init().step(0.1, net, gradients);
    assert_ne!(net.conv.weight.val().into_data(), before.conv.weight.val().into_data());
    assert_ne!(net.hidden.weight.val().into_data(), before.hidden.weight.val().into_data());
    assert_ne!(net.classes.bias.unwrap().val().into_data(), before.classes.bias.unwrap().val().into_data());
    assert_eq!(net.stem.weight.val().into_data(), before.stem.weight.val().into_data());
}

#[test]
fn a_model_larger_than_the_file_is_loaded_in_part_only_if_asked_for_and_the_rest_is_named() {
    let mut smaller = file();
    smaller.weights.remove("hidden.weight");
    smaller.tensors.remove("classes.bias");
    assert_eq!(load(new::<Flex>(), &smaller).unwrap_err().missing, ["hidden.weight", "classes.bias"]);
    let net = new::<Flex>();
    let (loaded, report) = load_with(net.clone(), &smaller, &LoadOptions::new().allow_missing()).unwrap();
    assert_eq!(report.missing, ["hidden.weight", "classes.bias"]);
    assert_eq!(report.loaded.len(), 11 - 2);
    assert!(report.unexpected.is_empty());
    assert_eq!(loaded.hidden.weight.val().into_data(), net.hidden.weight.val().into_data());
    assert_eq!(loaded.conv.weight.val().into_data(), load(net, &file()).unwrap().conv.weight.val().into_data());
    // Packed layers count as one parameter.
    let packed = Packed::<Flex>::new(5, &Default::default());
    let (_, report) = load_with(packed, &smaller, &LoadOptions::new().allow_missing()).unwrap();
    assert_eq!(report.missing, ["hidden.weight", "classes.bias"]);
    assert_eq!(report.loaded.len(), 11 - 2);
}

#[test]
fn a_part_of_a_larger_file_is_loaded_by_its_prefix() {
    let part = file();
    let mut larger = PackedModel::default();
    larger.weights.extend(part.weights.iter().map(|(name, weight)| (format!("encoder.{name}"), weight.clone())));
    larger.tensors.extend(part.tensors.iter().map(|(name, tensor)| (format!("encoder.{name}"), tensor.clone())));
    larger.tensors.insert("decoder.bias".into(), DenseTensor::from_f32([1], &[0.0]).unwrap());
    larger.tensors.insert("encoder.extra".into(), DenseTensor::from_f32([1], &[0.0]).unwrap());
    let options = LoadOptions::new().with_prefix("encoder.");
    let error = load_with(new::<Flex>(), &larger, &options).unwrap_err();
    assert_eq!((error.missing, error.unexpected), (Vec::<String>::new(), vec!["encoder.extra".to_string()]));
    let (loaded, report) = load_with(new::<Flex>(), &larger, &options.allow_unexpected()).unwrap();
    assert_eq!(report.unexpected, ["encoder.extra"]);
    let images = || random([2, 2, 8, 8], 52);
    let expected = load(new::<Flex>(), &part).unwrap().forward(images()).into_data();
    assert_eq!(loaded.forward(images()).into_data(), expected);
}

#[test]
fn a_file_of_which_nothing_or_a_part_in_another_shape_would_be_loaded_is_an_error_in_any_case() {
    let everything = LoadOptions::new().allow_missing().allow_unexpected();
    let error = load_with(new::<Flex>(), &file(), &everything.clone().with_prefix("typo.")).unwrap_err();
    assert_eq!(error.missing.len(), 11);
    let mut other = file();
    other.tensors.insert("classes.bias".into(), DenseTensor::from_f32([2], &[0.0; 2]).unwrap());
    let net = new::<Flex>();
    let before = net.norm.running_var.value().into_data();
    let error = load_with(net.clone(), &other, &everything).unwrap_err();
    assert_eq!(error.mismatched.len(), 1);
    assert_eq!(net.norm.running_var.value().into_data(), before, "an error changes nothing");
}

/// Converts float parameters to float64.
struct Double;

impl<B: Backend> ModuleMapper<B> for Double {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        param.map(|values| values.cast(DType::F64))
    }
}

#[test]
fn files_with_floats_of_any_type_load_into_modules_of_any_type() {
    let images = random::<Flex, 4>([2, 2, 8, 8], 53);
    let expected = load(new::<Flex>(), &file()).unwrap().forward(images.clone()).into_data();
    let bytes = |dtype: Dtype, values: &[f32]| -> Vec<u8> {
        let tensor = |dtype| burn::tensor::TensorData::from(values).convert_dtype(dtype).bytes.to_vec();
        match dtype {
            Dtype::F64 => tensor(DType::F64),
            Dtype::F16 => tensor(DType::F16),
            Dtype::BF16 => tensor(DType::BF16),
            _ => tensor(DType::F32),
        }
    };
    for (dtype, tolerance) in [(Dtype::F64, 1e-5), (Dtype::F32, 1e-5), (Dtype::F16, 0.01), (Dtype::BF16, 0.05)] {
        let mut converted = file();
        for tensor in converted.tensors.values_mut() {
            let values = tensor.to_f32().unwrap();
            *tensor = DenseTensor::new(dtype, tensor.shape(), bytes(dtype, &values)).unwrap();
        }
        // The file and the module with all weights in floating point, as `ttq unpack` writes it.
        let converted = PackedModel::read(&converted.write(Coding::Plain).unwrap()).unwrap();
        let mut unpacked = converted.clone();
        for (name, weight) in std::mem::take(&mut unpacked.weights) {
            unpacked.tensors.insert(name, DenseTensor::from_f32(weight.shape(), &weight.dequantize()).unwrap());
        }
        for file in [&converted, &unpacked] {
            let net = load(new::<Flex>(), file).unwrap();
            assert_eq!(net.stem.weight.val().dtype(), DType::F32);
            assert_close(net.forward(images.clone()).into_data(), expected.clone(), tolerance);
            let net = load(new::<NdArray>().map(&mut Double), file).unwrap();
            assert_eq!(net.stem.weight.val().dtype(), DType::F64);
            let images = Tensor::from_data(images.to_data(), (&Default::default(), DType::F64));
            assert_close(net.forward(images).into_data(), expected.clone(), tolerance);
        }
        let packed = load(Packed::<Flex>::new(5, &Default::default()), &converted).unwrap();
        assert_close(packed.forward(images.clone()).into_data(), expected.clone(), tolerance);
        let packed = Packed::<NdArray>::new(5, &Default::default()).map(&mut Double);
        let packed = load(packed, &converted).unwrap();
        let images = Tensor::from_data(images.to_data(), (&Default::default(), DType::F64));
        assert_close(packed.forward(images).into_data(), expected.clone(), tolerance);
    }
}

#[test]
fn a_value_that_overflows_in_the_type_of_the_parameter_is_an_error() {
    let mut file = file();
    let values: Vec<u8> = [1e300_f64, 0.0, 1.0].iter().flat_map(|value| value.to_le_bytes()).collect();
    file.tensors.insert("classes.bias".into(), DenseTensor::new(Dtype::F64, [3], values).unwrap());
    let text = load(new::<Flex>(), &file).unwrap_err().to_string();
    assert!(text.contains("classes.bias is 1e300 in the file and of type F32, in which it overflows"), "{text}");
}

#[test]
fn booleans_and_integers_are_packed_and_loaded() {
    use burn::module::ParamId;
    use ttq_core::{SelectionConfig, Ternary, TernaryConfig};

    #[derive(Module, Debug)]
    struct Masked<B: Backend> {
        hidden: burn::nn::Linear<B>,
        mask: Param<Tensor<B, 1, Bool>>,
        order: Param<Tensor<B, 1, Int>>,
    }

    fn masked<B: Backend>(mask: [bool; 3], order: [i32; 3]) -> Masked<B> {
        let device = Default::default();
        Masked {
            hidden: burn::nn::LinearConfig::new(3, 3).init(&device),
            mask: Param::initialized(ParamId::new(), Tensor::from_data(mask, &device)),
            order: Param::initialized(ParamId::new(), Tensor::from_data(order, &device)),
        }
    }

    fn check<B: Backend>() {
        let selection = SelectionConfig::new().with_keep_last_layer(false);
        let config = TernaryConfig::new().with_selection(selection);
        let ternary = Ternary::new(masked::<B>([true, false, true], [2, -1, 0]), &config).unwrap();
        let loaded = load(masked::<B>([false; 3], [0; 3]), &pack(&ternary).unwrap()).unwrap();
        assert_eq!(loaded.mask.val().into_data().iter::<bool>().collect::<Vec<_>>(), [true, false, true]);
        assert_eq!(loaded.order.val().into_data().iter::<i64>().collect::<Vec<_>>(), [2, -1, 0]);
    }
    check::<Flex>();
    check::<NdArray>();
}
