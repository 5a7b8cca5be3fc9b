//! The learning task around a network: cross-entropy on class labels.

use burn::module::{AutodiffModule, ModuleDisplay};
use burn::nn::loss::CrossEntropyLossConfig;
use burn::prelude::*;
use burn::tensor::backend::AutodiffBackend;
use burn::train::{ClassificationOutput, InferenceStep, TrainOutput, TrainStep};
use ttq_train::Logits;

use crate::Task;

/// A batch of inputs and their classes.
#[derive(Debug, Clone)]
pub struct Batch<B: Backend, I> {
    /// The inputs.
    pub inputs: I,
    /// Classes, one for each row of logits.
    pub targets: Tensor<B, 1, Int>,
}

/// The inputs of a network.
pub type Inputs<B, N> = <<N as Network<B>>::Task as Task>::Inputs<B>;

/// A network that computes logits.
pub trait Network<B: Backend>: Module<B> {
    /// What it learns.
    type Task: Task;

    /// Logits `[rows, classes]`: a row for each image, or for each byte of a text.
    fn forward(&self, inputs: Inputs<B, Self>) -> Tensor<B, 2>;

    /// Returns the number of output positions of each convolution and linear layer for one input of this size, by the path
    /// of the weight. Empty if unknown.
    fn positions(&self, size: <Self::Task as Task>::Size) -> Vec<(String, usize)> {
        let _ = size;
        Vec::new()
    }

    /// Returns the patterns that turn the parameter names of PyTorch checkpoints of this network into those of this module.
    /// They are applied in order, each to the result of the previous one.
    fn pytorch_names() -> Vec<PytorchName> {
        Vec::new()
    }
}

/// A network that can be trained.
pub trait TrainableNetwork<B: AutodiffBackend>:
    Network<B>
    + AutodiffModule<B, InnerModule: Network<B::InnerBackend, Task = <Self as Network<B>>::Task> + ModuleDisplay>
    + ModuleDisplay
    + 'static
{
}

impl<B: AutodiffBackend, N> TrainableNetwork<B> for N
where
    N: Network<B> + AutodiffModule<B> + ModuleDisplay + 'static,
    N::InnerModule: Network<B::InnerBackend, Task = N::Task> + ModuleDisplay,
{
}

/// A regular expression on a parameter's name in PyTorch, and the replacement of its match.
pub type PytorchName = (String, String);

/// A network that learns to classify its inputs: the code that any user of burn-train writes.
#[derive(Module, Debug)]
pub struct Classifier<B: Backend, N: Module<B>> {
    network: N,
    #[module(skip)]
    label_smoothing: f64,
    #[module(skip)]
    backend: std::marker::PhantomData<B>,
}

impl<B: Backend, N: Network<B>> Classifier<B, N> {
    /// Creates a classifier around `network`.
    pub fn new(network: N) -> Self {
        Self { network, label_smoothing: 0.0, backend: std::marker::PhantomData }
    }

    /// Sets the share of each training target that is divided among all classes alike, from 0 to 1 (Szegedy et al., 2016,
    /// section 7). Validation and evaluation have the targets themselves.
    pub fn with_label_smoothing(mut self, share: f64) -> Self {
        self.label_smoothing = share;
        self
    }

    /// Computes the logits and the mean cross-entropy of a batch.
    pub fn classify(&self, batch: Batch<B, Inputs<B, N>>) -> ClassificationOutput<B> {
        classification(self.network.forward(batch.inputs), batch.targets, 0.0)
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

fn classification<B: Backend>(
    logits: Tensor<B, 2>,
    targets: Tensor<B, 1, Int>,
    label_smoothing: f64,
) -> ClassificationOutput<B> {
    let smoothing = (label_smoothing > 0.0).then_some(label_smoothing as f32);
    let loss = CrossEntropyLossConfig::new().with_smoothing(smoothing).init(&logits.device());
    let loss = loss.forward(logits.clone(), targets.clone());
    ClassificationOutput::new(loss, logits, targets)
}

impl<B: AutodiffBackend, N: TrainableNetwork<B>> TrainStep for Classifier<B, N> {
    type Input = Batch<B, Inputs<B, N>>;
    type Output = ClassificationOutput<B>;

    fn step(&self, batch: Self::Input) -> TrainOutput<ClassificationOutput<B>> {
        let (loss, output) = self.output(self.logits(&batch), batch);
        TrainOutput::new(self, loss.backward(), output)
    }
}

impl<B: AutodiffBackend, N: TrainableNetwork<B>> Logits<B> for Classifier<B, N> {
    fn logits(&self, batch: &Self::Input) -> Tensor<B, 2> {
        self.network.forward(batch.inputs.clone())
    }

    fn output(&self, logits: Tensor<B, 2>, batch: Self::Input) -> (Tensor<B, 1>, ClassificationOutput<B>) {
        let output = classification(logits, batch.targets, self.label_smoothing);
        (output.loss.clone(), output)
    }
}

impl<B: Backend, N: Network<B>> InferenceStep for Classifier<B, N> {
    type Input = Batch<B, Inputs<B, N>>;
    type Output = ClassificationOutput<B>;

    fn step(&self, batch: Self::Input) -> ClassificationOutput<B> {
        self.classify(batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::backend::Autodiff;

    use crate::Cpu;
    use crate::data::Images;

    type A = Autodiff<Cpu>;

    /// The images are the logits.
    #[derive(Module, Debug, Clone)]
    struct Same;

    impl<B: Backend> Network<B> for Same {
        type Task = Images;

        fn forward(&self, images: Tensor<B, 4>) -> Tensor<B, 2> {
            images.flatten(1, 3)
        }
    }

    #[test]
    fn smoothed_labels_give_a_share_of_the_loss_to_all_classes_in_training_alone() {
        let logits = [[2.0, -1.0, 0.5, 0.0], [0.1, 0.2, 0.3, -3.0]];
        let targets = [0, 3];
        let batch = Batch::<A, _> {
            inputs: Tensor::<A, 2>::from_floats(logits, &Default::default()).reshape([2, 1, 1, 4]),
            targets: Tensor::from_ints(targets, &Default::default()),
        };
        let classifier = Classifier::<A, Same>::new(Same).with_label_smoothing(0.2);
        let expected = |share: f64| {
            let rows = logits.iter().zip(targets).map(|(row, target)| {
                let sum = row.iter().map(|z: &f64| z.exp()).sum::<f64>().ln();
                let wanted = |class| share / 4.0 + if class == target as usize { 1.0 - share } else { 0.0 };
                row.iter().enumerate().map(|(class, z)| wanted(class) * (sum - z)).sum::<f64>()
            });
            rows.sum::<f64>() / 2.0
        };
        let close = |loss: Tensor<A, 1>, expected: f64| (loss.into_scalar() as f64 - expected).abs() < 1e-5;
        assert!(close(TrainStep::step(&classifier, batch.clone()).item.loss, expected(0.2)));
        assert!(close(InferenceStep::step(&classifier, batch).loss, expected(0.0)));
    }
}
