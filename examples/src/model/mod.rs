//! The networks of the examples, in ordinary Burn code: nothing here knows of ternary weights.

mod architecture;
mod classifier;
mod convolution;
mod densenet;
mod mnist;
mod resnet;
mod squeezenet;

pub use architecture::Architecture;
pub use classifier::{Batch, Classifier, Network, PytorchName};
pub use densenet::{DenseNet, DenseNetConfig};
pub use mnist::MnistNet;
pub use resnet::ResNet;
pub use squeezenet::SqueezeNet;
