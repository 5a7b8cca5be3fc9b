//! The networks of the suite: Burn modules with random ternary weights, captured as graphs.

use anyhow::{Result, anyhow};
use burn::backend::Flex;
use burn::module::HasAutodiffModule;
use burn::nn::transformer::{TransformerEncoder, TransformerEncoderConfig, TransformerEncoderInput};
use burn::prelude::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rand_distr::StandardNormal;
use ttq_compile::{Capture, Graph, capture};
use ttq_core::packed::pack;
use ttq_core::{QuantizerConfig, Ternary, TernaryConfig, Threshold};
use ttq_examples::model::{DenseNet, DenseNetConfig, MnistNet, Network as _, ResNet, SqueezeNet};
use ttq_inference::{Packed, load};
use ttq_packed::network::RangeRule;

/// A network of the suite.
pub(crate) struct Network {
    pub(crate) title: &'static str,
    pub(crate) graph: fn() -> Result<Graph>,
}

/// The networks.
pub(crate) const NETWORKS: [Network; 6] = [
    Network { title: "ResNet-20, no zeros", graph: || resnet(0.0) },
    Network { title: "ResNet-20, 50 % zeros", graph: || resnet(0.5) },
    Network { title: "MNIST network", graph: mnist },
    Network { title: "DenseNet", graph: densenet },
    Network { title: "SqueezeNet", graph: squeezenet },
    Network { title: "transformer encoder", graph: transformer },
];

/// The backend of captured modules: their ternary weights stay ternary.
type Inner = Packed<Flex>;

/// Classes of Tiny ImageNet.
const CLASSES: usize = 200;

fn resnet(zeros: f64) -> Result<Graph> {
    let device = Default::default();
    let (dense, packed) = (ResNet::<Flex>::new(20, 10, &device), ResNet::<Inner>::new(20, 10, &device));
    graph(zeros, dense, packed, [1, 3, 32, 32], |network, x| network.forward(x))
}

fn mnist() -> Result<Graph> {
    let device = Default::default();
    let (dense, packed) = (MnistNet::<Flex>::new(10, &device), MnistNet::<Inner>::new(10, &device));
    graph(0.5, dense, packed, [1, 1, 28, 28], |network, x| network.forward(x))
}

/// The small DenseNet of the PyTorch port.
fn densenet() -> Result<Graph> {
    let (config, device) = (DenseNetConfig::SMALL, Default::default());
    let dense = DenseNet::<Flex>::new(&config, CLASSES, &device);
    let packed = DenseNet::<Inner>::new(&config, CLASSES, &device);
    graph(0.5, dense, packed, [1, 3, 56, 56], |network, x| network.forward(x))
}

/// The SqueezeNet of the PyTorch port.
fn squeezenet() -> Result<Graph> {
    let device = Default::default();
    let (dense, packed) = (SqueezeNet::<Flex>::new(CLASSES, &device), SqueezeNet::<Inner>::new(CLASSES, &device));
    graph(0.5, dense, packed, [1, 3, 56, 56], |network, x| network.forward(x))
}

/// Four encoder layers on 64 tokens of 256 features.
fn transformer() -> Result<Graph> {
    let config = TransformerEncoderConfig::new(256, 1024, 8, 4).with_norm_first(true);
    let device = Default::default();
    let dense: TransformerEncoder<Flex> = config.init(&device);
    let packed: TransformerEncoder<Inner> = config.init(&device);
    graph(0.5, dense, packed, [1, 64, 256], |encoder, x| encoder.forward(TransformerEncoderInput::new(x)))
}

/// Makes a module ternary with a share of zeros, captures it, and measures the ranges of its values on random inputs.
fn graph<M, P, const D: usize, const E: usize>(
    zeros: f64,
    dense: M,
    packed: P,
    item: [usize; D],
    forward: impl Fn(&P::TrainModule, Tensor<Capture<Inner>, D>) -> Tensor<Capture<Inner>, E>,
) -> Result<Graph>
where
    M: Module<Flex>,
    P: Module<Inner> + HasAutodiffModule<Capture<Inner>>,
{
    let mut config = TernaryConfig::new();
    config.quantizer = QuantizerConfig::ttq().with_threshold(Threshold::Sparsity(zeros));
    let file = pack(&Ternary::new(dense, &config)?)?;
    let module = load(packed, &file).map_err(|error| anyhow!("{error}"))?;
    let mut graph = capture(&module, Tensor::<Inner, D>::ones(item, &Default::default()), forward)?;
    let mut rng = StdRng::seed_from_u64(0);
    let values: Vec<f32> = (0..64 * item.iter().product::<usize>()).map(|_| rng.sample(StandardNormal)).collect();
    graph.calibrate(&values, RangeRule::MinMax)?;
    Ok(graph)
}
