//! A packed layer computes with the parameters that it has at the call.

use burn::backend::{Autodiff, Flex};
use burn::module::{AutodiffModule, ModuleMapper, Param};
use burn::nn::conv::Conv2dConfig;
use burn::nn::{LinearConfig, PaddingConfig2d};
use burn::optim::{GradientsParams, Optimizer, SgdConfig};
use burn::prelude::*;
use burn::tensor::TensorData;
use burn::tensor::module::linear;
use burn_ndarray::NdArray;
use rayon::prelude::*;
use ttq_core::packed::{PackedConv2d, PackedLinear, PackedWeight};
use ttq_cpu::Cpu;

use crate::{assert_close, random, weight};

/// A packed layer, and the same layer computed from its parameters by definition.
trait Layer<B: Backend>: Module<B> {
    fn init(bias: bool) -> Self;
    fn output(&self) -> TensorData;
    fn expected(&self) -> TensorData;
}

impl<B: Backend> Layer<B> for PackedLinear<B> {
    fn init(bias: bool) -> Self {
        let config = LinearConfig::new(16, 8).with_bias(bias);
        Self::new(&config, &Default::default()).with_weight(&weight(&[16, 8], 1, true))
    }

    fn output(&self) -> TensorData {
        self.forward(random::<B, 2>([3, 16], 31)).into_data()
    }

    fn expected(&self) -> TensorData {
        linear(random::<B, 2>([3, 16], 31), floats(&self.weight), self.bias.as_ref().map(Param::val)).into_data()
    }
}

impl<B: Backend> Layer<B> for PackedConv2d<B> {
    fn init(bias: bool) -> Self {
        let config = Conv2dConfig::new([4, 8], [3, 3]).with_padding(PaddingConfig2d::Same).with_bias(bias);
        Self::new(&config, &Default::default()).with_weight(&weight(&[8, 4, 3, 3], 0, true))
    }

    fn output(&self) -> TensorData {
        self.forward(random([2, 4, 5, 6], 32)).into_data()
    }

    fn expected(&self) -> TensorData {
        let mut dense = self.dense();
        dense.weight = Param::from_tensor(floats(&self.weight));
        dense.forward(random([2, 4, 5, 6], 32)).into_data()
    }
}

fn floats<B: Backend, const D: usize>(weight: &PackedWeight<B>) -> Tensor<B, D> {
    let weight = weight.to_ternary();
    Tensor::from_data(TensorData::new(weight.dequantize(), weight.shape().to_vec()), &Default::default())
}

/// Changes one parameter of a layer and keeps its identifier.
struct Change<'a> {
    name: &'a str,
    current: String,
}

impl<B: Backend> ModuleMapper<B> for Change<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.current = name.into();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        if self.current == self.name { param.map(|values| values.mul_scalar(2).add_scalar(1)) } else { param }
    }

    fn map_int<const D: usize>(&mut self, param: Param<Tensor<B, D, Int>>) -> Param<Tensor<B, D, Int>> {
        if self.current != self.name {
            return param;
        }
        // Codes 0, 1, 2 in two bits each become 2, 1, 0.
        param.map(|words| {
            let data = words.to_data();
            let opposite: Vec<i32> =
                data.iter::<i32>().map(|word| (0xaaaa_aaaa_u32 as i32).wrapping_sub(word)).collect();
            Tensor::from_data(TensorData::new(opposite, data.shape), &words.device())
        })
    }
}

fn changed<B: Backend, L: Layer<B>>(layer: L, name: &str) -> L {
    layer.map(&mut Change { name, current: String::new() })
}

fn assert_current<B: Backend, L: Layer<B>>(layer: &L, before: &TensorData) -> TensorData {
    let output = layer.output();
    assert_close(output.clone(), layer.expected(), 1e-5);
    assert_ne!(output, *before, "the parameter takes part in the result");
    output
}

