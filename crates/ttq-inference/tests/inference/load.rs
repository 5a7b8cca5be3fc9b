//! Loading of a file: completely, in part, in other types, for fine-tuning.

use burn::backend::{Autodiff, Flex};
use burn::module::{ModuleMapper, Param, ParamId, list_param_ids};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig, PaddingConfig2d};
use burn::optim::{GradientsParams, Optimizer, SgdConfig};
use burn::prelude::*;
use burn::tensor::{DType, TensorData};
use burn_ndarray::NdArray;
use ttq_inference::{LoadOptions, Packed, load, load_with};
use ttq_packed::{Coding, DenseTensor, Dtype, PackedModel};

use crate::ternary::{assert_close, file_for, packed_parameters, random, weight};

#[derive(Module, Debug)]
struct Net<B: Backend> {
    conv: Conv2d<B>,
    norm: BatchNorm<B>,
    hidden: Linear<B>,
}

impl<B: Backend> Net<B> {
    fn new() -> Self {
        let device = Default::default();
        let conv = Conv2dConfig::new([2, 5], [3, 3]).with_padding(PaddingConfig2d::Same).with_bias(false);
        Self {
            conv: conv.init(&device),
            norm: BatchNormConfig::new(5).init(&device),
            hidden: LinearConfig::new(5 * 36, 3).init(&device),
        }
    }

    fn forward(&self, seed: u64) -> Tensor<B, 2> {
        let x = self.norm.forward(self.conv.forward(random([2, 2, 6, 6], seed)));
        self.hidden.forward(x.flatten(1, 3))
    }
}

/// The parameters in the order of the module.
const PARAMETERS: [&str; 7] =
    ["conv.weight", "norm.gamma", "norm.beta", "norm.running_mean", "norm.running_var", "hidden.weight", "hidden.bias"];

/// A file with ternary weights `conv.weight` and `hidden.weight`.
fn file() -> PackedModel {
    file_for(&Net::<Flex>::new(), true)
}

/// A file in which the names have a prefix.
fn prefixed(prefix: &str) -> PackedModel {
    let file = file();
    let name = |name: String| format!("{prefix}{name}");
    PackedModel {
        weights: file.weights.into_iter().map(|(path, weight)| (name(path), weight)).collect(),
        tensors: file.tensors.into_iter().map(|(path, tensor)| (name(path), tensor)).collect(),
        ..PackedModel::default()
    }
}

#[test]
fn a_file_that_is_written_and_read_computes_bit_for_bit_the_same() {
    let expected = load(Net::<Packed<Flex>>::new(), &file()).unwrap().forward(1).into_data();
    for coding in [Coding::Plain, Coding::Archive] {
        let read = PackedModel::read(&file().write(coding).unwrap()).unwrap();
        assert_eq!(load(Net::<Packed<Flex>>::new(), &read).unwrap().forward(1).into_data(), expected);
    }
}

#[test]
fn a_module_that_is_loaded_again_computes_with_the_new_weights() {
    let mut other = file();
    other.weights.insert("hidden.weight".into(), weight(&[180, 3], 1, false, 99));
    let first = load(Net::<Packed<Flex>>::new(), &file()).unwrap();
    let before = first.forward(1).into_data();
    let second = load(first.clone(), &other).unwrap();
    let fresh = load(Net::<Packed<Flex>>::new(), &other).unwrap();
    assert_eq!(second.forward(1).into_data(), fresh.forward(1).into_data());
    assert_ne!(second.forward(1).into_data(), before);
    assert_eq!(first.forward(1).into_data(), before, "a clone is unchanged");
}

#[test]
fn a_record_of_a_packed_module_holds_its_values_and_loads_on_other_backends() {
    use burn::record::{BinBytesRecorder, FullPrecisionSettings, Recorder};

    let packed = load(Net::<Packed<Flex>>::new(), &file()).unwrap();
    let expected = packed.forward(1).into_data();
    let recorder = BinBytesRecorder::<FullPrecisionSettings>::default();
    let bytes = Recorder::<Packed<Flex>>::record(&recorder, packed.into_record(), ()).unwrap();
    let record = Recorder::<Flex>::load(&recorder, bytes, &Default::default()).unwrap();
    assert_close(&Net::<Flex>::new().load_record(record).forward(1).into_data(), &expected, 1e-5);
}

#[test]
fn a_loaded_module_can_be_fine_tuned_and_what_was_frozen_stays_frozen() {
    type A = Autodiff<Flex>;
    let mut net = Net::<A>::new();
    net.conv = net.conv.no_grad();
    let ids = list_param_ids(&net);
    let net = load(net, &file()).unwrap();
    assert_eq!(list_param_ids(&net), ids);
    let before = net.clone();
    let gradients = net.forward(1).powi_scalar(2).mean().backward();
    let gradients = GradientsParams::from_grads(gradients, &net);
    // Gain and offset of the normalization, weight and bias of the linear layer.
    assert_eq!(gradients.len(), 4);
    let net = SgdConfig::new().init().step(0.1, net, gradients);
    assert_ne!(net.hidden.weight.val().into_data(), before.hidden.weight.val().into_data());
    assert_eq!(net.conv.weight.val().into_data(), before.conv.weight.val().into_data());
    // The identifiers are those of the module on the packed backend, too.
    let net = Net::<Packed<Flex>>::new();
    let ids = list_param_ids(&net);
    assert_eq!(list_param_ids(&load(net, &file()).unwrap()), ids);
}

