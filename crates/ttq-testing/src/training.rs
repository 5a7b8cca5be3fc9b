//! burn-train's steps of a classifier.

use burn::nn::loss::CrossEntropyLossConfig;
use burn::prelude::*;
use burn::train::ClassificationOutput;

/// Returns the classification output with the mean cross-entropy.
///
/// # Shapes
/// - logits: `[n, classes]`
/// - targets: `[n]`
pub fn classification<B: Backend>(logits: Tensor<B, 2>, targets: Tensor<B, 1, Int>) -> ClassificationOutput<B> {
    let loss = CrossEntropyLossConfig::new().init(&logits.device()).forward(logits.clone(), targets.clone());
    ClassificationOutput::new(loss, logits, targets)
}

/// Implements burn-train's `TrainStep` and `InferenceStep` for a network.
///
/// `$net` is generic over its backend and has a method `forward` from a tensor with `$axes` dimensions to logits
/// `[n, classes]`. The input of a step is such a tensor and the classes `[n]`.
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
