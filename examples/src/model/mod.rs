//! The networks of the examples, in ordinary Burn code. Training knows of ternary weights and networks do not; those that are deployed
//! packed are generic over the layers that then hold 2 bits a weight.

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