fn follows_its_parameters<B: Backend, L: Layer<B>>() {
    for name in ["codes", "scales", "bias"] {
        let layer = L::init(true);
        let first = layer.output();
        // A clone that is changed, the layer itself, and a record with the same identifiers.
        let clone = changed::<B, L>(layer.clone(), name);
        assert_current::<B, L>(&clone, &first);
        assert_eq!(layer.output(), first);
        let layer = changed::<B, L>(layer, name);
        let second = assert_current::<B, L>(&layer, &first);
        let record = changed::<B, L>(layer.clone(), name).into_record();
        if name != "codes" {
            assert_current::<B, L>(&layer.clone().load_record(record), &second);
        }
        // Another device has other tensors; here it is the same one.
        let layer = changed::<B, L>(layer.to_device(&Default::default()), name);
        assert_current::<B, L>(&layer, &second);
    }
}

#[test]
fn a_packed_layer_computes_with_the_parameters_it_has_now_whatever_changed_them() {
    follows_its_parameters::<Flex, PackedLinear<Flex>>();
    follows_its_parameters::<Flex, PackedConv2d<Flex>>();
    follows_its_parameters::<Cpu, PackedLinear<Cpu>>();
    follows_its_parameters::<Cpu, PackedConv2d<Cpu>>();
    follows_its_parameters::<NdArray, PackedLinear<NdArray>>();
    follows_its_parameters::<NdArray, PackedConv2d<NdArray>>();
}

fn follows_the_optimizer<B: Backend>() {
    let x = || random::<Autodiff<B>, 2>([3, 16], 31);
    let mut layer = PackedLinear::<Autodiff<B>>::init(true);
    let mut optimizer = SgdConfig::new().init();
    let mut before = layer.valid().output();
    for _ in 0..3 {
        let gradients = layer.forward(x()).powi_scalar(2).sum().backward();
        let gradients = GradientsParams::from_grads(gradients, &layer);
        layer = optimizer.step(0.01, layer, gradients);
        before = assert_current::<B, _>(&layer.valid(), &before);
    }
}

#[test]
fn a_packed_layer_computes_with_the_bias_that_an_optimizer_step_gave_it() {
    follows_the_optimizer::<Flex>();
    follows_the_optimizer::<Cpu>();
    follows_the_optimizer::<NdArray>();
}

/// Layers that are large enough for several threads.
fn large_layers<B: Backend>() -> (Vec<PackedConv2d<B>>, Vec<PackedLinear<B>>) {
    let device = Default::default();
    let convolution = |channels: usize| {
        let config = Conv2dConfig::new([16, channels], [3, 3]).with_padding(PaddingConfig2d::Same);
        PackedConv2d::new(&config, &device).with_weight(&weight(&[channels, 16, 3, 3], 0, true))
    };
    let linear = |outputs: usize| {
        PackedLinear::new(&LinearConfig::new(300, outputs), &device).with_weight(&weight(&[300, outputs], 1, false))
    };
    (vec![convolution(32), convolution(48)], vec![linear(300), linear(400)])
}

fn parallel_equals_sequential<B: Backend>() {
    let (convolutions, linears) = large_layers::<B>();
    let convolution = |index: usize| {
        let image = random::<B, 4>([2, 16, 24, 24], 33);
        convolutions[index % convolutions.len()].forward(image).into_data()
    };
    let linear = |index: usize| {
        let rows = random::<B, 2>([64, 300], 34);
        linears[index % linears.len()].forward(rows).into_data()
    };
    let output = |index: usize| if index.is_multiple_of(2) { convolution(index / 2) } else { linear(index / 2) };
    // A layer that was never called builds its kernel in one of the threads.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(4).build().unwrap();
    let in_tasks: Vec<TensorData> = pool.install(|| (0..32).into_par_iter().map(output).collect());
    let in_threads: Vec<TensorData> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|index| scope.spawn(move || output(index))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let sequential: Vec<TensorData> = (0..4).map(output).collect();
    for outputs in [in_tasks, in_threads] {
        assert!(outputs.iter().enumerate().all(|(index, output)| *output == sequential[index % 4]));
    }
}

#[test]
fn parallel_forward_passes_of_equal_and_different_layers_give_the_sequential_results() {
    parallel_equals_sequential::<Flex>();
    parallel_equals_sequential::<Cpu>();
}
