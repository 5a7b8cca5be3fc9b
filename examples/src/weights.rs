//! Networks in files: safetensors, burnpack, PyTorch and packed ones.

use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use burn::module::Module;
use burn::prelude::Backend;
use burn_store::{ApplyResult, BurnpackStore, ModuleSnapshot, ModuleStore, SafetensorsStore};
#[cfg(feature = "pytorch")]
use burn_store::{KeyRemapper, PytorchStore};
use serde::{Deserialize, Serialize};
use ttq_core::Ternary;
use ttq_core::packed::{self, pytorch};
use ttq_packed::file::write_atomically;
use ttq_packed::{Coding, FileError, PackedModel};

use crate::RunConfig;
use crate::data::Images;
use crate::model::{Classifier, Network};

/// The configuration of a packed network: what a program needs to classify an image with it.
#[derive(Debug, Serialize, Deserialize)]
struct PackedConfig {
    /// The network: name of the example.
    network: String,
    /// Depth of a ResNet.
    depth: Option<usize>,
    classes: Vec<String>,
    /// Mean of each channel; pixels between 0 and 1 are normalized by `(pixel - mean) / std`.
    mean: Vec<f32>,
    std: Vec<f32>,
}

/// Writes a trained network with two bits per ternary weight.
pub(crate) fn pack<B: Backend, N: Network<B>>(
    ternary: &Ternary<B, Classifier<B, N>>,
    run: &RunConfig,
    images: &Images,
    path: &Path,
) -> Result<()>
where
    Classifier<B, N>: Module<B>,
{
    let packed = packed::pack(ternary)?;
    // The names are those of the network, without the classifier around it.
    let inner = |name: String| name.strip_prefix("network.").map_or(name.clone(), String::from);
    let config = PackedConfig {
        network: run.example.clone(),
        depth: run.depth,
        classes: images.class_names.clone(),
        mean: images.mean.clone(),
        std: images.std.clone(),
    };
    let network = PackedModel {
        weights: packed.weights.into_iter().map(|(name, weight)| (inner(name), weight)).collect(),
        tensors: packed.tensors.into_iter().map(|(name, tensor)| (inner(name), tensor)).collect(),
        config: Some(serde_json::to_string(&config)?),
    };
    network.save(path, Coding::Plain).with_context(|| format!("cannot write the packed network to {}", path.display()))
}

/// Writes a network as safetensors, atomically.
///
/// # Errors
/// A file that cannot be written.
pub fn save<B: Backend, M: Module<B>>(network: &M, path: &Path) -> Result<()> {
    // The store writes several entries of metadata in random order, and equal networks must give equal files.
    let mut store = SafetensorsStore::from_bytes(None).clear_metadata().metadata("producer", "burn");
    let bytes = network.save_into(&mut store).and_then(|()| store.get_bytes());
    let bytes = bytes.map_err(|error| anyhow!("cannot write the network to {}: {error}", path.display()))?;
    write_atomically(path, |file| file.write_all(&bytes))
        .with_context(|| format!("cannot write the network to {}", path.display()))
}

/// Loads a network from a file: safetensors, packed or not, burnpack or PyTorch, by the extension of its name.
///
/// # Errors
/// A file that is missing, damaged or that of another network.
pub fn load<B: Backend, N: Network<B>>(network: &mut N, path: &Path) -> Result<()> {
    if !path.is_file() {
        bail!("there is no checkpoint at {}: check the path", path.display());
    }
    if is_packed(path) {
        let packed = pytorch::to_burn(network, PackedModel::load(path)?, &N::pytorch_names())?;
        *network = packed::load(network.clone(), &packed)
            .with_context(|| format!("{} does not fit this network", path.display()))?;
        return Ok(());
    }
    let result = match extension(path) {
        "safetensors" => network
            .load_from(&mut SafetensorsStore::from_file(path).validate(false).allow_partial(true))
            .map_err(|e| e.to_string()),
        "bpk" => network
            .load_from(&mut BurnpackStore::from_file(path).validate(false).allow_partial(true))
            .map_err(|e| e.to_string()),
        #[cfg(feature = "pytorch")]
        "pt" | "pth" => network
            .load_from(&mut pytorch_store(path).remap(remapper::<B, N>()?).validate(false).allow_partial(true))
            .map_err(|e| e.to_string()),
        #[cfg(not(feature = "pytorch"))]
        "pt" | "pth" => bail!("this program was built without PyTorch files: build it with `--features pytorch`"),
        _ => {
            bail!(
                "the checkpoint {} has an unknown extension: .safetensors, .bpk, .pt and .pth are read",
                path.display()
            )
        }
    };
    match result {
        Ok(applied) => check(&applied, path),
        Err(error) => bail!("the checkpoint {} cannot be read: {error}", path.display()),
    }
}

/// Returns the names of a checkpoint's tensors; an empty list if the file is missing or not a checkpoint.
pub fn names(path: &Path) -> Vec<String> {
    let keys = match extension(path) {
        "safetensors" => SafetensorsStore::from_file(path).keys().ok(),
        "bpk" => BurnpackStore::from_file(path).keys().ok(),
        #[cfg(feature = "pytorch")]
        "pt" | "pth" => pytorch_store(path).keys().ok(),
        _ => None,
    };
    keys.unwrap_or_default()
}

/// Returns whether the file is one of packed weights, damaged or not.
pub fn is_packed(path: &Path) -> bool {
    let unknown = |bytes: Vec<u8>| matches!(PackedModel::read(&bytes), Err(FileError::UnknownFormat));
    extension(path) == "safetensors" && std::fs::read(path).is_ok_and(|bytes| !unknown(bytes))
}

/// Returns the extension of a file's name.
fn extension(path: &Path) -> &str {
    path.extension().and_then(|extension| extension.to_str()).unwrap_or_default()
}

/// Opens a PyTorch file. Indices in names are kept: a gap in them is not a missing layer.
#[cfg(feature = "pytorch")]
fn pytorch_store(path: &Path) -> PytorchStore {
    PytorchStore::from_file(path).map_indices_contiguous(false)
}

#[cfg(feature = "pytorch")]
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

#[cfg(all(test, feature = "cpu"))]
mod tests {
    use super::*;
    use crate::Cpu;
    use crate::model::{MnistNet, ResNet};
    use burn::tensor::Tensor;

    #[test]
    fn a_network_reads_the_file_that_it_wrote_and_refuses_that_of_another_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("network.safetensors");
        let device = Default::default();
        let network = MnistNet::<Cpu>::new(10, &device);
        save(&network, &path).unwrap();
        assert!(!is_packed(&path));
        let bytes = std::fs::read(&path).unwrap();
        for _ in 0..5 {
            save(&network, &path).unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), bytes, "equal networks give equal files");
        }
        assert!(names(&path).contains(&"conv2.weight".into()));
        let mut other = MnistNet::<Cpu>::new(10, &device);
        load(&mut other, &path).unwrap();
        let image = Tensor::<Cpu, 4>::ones([1, 1, 28, 28], &device);
        assert_eq!(other.forward(image.clone()).into_data(), network.forward(image).into_data());
        let error = load(&mut ResNet::<Cpu>::new(8, 10, &device), &path).unwrap_err();
        assert!(error.to_string().contains("is a checkpoint of another network"), "{error}");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "no temporary file is left");
    }
}
