//! A small GPT on bytes, of Burn's own modules (Radford et al., "Language Models are Unsupervised Multitask Learners", 2019,
//! section 2.3).

use burn::nn::attention::generate_autoregressive_mask;
use burn::nn::transformer::{TransformerEncoder, TransformerEncoderConfig, TransformerEncoderInput};
use burn::nn::{Embedding, EmbeddingConfig, Initializer, LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::prelude::*;
use burn::tensor::activation::softmax;
use serde::{Deserialize, Serialize};

use super::Network;
use crate::data::{BYTES, Text};

/// Size of a [`Gpt`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GptConfig {
    /// Number of transformer layers.
    pub layers: usize,
    /// Number of features of a byte.
    pub width: usize,
    /// Number of attention heads, a divisor of the width.
    pub heads: usize,
    /// Largest number of bytes that the network reads.
    pub context: usize,
}

impl Default for GptConfig {
    /// 0.9 million parameters.
    fn default() -> Self {
        Self { layers: 4, width: 128, heads: 4, context: 128 }
    }
}

/// A causal language model: embeddings of bytes and positions, Burn's transformer encoder with normalization first, a
/// normalization and a linear layer. The encoder's linear layers hold nine tenths of the weights and become ternary.
#[derive(Module, Debug)]
pub struct Gpt<B: Backend> {
    bytes: Embedding<B>,
    positions: Embedding<B>,
    encoder: TransformerEncoder<B>,
    norm: LayerNorm<B>,
    next: Linear<B>,
}

impl<B: Backend> Gpt<B> {
    /// A network of this size.
    pub fn new(config: &GptConfig, device: &B::Device) -> Self {
        let GptConfig { layers, width, heads, context } = *config;
        let embedding = |n| {
            let small = Initializer::Normal { mean: 0.0, std: 0.02 };
            EmbeddingConfig::new(n, width).with_initializer(small).init(device)
        };
        Self {
            bytes: embedding(BYTES),
            positions: embedding(context),
            encoder: TransformerEncoderConfig::new(width, 4 * width, heads, layers)
                .with_dropout(0.0)
                .with_norm_first(true)
                .init(device),
            norm: LayerNormConfig::new(width).init(device),
            next: LinearConfig::new(width, BYTES).with_bias(false).init(device),
        }
    }

    /// Returns the largest number of bytes that the network reads.
    pub fn context(&self) -> usize {
        self.positions.weight.dims()[0]
    }

    /// Creates the cache of a network that has read nothing.
    pub fn cache(&self) -> Cache<B> {
        Cache { layers: vec![None; self.encoder.layers.len()], len: 0 }
    }

    /// Reads further bytes `[n, new]` after those in the cache, and computes the logits of the byte that follows each, `[n ·
    /// new, 256]`: those that [`forward`](Network::forward) computes for all bytes. A byte takes time in proportion to the
    /// number of bytes before it. (Burn's own cache of an encoder computes the attention of all bytes for each new one.)
    ///
    /// # Panics
    /// If the cache would hold more bytes than the context.
    pub fn read(&self, bytes: Tensor<B, 2, Int>, cache: &mut Cache<B>) -> Tensor<B, 2> {
        let ([n, new], device) = (bytes.dims(), bytes.device());
        let (before, all) = (cache.len, cache.len + new);
        assert!(all <= self.context(), "Gpt: {all} bytes are more than the context of {}", self.context());
        let mask = Tensor::<B, 2, Bool>::tril_mask([new, all], before as i64, &device).reshape([1, 1, new, all]);
        let mut x = self.embed(bytes, before);
        for (layer, cached) in self.encoder.layers.iter().zip(&mut cache.layers) {
            let mha = &layer.mha;
            let y = layer.norm_2.forward(x.clone());
            let heads =
                |linear: &Linear<B>| linear.forward(y.clone()).reshape([n, new, mha.n_heads, mha.d_k]).swap_dims(1, 2);
            let [query, mut keys, mut values] = [&mha.query, &mha.key, &mha.value].map(heads);
            if let Some([earlier_keys, earlier_values]) = cached.take() {
                keys = Tensor::cat(vec![earlier_keys, keys], 2);
                values = Tensor::cat(vec![earlier_values, values], 2);
            }
            *cached = Some([keys.clone(), values.clone()]);
            let scores = query.matmul(keys.transpose()).div_scalar((mha.d_k as f32).sqrt());
            let weights = softmax(scores.mask_fill(mask.clone(), mha.min_float), 3);
            let attended = weights.matmul(values).swap_dims(1, 2).reshape([n, new, mha.d_model]);
            x = x + mha.output.forward(attended);
            x = x.clone() + layer.pwff.forward(layer.norm_1.forward(x));
        }
        cache.len = all;
        self.logits(x)
    }

