//! What a run left behind: files in, plain data out.

mod bytes;
mod environment;
mod history;
mod layer;
mod predictions;
mod summary;

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ReportError;

pub use environment::Environment;
pub use history::{Epoch, LayerEpoch};
pub use layer::{DenseLayer, Layer};
pub use predictions::{Mistake, Picture, Prediction, Predictions};
pub use summary::{LayerSummaries, LayerSummary, Summary};

/// Name of the file that holds a run's [`Evidence`].
pub const EVIDENCE: &str = "evidence.json";

/// Everything that is known of a run. Whatever its directory lacks is `None` or empty.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Record {
    /// Name of the directory.
    pub name: String,
    /// `config.json`: what decided the outcome, as the program that trained wrote it.
    pub config: Option<Value>,
    /// `summary.json`: the figures at the end.
    pub summary: Option<Summary>,
    /// `full-precision/history.json`: epochs in full precision.
    pub full_precision: Vec<Epoch>,
    /// `ternary/history.json`: epochs with ternary weights.
    pub ternary: Vec<Epoch>,
    /// `evidence.json`: what the figures rest on.
    pub evidence: Option<Evidence>,
}

/// What the figures of a run rest on. `evidence.json`, written when training is over.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Evidence {
    /// Where, when and with what the run was made.
    pub environment: Environment,
    /// Names of the classes.
    pub classes: Vec<String>,
    /// The full-precision network's predictions of the test set.
    pub full_precision: Option<Predictions>,
    /// The ternary network's predictions of the test set.
    pub ternary: Option<Predictions>,
    /// Wrong predictions of which the ternary network (without one: the full-precision network) was most confident.
    pub mistakes: Vec<Mistake>,
    /// The ternary layers.
    pub layers: Vec<Layer>,
    /// Convolutions and linear layers that stay in full precision.
    pub dense: Vec<DenseLayer>,
}

impl Evidence {
    /// Writes `evidence.json` into a run's directory.
    ///
    /// # Errors
    /// [`ReportError::Write`]
    pub fn write(&self, directory: &Path) -> Result<(), ReportError> {
        let path = directory.join(EVIDENCE);
        let temporary = path.with_extension("json.part");
        serde_json::to_string(self)
            .map_err(std::io::Error::from)
            .and_then(|text| fs::write(&temporary, text + "\n"))
            .and_then(|()| fs::rename(&temporary, &path))
            .map_err(|source| ReportError::Write { path, source })
    }

    /// The network that the page looks at, with its name: the ternary one, without it the one in full precision.
    pub fn predictions(&self) -> Option<(&'static str, &Predictions)> {
        let ternary = self.ternary.as_ref().map(|predictions| ("ternary", predictions));
        ternary.or_else(|| self.full_precision.as_ref().map(|predictions| ("full precision", predictions)))
    }

    /// Name of a class, its number where it has none.
    pub fn class(&self, class: usize) -> String {
        self.classes.get(class).cloned().unwrap_or_else(|| class.to_string())
    }
}

impl Record {
    /// Reads the run in `directory`.
    ///
    /// # Errors
    /// [`ReportError`] where none of a run's files is there, or one cannot be read.
    pub fn read(directory: &Path) -> Result<Self, ReportError> {
        let full = fs::canonicalize(directory).unwrap_or_else(|_| directory.into());
        let record = Self {
            name: String::new(),
            config: json(&directory.join("config.json"))?,
            summary: json(&directory.join("summary.json"))?,
            full_precision: json(&directory.join("full-precision/history.json"))?.unwrap_or_default(),
            ternary: json(&directory.join("ternary/history.json"))?.unwrap_or_default(),
            evidence: json(&directory.join(EVIDENCE))?,
        };
        if record == Self::default() {
            return Err(ReportError::NoRun { directory: directory.into() });
        }
        let name = full.file_name().unwrap_or(directory.as_os_str()).to_string_lossy().into_owned();
        Ok(Self { name, ..record })
    }

    /// A number, text or truth value of the configuration by its path, `ternary.quantizer.granularity`.
    pub fn setting(&self, path: &str) -> Option<String> {
        let value = path.split('.').try_fold(self.config.as_ref()?, |value, key| value.get(key))?;
        match value {
            Value::Null | Value::Object(_) | Value::Array(_) => None,
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        }
    }
}

/// The content of a JSON file; `None` where there is none.
fn json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, ReportError> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ReportError::Read { path: path.into(), source }),
        Ok(text) => {
            serde_json::from_str(&text).map(Some).map_err(|source| ReportError::Format { path: path.into(), source })
        }
    }
}
