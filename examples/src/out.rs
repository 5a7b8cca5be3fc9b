//! The directory of a run.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;
use ttq_packed::file::write_atomically;

use crate::resume::resumed;
use crate::{Options, RunConfig};

/// The directory of a run, and the paths in it.
#[derive(Debug, Clone)]
pub struct Out {
    root: PathBuf,
}

impl Out {
    /// Chooses the directory of a new run, or opens the one to resume. Returns the configuration: a resumed run keeps the one
    /// that it was started with. Writes nothing.
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
            let config = resumed(old, &config, &options.given, &out)?;
            return Ok((out, config));
        }
        if saved.exists() {
            bail!("{} already holds a run: add --resume, or give another --out", out.root.display());
        }
        Ok((out, config))
    }

    #[cfg(test)]
    pub(crate) fn at(root: &Path) -> Self {
        Self { root: root.to_path_buf() }
    }

    /// Opens the directory of a finished run; returns its configuration.
    ///
    /// # Errors
    /// A directory without a run, a damaged configuration.
    pub fn ended(root: &Path) -> Result<(Self, RunConfig)> {
        let out = Self { root: root.to_path_buf() };
        let config = out.config();
        if !config.is_file() {
            bail!("{} is not the directory of a run: {} is missing", root.display(), config.display());
        }
        Ok((out, read_json(&config)?))
    }

    /// Creates the directory and writes the configuration: a directory with a configuration is that of a run. Deletes
    /// temporary files of a process that was killed while it wrote.
    pub(crate) fn begin(&self, config: &RunConfig) -> Result<()> {
        fs::create_dir_all(&self.root)
            .with_context(|| format!("cannot make the directory {} for the run", self.root.display()))?;
        for entry in fs::read_dir(&self.root).into_iter().flatten().flatten() {
            if entry.path().extension().is_some_and(|extension| extension == "part") {
                fs::remove_file(entry.path()).ok();
            }
        }
        // The results of a run that becomes longer are those of another configuration.
        if self.config().is_file() && read_json::<RunConfig>(&self.config())? != *config {
            let report = self.root.join("report.html");
            let networks = [self.ternary_network(), self.latent_network(), self.packed_network(), self.network()];
            for path in networks.into_iter().chain([self.summary(), report]).filter(|path| path.is_file()) {
                fs::remove_file(&path)
                    .with_context(|| format!("cannot remove {}, which is outdated", path.display()))?;
            }
        }
        write_json(&self.config(), config)
    }

    /// Returns the path of the directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn config(&self) -> PathBuf {
        self.root.join("config.json")
    }

    /// Path of the results.
    pub(crate) fn summary(&self) -> PathBuf {
        self.root.join("summary.json")
    }

    /// Directory of the phase in full precision.
    pub(crate) fn full_precision(&self) -> PathBuf {
        self.root.join("full-precision")
    }

    /// Directory of the ternary phase.
    pub(crate) fn ternary(&self) -> PathBuf {
        self.root.join("ternary")
    }

    /// Path of the network in full precision.
    pub fn full_precision_network(&self) -> PathBuf {
        self.root.join("full-precision.safetensors")
    }

    /// Path of the network with ternary weights, as floats.
    pub fn ternary_network(&self) -> PathBuf {
        self.root.join("ternary.safetensors")
    }

    /// Path of the packed network, with two bits per ternary weight.
    pub fn packed_network(&self) -> PathBuf {
        self.root.join("packed.safetensors")
    }

    /// Path of the packed network with its graph, which runs without Burn.
    pub fn network(&self) -> PathBuf {
        self.root.join("network.safetensors")
    }

    /// Path of the network with latent weights.
    pub(crate) fn latent_network(&self) -> PathBuf {
        self.root.join("latent.safetensors")
    }
}

/// Returns the first directory `runs/<example>-<n>` that does not exist.
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

/// Writes a value as JSON, atomically.
///
/// # Errors
/// A file that cannot be written.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value)? + "\n";
    write_atomically(path, |file| file.write_all(text.as_bytes()))
        .with_context(|| format!("cannot write {}: is the directory writable?", path.display()))
}

/// Reads a value from JSON.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| {
        format!("{} is not a file of this program, or damaged: give another directory with --out", path.display())
    })
}
