//! Tests packing, loading and packed layers against the dense ternary module.

mod geometry;
mod load;
mod pack;
mod parameters;

use burn::backend::{Autodiff, Flex};
use burn::module::{Param, RunningState};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig, PaddingConfig2d};
use burn::prelude::*;
use burn::tensor::TensorData;
use burn_ndarray::NdArray;
use ttq_core::packed::{
    ActivationType, Convolution, Float32, Int8, LinearLayer, PackedConv2d, PackedLinear, load, pack,
};
use ttq_core::{Granularity, QuantizerConfig, Ternary, TernaryConfig};
use ttq_cpu::Cpu;
use ttq_packed::{Codes, Coding, DenseTensor, PackedModel, TernaryWeight};
use ttq_testing::{normal, reproducible, tensor};

/// A network that is generic over two of its layers.
#[derive(Module, Debug)]
struct Net<B: Backend, C: Module<B>, L: Module<B>> {
    stem: Conv2d<B>,
    conv: C,
    norm: BatchNorm<B>,
    hidden: L,
    classes: Linear<B>,
}

type Dense<B> = Net<B, Conv2d<B>, Linear<B>>;
type Packed<B> = Net<B, PackedConv2d<B>, PackedLinear<B>>;

impl<B: Backend, C: Convolution<B>, L: LinearLayer<B>> Net<B, C, L> {
    fn new(channels: usize, device: &B::Device) -> Self {
        let conv = Conv2dConfig::new([4, channels], [3, 3]).with_padding(PaddingConfig2d::Same).with_bias(false);
        Self {
            stem: Conv2dConfig::new([2, 4], [3, 3]).init(device),
            conv: C::init(&conv, device),
            norm: BatchNormConfig::new(channels).init(device),
            hidden: L::init(&LinearConfig::new(channels * 36, 9), device),
            classes: LinearConfig::new(9, 3).init(device),
        }
    }

    fn forward(&self, images: Tensor<B, 4>) -> Tensor<B, 2> {
        let x = self.norm.forward(self.conv.forward(self.stem.forward(images)));
        self.classes.forward(self.hidden.forward(x.flatten(1, 3)))
    }
}

fn ternary<B: Backend>(granularity: Granularity, seed: u64) -> Ternary<B, Dense<B>> {
    let quantizer = QuantizerConfig::ttq().with_granularity(granularity);
    let config = TernaryConfig { quantizer, ..TernaryConfig::default() };
    Ternary::new(reproducible(Dense::new(5, &Default::default()), seed), &config).unwrap()
}

fn random<B: Backend, const D: usize>(shape: [usize; D], seed: u64) -> Tensor<B, D> {
    tensor(&normal(&shape, seed))
}

fn assert_close(found: TensorData, expected: TensorData, tolerance: f32) {
    assert_eq!(found.shape, expected.shape);
    let largest = expected.iter::<f32>().map(f32::abs).fold(1e-6, f32::max);
    for (found, expected) in found.iter::<f32>().zip(expected.iter::<f32>()) {
        assert!((found - expected).abs() <= tolerance * largest, "{found} for {expected}");
    }
}

/// Returns a weight with irregular codes and scales.
fn weight(shape: &[usize], axis: usize, per_channel: bool) -> TernaryWeight {
    let n = shape.iter().product::<usize>();
    let codes: Vec<i8> = (0..n).map(|i| ((i * 7919 + i / 3) % 5 % 3) as i8 - 1).collect();
    let groups = if per_channel { shape[axis] } else { 1 };
    let scales: Vec<[f32; 2]> = (0..groups).map(|g| [0.3 + g as f32 * 0.1, 0.7 - g as f32 * 0.01]).collect();
    TernaryWeight::new(Codes::pack(&codes).unwrap(), scales, shape, axis).unwrap()
}

fn linear_equals_dense<B: Backend, A: ActivationType>(tolerance: f32, has_kernels: bool) {
    for (inputs, outputs) in [(1, 1), (7, 33), (64, 16), (100, 70)] {
        for per_channel in [false, true] {
            let weight = weight(&[inputs, outputs], 1, per_channel);
            let config = LinearConfig::new(inputs, outputs).with_bias(per_channel);
            let mut packed = PackedLinear::<B, A>::new(&config, &Default::default()).with_weight(&weight);
            packed.bias = packed.bias.map(|_| Param::from_tensor(random([outputs], 2)));
            let floats = TensorData::new(weight.dequantize(), [inputs, outputs]);
            let dense = Linear {
                weight: Param::from_tensor(Tensor::from_data(floats, &Default::default())),
                bias: packed.bias.clone(),
            };
            let x = random::<B, 3>([2, 3, inputs], 3);
            assert_eq!(packed.computes_packed(&x), has_kernels);
            assert_close(packed.forward(x.clone()).into_data(), dense.forward(x).into_data(), tolerance);
        }
    }
}

