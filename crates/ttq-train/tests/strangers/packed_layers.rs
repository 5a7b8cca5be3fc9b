//! A network that trains with Burn's layers and runs with packed ones, on every backend.

use burn::backend::{Autodiff, Flex};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig, PaddingConfig2d};
use burn::prelude::*;
use burn::tensor::activation::relu;
use burn_ndarray::NdArray;
use ttq_core::packed::{Convolution, LinearLayer, PackedConv2d, PackedLinear, load, pack};
use ttq_core::{Granularity, QuantizerConfig, Ternary, TernaryConfig};
use ttq_cpu::Cpu;
use ttq_testing::{normal, reproducible, tensor};

#[derive(Module, Debug)]
struct Net<B: Backend, C: Module<B>, L: Module<B>> {
    stem: Conv2d<B>,
    norm: BatchNorm<B>,
    body: Vec<C>,
    hidden: L,
    head: Linear<B>,
}

impl<B: Backend, C: Convolution<B>, L: LinearLayer<B>> Net<B, C, L> {
    fn new(device: &B::Device) -> Self {
        let conv = |kernel: [usize; 2]| Conv2dConfig::new([6, 6], kernel).with_padding(PaddingConfig2d::Same);
        Self {
            stem: Conv2dConfig::new([1, 6], [3, 3]).init(device),
            norm: BatchNormConfig::new(6).init(device),
            body: vec![
                C::init(&conv([3, 3]), device),
                C::init(&conv([1, 3]).with_groups(2).with_bias(false), device),
                C::init(&conv([3, 3]).with_stride([2, 2]), device),
                C::init(&Conv2dConfig::new([6, 4], [2, 2]).with_dilation([1, 2]), device),
            ],
            hidden: L::init(&LinearConfig::new(8, 10), device),
            head: LinearConfig::new(10, 3).init(device),
        }
    }

    fn forward(&self, x: Tensor<B, 4>) -> Tensor<B, 2> {
        let x = relu(self.norm.forward(self.stem.forward(x)));
        let x = self.body.iter().fold(x, |x, layer| relu(layer.forward(x)));
        let [n, ..] = x.dims();
        self.head.forward(relu(self.hidden.forward(x.reshape([n as i32, -1]))))
    }
}

fn packed_layers_compute_as_dense_ones<B: Backend>() {
    for granularity in [Granularity::Tensor, Granularity::Channel] {
        let quantizer = QuantizerConfig::ttq().with_granularity(granularity);
        let config = TernaryConfig::new().with_quantizer(quantizer);
        let net: Net<Autodiff<Cpu>, Conv2d<_>, Linear<_>> = reproducible(Net::new(&Default::default()), 1);
        let ternary = Ternary::new(net, &config).unwrap();
        let file = pack(&ternary).unwrap();
        let x = normal(&[2, 1, 8, 8], 2);
        let expected = burn::module::AutodiffModule::valid(&ternary).materialize().forward(tensor(&x));
        let net: Net<B, PackedConv2d<B>, PackedLinear<B>> = load(Net::new(&Default::default()), &file).unwrap();
        let found = net.forward(tensor(&x)).into_data().convert::<f32>();
        found.assert_approx_eq::<f32>(&expected.into_data(), burn::tensor::Tolerance::rel_abs(1e-4, 1e-5));
    }
}

#[test]
fn packed_layers_compute_as_dense_ones_on_flex() {
    packed_layers_compute_as_dense_ones::<Flex>();
}

#[test]
fn packed_layers_compute_as_dense_ones_on_ttq_cpu() {
    packed_layers_compute_as_dense_ones::<Cpu>();
}

#[test]
fn packed_layers_compute_as_dense_ones_on_ndarray() {
    packed_layers_compute_as_dense_ones::<NdArray>();
    packed_layers_compute_as_dense_ones::<NdArray<f64>>();
}
