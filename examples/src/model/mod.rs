//! The networks of the examples, in ordinary Burn code: nothing here knows of ternary weights.

mod classifier;
mod mnist;
mod resnet;

pub use classifier::{Batch, Classifier, Network};
pub use mnist::MnistNet;
pub use resnet::ResNet;
