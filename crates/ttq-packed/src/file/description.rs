//! The JSON in the metadata, and the checksum.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::header::{Entries, Tensors};
use super::{Coding, FileError, VERSION};

/// What the metadata say about a model: all that its tensors do not.
#[derive(Debug, Serialize)]
pub(super) struct Description {
    pub(super) version: u64,
    pub(super) crc32: String,
    pub(super) weights: BTreeMap<String, Layout>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) config: Option<String>,
}

/// What the metadata say about a ternary weight.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Layout {
    pub(super) shape: Vec<usize>,
    pub(super) output_axis: usize,
    pub(super) coding: Coding,
}

impl Description {
    /// Version first: what another one means by its fields is not known.
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
        if found != VERSION {
            return Err(FileError::Version { found });
        }
        let Parsed { version, crc32, weights, config } = serde_json::from_str(json).map_err(unreadable)?;
        Ok(Self { version, crc32, weights: weights.unique()?, config })
    }

    /// To JSON.
    pub(super) fn to_json(&self) -> Result<String, FileError> {
        serde_json::to_string(self).map_err(|cause| FileError::Description { cause })
    }

    /// The checksum of this model, as the file records it; see the format for the bytes it is of.
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

/// CRC-32 of numbers and strings, each preceded by what makes it unambiguous.
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
