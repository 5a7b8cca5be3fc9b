//! The training step of a classifier, as a user of burn-train writes it.

use burn::nn::loss::CrossEntropyLossConfig;
use burn::prelude::*;
use burn::train::ClassificationOutput;

/// Cross-entropy of logits `[batch, classes]`.
pub fn classification<B: Backend>(logits: Tensor<B, 2>, targets: Tensor<B, 1, Int>) -> ClassificationOutput<B> {
    let loss = CrossEntropyLossConfig::new().init(&logits.device()).forward(logits.clone(), targets.clone());
    ClassificationOutput::new(loss, logits, targets)
}

/// burn-train's steps for a network generic over its backend, with a method `forward` from a tensor of so many axes to
/// logits `[batch, classes]`; its input is that tensor and the classes.
#[macro_export]
macro_rules! classifier {
    ($net:ident, $axes:literal) => {
        impl<B: ::burn::tensor::backend::Backend> ::burn::train::InferenceStep for $net<B> {
            type Input = (::burn::tensor::Tensor<B, $axes>, ::burn::tensor::Tensor<B, 1, ::burn::tensor::Int>);
            type Output = ::burn::train::ClassificationOutput<B>;

            fn step(&self, (x, targets): Self::Input) -> Self::Output {
                $crate::classification(self.forward(x), targets)
            }
        }

        impl<B: ::burn::tensor::backend::AutodiffBackend> ::burn::train::TrainStep for $net<B> {
            type Input = (::burn::tensor::Tensor<B, $axes>, ::burn::tensor::Tensor<B, 1, ::burn::tensor::Int>);
            type Output = ::burn::train::ClassificationOutput<B>;

            fn step(&self, (x, targets): Self::Input) -> ::burn::train::TrainOutput<Self::Output> {
                let output = $crate::classification(self.forward(x), targets);
                ::burn::train::TrainOutput::new(self, output.loss.backward(), output)
            }
        }
    };
}
