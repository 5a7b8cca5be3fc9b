//! DenseNet with bottlenecks for 56×56 images (Huang et al., "Densely Connected Convolutional Networks", CVPR 2017), in
//! the two sizes of the PyTorch port of TTQ (github.com/TropComplique/trained-ternary-quantization).

use burn::nn::conv::Conv2d;
use burn::nn::pool::{
    AdaptiveAvgPool2d, AdaptiveAvgPool2dConfig, AvgPool2d, AvgPool2dConfig, MaxPool2d, MaxPool2dConfig,
};
use burn::nn::{BatchNorm, BatchNormConfig, Dropout, DropoutConfig, Linear, LinearConfig, PaddingConfig2d};
use burn::prelude::*;
use burn::tensor::activation::relu;

use super::convolution::{HE_UNIFORM, convolution};
use super::{Network, PytorchName};
use crate::data::Images;

/// Configuration of a [`DenseNet`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DenseNetConfig {
    /// Number of channels that a layer adds.
    pub growth: usize,
    /// Number of layers of each block.
    pub layers: &'static [usize],
    /// Number of channels after the first convolution.
    pub initial: usize,
    /// Number of channels between the two convolutions of a layer, in multiples of `growth`.
    pub bottleneck: usize,
    /// Whether a max pooling halves height and width before the first block.
    pub pool: bool,
    /// Dropout probability of the new channels of a layer.
    pub dropout: f64,
}

impl DenseNetConfig {
    /// Small DenseNet of the port: 440,264 parameters for 200 classes.
    pub const SMALL: Self =
        Self { growth: 12, layers: &[8, 12, 10], initial: 48, bottleneck: 4, pool: true, dropout: 0.25 };
    /// DenseNet-121, with a 3×3 convolution of stride 1 as the first one and no pooling after it: 7,151,176 parameters
    /// for 200 classes.
    pub const DENSENET_121: Self =
        Self { growth: 32, layers: &[6, 12, 24, 16], initial: 64, bottleneck: 4, pool: false, dropout: 0.0 };
}

/// A 3×3 convolution, dense blocks, and a linear layer. In a block, the input of each layer consists of all previous
/// channels. Transitions between the blocks halve channels, height and width.
#[derive(Module, Debug)]
pub struct DenseNet<B: Backend> {
    stem: Conv2d<B>,
    norm: BatchNorm<B>,
    pool: Option<MaxPool2d>,
    blocks: Vec<Block<B>>,
    last_norm: BatchNorm<B>,
    average: AdaptiveAvgPool2d,
    dropout: Dropout,
    classes: Linear<B>,
}

/// The layers of a dense block, and the transition to the next block.
#[derive(Module, Debug)]
struct Block<B: Backend> {
    layers: Vec<Layer<B>>,
    transition: Option<Transition<B>>,
}

/// A 1×1 convolution to the bottleneck and a 3×3 convolution to the new channels, which are appended to the input.
#[derive(Module, Debug)]
struct Layer<B: Backend> {
    norm1: BatchNorm<B>,
    conv1: Conv2d<B>,
    norm2: BatchNorm<B>,
    conv2: Conv2d<B>,
    dropout: Dropout,
}

/// A 1×1 convolution to half of the channels, and 2×2 average pooling.
#[derive(Module, Debug)]
struct Transition<B: Backend> {
    norm: BatchNorm<B>,
    conv: Conv2d<B>,
    pool: AvgPool2d,
}

/// Dropout probability before the linear layer, in both sizes.
const LAST_DROPOUT: f64 = 0.25;

