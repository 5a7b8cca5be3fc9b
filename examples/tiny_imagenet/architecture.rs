//! The networks of the PyTorch port, by name.

use clap::ValueEnum;

/// A network of the PyTorch port of TTQ for Tiny ImageNet, with 200 classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Architecture {
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
    /// Returns the name on the command line and in the configuration of a run.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map_or(String::new(), |value| value.get_name().into())
    }

    /// Returns the network with this name.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::from_str(name, false).ok()
    }

    /// Returns the network whose parameters have such names, in PyTorch or in this project; `None` if it is unknown.
    pub(crate) fn from_parameter_names(names: &[String]) -> Option<Self> {
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
    fn a_network_is_recognized_by_the_names_of_its_parameters() {
        let of = |name: &str| Architecture::from_parameter_names(&[name.into(), "classes.bias".into()]);
        assert_eq!(of("features.4.squeeze.weight"), Some(Architecture::SqueezeNet));
        assert_eq!(of("fires.0.expand3x3.weight"), Some(Architecture::SqueezeNet));
        assert_eq!(of("features.denseblock3.denselayer1.conv.1.weight"), Some(Architecture::DenseNetSmall));
        assert_eq!(of("features.denseblock4.denselayer1.conv.1.weight"), Some(Architecture::DenseNet121));
        assert_eq!(of("blocks.3.layers.0.conv1.weight"), Some(Architecture::DenseNet121));
        assert_eq!(of("blocks.0.conv1.weight"), None);
    }
}
