//! A language model whose head is the matrix of its token embedding, by reference and as a second copy of the
//! parameter.

use burn::module::Param;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::{Embedding, EmbeddingConfig, LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::prelude::*;
use burn::tensor::activation::{gelu, softmax};

use crate::harness::Stranger;

const VOCABULARY: usize = 11;
const CONTEXT: usize = 5;
const WIDTH: usize = 8;
const HEADS: usize = 2;

/// Tokens `[2, context + 1]`.
fn text<B: Backend>() -> Tensor<B, 2, Int> {
    let tokens: Vec<i32> = (0..2 * (CONTEXT as i32 + 1)).map(|i| (i * i + 3 * i) % VOCABULARY as i32).collect();
    Tensor::<B, 1, Int>::from_ints(tokens.as_slice(), &Default::default()).reshape([2, CONTEXT + 1])
}

#[derive(Module, Debug)]
struct Attention<B: Backend> {
    qkv: Linear<B>,
    out: Linear<B>,
}

impl<B: Backend> Attention<B> {
    fn new(device: &B::Device) -> Self {
        Self {
            qkv: LinearConfig::new(WIDTH, 3 * WIDTH).with_bias(false).init(device),
            out: LinearConfig::new(WIDTH, WIDTH).with_bias(false).init(device),
        }
    }

    fn forward(&self, x: Tensor<B, 3>) -> Tensor<B, 3> {
        let [n, t, _] = x.dims();
        let qkv = self.qkv.forward(x).reshape([n, t, 3 * HEADS, WIDTH / HEADS]).swap_dims(1, 2);
        let part = |index: usize| qkv.clone().narrow(1, index * HEADS, HEADS);
        let scores = part(0).matmul(part(1).transpose()).div_scalar(((WIDTH / HEADS) as f32).sqrt());
        let future = Tensor::<B, 2, Bool>::tril_mask([t, t], 0, &scores.device());
        let weights = softmax(scores.mask_fill(future.unsqueeze::<4>().expand([n, HEADS, t, t]), -1e4), 3);
        self.out.forward(weights.matmul(part(2)).swap_dims(1, 2).reshape([n, t, WIDTH]))
    }
}

#[derive(Module, Debug)]
struct Block<B: Backend> {
    norm_1: LayerNorm<B>,
    attention: Attention<B>,
    norm_2: LayerNorm<B>,
    up: Linear<B>,
    down: Linear<B>,
}

impl<B: Backend> Block<B> {
    fn new(device: &B::Device) -> Self {
        Self {
            norm_1: LayerNormConfig::new(WIDTH).init(device),
            attention: Attention::new(device),
            norm_2: LayerNormConfig::new(WIDTH).init(device),
            up: LinearConfig::new(WIDTH, 2 * WIDTH).init(device),
            down: LinearConfig::new(2 * WIDTH, WIDTH).init(device),
        }
    }

    fn forward(&self, x: Tensor<B, 3>) -> Tensor<B, 3> {
        let x = x.clone() + self.attention.forward(self.norm_1.forward(x));
        x.clone() + self.down.forward(gelu(self.up.forward(self.norm_2.forward(x))))
    }
}

#[derive(Module, Debug)]
struct Decoder<B: Backend> {
    tokens: Embedding<B>,
    positions: Embedding<B>,
    blocks: Vec<Block<B>>,
    norm: LayerNorm<B>,
}

impl<B: Backend> Decoder<B> {
    fn new(device: &B::Device) -> Self {
        Self {
            tokens: EmbeddingConfig::new(VOCABULARY, WIDTH).init(device),
            positions: EmbeddingConfig::new(CONTEXT, WIDTH).init(device),
            blocks: (0..2).map(|_| Block::new(device)).collect(),
            norm: LayerNormConfig::new(WIDTH).init(device),
        }
    }

    fn forward(&self, tokens: Tensor<B, 2, Int>) -> Tensor<B, 3> {
        let [_, t] = tokens.dims();
        let positions = Tensor::arange(0..t as i64, &tokens.device()).unsqueeze::<2>();
        let x = self.tokens.forward(tokens) + self.positions.forward(positions);
        self.norm.forward(self.blocks.iter().fold(x, |x, block| block.forward(x)))
    }
}

/// Returns the mean cross-entropy of the next token.
fn next_token_loss<B: Backend>(logits: Tensor<B, 2>) -> Tensor<B, 1> {
    let targets = text::<B>().slice([0..2, 1..CONTEXT + 1]).reshape([2 * CONTEXT]);
    CrossEntropyLossConfig::new().init(&logits.device()).forward(logits, targets)
}

/// `logits = x Eᵀ` with the embedding's matrix `E`.
#[derive(Module, Debug)]
pub(crate) struct Gpt<B: Backend> {
    decoder: Decoder<B>,
}

impl<B: Backend> Gpt<B> {
    pub(crate) fn new(device: &B::Device) -> Self {
        Self { decoder: Decoder::new(device) }
    }
}

impl<B: Backend> Stranger<B> for Gpt<B> {
    type Input = Tensor<B, 2, Int>;

    fn input() -> Tensor<B, 2, Int> {
        text::<B>().slice([0..2, 0..CONTEXT])
    }

    fn forward(&self, tokens: Tensor<B, 2, Int>) -> Tensor<B, 2> {
        let x = self.decoder.forward(tokens).flatten::<2>(0, 1);
        x.matmul(self.decoder.tokens.weight.val().transpose())
    }

    fn loss(&self) -> Tensor<B, 1> {
        next_token_loss(self.outputs())
    }
}

crate::train_step!(Gpt);

/// The head holds a clone of the embedding's parameter.
#[derive(Module, Debug)]
pub(crate) struct GptWithClonedHead<B: Backend> {
    decoder: Decoder<B>,
    head: Param<Tensor<B, 2>>,
}

impl<B: Backend> GptWithClonedHead<B> {
    pub(crate) fn new(device: &B::Device) -> Self {
        let decoder = Decoder::new(device);
        decoder.tokens.weight.val();
        let head = decoder.tokens.weight.clone();
        Self { decoder, head }
    }
}

impl<B: Backend> Stranger<B> for GptWithClonedHead<B> {
    type Input = Tensor<B, 2, Int>;

    fn input() -> Tensor<B, 2, Int> {
        text::<B>().slice([0..2, 0..CONTEXT])
    }

    fn forward(&self, tokens: Tensor<B, 2, Int>) -> Tensor<B, 2> {
        let x = self.decoder.forward(tokens).flatten::<2>(0, 1);
        x.matmul(self.head.val().transpose())
    }

    fn loss(&self) -> Tensor<B, 1> {
        next_token_loss(self.outputs())
    }
}

crate::train_step!(GptWithClonedHead);
