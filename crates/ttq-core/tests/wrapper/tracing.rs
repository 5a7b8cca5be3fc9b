//! First and last layer by the flow of data through a module.

use burn::backend::{Autodiff, Flex};
use burn::module::{AutodiffModule, Param};
use burn::nn::conv::{Conv2d, Conv2dConfig, ConvTranspose2d, ConvTranspose2dConfig};
use burn::nn::gru::{Gru, GruConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig, PaddingConfig2d};
use burn::prelude::*;
use ttq_core::*;
use ttq_testing::{normal, reproducible, tensor};

/// A U-Net of one level, whose fields are in no order.
#[derive(Module, Debug)]
struct UNet<B: Backend> {
    up: ConvTranspose2d<B>,
    output: Conv2d<B>,
    down: Conv2d<B>,
    norm: BatchNorm<B>,
    input: Conv2d<B>,
    auxiliary: Linear<B>,
}

impl<B: Backend> UNet<B> {
    fn new() -> Self {
        let device = &Default::default();
        let conv = |channels| {
            Conv2dConfig::new(channels, [3, 3]).with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1)).init(device)
        };
        let model = Self {
            up: ConvTranspose2dConfig::new([4, 4], [2, 2]).with_stride([2, 2]).init(device),
            output: conv([4, 2]),
            down: Conv2dConfig::new([4, 4], [2, 2]).with_stride([2, 2]).init(device),
            norm: BatchNormConfig::new(4).init(device),
            input: conv([1, 4]),
            auxiliary: LinearConfig::new(4, 4).init(device),
        };
        reproducible(model, 3)
    }

    fn forward(&self, x: Tensor<B, 4>) -> Tensor<B, 4> {
        let x = self.input.forward(x);
        let y = self.up.forward(self.down.forward(self.norm.forward(x.clone())));
        self.output.forward(x + y)
    }
}

/// A recurrent classifier whose head is declared first.
#[derive(Module, Debug)]
struct Recurrent<B: Backend> {
    head: Linear<B>,
    cell: Gru<B>,
}

impl<B: Backend> Recurrent<B> {
    fn new() -> Self {
        let device = &Default::default();
        let model = Self { head: LinearConfig::new(8, 3).init(device), cell: GruConfig::new(4, 8, true).init(device) };
        reproducible(model, 4)
    }

    fn forward(&self, x: Tensor<B, 3>) -> Tensor<B, 3> {
        self.head.forward(self.cell.forward(x, None))
    }
}

/// A user's own matrix as the last layer.
#[derive(Module, Debug)]
struct OwnHead<B: Backend> {
    head: Param<Tensor<B, 2>>,
    scale: Param<Tensor<B, 2>>,
    body: Linear<B>,
}

fn kept(selection: &Selection, reason: &KeepReason) -> Vec<String> {
    selection.choices().iter().filter(|c| c.kept.as_ref() == Some(reason)).map(|c| c.path.clone()).collect()
}

#[test]
fn first_and_last_layer_are_those_of_the_flow_of_data_whatever_the_order_of_fields() {
    let config = SelectionConfig::default();
    let x = tensor::<Flex, 4>(&normal(&[1, 1, 8, 8], 1));
    let selection = Selection::traced(&UNet::<Flex>::new(), &config, |model| model.forward(x)).unwrap();
    assert_eq!(kept(&selection, &KeepReason::FirstConvolution), ["input.weight"]);
    assert_eq!(kept(&selection, &KeepReason::LastLayer), ["output.weight"]);
    assert_eq!(kept(&selection, &KeepReason::NotUsed), ["auxiliary.weight"]);
    assert_eq!(selection.ternary().map(|c| c.path.as_str()).collect::<Vec<_>>(), ["down.weight"]);
    assert!(selection.to_string().contains("full (last layer, by use)"));

    let x = tensor::<Flex, 3>(&normal(&[1, 5, 4], 2));
    let selection = Selection::traced(&Recurrent::<Flex>::new(), &config, |model| model.forward(x)).unwrap();
    assert_eq!(kept(&selection, &KeepReason::LastLayer), ["head.weight"]);
    assert!(selection.ternary().count() >= 4);

    let model = OwnHead::<Flex> {
        head: Param::from_tensor(tensor(&normal(&[4, 2], 3))),
        scale: Param::from_tensor(tensor(&normal(&[1, 2], 4))),
        body: LinearConfig::new(4, 4).init(&Default::default()),
    };
    let x = tensor::<Flex, 2>(&normal(&[3, 4], 5));
    let forward = |model: &OwnHead<Flex>| model.body.forward(x).matmul(model.head.val()) * model.scale.val();
    let selection = Selection::traced(&model, &config, forward).unwrap();
    assert_eq!(selection.ternary().map(|c| c.path.as_str()).collect::<Vec<_>>(), ["body.weight"]);
}

#[test]
fn a_traced_selection_wraps_the_module_on_the_autodiff_backend_and_leaves_its_statistics() {
    let model = UNet::<Autodiff<Flex>>::new();
    let x = tensor::<Flex, 4>(&normal(&[1, 1, 8, 8], 1));
    let config = TernaryConfig::default();
    let before = model.norm.running_mean.value_sync().into_data();
    let selection = Selection::traced(&model.valid(), &config.selection, |model| model.forward(x)).unwrap();
    assert_eq!(model.norm.running_mean.value_sync().into_data(), before);
    let ternary = Ternary::with_selection(model, &config, selection.clone()).unwrap();
    assert_eq!(ternary.selection(), &selection);
    let error = Selection::traced(ternary.latent(), &config.selection, |_| ()).unwrap_err();
    assert!(error.to_string().contains("trace `model.valid()`"), "{error}");
}

#[test]
fn a_selection_of_another_module_is_an_error_that_names_the_weight() {
    let selection = Selection::of(&UNet::<Flex>::new(), &SelectionConfig::default()).unwrap();
    let mut other = UNet::<Flex>::new();
    other.input = Conv2dConfig::new([1, 8], [3, 3]).init(&Default::default());
    let error = Ternary::with_selection(other, &TernaryConfig::default(), selection).unwrap_err().to_string();
    let expected = "`input.weight` is Conv2d [4, 1, 3, 3] in the selection and Conv2d [8, 1, 3, 3] in the module";
    assert!(error.contains(expected), "{error}");
}
