//! Networks in files.

use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use burn::module::Module;
use burn::prelude::Backend;
use burn_store::{
    ApplyResult, BurnpackStore, KeyRemapper, ModuleSnapshot, ModuleStore, PytorchStore, SafetensorsStore,
};
use ttq_core::packed::{self, pytorch};
use ttq_packed::{FileError, PackedModel};

use crate::model::Network;

/// Writes a network as safetensors, under a temporary name first.
pub(crate) fn save<B: Backend, M: Module<B>>(network: &M, path: &Path) -> Result<()> {
    let temporary = path.with_extension("safetensors.part");
    let mut store = SafetensorsStore::from_file(&temporary).overwrite(true);
    network
        .save_into(&mut store)
        .map_err(|error| anyhow!("{error}"))
        .and_then(|()| Ok(std::fs::rename(&temporary, path)?))
        .with_context(|| format!("cannot write the network to {}", path.display()))
}

/// Reads a network from safetensors, packed or not, burnpack or PyTorch; the ending of the name says which.
pub(crate) fn load<B: Backend, N: Network<B>>(network: &mut N, path: &Path) -> Result<()> {
    if !path.is_file() {
        bail!("there is no checkpoint at {}: check the path", path.display());
    }
    if is_packed(path) {
        let packed = pytorch::to_burn(network, PackedModel::load(path)?, &N::pytorch_names())?;
        *network = packed::load(network.clone(), &packed)
            .with_context(|| format!("{} does not fit this network", path.display()))?;
        return Ok(());
    }
    let result = match ending(path) {
        "safetensors" => network
            .load_from(&mut SafetensorsStore::from_file(path).validate(false).allow_partial(true))
            .map_err(|e| e.to_string()),
        "bpk" => network
            .load_from(&mut BurnpackStore::from_file(path).validate(false).allow_partial(true))
            .map_err(|e| e.to_string()),
        "pt" | "pth" => network
            .load_from(&mut pytorch(path).remap(remapper::<B, N>()?).validate(false).allow_partial(true))
            .map_err(|e| e.to_string()),
        _ => {
            bail!("the checkpoint {} has an unknown ending: .safetensors, .bpk, .pt and .pth are read", path.display())
        }
    };
    match result {
        Ok(applied) => check(&applied, path),
        Err(error) => bail!("the checkpoint {} cannot be read: {error}", path.display()),
    }
}

/// The names of a checkpoint's tensors, as they are in the file. None where it is missing or no checkpoint: loading it says
/// what is wrong.
pub fn names(path: &Path) -> Vec<String> {
    let keys = match ending(path) {
        "safetensors" => SafetensorsStore::from_file(path).keys().ok(),
        "bpk" => BurnpackStore::from_file(path).keys().ok(),
        "pt" | "pth" => pytorch(path).keys().ok(),
        _ => None,
    };
    keys.unwrap_or_default()
}

/// Is this a file of packed weights, sound or not?
pub fn is_packed(path: &Path) -> bool {
    let unknown = |bytes: Vec<u8>| matches!(PackedModel::read(&bytes), Err(FileError::UnknownFormat));
    ending(path) == "safetensors" && std::fs::read(path).is_ok_and(|bytes| !unknown(bytes))
}

/// What follows the last dot of a file's name.
fn ending(path: &Path) -> &str {
    path.extension().and_then(|ending| ending.to_str()).unwrap_or_default()
}

/// Numbers in names stay as they are: a gap in them is no layer left out.
fn pytorch(path: &Path) -> PytorchStore {
    PytorchStore::from_file(path).map_indices_contiguous(false)
}

fn remapper<B: Backend, N: Network<B>>() -> Result<KeyRemapper> {
    KeyRemapper::from_patterns(N::pytorch_names()).context("a PyTorch name of this network is no regular expression")
}

fn check(applied: &ApplyResult, path: &Path) -> Result<()> {
    if applied.errors.is_empty() && applied.missing.is_empty() {
        return Ok(());
    }
    let first = match (applied.errors.first(), applied.missing.first()) {
        (Some(error), _) => error.to_string(),
        (None, Some((name, _))) => format!("`{name}` is missing"),
        (None, None) => String::new(),
    };
    bail!(
        "{} is a checkpoint of another network ({first}; {} tensors fit, {} are missing, {} do not fit): give one of this \
         network",
        path.display(),
        applied.applied.len(),
        applied.missing.len(),
        applied.errors.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{normalize, real_data, tiny_imagenet_validation};
    use crate::model::{Architecture, DenseNet, DenseNetConfig, SqueezeNet};
    use burn::backend::Flex;
    use burn::tensor::{Tensor, TensorData, Tolerance};

    /// The first four logits of the first validation image.
    fn logits<N: Network<Flex>>(mut network: N, checkpoint: &Path, image: &Tensor<Flex, 4>) -> TensorData {
        load(&mut network, checkpoint).unwrap();
        network.forward(image.clone()).slice([0..1, 0..4]).into_data()
    }

    #[test]
    fn the_checkpoints_of_the_port_give_the_logits_of_pytorch() {
        let Some(data) = real_data() else { return };
        let folder = data.join("pytorch-checkpoints");
        if !folder.is_dir() {
            println!("skipped: no checkpoints of the port in {}", folder.display());
            return;
        }
        let images = tiny_imagenet_validation(Some(&data)).unwrap();
        let shape = images.test.shape();
        let mut pixels = vec![0.0; shape.iter().product()];
        normalize(images.test.image(0), shape, &images.mean, &images.std, &mut pixels);
        let device = Default::default();
        let image = Tensor::from_data(TensorData::new(pixels, [1, shape[0], shape[1], shape[2]]), &device);
        // PyTorch 2.11, pixels by Pillow 13.0.
        let known = [
            ("densenet_small.pt", [-3.707_030, -5.315_732, -4.244_154, -4.124_393]),
            ("ttq_densenet_small.pt", [-4.899_827, -5.077_833, -5.119_098, -4.753_099]),
            ("squeezenet.pt", [0.968_034, 0.468_378, 0.784_809, 1.210_185]),
            ("ttq_squeezenet.pt", [0.099_280, 0.170_240, 0.388_612, 0.060_799]),
        ];
        for (name, expected) in known {
            let path = folder.join(name);
            assert!(!is_packed(&path), "{name}");
            let found = match Architecture::of_names(&names(&path)).unwrap() {
                Architecture::SqueezeNet => logits(SqueezeNet::<Flex>::new(images.classes, &device), &path, &image),
                _ => logits(DenseNet::<Flex>::new(&DenseNetConfig::SMALL, images.classes, &device), &path, &image),
            };
            found.assert_approx_eq::<f32>(&TensorData::from([expected]), Tolerance::relative(1e-3));
        }
    }

    #[test]
    fn a_network_reads_what_it_wrote_and_refuses_that_of_another_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("network.safetensors");
        let device = Default::default();
        let network = SqueezeNet::<Flex>::new(5, &device);
        save(&network, &path).unwrap();
        assert!(!is_packed(&path));
        assert_eq!(Architecture::of_names(&names(&path)), Some(Architecture::SqueezeNet));
        let mut other = SqueezeNet::<Flex>::new(5, &device);
        load(&mut other, &path).unwrap();
        let image = Tensor::<Flex, 4>::ones([1, 3, 56, 56], &device);
        assert_eq!(other.forward(image.clone()).into_data(), network.forward(image).into_data());
        let error = load(&mut DenseNet::<Flex>::new(&DenseNetConfig::SMALL, 5, &device), &path).unwrap_err();
        assert!(error.to_string().contains("is a checkpoint of another network"), "{error}");
    }
}
