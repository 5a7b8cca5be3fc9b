//! The networks of `mnist` and `cifar`, in ordinary Burn code, and the learning task around them.

mod classifier;
mod mnist;
mod resnet;

pub use classifier::{Batch, Classifier, Network, PytorchName};
pub use mnist::MnistNet;
pub use resnet::ResNet;
