//! Packed weights stay ternary.

use burn::backend::Flex;
use burn::nn::conv::{Conv1d, Conv1dConfig, Conv2d, Conv2dConfig, ConvTranspose1d, ConvTranspose1dConfig};
use burn::nn::{Linear, LinearConfig};
use burn::prelude::*;
use ttq_compile::{CompileOptions, Network, capture};
use ttq_inference::{Packed, PackedModel, load};
use ttq_packed::network::Arena;
use ttq_packed::{Codes, TernaryWeight};
use ttq_testing::{tensor, uniform};

use crate::agreement::assert_close;

#[derive(Module, Debug)]
struct Layers<B: Backend> {
    image: Conv2d<B>,
    line: Conv1d<B>,
    transposed: ConvTranspose1d<B>,
    matrix: Linear<B>,
}

impl<B: Backend> Layers<B> {
    fn new(device: &B::Device) -> Self {
        Self {
            image: Conv2dConfig::new([2, 4], [3, 3]).with_bias(false).init(device),
            line: Conv1dConfig::new(4, 6, 2).with_bias(false).init(device),
            transposed: ConvTranspose1dConfig::new([6, 6], 2).with_stride(2).with_bias(false).init(device),
            matrix: LinearConfig::new(6, 5).with_bias(false).init(device),
        }
    }

    fn forward(&self, x: Tensor<B, 4>) -> Tensor<B, 3> {
        let x = self.line.forward(self.image.forward(x).flatten(2, 3));
        self.matrix.forward(self.transposed.forward(x).swap_dims(1, 2))
    }
}

fn weight(shape: &[usize], output_axis: usize, seed: u64) -> TernaryWeight {
    let values = uniform(shape, seed).to_vec::<f32>().unwrap();
    let codes: Vec<i8> = values.iter().map(|value| (value * 1.5).round() as i8).collect();
    let scales: Vec<_> = (0..shape[output_axis]).map(|i| [0.5 + i as f32, 1.0]).collect();
    TernaryWeight::new(Codes::pack(&codes).unwrap(), scales, shape, output_axis).unwrap()
}

#[test]
fn weights_of_convolutions_and_linear_layers_stay_ternary() {
    let device = Default::default();
    let mut file = PackedModel::default();
    file.weights.insert("image.weight".into(), weight(&[4, 2, 3, 3], 0, 1));
    file.weights.insert("line.weight".into(), weight(&[6, 4, 2], 0, 2));
    file.weights.insert("transposed.weight".into(), weight(&[6, 6, 2], 1, 5));
    file.weights.insert("matrix.weight".into(), weight(&[6, 5], 1, 3));
    let layers = load(Layers::<Packed<Flex>>::new(&device), &file).unwrap();
    let data = uniform(&[3, 2, 6, 5], 4);
    let graph = capture(&layers, tensor::<Packed<Flex>, 4>(&data), |layers, x| layers.forward(x)).unwrap();
    assert_eq!(format!("{graph:?}").matches("Constant(Ternary(").count(), 4);

    let network = Network::compile(&graph, &CompileOptions::default()).unwrap();
    let expected = layers.forward(tensor(&data)).into_data().to_vec::<f32>().unwrap();
    let mut found = vec![0.0; expected.len()];
    network.run(&mut Arena::new(), &data.to_vec::<f32>().unwrap(), &mut found).unwrap();
    assert_close(&found, &expected);
}
