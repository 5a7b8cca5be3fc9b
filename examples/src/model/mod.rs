//! The networks of the examples, in ordinary Burn code: nothing here knows of ternary weights.

mod classifier;
mod mnist;
mod output_size;
mod resnet;

pub use classifier::{Batch, Classifier, Network};
pub use mnist::MnistNet;
pub(crate) use output_size::output_size;
pub use resnet::ResNet;
