//! The networks of the suite `train`, as a user of Burn writes them, and the learning task around them.

use burn::module::{AutodiffModule, ModuleDisplay};
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::transformer::{TransformerEncoder, TransformerEncoderConfig, TransformerEncoderInput};
use burn::nn::{Linear, LinearConfig};
use burn::prelude::*;
use burn::tensor::Distribution;
use burn::tensor::activation::relu;
use burn::tensor::backend::AutodiffBackend;
use burn::train::{ClassificationOutput, InferenceStep, TrainOutput, TrainStep};
use ttq_examples::model::{Gpt, GptConfig, Network as _, ResNet};

/// Classes of the networks that classify.
pub(crate) const CLASSES: usize = 10;

/// A network with inputs of its own kind.
pub(crate) trait Network<B: Backend>: Module<B> {
    /// A batch of inputs.
    type Input: Clone + Send + 'static;

    /// Number of values that a target can take.
    const TARGETS: usize = CLASSES;

    /// Returns `n` random inputs.
    fn random(n: usize, device: &B::Device) -> Self::Input;

    /// Computes logits, one row for each target.
    fn logits(&self, input: Self::Input) -> Tensor<B, 2>;

    /// Returns the number of targets of `n` inputs.
    fn targets(n: usize) -> usize {
        n
    }
}

impl<B: Backend> Network<B> for ResNet<B> {
    type Input = Tensor<B, 4>;

    /// Images of the shape of CIFAR-10's, `[n, 3, 32, 32]`.
    fn random(n: usize, device: &B::Device) -> Self::Input {
        normal([n, 3, 32, 32], device)
    }

    fn logits(&self, images: Self::Input) -> Tensor<B, 2> {
        self.forward(images)
    }
}

/// Two hidden layers of 1024 units for 784 inputs.
#[derive(Module, Debug)]
pub(crate) struct Mlp<B: Backend> {
    hidden1: Linear<B>,
    hidden2: Linear<B>,
    classes: Linear<B>,
}

impl<B: Backend> Mlp<B> {
    const INPUTS: usize = 28 * 28;
    const UNITS: usize = 1024;

    pub(crate) fn new(device: &B::Device) -> Self {
        Self {
            hidden1: LinearConfig::new(Self::INPUTS, Self::UNITS).init(device),
            hidden2: LinearConfig::new(Self::UNITS, Self::UNITS).init(device),
            classes: LinearConfig::new(Self::UNITS, CLASSES).init(device),
        }
    }
}

impl<B: Backend> Network<B> for Mlp<B> {
    type Input = Tensor<B, 2>;

    fn random(n: usize, device: &B::Device) -> Self::Input {
        normal([n, Self::INPUTS], device)
    }

    fn logits(&self, x: Self::Input) -> Tensor<B, 2> {
        let x = relu(self.hidden1.forward(x));
        let x = relu(self.hidden2.forward(x));
        self.classes.forward(x)
    }
}

/// Burn's transformer encoder on 64 tokens of 128 features. The mean of its output is classified.
#[derive(Module, Debug)]
pub(crate) struct Transformer<B: Backend> {
    encoder: TransformerEncoder<B>,
    classes: Linear<B>,
}

impl<B: Backend> Transformer<B> {
    const TOKENS: usize = 64;
    const FEATURES: usize = 128;
    const HEADS: usize = 4;

    pub(crate) fn new(layers: usize, device: &B::Device) -> Self {
        Self {
            encoder: encoder(Self::FEATURES, Self::HEADS, layers).init(device),
            classes: LinearConfig::new(Self::FEATURES, CLASSES).init(device),
        }
    }
}

impl<B: Backend> Network<B> for Transformer<B> {
    type Input = Tensor<B, 3>;

    fn random(n: usize, device: &B::Device) -> Self::Input {
        normal([n, Self::TOKENS, Self::FEATURES], device)
    }

    fn logits(&self, tokens: Self::Input) -> Tensor<B, 2> {
        let x = self.encoder.forward(TransformerEncoderInput::new(tokens));
        self.classes.forward(x.mean_dim(1).squeeze_dim(1))
    }
}

/// The size of the language model: 128 bytes of 256 features.
pub(crate) fn gpt_config(layers: usize) -> GptConfig {
    GptConfig { layers, width: 256, heads: 8, context: 128 }
}

impl<B: Backend> Network<B> for Gpt<B> {
    type Input = Tensor<B, 2, Int>;

    const TARGETS: usize = 256;

    fn random(n: usize, device: &B::Device) -> Self::Input {
        integers([n, gpt_config(0).context], 256, device)
    }

    fn logits(&self, bytes: Self::Input) -> Tensor<B, 2> {
        self.forward(bytes)
    }

    fn targets(n: usize) -> usize {
        n * gpt_config(0).context
    }
}

fn encoder(features: usize, heads: usize, layers: usize) -> TransformerEncoderConfig {
    TransformerEncoderConfig::new(features, 4 * features, heads, layers).with_dropout(0.0)
}

/// A batch of inputs with their targets.
#[derive(Clone)]
pub(crate) struct Batch<B: Backend, I> {
    input: I,
    targets: Tensor<B, 1, Int>,
}

/// A network that learns its targets by cross-entropy.
#[derive(Module, Debug)]
pub(crate) struct Task<B: Backend, N: Module<B>> {
    network: N,
    #[module(skip)]
    backend: std::marker::PhantomData<B>,
}

impl<B: Backend, N: Network<B>> Task<B, N> {
    pub(crate) fn new(network: N) -> Self {
        Self { network, backend: std::marker::PhantomData }
    }

    /// Returns `n` random inputs with random targets.
    pub(crate) fn random_batch(n: usize, device: &B::Device) -> Batch<B, N::Input> {
        Batch { input: N::random(n, device), targets: integers([N::targets(n)], N::TARGETS, device) }
    }

    fn classify(&self, batch: Batch<B, N::Input>) -> ClassificationOutput<B> {
        let logits = self.network.logits(batch.input);
        let loss = CrossEntropyLossConfig::new().init(&logits.device()).forward(logits.clone(), batch.targets.clone());
        ClassificationOutput::new(loss, logits, batch.targets)
    }
}

impl<B, N> TrainStep for Task<B, N>
where
    B: AutodiffBackend,
    N: Network<B> + AutodiffModule<B> + ModuleDisplay,
    N::InnerModule: ModuleDisplay,
{
    type Input = Batch<B, N::Input>;
    type Output = ClassificationOutput<B>;

    fn step(&self, batch: Self::Input) -> TrainOutput<Self::Output> {
        let output = self.classify(batch);
        TrainOutput::new(self, output.loss.backward(), output)
    }
}

impl<B: Backend, N: Network<B>> InferenceStep for Task<B, N> {
    type Input = Batch<B, N::Input>;
    type Output = ClassificationOutput<B>;

    fn step(&self, batch: Self::Input) -> Self::Output {
        self.classify(batch)
    }
}

fn normal<B: Backend, const D: usize>(shape: [usize; D], device: &B::Device) -> Tensor<B, D> {
    Tensor::random(shape, Distribution::Normal(0.0, 1.0), device)
}

/// Random integers in `0..end`.
fn integers<B: Backend, const D: usize>(shape: [usize; D], end: usize, device: &B::Device) -> Tensor<B, D, Int> {
    Tensor::<B, D>::random(shape, Distribution::Uniform(0.0, end as f64), device).int()
}
