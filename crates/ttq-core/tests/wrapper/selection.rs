//! Which weights become ternary, and the reasons why others do not.

use burn::backend::{Autodiff, Flex};
use burn::module::Param;
use burn::nn::conv::{
    Conv1dConfig, Conv2d, Conv2dConfig, Conv3dConfig, ConvTranspose1d, ConvTranspose1dConfig, ConvTranspose2d,
    ConvTranspose2dConfig, ConvTranspose3d, ConvTranspose3dConfig,
};
use burn::nn::{self, EmbeddingConfig, LinearConfig, LinearLayout};
use burn::prelude::*;
use ttq_core::packed::pack;
use ttq_core::*;
use ttq_inference::load;
use ttq_testing::{normal, reproducible, tensor};

use crate::Net;

fn paths(config: &SelectionConfig) -> Result<Vec<String>, SelectionError> {
    let net = Net::<Flex>::new(&Default::default());
    Selection::of(&net, config).map(|s| s.ternary().map(|c| c.path.clone()).collect())
}

#[test]
fn the_first_convolution_and_the_last_linear_layer_stay_in_full_precision_whatever_their_names() {
    assert_eq!(paths(&SelectionConfig::default()).unwrap(), ["body.0.weight", "hidden.weight"]);
    let everything =
        SelectionConfig { keep_first_convolution: false, keep_last_layer: false, ..SelectionConfig::default() };
    assert_eq!(paths(&everything).unwrap(), ["entry.weight", "body.0.weight", "hidden.weight", "head.weight"]);
}

#[test]
fn patterns_and_kinds_narrow_the_selection() {
    let default = SelectionConfig::default();
    let included = SelectionConfig { include: vec!["^body".into()], ..default.clone() };
    assert_eq!(paths(&included).unwrap(), ["body.0.weight"]);
    let excluded = SelectionConfig { exclude: vec!["^body".into()], ..default.clone() };
    assert_eq!(paths(&excluded).unwrap(), ["hidden.weight"]);
    let kinds = SelectionConfig { kinds: vec![LayerKind::Conv2d], ..default };
    assert_eq!(paths(&kinds).unwrap(), ["body.0.weight"]);
}

#[test]
fn a_pattern_without_a_match_is_an_error_that_lists_the_candidates() {
    let config = SelectionConfig { exclude: vec!["layer4".into()], ..SelectionConfig::default() };
    let message = paths(&config).unwrap_err().to_string();
    assert!(message.contains("`layer4` matches no weight"), "{message}");
    assert!(message.contains("body.0.weight") && message.contains("head.weight"), "{message}");
    let config = SelectionConfig { include: vec!["(".into()], ..SelectionConfig::default() };
    assert!(paths(&config).unwrap_err().to_string().contains("not a valid regular expression"));
    let config = SelectionConfig { include: vec!["^head".into()], ..SelectionConfig::default() };
    let message = paths(&config).unwrap_err().to_string();
    assert!(message.contains("head.weight (last layer)"), "{message}");
}

#[test]
fn the_selection_prints_as_a_table_of_every_candidate() {
    let net = Net::<Flex>::new(&Default::default());
    let table = Selection::of(&net, &SelectionConfig::default()).unwrap().to_string();
    let line = |path: &str| table.lines().find(|line| line.starts_with(path)).unwrap().to_string();
    assert!(line("entry.weight").ends_with("full (first convolution, by declaration)"));
    assert!(line("body.0.weight").contains("[6, 4, 3, 3]") && line("body.0.weight").ends_with("ternary"));
    assert!(line("head.weight").ends_with("full (last layer, by declaration)"));
}

/// A user's own `Linear`, with the weight `[out, in]`, as in PyTorch.
#[derive(Module, Debug)]
struct Linear<B: Backend> {
    weight: Param<Tensor<B, 2>>,
}

impl<B: Backend> Linear<B> {
    fn new(d_in: usize, d_out: usize, seed: u64) -> Self {
        Self { weight: Param::from_tensor(tensor(&normal(&[d_out, d_in], seed))) }
    }
}

#[derive(Module, Debug)]
enum Layer<B: Backend> {
    Full(nn::Linear<B>),
    Own(Linear<B>),
}

/// Layers in every kind of field, and parameters that are no layer's.
#[derive(Module, Debug)]
struct Strange<B: Backend> {
    tokens: nn::Embedding<B>,
    own: Linear<B>,
    layers: Vec<Layer<B>>,
    pair: (nn::Linear<B>, Linear<B>),
    array: [nn::conv::Conv1d<B>; 2],
    volume: Option<nn::conv::Conv3d<B>>,
    up1: ConvTranspose1d<B>,
    up2: ConvTranspose2d<B>,
    up3: ConvTranspose3d<B>,
    raw: Param<Tensor<B, 3>>,
    gain: Param<Tensor<B, 1>>,
    head: nn::Linear<B>,
}

