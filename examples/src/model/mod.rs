//! The networks of the examples, in ordinary Burn code. Training knows of ternary weights and networks do not; those that are deployed
//! packed are generic over the layers that then hold 2 bits a weight.

mod classifier;
mod mnist;
mod resnet;

pub use classifier::{Batch, Classifier, Network};
pub use mnist::MnistNet;
pub use resnet::ResNet;