impl<B: Backend> DenseNet<B> {
    /// Creates a network for `classes` classes. Input `[n, 3, 56, 56]`, output `[n, classes]`.
    pub fn new(config: &DenseNetConfig, classes: usize, device: &B::Device) -> Self {
        let mut channels = config.initial;
        let mut blocks = Vec::new();
        for (index, layers) in config.layers.iter().enumerate() {
            let is_last = index + 1 == config.layers.len();
            blocks.push(Block::new(config, *layers, channels, is_last, device));
            channels += layers * config.growth;
            if !is_last {
                channels /= 2;
            }
        }
        let pool =
            MaxPool2dConfig::new([3, 3]).with_strides([2, 2]).with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1));
        Self {
            stem: convolution([3, config.initial], 3).init(device),
            norm: BatchNormConfig::new(config.initial).init(device),
            pool: config.pool.then(|| pool.init()),
            blocks,
            last_norm: BatchNormConfig::new(channels).init(device),
            average: AdaptiveAvgPool2dConfig::new([1, 1]).init(),
            dropout: DropoutConfig::new(LAST_DROPOUT).init(),
            classes: LinearConfig::new(channels, classes).with_initializer(HE_UNIFORM).init(device),
        }
    }
}

impl<B: Backend> Network<B> for DenseNet<B> {
    type Task = Images;

    fn forward(&self, images: Tensor<B, 4>) -> Tensor<B, 2> {
        let x = relu(self.norm.forward(self.stem.forward(images)));
        let x = match &self.pool {
            Some(pool) => pool.forward(x),
            None => x,
        };
        let x = self.blocks.iter().fold(x, |x, block| block.forward(x));
        let x = self.average.forward(relu(self.last_norm.forward(x))).flatten(1, 3);
        self.classes.forward(self.dropout.forward(x))
    }

    fn pytorch_names() -> Vec<PytorchName> {
        let max = |count: fn(&DenseNetConfig) -> usize| {
            [DenseNetConfig::SMALL, DenseNetConfig::DENSENET_121].iter().map(count).max().unwrap_or(0)
        };
        let blocks = (0..max(|config| config.layers.len())).flat_map(|block| {
            let number = block + 1;
            [
                (format!(r"^features\.denseblock{number}\."), format!("blocks.{block}.")),
                (format!(r"^features\.transition{number}\."), format!("blocks.{block}.transition.")),
            ]
        });
        let layers = (0..max(|config| config.layers.iter().copied().max().unwrap_or(0)))
            .map(|layer| (format!(r"\.denselayer{}\.", layer + 1), format!(".layers.{layer}.")));
        // Newer versions of PyTorch write `norm1` and `conv2` instead of `norm.1` and `conv.2`.
        let rest = [
            (r"\.(norm|conv)\.?([12])\.", ".${1}${2}."),
            (r"^features\.conv0\.", "stem."),
            (r"^features\.norm0\.", "norm."),
            (r"^features\.norm[45]\.", "last_norm."),
            (r"^classifier\.", "classes."),
        ];
        blocks.chain(layers).chain(rest.map(|(port, here)| (port.into(), here.into()))).collect()
    }
}

impl<B: Backend> Block<B> {
    fn new(config: &DenseNetConfig, layers: usize, input: usize, is_last: bool, device: &B::Device) -> Self {
        let output = input + layers * config.growth;
        let transition = || Transition {
            norm: BatchNormConfig::new(output).init(device),
            conv: convolution([output, output / 2], 1).init(device),
            pool: AvgPool2dConfig::new([2, 2]).with_strides([2, 2]).init(),
        };
        Self {
            layers: (0..layers).map(|layer| Layer::new(config, input + layer * config.growth, device)).collect(),
            transition: (!is_last).then(transition),
        }
    }

    fn forward(&self, x: Tensor<B, 4>) -> Tensor<B, 4> {
        let x = self.layers.iter().fold(x, |x, layer| layer.forward(x));
        match &self.transition {
            Some(transition) => transition.forward(x),
            None => x,
        }
    }
}

impl<B: Backend> Layer<B> {
    fn new(config: &DenseNetConfig, input: usize, device: &B::Device) -> Self {
        let middle = config.bottleneck * config.growth;
        Self {
            norm1: BatchNormConfig::new(input).init(device),
            conv1: convolution([input, middle], 1).init(device),
            norm2: BatchNormConfig::new(middle).init(device),
            conv2: convolution([middle, config.growth], 3).init(device),
            dropout: DropoutConfig::new(config.dropout).init(),
        }
    }

