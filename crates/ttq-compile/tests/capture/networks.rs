//! Whole networks.

use burn::module::Module;
use burn::nn::attention::{MhaInput, MultiHeadAttentionConfig, generate_autoregressive_mask};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::pool::AdaptiveAvgPool2dConfig;
use burn::nn::transformer::{TransformerEncoder, TransformerEncoderConfig, TransformerEncoderInput};
use burn::nn::{
    BatchNorm, BatchNormConfig, Dropout, DropoutConfig, Embedding, EmbeddingConfig, GruConfig, Linear, LinearConfig,
    LstmConfig, PaddingConfig2d, PositionalEncodingConfig,
};
use burn::prelude::*;
use burn::tensor::activation::relu;
use ttq_compile::{CompileOptions, Network, capture};
use ttq_packed::network::Arena;
use ttq_testing::{reproducible, tensor, uniform};

use crate::agreement::{B, agrees, assert_close};

/// A residual block between a stem and a classifier.
#[derive(Module, Debug)]
struct Residual<B: Backend> {
    stem: Conv2d<B>,
    norms: [BatchNorm<B>; 2],
    block: Vec<Conv2d<B>>,
    dropout: Dropout,
    classes: Linear<B>,
}

impl<B: Backend> Residual<B> {
    fn new(device: &B::Device) -> Self {
        let conv = |channels| {
            Conv2dConfig::new(channels, [3, 3]).with_padding(PaddingConfig2d::Same).with_bias(false).init(device)
        };
        Self {
            stem: conv([3, 8]),
            norms: [(); 2].map(|()| BatchNormConfig::new(8).init(device)),
            block: vec![conv([8, 8]), conv([8, 8])],
            dropout: DropoutConfig::new(0.5).init(),
            classes: LinearConfig::new(8, 5).init(device),
        }
    }

    fn forward(&self, x: Tensor<B, 4>) -> Tensor<B, 2> {
        let x = relu(self.stem.forward(x));
        let y = relu(self.norms[0].forward(self.block[0].forward(x.clone())));
        let x = relu(self.norms[1].forward(self.block[1].forward(y)) + x);
        let x = AdaptiveAvgPool2dConfig::new([1, 1]).init().forward(x).flatten(1, 3);
        self.classes.forward(self.dropout.forward(x))
    }
}

#[test]
fn a_residual_network_agrees_and_its_constants_are_named_by_path() {
    let graph = agrees(Residual::new(&Default::default()), [1, 3, 8, 8], |network, x| network.forward(x));
    let text = format!("{graph:?}");
    for name in ["stem.weight", "block.1.weight", "norms.0.running_mean", "classes.bias"] {
        assert!(text.contains(&format!("name: \"{name}\"")), "{name}");
    }
    // The constants of a file have different names.
    let file = graph.write(ttq_packed::Coding::Plain, None).unwrap();
    assert_eq!(ttq_compile::Graph::read(&file).unwrap(), graph);
}

#[test]
fn a_transformer_encoder_agrees() {
    for norm_first in [false, true] {
        let config = TransformerEncoderConfig::new(16, 24, 4, 2).with_norm_first(norm_first);
        agrees(config.init(&Default::default()), [1, 5, 16], |encoder, x| {
            encoder.forward(TransformerEncoderInput::new(x))
        });
    }
}

#[test]
fn a_transformer_with_a_causal_mask_agrees() {
    let config = TransformerEncoderConfig::new(16, 24, 4, 2);
    agrees(config.init(&Default::default()), [1, 5, 16], |encoder, x| {
        let [batch, length, _] = x.dims();
        let mask = generate_autoregressive_mask(batch, length, &x.device());
        encoder.forward(TransformerEncoderInput::new(x).mask_attn(mask))
    });
}

#[test]
fn attention_with_a_positional_encoding_agrees() {
    let device = Default::default();
    agrees(MultiHeadAttentionConfig::new(8, 2).init(&device), [1, 5, 8], |attention, x| {
        let x = PositionalEncodingConfig::new(8).init(&x.device()).forward(x);
        attention.forward(MhaInput::self_attn(x)).context
    });
}

#[test]
fn recurrent_networks_agree() {
    let device = Default::default();
    agrees(LstmConfig::new(4, 6, true).init(&device), [1, 5, 4], |lstm, x| lstm.forward(x, None).0);
    agrees(GruConfig::new(4, 6, true).init(&device), [1, 5, 4], |gru, x| gru.forward(x, None));
}

