//! Batch normalization folded into a file.

use burn::backend::Flex;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig};
use burn::prelude::*;
use ttq_inference::{FoldError, Packed, fold_batch_norm, load};
use ttq_packed::{DenseTensor, PackedModel};

use crate::ternary::{assert_close, file_for, random};

#[derive(Module, Debug)]
struct Normalized<B: Backend> {
    conv: Conv2d<B>,
    norm: BatchNorm<B>,
}

#[derive(Module, Debug)]
struct Folded<B: Backend> {
    conv: Conv2d<B>,
}

fn conv<B: Backend>(bias: bool) -> Conv2d<B> {
    Conv2dConfig::new([4, 6], [3, 3]).with_bias(bias).init(&Default::default())
}

fn normalized<B: Backend>(bias: bool) -> Normalized<B> {
    Normalized { conv: conv(bias), norm: BatchNormConfig::new(6).init(&Default::default()) }
}

#[test]
fn a_folded_normalization_equals_the_normalization_at_inference() {
    for (bias, per_channel) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut file = file_for(&normalized::<Flex>(bias), per_channel);
        // Positive, negative and zero factors.
        let gamma = DenseTensor::from_f32([6], &[0.5, -1.5, 0.0, 2.0, -0.1, 1.0]).unwrap();
        file.tensors.insert("norm.gamma".into(), gamma);
        let net = load(normalized::<Packed<Flex>>(bias), &file).unwrap();
        let expected = net.norm.forward(net.conv.forward(random([2, 4, 9, 9], 1))).into_data();
        fold_batch_norm(&mut file, "conv", "norm", net.norm.epsilon).unwrap();
        let folded = load(Folded::<Packed<Flex>> { conv: conv(true) }, &file).unwrap();
        assert_close(&folded.conv.forward(random([2, 4, 9, 9], 1)).into_data(), &expected, 1e-5);
    }
}

#[test]
fn a_file_without_the_layer_or_with_other_channels_is_an_error_and_stays_unchanged() {
    let file = file_for(&normalized::<Flex>(true), false);
    let error = |change: fn(&mut PackedModel), layer: &str| {
        let mut file = file.clone();
        change(&mut file);
        let before = file.clone();
        let error = fold_batch_norm(&mut file, layer, "norm", 1e-5).unwrap_err();
        assert_eq!(file, before);
        error
    };
    assert!(matches!(error(|_| (), "typo"), FoldError::Missing { name, .. } if name == "typo.weight"));
    let missing = error(|file| drop(file.tensors.remove("norm.beta")), "conv");
    assert_eq!(missing.to_string(), "the normalization cannot be folded: the file has no tensor `norm.beta`");
    let short = |file: &mut PackedModel| {
        drop(file.tensors.insert("norm.beta".into(), DenseTensor::from_f32([1], &[0.0]).unwrap()));
    };
    let channels = error(short, "conv");
    assert!(matches!(channels, FoldError::Channels { expected: 6, found: 1, .. }));
    let infinite = |file: &mut PackedModel| {
        drop(file.tensors.insert("norm.gamma".into(), DenseTensor::from_f32([6], &[f32::INFINITY; 6]).unwrap()));
    };
    assert!(matches!(error(infinite, "conv"), FoldError::Weight { .. }));
}