impl<B: Backend> Strange<B> {
    fn new() -> Self {
        let device = &Default::default();
        let conv = || Conv1dConfig::new(4, 6, 3).init(device);
        let model = Self {
            tokens: EmbeddingConfig::new(10, 4).init(device),
            own: Linear::new(3, 5, 1),
            layers: vec![
                Layer::Full(LinearConfig::new(4, 6).with_layout(LinearLayout::Col).init(device)),
                Layer::Own(Linear::new(3, 5, 2)),
            ],
            pair: (LinearConfig::new(4, 6).init(device), Linear::new(3, 5, 3)),
            array: [conv(), conv()],
            volume: Some(Conv3dConfig::new([4, 6], [3, 3, 3]).init(device)),
            up1: ConvTranspose1dConfig::new([4, 6], 3).init(device),
            up2: ConvTranspose2dConfig::new([4, 6], [3, 3]).with_groups(2).init(device),
            up3: ConvTranspose3dConfig::new([4, 6], [3, 3, 3]).init(device),
            raw: Param::from_tensor(tensor(&normal(&[2, 3, 4], 4))),
            gain: Param::from_tensor(Tensor::ones([4], device)),
            head: LinearConfig::new(4, 6).init(device),
        };
        reproducible(model, 5)
    }
}

fn line(selection: &Selection, path: &str) -> String {
    let table = selection.to_string();
    let line = table.lines().find(|line| line.split(' ').next() == Some(path));
    line.unwrap_or_else(|| panic!("{path} is not in\n{table}")).into()
}

#[test]
fn the_kind_of_a_layer_is_known_by_its_type_wherever_it_is_and_not_by_its_name() {
    let selection = Selection::of(&Strange::<Flex>::new(), &SelectionConfig::default()).unwrap();
    let ternary: Vec<_> = selection.ternary().map(|choice| (choice.path.as_str(), choice.kind)).collect();
    let expected = [
        ("layers.0.Full.weight", LayerKind::Linear),
        ("pair.0.weight", LayerKind::Linear),
        ("array.1.weight", LayerKind::Conv1d),
        ("volume.weight", LayerKind::Conv3d),
    ];
    assert_eq!(ternary, expected);
    let own = line(&selection, "own.weight");
    assert!(own.contains("Parameter") && own.contains("selection::Linear`: name its channel axis"), "{own}");
    assert!(line(&selection, "layers.1.Own.weight").contains("selection::Linear`: name its channel axis"));
}

#[test]
fn every_parameter_of_two_or_more_dimensions_is_listed_with_the_reason_why_it_is_not_chosen() {
    let model = Strange::<Flex>::new();
    let selection = Selection::of(&model, &SelectionConfig::default()).unwrap();
    assert!(line(&selection, "tokens.weight").ends_with("full (kind not selected)"));
    assert!(line(&selection, "up2.weight").contains("ConvTranspose2d"));
    assert!(line(&selection, "raw").contains("selection::Strange`: name its channel axis by `with_axis`"));
    let listed: usize = selection.choices().iter().map(Choice::len).sum();
    assert_eq!(listed + selection.other_parameters(), model.num_params());
    assert!(selection.choices().iter().all(|choice| choice.shape.len() >= 2));
}

#[test]
fn a_weight_of_any_type_can_be_chosen_by_a_pattern_with_its_axis_and_packs_and_loads_like_others() {
    let selection = SelectionConfig::new()
        .with_axis(r"^(own|layers\.1\.Own|pair\.1)\.weight$", 0)
        .with_axis(r"^up\d\.weight$", 1)
        .with_axis("^raw$", 2)
        .with_axis("^tokens", 0);
    let quantizer = QuantizerConfig::ttq().with_granularity(Granularity::Channel);
    let config = TernaryConfig { selection, quantizer };
    let ternary = Ternary::new(Strange::<Flex>::new(), &config).unwrap();
    assert_eq!(ternary.selection().ternary().count(), 12);
    let groups = |path: &str| {
        let index = ternary.selection().ternary().position(|choice| choice.path == path).unwrap();
        ternary.scales()[index].val().dims()[0]
    };
    assert_eq!(["own.weight", "up1.weight", "up2.weight", "raw", "tokens.weight"].map(groups), [5, 6, 3, 4, 10]);
    let expected = ternary.materialize();
    let loaded = load(Strange::<Flex>::new(), &pack(&ternary).unwrap()).unwrap();
    assert_eq!(loaded.raw.val().into_data(), expected.raw.val().into_data());
    assert_eq!(loaded.up2.weight.val().into_data(), expected.up2.weight.val().into_data());
    assert_eq!(loaded.own.weight.val().into_data(), expected.own.weight.val().into_data());
    let full = |model: &Strange<Flex>| match &model.layers[0] {
        Layer::Full(layer) => layer.weight.val().into_data(),
        Layer::Own(_) => unreachable!(),
    };
    assert_eq!(full(&loaded), full(&expected));
}

