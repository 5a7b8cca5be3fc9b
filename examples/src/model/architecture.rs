//! Which of the PyTorch port's networks.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// A network of the PyTorch port of TTQ, for Tiny ImageNet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Architecture {
    /// SqueezeNet with batch normalization and skip connections, 827,784 parameters.
    #[value(name = "squeezenet")]
    SqueezeNet,
    /// A small DenseNet, 440,264 parameters.
    #[value(name = "densenet-small")]
    DenseNetSmall,
    /// DenseNet-121 for small images, 7,151,176 parameters.
    #[value(name = "densenet-121")]
    DenseNet121,
}

impl Architecture {
    /// The network whose parameters have such names, in PyTorch or here.
    pub fn of_names(names: &[String]) -> Option<Self> {
        let any = |parts: [&str; 2]| names.iter().any(|name| parts.iter().any(|part| name.contains(part)));
        if any([".squeeze.", ".expand3x3."]) {
            Some(Self::SqueezeNet)
        } else if any([".denseblock4.", "blocks.3.layers."]) {
            Some(Self::DenseNet121)
        } else if any([".denseblock3.", "blocks.2.layers."]) {
            Some(Self::DenseNetSmall)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_known_by_the_names_of_its_parameters() {
        let of = |name: &str| Architecture::of_names(&[name.into(), "classes.bias".into()]);
        assert_eq!(of("features.4.squeeze.weight"), Some(Architecture::SqueezeNet));
        assert_eq!(of("fires.0.expand3x3.weight"), Some(Architecture::SqueezeNet));
        assert_eq!(of("features.denseblock3.denselayer1.conv.1.weight"), Some(Architecture::DenseNetSmall));
        assert_eq!(of("features.denseblock4.denselayer1.conv.1.weight"), Some(Architecture::DenseNet121));
        assert_eq!(of("blocks.3.layers.0.conv1.weight"), Some(Architecture::DenseNet121));
        assert_eq!(of("blocks.0.conv1.weight"), None);
    }
}
