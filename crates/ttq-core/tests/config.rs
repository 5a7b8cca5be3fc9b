//! Tests saving and loading of the configurations with Burn's `Config` trait.

use std::fs;
use std::path::PathBuf;

use burn::config::Config;
use ttq_core::{
    Granularity, InitialScales, LatentGradient, LayerKind, NegativeScaleGradient, QuantizerConfig, ScaleParameter,
    ScaleRule, SelectionConfig, TernaryConfig, Threshold,
};

fn quantizer() -> QuantizerConfig {
    QuantizerConfig::new()
        .with_threshold(Threshold::Sparsity(0.5))
        .with_scales(ScaleRule::SideMeans)
        .with_initial_scales(InitialScales::Ones)
        .with_scale_parameter(ScaleParameter::Linear)
        .with_threshold_granularity(Granularity::Channel)
        .with_latent_gradient(LatentGradient::Identity)
        .with_negative_scale_gradient(NegativeScaleGradient::Published)
}

fn selection() -> SelectionConfig {
    SelectionConfig::new()
        .with_kinds(vec![LayerKind::Conv2d])
        .with_include(vec!["^body".into()])
        .with_exclude(vec!["norm".into(), "head".into()])
        .with_keep_first_convolution(false)
        .with_keep_last_layer(false)
}

fn ternary() -> TernaryConfig {
    TernaryConfig::new().with_quantizer(quantizer()).with_selection(selection())
}

/// Returns a file of this name in the folder for files of integration tests.
fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name)
}

fn assert_saves_and_loads<C: Config + PartialEq>(config: C, name: &str) {
    let path = file(name);
    config.save(&path).unwrap();
    assert_eq!(C::load(&path).unwrap(), config);
    assert_eq!(C::load_binary(&fs::read(&path).unwrap()).unwrap(), config);
}

fn assert_loads<C: Config + PartialEq>(text: &str, expected: C) {
    assert_eq!(C::load_binary(text.as_bytes()).unwrap(), expected, "{text}");
}

fn assert_unknown_field<C: Config>(text: &str) {
    let error = C::load_binary(text.as_bytes()).unwrap_err().to_string();
    assert!(error.contains("unknown field"), "{text}: {error}");
}

#[test]
fn a_saved_configuration_loads_unchanged() {
    assert_saves_and_loads(quantizer(), "quantizer.json");
    assert_saves_and_loads(selection(), "selection.json");
    assert_saves_and_loads(ternary(), "ternary.json");
}

#[test]
fn a_missing_field_takes_its_default() {
    assert_loads("{}", QuantizerConfig::ttq());
    assert_loads("{}", SelectionConfig::default());
    assert_loads("{}", TernaryConfig::default());
    assert_loads(
        r#"{"scale_granularity": "channel"}"#,
        QuantizerConfig { scale_granularity: Granularity::Channel, ..QuantizerConfig::ttq() },
    );
    assert_loads(
        r#"{"keep_last_layer": false}"#,
        SelectionConfig { keep_last_layer: false, ..SelectionConfig::default() },
    );
    let quantizer = QuantizerConfig::ttq().with_threshold(Threshold::MeanFraction(0.7));
    assert_loads(
        r#"{"quantizer": {"threshold": {"mean_fraction": 0.7}}}"#,
        TernaryConfig { quantizer, ..TernaryConfig::default() },
    );
}

#[test]
fn an_unknown_field_is_an_error() {
    assert_unknown_field::<QuantizerConfig>(r#"{"treshold": {"max_fraction": 0.1}}"#);
    assert_unknown_field::<QuantizerConfig>(r#"{"granularity": "channel"}"#);
    assert_unknown_field::<SelectionConfig>(r#"{"exclud": []}"#);
    assert_unknown_field::<TernaryConfig>(r#"{"quantiser": {}}"#);
    assert_unknown_field::<TernaryConfig>(r#"{"quantizer": {"scale": "learned"}}"#);
}