fn convolution_equals_dense<B: Backend, A: ActivationType>(tolerance: f32, has_kernels: bool) {
    let plain = Conv2dConfig::new([6, 9], [3, 3]);
    let configs = [
        plain.clone(),
        plain.clone().with_stride([2, 2]).with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1)),
        plain.clone().with_groups(3).with_dilation([2, 1]).with_bias(false),
        // Different padding on opposite sides.
        plain.with_padding(PaddingConfig2d::Explicit(0, 1, 2, 3)),
        Conv2dConfig::new([6, 4], [2, 2]).with_padding(PaddingConfig2d::Same),
        Conv2dConfig::new([6, 4], [3, 3]).with_padding(PaddingConfig2d::Same).with_stride([2, 2]),
        // Burn's `Same` ignores the dilation, so the output is smaller than the input.
        Conv2dConfig::new([6, 4], [3, 3]).with_padding(PaddingConfig2d::Same).with_dilation([2, 1]),
        Conv2dConfig::new([6, 40], [1, 1]).with_stride([2, 1]),
    ];
    for config in configs {
        let [inputs, outputs] = config.channels;
        let shape = [outputs, inputs / config.groups, config.kernel_size[0], config.kernel_size[1]];
        for per_channel in [false, true] {
            let weight = weight(&shape, 0, per_channel);
            let packed = PackedConv2d::<B, A>::new(&config, &Default::default()).with_weight(&weight);
            let mut dense: Conv2d<B> = config.init(&Default::default());
            let floats = TensorData::new(weight.dequantize(), shape);
            dense.weight = Param::from_tensor(Tensor::from_data(floats, &Default::default()));
            dense.bias = packed.bias.clone();
            let x = random::<B, 4>([2, inputs, 11, 8], 4);
            // Whatever padding, stride, dilation and groups are.
            assert_eq!(packed.computes_packed(&x), has_kernels);
            let expected = dense.forward(x.clone());
            let [_, _, height, width] = expected.dims();
            let sizes = [Convolution::output_size(&packed, [11, 8]), Convolution::output_size(&dense, [11, 8])];
            assert_eq!(sizes, [[height, width]; 2]);
            assert_close(packed.forward(x).into_data(), expected.into_data(), tolerance);
        }
    }
}

#[test]
fn packed_layers_equal_dense_layers_with_and_without_kernels() {
    linear_equals_dense::<Flex, Float32>(1e-5, true);
    convolution_equals_dense::<Flex, Float32>(1e-5, true);
    linear_equals_dense::<Cpu, Float32>(1e-5, true);
    convolution_equals_dense::<Cpu, Float32>(1e-5, true);
    // The tensors of these backends are not those of Flex, so the layers unpack the weight.
    linear_equals_dense::<Autodiff<Flex>, Float32>(1e-6, false);
    convolution_equals_dense::<Autodiff<Flex>, Float32>(1e-6, false);
    linear_equals_dense::<NdArray, Float32>(1e-6, false);
    convolution_equals_dense::<NdArray, Float32>(1e-6, false);
}

#[test]
fn packed_layers_with_int8_activations_are_close_to_dense_layers() {
    linear_equals_dense::<Flex, Int8>(0.02, true);
    convolution_equals_dense::<Flex, Int8>(0.02, true);
}

#[test]
fn a_packed_file_loads_into_dense_and_packed_modules() {
    for granularity in [Granularity::Tensor, Granularity::Channel] {
        let ternary = ternary::<Flex>(granularity, 1);
        let images = random([3, 2, 8, 8], 5);
        let expected = ternary.materialize().forward(images.clone()).into_data();
        let file = pack(&ternary).unwrap().write(Coding::Archive).unwrap();
        let file = PackedModel::read(&file).unwrap();
        assert_eq!(file.weights.keys().collect::<Vec<_>>(), ["conv.weight", "hidden.weight"]);
        let dense = load(Dense::<Flex>::new(5, &Default::default()), &file).unwrap();
        let floats = ternary.materialize();
        assert_eq!(dense.conv.weight.val().into_data(), floats.conv.weight.val().into_data());
        assert_eq!(dense.hidden.weight.val().into_data(), floats.hidden.weight.val().into_data());
        assert_close(dense.forward(images.clone()).into_data(), expected.clone(), 1e-6);
        let packed = load(Packed::<Flex>::new(5, &Default::default()), &file).unwrap();
        assert_close(packed.forward(images).into_data(), expected, 1e-5);
        assert_eq!(packed.conv.weight.to_ternary(), file.weights["conv.weight"]);
    }
}