/// Tokens with positions, and the mean of their outputs.
#[derive(Module, Debug)]
struct Text<B: Backend> {
    tokens: Embedding<B>,
    positions: Embedding<B>,
    classes: Linear<B>,
}

impl<B: Backend> Text<B> {
    fn forward(&self, tokens: Tensor<B, 2, Int>) -> Tensor<B, 2> {
        let [batch, length] = tokens.dims();
        let positions = Tensor::arange(0..length as i64, &tokens.device()).reshape([1, length]).repeat_dim(0, batch);
        let x = self.tokens.forward(tokens) + self.positions.forward(positions);
        self.classes.forward(x.mean_dim(1).squeeze_dim(1))
    }
}

#[test]
fn a_network_of_tokens_agrees() {
    let device = Default::default();
    let text = Text {
        tokens: EmbeddingConfig::new(10, 6).init::<B>(&device),
        positions: EmbeddingConfig::new(4, 6).init(&device),
        classes: LinearConfig::new(6, 3).init(&device),
    };
    let text = reproducible(text, 1);
    let example = Tensor::<B, 2, Int>::zeros([1, 4], &device);
    let graph = capture(&text, example, |text, x| text.forward(x)).unwrap();
    let network = Network::compile(&graph, &CompileOptions::default()).unwrap();
    let tokens = [3, 1, 4, 1, 5, 9, 2, 6];
    let expected = text.forward(Tensor::<B, 1, Int>::from_ints(tokens, &device).reshape([2, 4]));
    let mut found = [0.0; 6];
    network.run(&mut Arena::new(), &tokens.map(|token| token as f32), &mut found).unwrap();
    assert_close(&found, &expected.into_data().to_vec::<f32>().unwrap());
}

/// A transformer on tokens, of which 0 is padding.
#[derive(Module, Debug)]
struct Padded<B: Backend> {
    tokens: Embedding<B>,
    encoder: TransformerEncoder<B>,
}

impl<B: Backend> Padded<B> {
    fn forward(&self, tokens: Tensor<B, 2, Int>) -> Tensor<B, 3> {
        let mask = tokens.clone().equal_elem(0);
        self.encoder.forward(TransformerEncoderInput::new(self.tokens.forward(tokens)).mask_pad(mask))
    }
}

#[test]
fn a_transformer_with_a_mask_of_padding_agrees() {
    let device = Default::default();
    let padded = Padded {
        tokens: EmbeddingConfig::new(10, 8).init::<B>(&device),
        encoder: TransformerEncoderConfig::new(8, 12, 2, 1).init(&device),
    };
    let padded = reproducible(padded, 1);
    let example = Tensor::<B, 2, Int>::zeros([1, 4], &device);
    let graph = capture(&padded, example, |padded, x| padded.forward(x)).unwrap();
    let network = Network::compile(&graph, &CompileOptions::default()).unwrap();
    let tokens = [3, 1, 0, 0, 5, 9, 2, 0];
    let expected = padded.forward(Tensor::<B, 1, Int>::from_ints(tokens, &device).reshape([2, 4]));
    let mut found = [0.0; 64];
    network.run(&mut Arena::new(), &tokens.map(|token| token as f32), &mut found).unwrap();
    assert_close(&found, &expected.into_data().to_vec::<f32>().unwrap());
}

#[test]
fn an_output_of_several_rows_for_each_item_agrees() {
    agrees(LinearConfig::new(5, 3).init(&Default::default()), [1, 4, 5], |layer, x| {
        layer.forward(x).flatten::<2>(0, 1)
    });
}

#[test]
fn a_capture_leaves_the_module_as_it_is() {
    let device = Default::default();
    let network = reproducible(Residual::<B>::new(&device), 1);
    let x = tensor::<B, 4>(&uniform(&[2, 3, 8, 8], 2));
    let before = network.forward(x.clone()).into_data();
    capture(&network, x.clone(), |network, x| network.forward(x)).unwrap();
    network.forward(x).into_data().assert_eq(&before, true);
}

#[test]
fn a_new_module_is_captured_with_the_parameters_that_it_keeps() {
    let device = Default::default();
    let layer = LinearConfig::new(3, 2).init::<B>(&device);
    let x = tensor::<B, 2>(&uniform(&[1, 3], 2));
    let graph = capture(&layer, x.clone(), |layer, x| layer.forward(x)).unwrap();
    let input = x.to_data().to_vec::<f32>().unwrap();
    let found: Vec<f32> = graph.evaluate(&input).unwrap().into_iter().map(|x| x as f32).collect();
    assert_close(&found, &layer.forward(x).into_data().to_vec::<f32>().unwrap());
}
