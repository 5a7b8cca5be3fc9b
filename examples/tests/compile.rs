//! The networks of the examples compute the same without Burn, and the trained ones in `models` as when they were trained.

use std::path::Path;

use burn::module::{AutodiffModule, HasAutodiffModule, Module};
use burn::prelude::*;
use ttq_compile::{Capture, CompileOptions, Network as Compiled, capture};
use ttq_examples::data::{Images as ImageTask, cache, cifar10, mnist};
use ttq_examples::model::{DenseNet, DenseNetConfig, MnistNet, Network, ResNet, SqueezeNet};
use ttq_examples::{Cpu, batch};
use ttq_packed::network::{Arena, Int8};

type Images<B> = Tensor<B, 4>;

/// Compares the results for three images, to 1e-5 of the largest.
fn agrees<M>(
    network: M,
    image: [usize; 3],
    forward: impl Fn(&M::TrainModule, Images<Capture<Cpu>>) -> Tensor<Capture<Cpu>, 2>,
) where
    M: Module<Cpu> + HasAutodiffModule<Capture<Cpu>>,
{
    let [channels, height, width] = image;
    let count = 3 * channels * height * width;
    let values: Vec<f32> = (0..count).map(|index| (index as f32 * 0.37).sin()).collect();
    let data = TensorData::new(values.clone(), [3, channels, height, width]);
    let graph = capture(&network, Images::<Cpu>::from_data(data.clone(), &Default::default()), &forward).unwrap();
    let network = M::TrainModule::from_inner(network);
    let expected = forward(&network, Images::from_data(data, &Default::default())).into_data().to_vec::<f32>().unwrap();
    let mut found = vec![0.0; expected.len()];
    let compiled = Compiled::compile(&graph, &CompileOptions::default()).unwrap();
    compiled.run(&mut Arena::new(), &values, &mut found).unwrap();
    let largest = expected.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    let error = found.iter().zip(&expected).fold(0.0_f32, |error, (a, b)| error.max((a - b).abs()));
    assert!(error <= 1e-5 * largest, "error {error:e} of {largest:e}");
}

#[test]
fn resnet_20() {
    agrees(ResNet::new(20, 10, &Default::default()), [3, 32, 32], |network, images| network.forward(images));
}

#[test]
fn the_network_for_digits() {
    agrees(MnistNet::new(10, &Default::default()), [1, 28, 28], |network, images| network.forward(images));
}

#[test]
fn the_small_densenet() {
    let network = DenseNet::new(&DenseNetConfig::SMALL, 20, &Default::default());
    agrees(network, [3, 56, 56], |network, images| network.forward(images));
}

#[test]
fn squeezenet() {
    agrees(SqueezeNet::new(20, &Default::default()), [3, 56, 56], |network, images| network.forward(images));
}

/// Returns the right predictions of a trained network for the test images, in float32 or int8, and their number in its summary.
fn right(model: &str, images: &ImageTask, int8: Int8) -> [usize; 2] {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models").join(model);
    let options = CompileOptions::default().with_int8(int8);
    let network = Compiled::load(directory.join("network.safetensors"), &options).unwrap();
    let count = images.test.len();
    let pixels = batch::<Cpu>(&images.test, images, 0..count, &Default::default()).inputs.into_data();
    let mut logits = vec![0.0; count * images.classes];
    network.run(&mut Arena::new(), pixels.as_slice().unwrap(), &mut logits).unwrap();
    let right = logits.chunks(images.classes).enumerate().filter(|(index, logits)| {
        let best = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap();
        best == usize::from(images.test.label(*index))
    });
    let summary = std::fs::read_to_string(directory.join("summary.json")).unwrap();
    let summary: serde_json::Value = serde_json::from_str(&summary).unwrap();
    let expected = summary["ternary_accuracy"].as_f64().unwrap() / 100.0 * count as f64;
    [right.count(), expected.round() as usize]
}

#[test]
fn the_models_have_the_accuracy_of_their_summaries() {
    let Some(data) = cache::real_data() else { return };
    for (model, images) in [("mnist", mnist(Some(&data)).unwrap()), ("cifar10-resnet20", cifar10(Some(&data)).unwrap())]
    {
        let [found, expected] = right(model, &images, Int8::Off);
        // Another order of sums may change the class of an image whose two best logits are almost equal.
        assert!(found.abs_diff(expected) <= 1, "{model}: {found} images are right, and {expected} in the summary");
        let [found, expected] = right(model, &images, Int8::Inner);
        assert!(
            found + images.test.len() / 500 >= expected,
            "{model} in int8: {found} images are right, not {expected}"
        );
    }
}
