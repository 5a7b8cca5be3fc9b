//! The learning task around a network: cross-entropy on class labels.

use burn::module::{AutodiffModule, ModuleDisplay};
use burn::nn::loss::CrossEntropyLossConfig;
use burn::prelude::*;
use burn::tensor::backend::AutodiffBackend;
use burn::train::{ClassificationOutput, InferenceStep, TrainOutput, TrainStep};
use ttq_train::Logits;

/// A batch of images and their classes.
#[derive(Debug, Clone)]
pub struct Batch<B: Backend> {
    /// Normalized images, `[n, channels, height, width]`.
    pub images: Tensor<B, 4>,
    /// Classes, `[n]`.
    pub targets: Tensor<B, 1, Int>,
}

/// A network that turns images into logits.
pub trait Network<B: Backend>: Module<B> {
    /// Logits `[n, classes]` of images `[n, channels, height, width]`.
    fn forward(&self, images: Tensor<B, 4>) -> Tensor<B, 2>;

    /// Returns the number of output positions of each convolution and linear layer for one image of `[height, width]`, by
    /// the path of the weight. Empty if unknown.
    fn positions(&self, image: [usize; 2]) -> Vec<(String, usize)> {
        let _ = image;
        Vec::new()
    }

    /// Returns the patterns that turn the parameter names of PyTorch checkpoints of this network into those of this module.
    /// They are applied in order, each to the result of the previous one.
    fn pytorch_names() -> Vec<PytorchName> {
        Vec::new()
    }
}

/// A regular expression on a parameter's name in PyTorch, and the replacement of its match.
pub type PytorchName = (String, String);

/// A network that learns to classify images: the code that any user of burn-train writes.
#[derive(Module, Debug)]
pub struct Classifier<B: Backend, N: Module<B>> {
    network: N,
    #[module(skip)]
    backend: std::marker::PhantomData<B>,
}

impl<B: Backend, N: Network<B>> Classifier<B, N> {
    /// Creates a classifier around `network`.
    pub fn new(network: N) -> Self {
        Self { network, backend: std::marker::PhantomData }
    }

    /// Computes the logits and the mean cross-entropy of a batch.
    pub fn classify(&self, batch: Batch<B>) -> ClassificationOutput<B> {
        classification(self.network.forward(batch.images), batch.targets)
    }

    /// Returns the network.
    pub fn network(&self) -> &N {
        &self.network
    }

    /// Returns the network by value.
    pub fn into_network(self) -> N {
        self.network
    }
}

fn classification<B: Backend>(logits: Tensor<B, 2>, targets: Tensor<B, 1, Int>) -> ClassificationOutput<B> {
    let loss = CrossEntropyLossConfig::new().init(&logits.device()).forward(logits.clone(), targets.clone());
    ClassificationOutput::new(loss, logits, targets)
}

impl<B, N> TrainStep for Classifier<B, N>
where
    B: AutodiffBackend,
    N: Network<B> + AutodiffModule<B> + ModuleDisplay,
    N::InnerModule: ModuleDisplay,
{
    type Input = Batch<B>;
    type Output = ClassificationOutput<B>;

    fn step(&self, batch: Batch<B>) -> TrainOutput<ClassificationOutput<B>> {
        let output = self.classify(batch);
        TrainOutput::new(self, output.loss.backward(), output)
    }
}

impl<B, N> Logits<B> for Classifier<B, N>
where
    B: AutodiffBackend,
    N: Network<B> + AutodiffModule<B> + ModuleDisplay,
    N::InnerModule: ModuleDisplay,
{
    fn logits(&self, batch: &Batch<B>) -> Tensor<B, 2> {
        self.network.forward(batch.images.clone())
    }

    fn output(&self, logits: Tensor<B, 2>, batch: Batch<B>) -> (Tensor<B, 1>, ClassificationOutput<B>) {
        let output = classification(logits, batch.targets);
        (output.loss.clone(), output)
    }
}

impl<B: Backend, N: Network<B>> InferenceStep for Classifier<B, N> {
    type Input = Batch<B>;
    type Output = ClassificationOutput<B>;

    fn step(&self, batch: Batch<B>) -> ClassificationOutput<B> {
        self.classify(batch)
    }
}