#[test]
fn a_channel_axis_that_fits_no_weight_is_an_error() {
    let model = Strange::<Flex>::new();
    let error = Selection::of(&model, &SelectionConfig::new().with_axis("^raw$", 3)).unwrap_err().to_string();
    assert_eq!(error, "`with_axis(\"^raw$\", 3)`: `raw` of shape [2, 3, 4] has no dimension 3");
    let error = Selection::of(&model, &SelectionConfig::new().with_axis("^gain$", 0)).unwrap_err().to_string();
    assert!(error.contains("`^gain$` matches no weight"), "{error}");
}

#[test]
fn a_linear_layer_of_column_layout_is_selected_with_its_real_shape() {
    let device = Default::default();
    let layout = |layout| {
        let layer: nn::Linear<Autodiff<Flex>> = LinearConfig::new(4, 6).with_layout(layout).init(&device);
        let config = SelectionConfig::new().with_keep_last_layer(false);
        let quantizer = QuantizerConfig::ttq().with_granularity(Granularity::Channel);
        let ternary = Ternary::new(layer, &TernaryConfig { selection: config, quantizer }).unwrap();
        assert_eq!(ternary.selection().choices()[0].shape, [4, 6]);
        assert_eq!(ternary.scales()[0].val().dims(), [6, 2]);
        let packed = pack(&ternary).unwrap();
        assert_eq!(packed.weights["weight"].shape(), [4, 6]);
        ternary.materialize().forward(Tensor::ones([2, 4], &device)).dims()
    };
    assert_eq!([layout(LinearLayout::Row), layout(LinearLayout::Col)], [[2, 6], [2, 6]]);
}

/// Convolutions alone.
#[derive(Module, Debug)]
struct Convolutions<B: Backend> {
    layers: Vec<Conv2d<B>>,
}

#[test]
fn the_last_convolution_of_a_module_without_linear_layers_stays_in_full_precision() {
    let conv = || Conv2dConfig::new([2, 2], [3, 3]).init(&Default::default());
    let model = Convolutions::<Flex> { layers: vec![conv(), conv(), conv()] };
    let selection = Selection::of(&model, &SelectionConfig::default()).unwrap();
    assert_eq!(selection.ternary().map(|choice| choice.path.as_str()).collect::<Vec<_>>(), ["layers.1.weight"]);
}

/// A U-Net whose first and last fields are transposed convolutions.
#[derive(Module, Debug)]
struct UNet<B: Backend> {
    up: ConvTranspose2d<B>,
    input: Conv2d<B>,
    body: Conv2d<B>,
    output: Conv2d<B>,
    up_again: ConvTranspose2d<B>,
}

#[test]
fn a_transposed_convolution_that_stays_full_anyway_is_not_kept_in_the_place_of_the_first_or_last_convolution() {
    let device = &Default::default();
    let conv = || Conv2dConfig::new([2, 2], [3, 3]).init(device);
    let up = || ConvTranspose2dConfig::new([2, 2], [2, 2]).init(device);
    let model = UNet::<Flex> { up: up(), input: conv(), body: conv(), output: conv(), up_again: up() };
    let ternary = |config| -> Vec<String> {
        Selection::of(&model, &config).unwrap().ternary().map(|choice| choice.path.clone()).collect()
    };
    assert_eq!(ternary(SelectionConfig::default()), ["body.weight"]);
    let named = SelectionConfig::default().with_axis("^up", 1);
    assert_eq!(ternary(named), ["input.weight", "body.weight", "output.weight"]);
}

#[test]
fn an_include_pattern_that_matches_only_weights_that_cannot_become_ternary_is_an_error_that_says_why() {
    let model = Strange::<Flex>::new();
    let include = |patterns: &[&str]| SelectionConfig {
        include: patterns.iter().map(|pattern| pattern.to_string()).collect(),
        ..SelectionConfig::default()
    };
    let error = Selection::of(&model, &include(&["^layers", "^tokens"])).unwrap_err();
    assert!(matches!(&error, SelectionError::IncludedInVain { pattern, .. } if pattern == "^tokens"));
    let error = error.to_string();
    assert!(error.contains("`with_axis`") && error.contains("tokens.weight (Embedding, kind not selected)"), "{error}");
    let error = Selection::of(&model, &include(&["^raw$"])).unwrap_err().to_string();
    assert!(error.contains("raw (Parameter, a parameter of `") && error.contains("channel axis"), "{error}");
    Selection::of(&model, &include(&["^layers", "^tokens"]).with_axis("^tokens", 0)).unwrap();
    let kinds = vec![LayerKind::Linear, LayerKind::Embedding];
    Selection::of(&model, &include(&["^layers", "^tokens"]).with_kinds(kinds)).unwrap();
}

#[test]
fn a_clone_with_the_identifier_of_another_weight_is_an_error_that_names_both() {
    let layer: Conv2d<Flex> = Conv2dConfig::new([2, 2], [3, 3]).init(&Default::default());
    let model = Convolutions { layers: vec![layer; 3] };
    let error = Ternary::new(model, &TernaryConfig::default()).unwrap_err().to_string();
    assert!(error.contains("`layers.1.weight` and `layers.0.weight` have the same parameter identifier"), "{error}");
}
