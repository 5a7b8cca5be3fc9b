//! Reader and writer of the safetensors container, which holds named tensors and metadata.
//!
//! Types and writer come from the `safetensors` crate. The reader does not, because of three limitations of version
//! 0.7.0: it silently drops one of two tensors with the same name; it panics on tensor lengths that add up to almost
//! 2⁶⁴ if overflow checks are enabled; its errors do not name the tensor.

use alloc::borrow::Cow;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::marker::PhantomData;

use safetensors::Dtype;
use safetensors::tensor::TensorInfo;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::FileError;
use super::tensor::check_length;

/// Number of bytes of the length of the header.
const LENGTH: usize = 8;
/// Maximum length of a header, as in the `safetensors` crate.
const HEADER_LIMIT: usize = 100_000_000;
/// Key of the header entry that holds the metadata instead of a tensor.
pub(super) const METADATA: &str = "__metadata__";

/// A tensor as stored in the file: little-endian, row-major.
#[derive(Debug, Clone)]
pub(super) struct StoredTensor<'a> {
    pub(super) dtype: Dtype,
    pub(super) shape: Cow<'a, [usize]>,
    pub(super) bytes: Cow<'a, [u8]>,
}

/// Tensors by name.
pub(super) type Tensors<'a> = BTreeMap<String, StoredTensor<'a>>;

impl safetensors::View for StoredTensor<'_> {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

/// Serializes tensors and metadata. Equal contents give equal bytes.
///
/// The `safetensors` crate keeps metadata in a hash map, whose order differs between runs. Therefore it writes the tensors
/// only, and the sorted metadata is inserted at the start of its header.
pub(super) fn write(tensors: Tensors, metadata: &BTreeMap<String, String>) -> Result<Vec<u8>, FileError> {
    if tensors.contains_key(METADATA) {
        return Err(FileError::Name { name: METADATA.to_string() });
    }
    let separator = if tensors.is_empty() { "" } else { "," };
    let unwritable = |cause| FileError::Unwritable { cause };
    let file = safetensors::serialize(tensors, None).map_err(unwritable)?;
    let parts = file
        .split_first_chunk::<LENGTH>()
        .and_then(|(length, rest)| rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?));
    let Some((header, data)) = parts.filter(|_| !metadata.is_empty()) else { return Ok(file) };
    let metadata = serde_json::to_string(metadata).map_err(|cause| unwritable(cause.into()))?;
    let mut bytes = [0; LENGTH].to_vec();
    bytes.extend(format!("{{\"{METADATA}\":{metadata}{separator}").into_bytes());
    bytes.extend(header.trim_ascii_end().get(1..).unwrap_or_default());
    bytes.resize(bytes.len().next_multiple_of(LENGTH), b' ');
    let length = bytes.len() - LENGTH;
    if length > HEADER_LIMIT {
        return Err(unwritable(safetensors::SafeTensorError::HeaderTooLarge));
    }
    bytes[..LENGTH].copy_from_slice(&(length as u64).to_le_bytes());
    bytes.extend(data);
    Ok(bytes)
}

/// Parses a file into tensors and metadata. Borrows the data of the tensors and allocates in proportion to the header.
pub(super) fn read(file: &[u8]) -> Result<(Tensors<'_>, BTreeMap<String, String>), FileError> {
    let truncated = |expected: u64| FileError::Truncated { expected, found: file.len() as u64 };
    let (length, rest) = file.split_first_chunk::<LENGTH>().ok_or_else(|| truncated(LENGTH as u64))?;
    let length = u64::from_le_bytes(*length);
    let header = usize::try_from(length).ok().and_then(|length| rest.split_at_checked(length));
    let (header, data) = header.ok_or_else(|| truncated(length.saturating_add(LENGTH as u64)))?;
    // The parser of text is in use for the metadata, too: that of bytes would be the same code once more.
    let text = core::str::from_utf8(header).map_err(serde_json::Error::custom);
    let entries = text.and_then(serde_json::from_str::<Entries<&RawValue>>);
    let entries = entries.map_err(|cause| FileError::Header { cause })?;
    entries.check_unique()?;
    let (metadata, entries): (Vec<_>, Vec<_>) = entries.0.into_iter().partition(|(name, _)| name == METADATA);
    let metadata = match metadata.first() {
        Some((_, json)) => parse::<Entries<String>>(METADATA, json)?.unique()?,
        None => BTreeMap::new(),
    };
    let infos = entries.into_iter().map(|(name, json)| parse(&name, json).map(|info| (name, info)));
    let mut infos: Vec<(String, TensorInfo)> = infos.collect::<Result<_, _>>()?;
    // The order of the data may differ from the order of the header.
    infos.sort_by_key(|(_, info)| info.data_offsets);
    Ok((locate(infos, data)?, metadata))
}

/// Splits the data into tensors, which must be contiguous and cover all bytes.
fn locate(infos: Vec<(String, TensorInfo)>, data: &[u8]) -> Result<Tensors<'_>, FileError> {
    let mut tensors = Tensors::new();
    let mut previous = 0;
    for (name, TensorInfo { dtype, shape, data_offsets: (start, end) }) in infos {
        let Some(bytes) = data.get(start..end) else {
            return Err(FileError::OutOfBounds { name, start, end, len: data.len() });
        };
        if start < previous {
            return Err(FileError::Overlap { name, start, end: previous });
        }
        if start > previous {
            return Err(FileError::Unclaimed { bytes: start - previous, offset: start });
        }
        if let Err(cause) = check_length(dtype, &shape, bytes.len()) {
            return Err(FileError::Tensor { name, cause });
        }
        previous = end;
        tensors.insert(name, StoredTensor { dtype, shape: shape.into(), bytes: bytes.into() });
    }
    if previous != data.len() {
        return Err(FileError::Unclaimed { bytes: data.len() - previous, offset: data.len() });
    }
    Ok(tensors)
}

fn parse<'de, T: Deserialize<'de>>(name: &str, json: &'de RawValue) -> Result<T, FileError> {
    serde_json::from_str(json.get()).map_err(|cause| FileError::Entry { name: name.to_string(), cause })
}

/// The entries of a JSON object in their order, possibly with duplicate keys.
///
/// The maps of serde keep only the last entry of a key, so duplicates would go unnoticed.
pub(super) struct Entries<V>(Vec<(String, V)>);

impl<V> Entries<V> {
    /// Converts to a map, or fails on a duplicate key.
    pub(super) fn unique(self) -> Result<BTreeMap<String, V>, FileError> {
        self.check_unique()?;
        Ok(self.0.into_iter().collect())
    }

    /// Fails on a duplicate key.
    fn check_unique(&self) -> Result<(), FileError> {
        let mut names: Vec<&str> = self.0.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        match names.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(FileError::Duplicate { name: pair[0].to_string() }),
            None => Ok(()),
        }
    }
}

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Entries<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EntriesVisitor<V>(PhantomData<V>);

        impl<'de, V: Deserialize<'de>> Visitor<'de> for EntriesVisitor<V> {
            type Value = Entries<V>;

            fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }

        deserializer.deserialize_map(EntriesVisitor(PhantomData))
    }
}
