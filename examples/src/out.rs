//! The directory of a run.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Options, RunConfig};

/// The directory of a run and what lies in it.
#[derive(Debug, Clone)]
pub(crate) struct Out {
    root: PathBuf,
}

impl Out {
    /// Makes the directory of a new run, or finds the one to resume, and settles the configuration: a resumed run keeps the
    /// one it was started with.
    pub(crate) fn open(options: &Options, config: RunConfig) -> Result<(Self, RunConfig)> {
        let root = match &options.out {
            Some(root) => root.clone(),
            None => fresh(&config.example),
        };
        let out = Self { root };
        let saved = out.config();
        if options.resume {
            if !saved.is_file() {
                bail!("there is no run to resume in {}: {} is missing", out.root.display(), saved.display());
            }
            let old: RunConfig = read_json(&saved)?;
            if old.example != config.example {
                bail!("{} holds a run of the example {}: resume it with that", out.root.display(), old.example);
            }
            return Ok((out, old));
        }
        if saved.exists() {
            bail!("{} already holds a run: add --resume, or give another --out", out.root.display());
        }
        fs::create_dir_all(&out.root)
            .with_context(|| format!("cannot make the directory {} for the run", out.root.display()))?;
        Ok((out, config))
    }

    /// The directory of a run that has ended, and its configuration.
    pub(crate) fn ended(root: &Path) -> Result<(Self, RunConfig)> {
        let out = Self { root: root.to_path_buf() };
        let config = out.config();
        if !config.is_file() {
            bail!("{} is not the directory of a run: {} is missing", root.display(), config.display());
        }
        Ok((out, read_json(&config)?))
    }

    /// Writes the configuration, which makes the directory that of a run.
    pub(crate) fn begin(&self, config: &RunConfig) -> Result<()> {
        write_json(&self.config(), config)
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    fn config(&self) -> PathBuf {
        self.root.join("config.json")
    }

    /// The figures at the end.
    pub(crate) fn summary(&self) -> PathBuf {
        self.root.join("summary.json")
    }

    /// Logs and checkpoints of the training in full precision.
    pub(crate) fn full_precision(&self) -> PathBuf {
        self.root.join("full-precision")
    }

    /// Logs and checkpoints of the training with ternary weights.
    pub(crate) fn ternary(&self) -> PathBuf {
        self.root.join("ternary")
    }

    /// The trained network in full precision.
    pub(crate) fn full_precision_network(&self) -> PathBuf {
        self.root.join("full-precision.safetensors")
    }

    /// The network with ternary weights, as floats.
    pub(crate) fn ternary_network(&self) -> PathBuf {
        self.root.join("ternary.safetensors")
    }

    /// The same with two bits for each ternary weight.
    pub(crate) fn packed_network(&self) -> PathBuf {
        self.root.join("packed.safetensors")
    }

    /// The latent weights behind it.
    pub(crate) fn latent_network(&self) -> PathBuf {
        self.root.join("latent.safetensors")
    }
}

/// The first directory `runs/<example>-<n>` that does not exist.
fn fresh(example: &str) -> PathBuf {
    let mut number = 1;
    loop {
        let path = Path::new("runs").join(format!("{example}-{number}"));
        if !path.exists() {
            return path;
        }
        number += 1;
    }
}

/// Writes JSON under a temporary name, then renames.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let temporary = path.with_extension("json.part");
    let text = serde_json::to_string_pretty(value)?;
    fs::write(&temporary, text + "\n")
        .and_then(|()| fs::rename(&temporary, path))
        .with_context(|| format!("cannot write {}: is the directory writable?", path.display()))
}

/// Reads JSON.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is no file of this program", path.display()))
}