    /// Embeds bytes `[n, tokens]` from the position `start` on: `[n, tokens, width]`.
    fn embed(&self, bytes: Tensor<B, 2, Int>, start: usize) -> Tensor<B, 3> {
        let positions = start as i64..(start + bytes.dims()[1]) as i64;
        let positions = Tensor::arange(positions, &bytes.device()).unsqueeze();
        self.bytes.forward(bytes) + self.positions.forward(positions)
    }

    fn logits(&self, x: Tensor<B, 3>) -> Tensor<B, 2> {
        self.next.forward(self.norm.forward(x)).flatten(0, 1)
    }
}

/// The keys and values of the bytes that a [`Gpt`] has read.
#[derive(Debug, Clone)]
pub struct Cache<B: Backend> {
    /// Keys and values of each layer, `[n, heads, len, width / heads]`.
    layers: Vec<Option<[Tensor<B, 4>; 2]>>,
    len: usize,
}

impl<B: Backend> Cache<B> {
    /// Returns the number of bytes that were read.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns whether no byte was read.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl<B: Backend> Network<B> for Gpt<B> {
    type Task = Text;

    /// Logits of the byte after each byte, `[n · tokens, 256]`.
    fn forward(&self, bytes: Tensor<B, 2, Int>) -> Tensor<B, 2> {
        let ([n, tokens], device) = (bytes.dims(), bytes.device());
        let input = TransformerEncoderInput::new(self.embed(bytes, 0));
        self.logits(self.encoder.forward(input.mask_attn(generate_autoregressive_mask(n, tokens, &device))))
    }

    /// For one byte.
    fn positions(&self, _: usize) -> Vec<(String, usize)> {
        const LAYER: [&str; 6] =
            ["mha.query", "mha.key", "mha.value", "mha.output", "pwff.linear_inner", "pwff.linear_outer"];
        let layers = 0..self.encoder.layers.len();
        let encoder = layers.flat_map(|layer| LAYER.map(|name| format!("encoder.layers.{layer}.{name}.weight")));
        encoder.chain(["next.weight".into()]).map(|path| (path, 1)).collect()
    }
}

#[cfg(all(test, feature = "cpu"))]
mod tests {
    use super::*;
    use crate::Cpu;
    use burn::tensor::Tolerance;

    #[test]
    fn reading_in_parts_gives_the_logits_of_reading_at_once() {
        let config = GptConfig { layers: 2, width: 16, heads: 2, context: 12 };
        let device = Default::default();
        let network = Gpt::<Cpu>::new(&config, &device);
        let bytes: Vec<i32> = (0..24).map(|i| i * 37 % 256).collect();
        let bytes = Tensor::<Cpu, 2, Int>::from_data(TensorData::new(bytes, [2, 12]), &device);
        let whole = network.forward(bytes.clone()).reshape([2, 12, 256]);
        for parts in [vec![12], vec![5, 1, 1, 1, 1, 1, 1, 1], vec![1; 12], vec![3, 4, 5]] {
            let (mut cache, mut start) = (network.cache(), 0);
            for new in parts {
                let logits = network.read(bytes.clone().narrow(1, start, new), &mut cache);
                let expected = whole.clone().narrow(1, start, new).reshape([2 * new, 256]).into_data();
                logits.into_data().assert_approx_eq::<f32>(&expected, Tolerance::absolute(1e-5));
                start += new;
            }
            assert_eq!(cache.len(), 12);
        }
    }

    #[test]
    fn a_prediction_depends_on_the_bytes_before_it_alone() {
        let network = Gpt::<Cpu>::new(&GptConfig { layers: 1, width: 8, heads: 1, context: 4 }, &Default::default());
        let logits = |bytes: [i32; 4]| {
            let bytes = Tensor::<Cpu, 1, Int>::from_ints(bytes, &Default::default()).reshape([1, 4]);
            network.forward(bytes).narrow(0, 0, 3).into_data()
        };
        assert_eq!(logits([1, 2, 3, 4]), logits([1, 2, 3, 200]));
        assert_ne!(logits([1, 2, 3, 4]), logits([9, 2, 3, 4]));
    }
}
