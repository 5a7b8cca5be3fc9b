//! The networks of the examples compute the same without Burn.

use burn::module::{AutodiffModule, HasAutodiffModule, Module};
use burn::prelude::*;
use ttq_compile::{Capture, CompileOptions, Network as Compiled, capture};
use ttq_examples::Cpu;
use ttq_examples::model::{DenseNet, DenseNetConfig, MnistNet, Network, ResNet, SqueezeNet};
use ttq_packed::network::Arena;

type Images<B> = Tensor<B, 4>;

/// Compares the results for three images, to 1e-5 of the largest.
fn agrees<M>(
    network: M,
    image: [usize; 3],
    forward: impl Fn(&M::TrainModule, Images<Capture<Cpu>>) -> Tensor<Capture<Cpu>, 2>,
) where
    M: Module<Cpu> + HasAutodiffModule<Capture<Cpu>>,
{
    let [channels, height, width] = image;
    let count = 3 * channels * height * width;
    let values: Vec<f32> = (0..count).map(|index| (index as f32 * 0.37).sin()).collect();
    let data = TensorData::new(values.clone(), [3, channels, height, width]);
    let graph = capture(&network, Images::<Cpu>::from_data(data.clone(), &Default::default()), &forward).unwrap();
    let network = M::TrainModule::from_inner(network);
    let expected = forward(&network, Images::from_data(data, &Default::default())).into_data().to_vec::<f32>().unwrap();
    let mut found = vec![0.0; expected.len()];
    let compiled = Compiled::compile(&graph, &CompileOptions::default()).unwrap();
    compiled.run(&mut Arena::new(), &values, &mut found).unwrap();
    let largest = expected.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    let error = found.iter().zip(&expected).fold(0.0_f32, |error, (a, b)| error.max((a - b).abs()));
    assert!(error <= 1e-5 * largest, "error {error:e} of {largest:e}");
}

#[test]
fn resnet_20() {
    agrees(ResNet::new(20, 10, &Default::default()), [3, 32, 32], |network, images| network.forward(images));
}

#[test]
fn the_network_for_digits() {
    agrees(MnistNet::new(10, &Default::default()), [1, 28, 28], |network, images| network.forward(images));
}

#[test]
fn the_small_densenet() {
    let network = DenseNet::new(&DenseNetConfig::SMALL, 20, &Default::default());
    agrees(network, [3, 56, 56], |network, images| network.forward(images));
}

#[test]
fn squeezenet() {
    agrees(SqueezeNet::new(20, &Default::default()), [3, 56, 56], |network, images| network.forward(images));
}