    fn forward(&self, x: Tensor<B, 4>) -> Tensor<B, 4> {
        let y = self.conv1.forward(relu(self.norm1.forward(x.clone())));
        let y = self.conv2.forward(relu(self.norm2.forward(y)));
        Tensor::cat(vec![x, self.dropout.forward(y)], 1)
    }
}

impl<B: Backend> Transition<B> {
    fn forward(&self, x: Tensor<B, 4>) -> Tensor<B, 4> {
        self.pool.forward(self.conv.forward(relu(self.norm.forward(x))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Cpu;

    /// Returns the number of running means and variances of batch normalization, which Burn counts as parameters.
    /// Layers normalize their input and their bottleneck.
    fn running_statistics(config: &DenseNetConfig) -> usize {
        let (mut channels, mut normalized) = (config.initial, config.initial);
        for (block, layers) in config.layers.iter().enumerate() {
            for _ in 0..*layers {
                normalized += channels + config.bottleneck * config.growth;
                channels += config.growth;
            }
            // The normalization of the transition, or the last one.
            normalized += channels;
            if block + 1 < config.layers.len() {
                channels /= 2;
            }
        }
        2 * normalized
    }

    #[test]
    fn both_sizes_have_as_many_parameters_as_in_the_port() {
        for (config, parameters) in [(DenseNetConfig::SMALL, 440_264), (DenseNetConfig::DENSENET_121, 7_151_176)] {
            let network = DenseNet::<Cpu>::new(&config, 200, &Default::default());
            assert_eq!(Module::num_params(&network), parameters + running_statistics(&config), "{config:?}");
        }
    }

    #[test]
    fn the_output_has_a_logit_per_image_and_class() {
        let network = DenseNet::<Cpu>::new(&DenseNetConfig::SMALL, 200, &Default::default());
        assert_eq!(network.forward(Tensor::zeros([2, 3, 56, 56], &Default::default())).dims(), [2, 200]);
    }

    #[test]
    fn packed_weights_give_the_logits_of_dense_ternary_ones() {
        use ttq_core::{Ternary, TernaryConfig, packed::pack};
        use ttq_inference::{Packed, load};

        fn logits<B: Backend>(network: DenseNet<B>, file: &ttq_packed::PackedModel) -> Vec<f32> {
            let pixels: Vec<f32> = (0..3 * 56 * 56).map(|index| ((index * index) as f32 * 0.37).sin()).collect();
            let image = Tensor::from_data(TensorData::new(pixels, [1, 3, 56, 56]), &Default::default());
            load(network, file).unwrap().forward(image).into_data().iter().collect()
        }

        let (config, device) = (DenseNetConfig::SMALL, Default::default());
        let network = DenseNet::<Cpu>::new(&config, 20, &device);
        let file = pack(&Ternary::new(network, &TernaryConfig::new()).unwrap()).unwrap();
        let dense = logits(DenseNet::<Cpu>::new(&config, 20, &device), &file);
        let packed = logits(DenseNet::<Packed<Cpu>>::new(&config, 20, &device), &file);
        let largest = dense.iter().map(|logit| logit.abs()).fold(0.0, f32::max);
        let worst = dense
            .iter()
            .zip(&packed)
            .map(|(dense, packed)| (dense - packed).abs())
            .max_by(|a, b| a.total_cmp(b))
            .unwrap_or_default();
        assert!(worst <= 1e-5 * largest, "{worst} of {largest}");
    }

    #[test]
    fn names_of_old_and_new_pytorch_versions_map_to_the_same_parameter() {
        let rename = |name: &str| {
            <DenseNet<Cpu> as Network<Cpu>>::pytorch_names().iter().fold(name.to_owned(), |name, (port, here)| {
                regex::Regex::new(port).unwrap().replace(&name, here.as_str()).into_owned()
            })
        };
        for name in
            ["features.denseblock4.denselayer16.conv.2.weight", "features.denseblock4.denselayer16.conv2.weight"]
        {
            assert_eq!(rename(name), "blocks.3.layers.15.conv2.weight");
        }
        assert_eq!(rename("features.transition1.norm.running_var"), "blocks.0.transition.norm.running_var");
        assert_eq!(rename("features.norm5.bias"), "last_norm.bias");
    }
}
