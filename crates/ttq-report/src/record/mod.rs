//! Reads the files of a training run.

mod bytes;
mod environment;
mod history;
mod layer;
mod number;
mod predictions;
mod summary;

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{ReportError, write_text};

pub(crate) use number::null_is_nan;

pub use environment::Environment;
pub use history::{Epoch, LayerEpoch};
pub use layer::{DenseLayer, Layer};
pub use predictions::{Mistake, Picture, Prediction, Predictions};
pub use summary::{LayerSummaries, LayerSummary, Summary};

/// File name of a run's [`Evidence`].
pub const EVIDENCE: &str = "evidence.json";

/// Contents of a run's directory. Missing files are `None` or empty.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Record {
    /// Name of the directory.
    pub name: String,
    /// `config.json`: the configuration, as the training program wrote it.
    pub config: Option<Value>,
    /// `summary.json`: the final results.
    pub summary: Option<Summary>,
    /// `full-precision/history.json`: the epochs in full precision.
    pub full_precision: Vec<Epoch>,
    /// `ternary/history.json`: the epochs with ternary weights.
    pub ternary: Vec<Epoch>,
    /// `evidence.json`: predictions, layers and environment.
    pub evidence: Option<Evidence>,
    /// Address of a page that runs the network, which the report links; not part of a file.
    pub web: Option<String>,
}

/// Data behind the final results of a run, written to `evidence.json` at the end of training.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Evidence {
    /// Machine, date and versions of the run.
    pub environment: Environment,
    /// Names of the classes, by class index.
    pub classes: Vec<String>,
    /// Predictions of the full-precision network on the test set.
    pub full_precision: Option<Predictions>,
    /// Predictions of the ternary network on the test set.
    pub ternary: Option<Predictions>,
    /// Most confident mistakes of the ternary network, or of the full-precision network if there is no ternary one.
    pub mistakes: Vec<Mistake>,
    /// Ternary layers.
    pub layers: Vec<Layer>,
    /// Convolutions and linear layers that stay in full precision.
    pub dense: Vec<DenseLayer>,
}

impl Evidence {
    /// Writes [`EVIDENCE`] into `directory`, atomically as in [`write`](crate::write()).
    ///
    /// # Errors
    /// [`ReportError::Write`] if the file cannot be written.
    pub fn write(&self, directory: &Path) -> Result<(), ReportError> {
        let path = directory.join(EVIDENCE);
        match serde_json::to_string(self) {
            Ok(text) => write_text(&path, &(text + "\n")),
            Err(error) => Err(ReportError::Write { path, cause: error.into() }),
        }
    }

    /// Returns what is wrong with evidence from a file.
    fn problem(&self) -> Option<&'static str> {
        let networks = [&self.full_precision, &self.ternary].map(Option::as_ref);
        if let Some(problem) = networks.into_iter().flatten().find_map(Predictions::problem) {
            return Some(problem);
        }
        match networks {
            [Some(a), Some(b)] if (a.classes(), a.len()) != (b.classes(), b.len()) => {
                Some("predictions of two networks with other classes or inputs")
            }
            _ => None,
        }
    }

    /// Returns the name and the predictions of the network that the report analyzes.
    ///
    /// That is the ternary network, or the full-precision network if there are no ternary predictions.
    pub fn predictions(&self) -> Option<(&'static str, &Predictions)> {
        let ternary = self.ternary.as_ref().map(|predictions| ("ternary", predictions));
        ternary.or_else(|| self.full_precision.as_ref().map(|predictions| ("full precision", predictions)))
    }

    /// Returns the name of a class, or its index as text if it has no name.
    pub fn class_name(&self, class: usize) -> String {
        self.classes.get(class).cloned().unwrap_or_else(|| class.to_string())
    }
}

impl Record {
    /// Returns whether the run trained a [language model](Summary::is_language_model).
    pub fn is_language_model(&self) -> bool {
        self.summary.as_ref().is_some_and(Summary::is_language_model)
    }

    /// Reads the run in `directory`.
    ///
    /// # Errors
    /// - [`ReportError::NoRun`] if the directory contains no file of a run.
    /// - [`ReportError::Read`] if a file cannot be read.
    /// - [`ReportError::Format`] if a file is not valid JSON or lacks a field.
    pub fn read(directory: &Path) -> Result<Self, ReportError> {
        let absolute = fs::canonicalize(directory).unwrap_or_else(|_| directory.into());
        let record = Self {
            name: String::new(),
            config: read_json(&directory.join("config.json"))?,
            summary: read_json(&directory.join("summary.json"))?,
            full_precision: read_json(&directory.join("full-precision/history.json"))?.unwrap_or_default(),
            ternary: read_json(&directory.join("ternary/history.json"))?.unwrap_or_default(),
            evidence: read_json(&directory.join(EVIDENCE))?,
            web: None,
        };
        if let Some(problem) = record.evidence.as_ref().and_then(Evidence::problem) {
            let path = directory.join(EVIDENCE);
            return Err(ReportError::Format { path, cause: serde::de::Error::custom(problem) });
        }
        if record == Self::default() {
            return Err(ReportError::NoRun { directory: directory.into() });
        }
        let name = absolute.file_name().unwrap_or(directory.as_os_str()).to_string_lossy().into_owned();
        Ok(Self { name, ..record })
    }

    /// Returns a number, string or boolean of the configuration by its path, such as `ternary.quantizer.latent_gradient`.
    ///
    /// Returns `None` if there is no configuration, no such path, or the value is null, an array or an object.
    pub fn setting(&self, path: &str) -> Option<String> {
        let value = path.split('.').try_fold(self.config.as_ref()?, |value, key| value.get(key))?;
        match value {
            Value::Null | Value::Object(_) | Value::Array(_) => None,
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        }
    }
}

/// Reads a JSON file. Returns `None` if there is no such file.
fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, ReportError> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(ReportError::Read { path: path.into(), cause }),
        Ok(text) => {
            serde_json::from_str(&text).map(Some).map_err(|cause| ReportError::Format { path: path.into(), cause })
        }
    }
}
