//! Packing of a wrapper.

use burn::backend::{Autodiff, Flex};
use burn::module::{AutodiffModule, ModuleMapper, Param};
use burn::prelude::*;
use burn::tensor::TensorData;
use ttq_core::packed::{PackError, pack};
use ttq_core::{Granularity, Ternary};
use ttq_inference::{Packed, load};

use crate::{Net, random, ternary};

type A = Autodiff<Flex>;

/// Sets one element of the parameter at a path, or of the parameters below it.
struct Poison<'a> {
    path: &'a str,
    names: Vec<String>,
    value: f32,
}

impl<B: Backend> ModuleMapper<B> for Poison<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.names.push(name.into());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.names.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        if !format!("{}.", self.names.join(".")).starts_with(&format!("{}.", self.path)) {
            return param;
        }
        param.map(|values| {
            let mut data = values.to_data();
            data.as_mut_slice::<f32>().unwrap()[3] = self.value;
            Tensor::from_data(data, &values.device())
        })
    }
}

fn poisoned(path: &str, value: f32) -> Ternary<Flex, Net<Flex>> {
    ternary::<Flex>(Granularity::Channel, 1).map(&mut Poison { path, names: Vec::new(), value })
}

#[test]
fn pack_refuses_nan_and_infinite_weights_and_nan_anywhere_with_the_path() {
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for path in ["conv.weight", "hidden.weight"] {
            let error = pack(&poisoned(&format!("model.{path}"), value)).unwrap_err();
            assert!(matches!(&error, PackError::NotFinite { path: found, index: 3, .. } if found == path), "{error}");
            let expected = format!("`{path}` cannot be packed: element 3 is {value}");
            assert!(error.to_string().starts_with(&expected), "{error}");
        }
    }
    for path in ["stem.weight", "hidden.bias", "norm.running_var"] {
        let error = pack(&poisoned(&format!("model.{path}"), f32::NAN)).unwrap_err();
        assert!(error.to_string().contains(&format!("`{path}`")), "{error}");
    }
    let error = pack(&poisoned("scales", f32::NAN)).unwrap_err();
    assert!(error.to_string().contains("`conv.weight`"), "{error}");
}

#[test]
fn pack_writes_the_running_statistics_after_the_last_update_and_training_goes_on_unchanged() {
    let images = |seed| random::<A, 4>([4, 2, 8, 8], seed);
    let statistics = |wrapper: &Ternary<A, Net<A>>| wrapper.valid().latent().norm.running_mean.value().into_data();
    for steps in 1..4 {
        let [packed, reference] = [1, 1].map(|seed| ternary::<A>(Granularity::Tensor, seed));
        for seed in 0..steps {
            packed.view().forward(images(seed));
            reference.view().forward(images(seed));
        }
        let file = pack(&packed).unwrap();
        let loaded = load(Net::<Flex>::new(), &file).unwrap();
        assert_eq!(loaded.norm.running_mean.value().into_data(), statistics(&reference), "{steps} steps");
        packed.view().forward(images(9));
        reference.view().forward(images(9));
        assert_eq!(statistics(&packed), statistics(&reference));
    }
}

#[test]
fn a_column_major_linear_layer_is_packed_and_loaded_in_its_real_shape() {
    use burn::nn::{Linear, LinearConfig, LinearLayout};
    use ttq_core::{SelectionConfig, TernaryConfig};

    #[derive(Module, Debug)]
    struct Columns<B: Backend> {
        hidden: Linear<B>,
        classes: Linear<B>,
    }

    fn net<B: Backend>(layout: LinearLayout) -> Columns<B> {
        let config = |inputs, outputs| LinearConfig::new(inputs, outputs).with_layout(layout);
        let device = Default::default();
        Columns { hidden: config(6, 9).init(&device), classes: config(9, 4).init(&device) }
    }

    fn forward<B: Backend>(net: &Columns<B>) -> TensorData {
        net.classes.forward(net.hidden.forward(random::<B, 2>([3, 6], 41))).into_data()
    }

    let selection = SelectionConfig::new().with_include(vec!["hidden".into()]);
    let config = TernaryConfig::new().with_selection(selection);
    let ternary = Ternary::new(net::<Flex>(LinearLayout::Col), &config).unwrap();
    let expected = forward(&ternary.materialize());
    let file = pack(&ternary).unwrap();
    for layout in [LinearLayout::Col, LinearLayout::Row] {
        let loaded = load(net::<Flex>(layout), &file).unwrap();
        crate::assert_close(forward(&loaded), expected.clone(), 1e-6);
        let loaded = load(net::<Packed<Flex>>(layout), &file).unwrap();
        crate::assert_close(forward(&loaded), expected.clone(), 1e-5);
    }
}
