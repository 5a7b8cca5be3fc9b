//! Records of a wrapper, and weights that were trained without it.

use burn::backend::Flex;
use burn::prelude::*;
use burn::record::{
    BinBytesRecorder, FullPrecisionSettings, HalfPrecisionSettings, NamedMpkBytesRecorder, PrecisionSettings, Recorder,
};
use ttq_core::*;
use ttq_testing::reproducible;

use crate::Net;

type Wrapper = Ternary<Flex, Net<Flex>>;

fn wrapper(config: &TernaryConfig, seed: u64) -> Wrapper {
    Ternary::new(reproducible(Net::new(&Default::default()), seed), config).unwrap()
}

fn bytes<S: PrecisionSettings>(wrapper: &Wrapper) -> Vec<u8> {
    Recorder::<Flex>::record(&BinBytesRecorder::<S>::default(), wrapper.clone().into_record(), ()).unwrap()
}

fn record<S: PrecisionSettings>(bytes: Vec<u8>) -> <Wrapper as Module<Flex>>::Record {
    Recorder::<Flex>::load(&BinBytesRecorder::<S>::default(), bytes, &Default::default()).unwrap()
}

fn scales(wrapper: &Wrapper) -> Vec<TensorData> {
    wrapper.scales().iter().map(|scales| scales.val().into_data()).collect()
}

#[test]
fn a_record_of_another_selection_or_quantizer_is_an_error_that_names_both() {
    let default = TernaryConfig::default();
    let saved = bytes::<FullPrecisionSettings>(&wrapper(&default, 1));
    let error = |config: TernaryConfig| {
        let other = wrapper(&config, 2);
        let error = other.check_record(&record::<FullPrecisionSettings>(saved.clone())).unwrap_err();
        let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            other.load_record(record::<FullPrecisionSettings>(saved.clone()))
        }));
        let panic = *panic.unwrap_err().downcast::<String>().unwrap();
        assert_eq!(panic, format!("Ternary::load_record: {error}"));
        panic
    };
    let exclude = SelectionConfig::new().with_exclude(vec!["^body".into()]).with_keep_last_layer(false);
    let selection = error(TernaryConfig::new().with_selection(exclude));
    assert!(
        selection.contains("only in the record: `body.0.weight`; only in the wrapper: `head.weight`"),
        "{selection}"
    );
    for (quantizer, record, own) in [
        (QuantizerConfig::ttq().with_scale_granularity(Granularity::Channel), r#""tensor""#, r#""channel""#),
        (QuantizerConfig::ttq().with_scale_parameter(ScaleParameter::Linear), r#""logarithm""#, r#""linear""#),
        (QuantizerConfig::ttq().with_scales(ScaleRule::SideMeans), r#""learned""#, r#""side_means""#),
    ] {
        let message = error(TernaryConfig::new().with_quantizer(quantizer));
        assert!(message.contains(record) && message.contains(own), "{message}");
    }
    // What changes training alone is no difference.
    let training = QuantizerConfig::ttq().with_latent_gradient(LatentGradient::Identity);
    let other = wrapper(&TernaryConfig::new().with_quantizer(training), 2);
    other.check_record(&record::<FullPrecisionSettings>(saved.clone())).unwrap();
}

#[test]
fn scales_are_loaded_by_the_paths_of_their_weights_and_keep_their_identifiers() {
    let saved = wrapper(&TernaryConfig::default(), 1);
    let loaded = wrapper(&TernaryConfig::default(), 2)
        .load_record(record::<FullPrecisionSettings>(bytes::<FullPrecisionSettings>(&saved)));
    assert_eq!(scales(&loaded), scales(&saved));
    let ids = |wrapper: &Wrapper| wrapper.scales().iter().map(|scales| scales.id).collect::<Vec<_>>();
    assert_eq!(ids(&loaded), ids(&saved));
    struct Paths(Vec<String>);
    impl burn::module::ModuleVisitor<Flex> for Paths {
        fn enter_module(&mut self, name: &str, container: &str) {
            if container == "Struct:LearnedScales" {
                self.0.push(name.into());
            }
        }
    }
    let mut paths = Paths(Vec::new());
    saved.visit(&mut paths);
    assert_eq!(paths.0, ["body.0.weight", "hidden.weight"]);
}

#[test]
fn a_record_with_field_names_loads_too() {
    let recorder = NamedMpkBytesRecorder::<FullPrecisionSettings>::default();
    let saved = wrapper(&TernaryConfig::default(), 1);
    let bytes: Vec<u8> = Recorder::<Flex>::record(&recorder, saved.clone().into_record(), ()).unwrap();
    let record = Recorder::<Flex>::load(&recorder, bytes, &Default::default()).unwrap();
    assert_eq!(wrapper(&TernaryConfig::default(), 2).load_record(record).stats(), saved.stats());
}

#[test]
fn half_precision_keeps_scales_and_changes_a_code_in_a_thousand_at_most() {
    let saved = wrapper(&TernaryConfig::default(), 1);
    let loaded = wrapper(&TernaryConfig::default(), 2)
        .load_record(record::<HalfPrecisionSettings>(bytes::<HalfPrecisionSettings>(&saved)));
    assert_eq!(scales(&loaded), scales(&saved));
    let (mut codes, mut changed) = (0, 0);
    for (a, b) in saved.layer_values().iter().zip(loaded.layer_values()) {
        for (a, b) in a.latent.iter().zip(&b.latent) {
            assert!((a - b).abs() <= a.abs() / 2048.0 + 3e-8, "{a} {b}");
        }
        codes += a.codes.len();
        changed += a.codes.iter().zip(&b.codes).filter(|(a, b)| a != b).count();
    }
    assert!(changed * 1000 <= codes, "{changed} of {codes}");
}

#[test]
fn scales_are_fitted_to_weights_that_are_loaded_without_them() {
    for quantizer in [QuantizerConfig::ttq(), QuantizerConfig::paper(), QuantizerConfig::twn()] {
        let config = TernaryConfig::new().with_quantizer(quantizer);
        let (trained, fresh) = (wrapper(&config, 7), wrapper(&config, 1));
        let model = fresh.latent().clone().load_record(trained.latent().clone().into_record());
        let ids: Vec<_> = fresh.scales().iter().map(|scales| scales.id).collect();
        let loaded = fresh.with_latent(model).unwrap();
        assert_eq!(scales(&loaded), scales(&trained));
        assert_eq!(loaded.stats(), trained.stats());
        assert_eq!(loaded.scales().iter().map(|scales| scales.id).collect::<Vec<_>>(), ids);
    }
}

#[test]
fn a_module_without_the_selected_weights_cannot_replace_the_wrapped_one() {
    let wrapper = wrapper(&TernaryConfig::default(), 1);
    let mut other = wrapper.latent().clone();
    other.hidden = burn::nn::LinearConfig::new(8, 8).init(&Default::default());
    let error = wrapper.with_latent(other).unwrap_err().to_string();
    assert!(error.contains("`hidden.weight` is Linear [96, 8] in the selection and Linear [8, 8]"), "{error}");
}
