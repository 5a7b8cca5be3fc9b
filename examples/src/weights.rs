//! Networks in files.

use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use burn::module::Module;
use burn::prelude::Backend;
use burn_store::{
    ApplyResult, BurnpackStore, KeyRemapper, ModuleSnapshot, ModuleStore, PytorchStore, SafetensorsStore,
};

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

/// Reads a network from safetensors, burnpack or PyTorch; the ending of the name says which.
pub(crate) fn load<B: Backend, N: Network<B>>(network: &mut N, path: &Path) -> Result<()> {
    if !path.is_file() {
        bail!("there is no checkpoint at {}: check the path", path.display());
    }
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    let result = match ending {
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

/// The names of a checkpoint's tensors, as they are in the file. None where it is missing or no checkpoint: [`load`] says
/// what is wrong.
pub(crate) fn names(path: &Path) -> Vec<String> {
    let keys = match path.extension().and_then(|ending| ending.to_str()) {
        Some("safetensors") => SafetensorsStore::from_file(path).keys().ok(),
        Some("bpk") => BurnpackStore::from_file(path).keys().ok(),
        Some("pt" | "pth") => pytorch(path).keys().ok(),
        _ => None,
    };
    keys.unwrap_or_default()
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