#[test]
fn a_layer_that_is_loaded_again_uses_the_new_weights() {
    let images = random::<Flex, 4>([1, 2, 8, 8], 6);
    let files = [1, 99].map(|seed| pack(&ternary::<Flex>(Granularity::Tensor, seed)).unwrap());
    let first = load(Packed::<Flex>::new(5, &Default::default()), &files[0]).unwrap();
    let before = first.forward(images.clone()).into_data();
    let second = load(first, &files[1]).unwrap();
    let fresh = load(Packed::<Flex>::new(5, &Default::default()), &files[1]).unwrap();
    let after = second.forward(images.clone()).into_data();
    assert_eq!(after, fresh.forward(images).into_data());
    assert_ne!(after, before);
}

#[test]
fn a_record_restores_a_packed_module() {
    use burn::record::{BinBytesRecorder, FullPrecisionSettings, Recorder};

    let images = random::<Flex, 4>([1, 2, 8, 8], 7);
    for granularity in [Granularity::Tensor, Granularity::Channel] {
        let file = pack(&ternary::<Flex>(granularity, 1)).unwrap();
        let packed = load(Packed::<Flex>::new(5, &Default::default()), &file).unwrap();
        let expected = packed.forward(images.clone()).into_data();
        let recorder = BinBytesRecorder::<FullPrecisionSettings>::default();
        let bytes = Recorder::<Flex>::record(&recorder, packed.into_record(), ()).unwrap();
        let record = recorder.load(bytes, &Default::default()).unwrap();
        let fresh = Packed::<Flex>::new(5, &Default::default()).load_record(record);
        assert_eq!(fresh.forward(images.clone()).into_data(), expected);
    }
}

#[test]
fn a_file_of_another_module_is_an_error_that_lists_all_differences() {
    let mut file = pack(&ternary::<Flex>(Granularity::Channel, 1)).unwrap();
    file.tensors.remove("stem.bias");
    file.tensors.insert("other".into(), DenseTensor::from_f32([1], &[0.0]).unwrap());
    file.tensors.insert("classes.bias".into(), DenseTensor::from_f32([2], &[0.0; 2]).unwrap());
    file.weights.insert("conv.weight".into(), weight(&[5, 2, 6, 3], 0, true));
    let hidden = file.weights.remove("hidden.weight").unwrap();
    let error = load(Packed::<Flex>::new(5, &Default::default()), &file).unwrap_err();
    assert_eq!(
        error.missing,
        ["hidden.weight", "stem.bias"].map(String::from).to_vec().into_iter().rev().collect::<Vec<_>>()
    );
    assert_eq!(error.unexpected, ["other"]);
    let differing: Vec<&str> = error.mismatched.iter().map(|mismatch| mismatch.path.as_str()).collect();
    assert_eq!(differing, ["conv.weight", "classes.bias"]);
    let text = error.to_string();
    assert!(text.contains("conv.weight is [5, 2, 6, 3]") && text.contains("[5, 4, 3, 3]"), "{text}");
    // Another output axis with the same shape and the same number of codes.
    let mut file = pack(&ternary::<Flex>(Granularity::Tensor, 1)).unwrap();
    let other_axis = TernaryWeight::new(hidden.codes().clone(), [[1.0, 1.0]], hidden.shape(), 0).unwrap();
    file.weights.insert("hidden.weight".into(), other_axis);
    assert!(load(Packed::<Flex>::new(5, &Default::default()), &file).is_err());
}

#[test]
fn a_folded_normalization_equals_the_normalization_at_inference() {
    let device = Default::default();
    let mut norm = BatchNormConfig::new(6).init::<Flex>(&device);
    // Positive, negative and zero factors.
    norm.gamma = Param::from_tensor(Tensor::from_floats([0.5, -1.5, 0.0, 2.0, -0.1, 1.0], &device));
    norm.beta = Param::from_tensor(random([6], 8));
    norm.running_mean = RunningState::new(random([6], 9));
    norm.running_var = RunningState::new(random::<Flex, 1>([6], 10).abs().add_scalar(0.1));
    for bias in [false, true] {
        let config = Conv2dConfig::new([4, 6], [3, 3]).with_bias(bias);
        for per_channel in [false, true] {
            let mut layer =
                PackedConv2d::<Flex>::new(&config, &device).with_weight(&weight(&[6, 4, 3, 3], 0, per_channel));
            layer.bias = layer.bias.map(|_| Param::from_tensor(random([6], 11)));
            let x = random([2, 4, 9, 9], 12);
            let expected = norm.forward(layer.forward(x.clone())).into_data();
            assert_close(layer.fold_batch_norm(&norm).forward(x).into_data(), expected, 1e-5);
        }
    }
}
