//! The JSON description of a model in the metadata, and the checksum.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::header::{Entries, Tensors};
use super::{Coding, FORMAT_VERSION, FileError};

/// Description of a model in the metadata: everything that is not stored as a tensor.
#[derive(Debug, Serialize)]
pub(super) struct Description {
    pub(super) version: u64,
    pub(super) crc32: String,
    pub(super) weights: BTreeMap<String, Layout>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) config: Option<String>,
}

/// Description of a ternary weight in the metadata.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Layout {
    pub(super) shape: Vec<usize>,
    pub(super) output_axis: usize,
    pub(super) coding: Coding,
}

impl Description {
    /// Parses the JSON. The version is checked first, because the fields of other versions are unknown.
    pub(super) fn parse(json: &str) -> Result<Self, FileError> {
        #[derive(Deserialize)]
        struct Version {
            version: u64,
        }

        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Parsed {
            version: u64,
            crc32: String,
            weights: Entries<Layout>,
            config: Option<String>,
        }

        let unreadable = |cause| FileError::Description { cause };
        let Version { version: found } = serde_json::from_str(json).map_err(unreadable)?;
        if found != FORMAT_VERSION {
            return Err(FileError::Version { found });
        }
        let Parsed { version, crc32, weights, config } = serde_json::from_str(json).map_err(unreadable)?;
        Ok(Self { version, crc32, weights: weights.unique()?, config })
    }

    /// Serializes the description to JSON.
    pub(super) fn to_json(&self) -> Result<String, FileError> {
        serde_json::to_string(self).map_err(|cause| FileError::Description { cause })
    }

    /// Returns the checksum of description and tensors as eight hexadecimal digits. The format lists the bytes that it
    /// covers.
    pub(super) fn checksum(&self, tensors: &Tensors) -> String {
        let mut digest = Digest(crc32fast::Hasher::new());
        digest.number(self.version);
        digest.number(self.weights.len() as u64);
        for (name, Layout { shape, output_axis, coding }) in &self.weights {
            digest.bytes(name.as_bytes());
            digest.shape(shape);
            digest.number(*output_axis as u64);
            digest.bytes(coding.name().as_bytes());
        }
        digest.number(u64::from(self.config.is_some()));
        if let Some(config) = &self.config {
            digest.bytes(config.as_bytes());
        }
        digest.number(tensors.len() as u64);
        for (name, tensor) in tensors {
            digest.bytes(name.as_bytes());
            digest.bytes(format!("{}", tensor.dtype).as_bytes());
            digest.shape(&tensor.shape);
            digest.bytes(&tensor.bytes);
        }
        format!("{:08x}", digest.0.finalize())
    }
}

/// CRC-32 of numbers, byte strings and shapes. Lengths precede contents, so that the input is unambiguous.
struct Digest(crc32fast::Hasher);

impl Digest {
    fn number(&mut self, number: u64) {
        self.0.update(&number.to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.update(bytes);
    }

    fn shape(&mut self, shape: &[usize]) {
        self.number(shape.len() as u64);
        for &dim in shape {
            self.number(dim as u64);
        }
    }
}
