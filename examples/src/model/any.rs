//! One type for the networks of `mnist` and `cifar`: burn-train is compiled for each type of model, which takes long.

use std::fmt;

use burn::module::{
    AutodiffModule, Content, Devices, DisplaySettings, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor,
};
use burn::prelude::*;
use burn::tensor::backend::AutodiffBackend;

use super::{MnistNet, Network, ResNet};
use crate::RunConfig;

/// The network of a run. Its parameters have the paths that they have in the network itself, without the name of a
/// variant, which `#[derive(Module)]` would add.
#[derive(Debug, Clone)]
pub enum AnyNetwork<B: Backend> {
    /// The network of `mnist`.
    Mnist(MnistNet<B>),
    /// The network of `cifar`.
    ResNet(ResNet<B>),
}

use AnyNetwork::{Mnist, ResNet as Residual};

/// Evaluates an expression on the network in either variant.
macro_rules! either {
    ($self:expr, $network:ident => $value:expr) => {
        match $self {
            Mnist($network) => $value,
            Residual($network) => $value,
        }
    };
}

impl<B: Backend> AnyNetwork<B> {
    /// Creates the network of a run for `classes` classes.
    pub fn new(run: &RunConfig, classes: usize, device: &B::Device) -> Self {
        match run.depth {
            Some(depth) => Residual(ResNet::new(depth, classes, device)),
            None => Mnist(MnistNet::new(classes, device)),
        }
    }
}

impl<B: Backend> Network<B> for AnyNetwork<B> {
    fn forward(&self, images: Tensor<B, 4>) -> Tensor<B, 2> {
        either!(self, network => network.forward(images))
    }

    fn positions(&self, image: [usize; 2]) -> Vec<(String, usize)> {
        either!(self, network => network.positions(image))
    }
}

impl<B: Backend> Module<B> for AnyNetwork<B> {
    type Record = (Option<<MnistNet<B> as Module<B>>::Record>, Option<<ResNet<B> as Module<B>>::Record>);

    fn collect_devices(&self, devices: Devices<B>) -> Devices<B> {
        either!(self, network => network.collect_devices(devices))
    }

    fn fork(self, device: &B::Device) -> Self {
        match self {
            Mnist(network) => Mnist(network.fork(device)),
            Residual(network) => Residual(network.fork(device)),
        }
    }

    fn to_device(self, device: &B::Device) -> Self {
        match self {
            Mnist(network) => Mnist(network.to_device(device)),
            Residual(network) => Residual(network.to_device(device)),
        }
    }

    fn visit<Visitor: ModuleVisitor<B>>(&self, visitor: &mut Visitor) {
        either!(self, network => network.visit(visitor));
    }

    fn map<Mapper: ModuleMapper<B>>(self, mapper: &mut Mapper) -> Self {
        match self {
            Mnist(network) => Mnist(network.map(mapper)),
            Residual(network) => Residual(network.map(mapper)),
        }
    }

    /// # Panics
    /// If the record is that of the other network, which Burn's interface cannot report as an error.
    fn load_record(self, record: Self::Record) -> Self {
        match (self, record) {
            (Mnist(network), (Some(record), _)) => Mnist(network.load_record(record)),
            (Residual(network), (_, Some(record))) => Residual(network.load_record(record)),
            _ => panic!("the checkpoint is one of another network"),
        }
    }

    fn into_record(self) -> Self::Record {
        match self {
            Mnist(network) => (Some(network.into_record()), None),
            Residual(network) => (None, Some(network.into_record())),
        }
    }
}

impl<B: AutodiffBackend> AutodiffModule<B> for AnyNetwork<B> {
    type InnerModule = AnyNetwork<B::InnerBackend>;

    fn valid(&self) -> Self::InnerModule {
        match self {
            Mnist(network) => Mnist(network.valid()),
            Residual(network) => Residual(network.valid()),
        }
    }

    fn from_inner(module: Self::InnerModule) -> Self {
        match module {
            Mnist(network) => Mnist(MnistNet::from_inner(network)),
            Residual(network) => Residual(ResNet::from_inner(network)),
        }
    }
}

impl<B: Backend> ModuleDisplayDefault for AnyNetwork<B> {
    fn content(&self, content: Content) -> Option<Content> {
        either!(self, network => network.content(content))
    }

    fn num_params(&self) -> usize {
        Module::num_params(self)
    }
}

impl<B: Backend> ModuleDisplay for AnyNetwork<B> {
    fn format(&self, settings: DisplaySettings) -> String {
        either!(self, network => network.format(settings))
    }
}

impl<B: Backend> fmt::Display for AnyNetwork<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        either!(self, network => network.fmt(f))
    }
}

#[cfg(all(test, feature = "cpu"))]
mod tests {
    use super::*;
    use crate::Cpu;
    use burn::module::Param;

    #[derive(Default)]
    struct Paths {
        path: Vec<String>,
        found: Vec<String>,
    }

    impl<B: Backend> ModuleVisitor<B> for Paths {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.path.push(name.into());
        }

        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.pop();
        }

        fn visit_float<const D: usize>(&mut self, _param: &Param<Tensor<B, D>>) {
            self.found.push(self.path.join("."));
        }
    }

    #[test]
    fn parameters_have_the_paths_of_the_network_itself() {
        let network = ResNet::<Cpu>::new(8, 10, &Default::default());
        let (mut own, mut any) = (Paths::default(), Paths::default());
        network.visit(&mut own);
        Residual(network).visit(&mut any);
        assert_eq!(own.found, any.found);
        assert!(any.found.contains(&"blocks.0.conv1.weight".into()), "{:?}", any.found);
    }
}