#[test]
fn a_file_of_another_module_is_an_error_that_lists_all_differences() {
    let mut file = file();
    file.tensors.remove("norm.beta");
    file.weights.remove("hidden.weight");
    file.tensors.insert("other".into(), DenseTensor::from_f32([1], &[0.0]).unwrap());
    file.tensors.insert("hidden.bias".into(), DenseTensor::from_f32([2], &[0.0; 2]).unwrap());
    file.weights.insert("conv.weight".into(), weight(&[5, 1, 6, 3], 0, true, 1));
    let integers = DenseTensor::new(Dtype::I8, [5], vec![0; 5]).unwrap();
    file.tensors.insert("norm.gamma".into(), integers);
    let error = load(Net::<Packed<Flex>>::new(), &file).unwrap_err();
    assert_eq!(error.missing, ["norm.beta", "hidden.weight"]);
    assert_eq!(error.unexpected, ["other"]);
    let differing: Vec<&str> = error.mismatched.iter().map(|mismatch| mismatch.path.as_str()).collect();
    assert_eq!(differing, ["conv.weight", "norm.gamma", "hidden.bias"]);
    let text = error.to_string();
    for expected in [
        "norm.beta is missing from the file",
        "other is not in the module",
        "conv.weight is [5, 1, 6, 3] in the file and [5, 2, 3, 3] in the module",
        "norm.gamma is I8 in the file and float in the module",
    ] {
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn a_part_is_loaded_only_if_asked_for_and_the_rest_is_named() {
    let mut smaller = file();
    smaller.weights.remove("hidden.weight");
    smaller.tensors.remove("hidden.bias");
    let rest = ["hidden.weight", "hidden.bias"];
    assert_eq!(load(Net::<Packed<Flex>>::new(), &smaller).unwrap_err().missing, rest);
    let net = Net::<Packed<Flex>>::new();
    let before = net.hidden.weight.val().into_data();
    let (loaded, report) = load_with(net, &smaller, &LoadOptions::new().allow_missing()).unwrap();
    assert_eq!(
        (report.missing.as_slice(), report.loaded.as_slice()),
        (&rest.map(String::from)[..], &PARAMETERS.map(String::from)[..5])
    );
    assert!(report.unexpected.is_empty());
    assert_eq!(packed_parameters(&loaded), 1);
    assert_eq!(loaded.hidden.weight.val().into_data(), before);
}

#[test]
fn a_parameter_that_the_file_does_not_have_gets_its_random_initial_value() {
    let mut smaller = file();
    smaller.weights.remove("hidden.weight");
    let options = LoadOptions::new().allow_missing();
    let (loaded, _) = load_with(Net::<Packed<Flex>>::new(), &smaller, &options).unwrap();
    let values: Vec<f32> = loaded.hidden.weight.val().into_data().iter().collect();
    assert!(values.iter().all(|value| *value != 0.0), "{values:?}");
    // And so has a module that is made later.
    let later: Vec<f32> = Net::<Packed<Flex>>::new().hidden.weight.val().into_data().iter().collect();
    assert!(later.iter().all(|value| *value != 0.0), "{later:?}");
}

#[test]
fn a_part_of_a_larger_file_is_loaded_by_its_prefix_and_under_other_names() {
    let expected = load(Net::<Packed<Flex>>::new(), &file()).unwrap().forward(1).into_data();
    let mut larger = prefixed("encoder.");
    larger.tensors.insert("decoder.bias".into(), DenseTensor::from_f32([1], &[0.0]).unwrap());
    larger.tensors.insert("encoder.extra".into(), DenseTensor::from_f32([1], &[0.0]).unwrap());
    let options = LoadOptions::new().with_prefix("encoder.");
    let error = load_with(Net::<Packed<Flex>>::new(), &larger, &options).unwrap_err();
    assert_eq!((error.missing, error.unexpected), (Vec::<String>::new(), vec!["encoder.extra".to_string()]));
    let (loaded, report) = load_with(Net::<Packed<Flex>>::new(), &larger, &options.allow_unexpected()).unwrap();
    assert_eq!(
        (report.loaded, report.unexpected),
        (PARAMETERS.map(String::from).to_vec(), vec!["encoder.extra".into()])
    );
    assert_eq!(loaded.forward(1).into_data(), expected);

    let renamed = |rename: fn(&str) -> String| {
        load_with(Net::<Packed<Flex>>::new(), &prefixed("net."), &LoadOptions::new().with_rename(rename))
    };
    let (loaded, _) = renamed(|name| name.replace("net.", "")).unwrap();
    assert_eq!(loaded.forward(1).into_data(), expected);
    let error = renamed(|name| name.replace("net.", "").replace("hidden.weight", "conv.weight")).unwrap_err();
    assert_eq!(error.duplicates, [["net.conv.weight", "net.hidden.weight"]]);
    assert!(error.to_string().contains("net.conv.weight and net.hidden.weight are for the same parameter"), "{error}");
}

#[test]
fn a_file_of_which_nothing_or_a_part_in_another_shape_would_be_loaded_is_an_error_in_any_case() {
    let everything = LoadOptions::new().allow_missing().allow_unexpected();
    let typo = everything.clone().with_prefix("typo.");
    assert_eq!(load_with(Net::<Packed<Flex>>::new(), &file(), &typo).unwrap_err().missing, PARAMETERS);
    let mut other = file();
    other.tensors.insert("hidden.bias".into(), DenseTensor::from_f32([2], &[0.0; 2]).unwrap());
    let net = Net::<Packed<Flex>>::new();
    let before = net.norm.running_var.value().into_data();
    assert_eq!(load_with(net.clone(), &other, &everything).unwrap_err().mismatched.len(), 1);
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
    fn check<B: Backend>(file: &PackedModel, expected: &TensorData, tolerance: f32) {
        let net = load(Net::<B>::new(), file).unwrap();
        assert_eq!(net.norm.gamma.val().dtype(), DType::F32);
        assert_close(&net.forward(1).into_data(), expected, tolerance);
    }
    fn check_double<B: Backend>(file: &PackedModel, expected: &TensorData, tolerance: f32) {
        let net = load(Net::<B>::new().map(&mut Double), file).unwrap();
        assert_eq!(net.conv.weight.val().dtype(), DType::F64);
        let images = random::<B, 4>([2, 2, 6, 6], 1).cast(DType::F64);
        let x = net.norm.forward(net.conv.forward(images));
        assert_close(&net.hidden.forward(x.flatten::<2>(1, 3)).into_data(), expected, tolerance);
    }
    let expected = load(Net::<Flex>::new(), &file()).unwrap().forward(1).into_data();
    for (dtype, float, tolerance) in [
        (Dtype::F64, DType::F64, 1e-5),
        (Dtype::F32, DType::F32, 1e-5),
        (Dtype::F16, DType::F16, 0.01),
        (Dtype::BF16, DType::BF16, 0.05),
    ] {
        let mut converted = file();
        for tensor in converted.tensors.values_mut() {
            let values = TensorData::from(tensor.to_f32().unwrap().as_slice()).convert_dtype(float);
            *tensor = DenseTensor::new(dtype, tensor.shape(), values.bytes.to_vec()).unwrap();
        }
        check::<Flex>(&converted, &expected, tolerance);
        check::<Packed<Flex>>(&converted, &expected, tolerance);
        check_double::<NdArray>(&converted, &expected, tolerance);
        check_double::<Packed<NdArray>>(&converted, &expected, tolerance);
    }
}

#[test]
fn a_value_that_overflows_in_the_type_of_the_parameter_is_an_error() {
    let mut file = file();
    let values: Vec<u8> = [1e300_f64, 0.0, 1.0].iter().flat_map(|value| value.to_le_bytes()).collect();
    file.tensors.insert("hidden.bias".into(), DenseTensor::new(Dtype::F64, [3], values).unwrap());
    let text = load(Net::<Packed<Flex>>::new(), &file).unwrap_err().to_string();
    assert!(text.contains("hidden.bias is 1e300 in the file and of type F32, in which it overflows"), "{text}");
}

#[test]
fn an_integer_that_the_type_of_the_parameter_lacks_is_an_error() {
    #[derive(Module, Debug)]
    struct Counter<B: Backend> {
        steps: Param<Tensor<B, 1, Int>>,
    }
    let counter = |dtype| {
        let steps = Tensor::from_data([1, 2], (&Default::default(), dtype));
        Counter::<Packed<Flex>> { steps: Param::initialized(ParamId::new(), steps) }
    };
    let largest = i64::from(i32::MAX);
    for (value, dtype, is_in) in [
        (largest, DType::I32, true),
        (largest + 1, DType::I32, false),
        (i64::from(i32::MIN) - 1, DType::I32, false),
        (largest + 1, DType::I64, true),
        (255, DType::U8, true),
        (256, DType::U8, false),
        (-1, DType::U32, false),
        (-128, DType::I8, true),
    ] {
        let mut file = PackedModel::default();
        let bytes: Vec<u8> = [7, value].iter().flat_map(|value: &i64| value.to_le_bytes()).collect();
        file.tensors.insert("steps".into(), DenseTensor::new(Dtype::I64, [2], bytes).unwrap());
        match load(counter(dtype), &file) {
            Ok(loaded) => {
                let steps: Vec<i64> = loaded.steps.val().into_data().iter::<i64>().collect();
                assert!(is_in && steps == [7, value], "{value} as {dtype:?}: {steps:?}");
            }
            Err(error) => {
                let text = format!("steps is {value} in the file and of type {dtype:?}, which lacks this value");
                assert!(!is_in && error.to_string().contains(&text), "{error}");
            }
        }
    }
}
