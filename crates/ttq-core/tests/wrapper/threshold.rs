//! A wrapper whose current threshold is not that of its configuration.

use burn::backend::Flex;
use burn::module::{AutodiffModule, Module};
use burn::optim::GradientsParams;
use burn::prelude::*;
use ttq_core::*;
use ttq_testing::reproducible;

use crate::{A, Net};

const OTHER: Threshold = Threshold::Sparsity(0.7);

fn wrapper(threshold: Threshold) -> Ternary<A, Net<A>> {
    let config = TernaryConfig::new().with_quantizer(QuantizerConfig::ttq().with_threshold(threshold));
    Ternary::new(reproducible(Net::new(&Default::default()), 3), &config).unwrap()
}

#[test]
fn everything_computes_with_the_current_threshold() {
    let expected = wrapper(OTHER);
    let changed = wrapper(Threshold::default()).with_threshold(OTHER).unwrap();
    assert_ne!(changed.scales()[0].val().into_data(), expected.scales()[0].val().into_data(), "scales stay");
    let changed = changed.refit();
    let values = |ternary: &Ternary<A, Net<A>>| {
        let layers = ternary.layer_values().into_iter();
        let layers: Vec<_> = layers.map(|layer| (layer.thresholds, layer.codes, layer.scales)).collect();
        let inner = ternary.valid();
        let of_inner: Vec<_> = inner.layer_values().into_iter().map(|layer| layer.codes).collect();
        let summary = ternary.snapshot().summary().into_data();
        let materialized = ternary.materialize().hidden.weight.val().into_data();
        let leaf_view = ternary.leaf_view();
        let [view, leaf] = [&ternary.view(), &leaf_view].map(|view| view.hidden.weight.val());
        let grads = GradientsParams::from_grads(leaf.clone().powi_scalar(3).sum().backward(), &*leaf_view);
        let id = ternary.latent().hidden.weight.id;
        let gradient = leaf_view.pull_back(grads).get::<Flex, 2>(id).map(Tensor::into_data);
        (layers, of_inner, summary, materialized, view.into_data(), leaf.into_data(), gradient)
    };
    assert_eq!(values(&changed), values(&expected));
    assert_eq!(values(&changed.clone().fork(&Default::default())), values(&expected));
    assert_eq!(changed.config().quantizer.threshold, Threshold::default());
}

#[test]
fn a_record_does_not_depend_on_the_current_threshold() {
    let changed = wrapper(Threshold::default()).with_threshold(OTHER).unwrap();
    let record = changed.clone().into_record();
    let other = wrapper(Threshold::default());
    other.check_record(&record).unwrap();
    let loaded = other.load_record(record);
    assert_eq!(loaded.quantizer().config().threshold, Threshold::default());
    assert!(wrapper(OTHER).check_record(&changed.clone().into_record()).is_err());
    assert_eq!(changed.clone().load_record(changed.into_record()).quantizer().config().threshold, OTHER);
}

#[test]
fn a_threshold_out_of_range_is_refused() {
    let error = wrapper(OTHER).with_threshold(Threshold::Sparsity(1.5)).unwrap_err().to_string();
    assert!(error.contains("zeros:1.5"), "{error}");
}
