//! Comparison of the published checkpoints of the port with PyTorch.

use std::path::Path;

use burn::tensor::{Tensor, TensorData, Tolerance};
use ttq_examples::data::cache::real_data;
use ttq_examples::data::{Images, normalize};
use ttq_examples::model::{DenseNet, DenseNetConfig, Network, SqueezeNet};
use ttq_examples::{Cpu, Options, RunConfig, is_packed, load, tensor_names, write_json};

use crate::architecture::Architecture;
use crate::data::validation;
use crate::{default_network, recipe};

/// Loads a checkpoint and returns the first four logits of an image.
fn logits<N: Network<Cpu, Task = Images>>(mut network: N, checkpoint: &Path, image: &Tensor<Cpu, 4>) -> TensorData {
    load(&mut network, checkpoint, None).unwrap();
    network.forward(image.clone()).slice([0..1, 0..4]).into_data()
}

#[test]
fn the_checkpoints_of_the_port_have_the_same_logits_as_in_pytorch() {
    let Some(data) = real_data() else { return };
    let folder = data.join("pytorch-checkpoints");
    if !folder.is_dir() {
        println!("skipped: {} does not exist", folder.display());
        return;
    }
    let images = validation(Some(&data)).unwrap();
    let shape = images.test.shape();
    let mut pixels = vec![0.0; shape.iter().product()];
    normalize(images.test.image(0), shape, &images.mean, &images.std, &mut pixels);
    let device = Default::default();
    let image = Tensor::from_data(TensorData::new(pixels, [1, shape[0], shape[1], shape[2]]), &device);
    // First validation image, PyTorch 2.11 and Pillow 13.0.
    let known = [
        ("densenet_small.pt", [-3.707_030, -5.315_732, -4.244_154, -4.124_393]),
        ("ttq_densenet_small.pt", [-4.899_827, -5.077_833, -5.119_098, -4.753_099]),
        ("squeezenet.pt", [0.968_034, 0.468_378, 0.784_809, 1.210_185]),
        ("ttq_squeezenet.pt", [0.099_280, 0.170_240, 0.388_612, 0.060_799]),
    ];
    for (name, expected) in known {
        let path = folder.join(name);
        assert!(!is_packed(&path), "{name}");
        let found = match Architecture::from_parameter_names(&tensor_names(&path, None)).unwrap() {
            Architecture::SqueezeNet => logits(SqueezeNet::<Cpu>::new(images.classes, &device), &path, &image),
            _ => logits(DenseNet::<Cpu>::new(&DenseNetConfig::SMALL, images.classes, &device), &path, &image),
        };
        found.assert_approx_eq::<f32>(&TensorData::from([expected]), Tolerance::relative(1e-3));
    }
}

#[test]
fn a_run_to_resume_has_the_network_that_it_was_started_with() {
    let directory = tempfile::tempdir().unwrap();
    let line = format!("tiny_imagenet --resume --out {}", directory.path().display());
    let first = recipe(Architecture::DenseNetSmall);
    let (mut options, _) = Options::parse_from(&first, |command| command, line.split_whitespace().map(Into::into));
    assert_eq!(default_network(&options), Architecture::DenseNetSmall);
    options.network = Some(Architecture::SqueezeNet.name());
    let saved = RunConfig::new(&recipe(Architecture::SqueezeNet), &options);
    write_json(&directory.path().join("config.json"), &saved).unwrap();
    assert_eq!(default_network(&options), Architecture::SqueezeNet);
}
