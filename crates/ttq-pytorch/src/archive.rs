//! The two file formats of torch.save: a pickle of the tensors' descriptions, and the bytes of the storages.

use std::collections::HashMap;
use std::io::{Cursor, Read};
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use zip::{CompressionMethod, ZipArchive};

use crate::Error;
use crate::objects;
use crate::pickle::{self, Object};

/// First bytes of a zip file, the format of PyTorch 1.6 and later.
const ZIP: &[u8] = b"PK\x03\x04";
/// First bytes of a file of PyTorch 0.1.10 to 1.5: the pickle of a long integer of 10 bytes.
const LEGACY: &[u8] = b"\x80\x02\x8a\x0a";
/// The integer.
const LEGACY_MAGIC: &[u8] = b"\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19";
/// Limit of the decompressed bytes of all compressed entries, beside the size of the file. PyTorch does not compress.
pub(crate) const MEMORY: usize = 1 << 30;
/// Limit of the size of the pickle of a zip file.
const PICKLE: u64 = 1 << 28;

/// Returns whether bytes start like a file of torch.save, in either of its formats.
pub fn is_pytorch(bytes: &[u8]) -> bool {
    bytes.starts_with(ZIP) || bytes.starts_with(LEGACY)
}

/// The bytes of the file, shared with the reader of the zip format.
#[derive(Debug, Clone)]
pub(crate) struct FileBytes(pub(crate) Arc<Vec<u8>>);

impl AsRef<[u8]> for FileBytes {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Where a storage is.
#[derive(Debug)]
pub(crate) struct Storage {
    /// Size in bytes.
    pub(crate) size: usize,
    source: Source,
}

#[derive(Debug)]
enum Source {
    File(Range<usize>),
    /// Entry of the zip file, and its bytes or what is wrong with them, after the first read.
    Entry(usize, OnceLock<Result<EntryBytes, String>>),
}

#[derive(Debug)]
enum EntryBytes {
    File(Range<usize>),
    Decompressed(Vec<u8>),
}

/// A file: its pickle, and its storages by key.
#[derive(Debug)]
pub(crate) struct Archive {
    bytes: FileBytes,
    zip: Option<ZipArchive<Cursor<FileBytes>>>,
    pub(crate) pickle: PickleBytes,
    pub(crate) storages: HashMap<String, Storage>,
    pub(crate) is_big_endian: bool,
}

/// Where the pickle is.
#[derive(Debug)]
pub(crate) enum PickleBytes {
    File(Range<usize>),
    Owned(Vec<u8>),
}

impl Archive {
    pub(crate) fn open(bytes: Vec<u8>) -> Result<Self, Error> {
        let format = |reason: &str| Error::Format { reason: reason.into() };
        let is_tar = bytes.get(257..262) == Some(b"ustar");
        if bytes.starts_with(ZIP) {
            Self::open_zip(FileBytes(Arc::new(bytes)))
        } else if bytes.starts_with(LEGACY) {
            Self::open_legacy(FileBytes(Arc::new(bytes)))
        } else if is_tar || matches!(&bytes[..], [0x80, 2..=5, ..]) {
            Err(format(
                "it is a tar file or a plain pickle, which PyTorch has not written since version 0.1.10, so save it again",
            ))
        } else {
            Err(format("it is no zip file and no sequence of pickles"))
        }
    }

    pub(crate) fn pickle(&self) -> &[u8] {
        match &self.pickle {
            PickleBytes::File(range) => &self.bytes.0[range.clone()],
            PickleBytes::Owned(bytes) => bytes,
        }
    }

    /// Size of the file.
    pub(crate) fn size(&self) -> usize {
        self.bytes.0.len()
    }

    fn open_zip(bytes: FileBytes) -> Result<Self, Error> {
        let damaged = |error: zip::result::ZipError| Error::damaged(format!("the zip file: {error}"));
        let mut zip = ZipArchive::new(Cursor::new(bytes.clone())).map_err(damaged)?;
        let names: Vec<String> = zip.file_names().map(str::to_owned).collect();
        let mut pickles = names.iter().filter(|name| {
            let folder = name.strip_suffix("data.pkl");
            folder
                .is_some_and(|folder| folder.is_empty() || (folder.ends_with('/') && folder.matches('/').count() == 1))
        });
        let pickle = pickles.next().ok_or_else(|| Error::Format {
            reason: "it is a zip file without data.pkl, so save the state_dict of the model with torch.save".into(),
        })?;
        if let Some(second) = pickles.next() {
            return Err(Error::Format {
                reason: format!("it is a zip file with two pickles, {pickle} and {second}, so remove one"),
            });
        }
        let folder = pickle.strip_suffix("data.pkl").unwrap_or_default();
        let mut storages = HashMap::new();
        let mut compressed = 0usize;
        let data = format!("{folder}data/");
        let mut is_big_endian = false;
        let mut pickle_bytes = PickleBytes::Owned(Vec::new());
        for index in 0..zip.len() {
            let entry = zip.by_index_raw(index).map_err(damaged)?;
            let (name, size, start) = (entry.name().to_owned(), entry.size(), entry.data_start());
            let is_stored = entry.compression() == CompressionMethod::Stored;
            drop(entry);
            if let Some(key) = name.strip_prefix(&data) {
                let size = usize::try_from(size).map_err(|_| Error::damaged(format!("the size of {name}")))?;
                if !is_stored {
                    compressed = compressed.saturating_add(size);
                }
                // What its header says, which a file of this size must be able to hold.
                if is_stored && start.is_none_or(|start| start.saturating_add(size as u64) > bytes.0.len() as u64) {
                    return Err(Error::damaged(format!("{name} is cut off")));
                }
                storages.insert(key.to_owned(), Storage { size, source: Source::Entry(index, OnceLock::new()) });
            } else if name == *pickle {
                if size > PICKLE {
                    return Err(Error::damaged(format!("{name} has {size} bytes, more than the limit of {PICKLE}")));
                }
                pickle_bytes = PickleBytes::Owned(read_entry(&mut zip, index, size as usize).map_err(Error::damaged)?);
            } else if name == format!("{folder}byteorder") && size <= 16 {
                is_big_endian = read_entry(&mut zip, index, size as usize).map_err(Error::damaged)? == b"big";
            }
        }
        let limit = bytes.0.len().saturating_add(MEMORY);
        if compressed > limit {
            return Err(Error::damaged(format!(
                "its compressed storages have {compressed} bytes, more than the limit of {limit}"
            )));
        }
        Ok(Self { bytes, zip: Some(zip), pickle: pickle_bytes, storages, is_big_endian })
    }

    /// Reads the format before version 1.6: five pickles (an integer, the version, the system, the object, the keys of
    /// the storages), then for each key the number of elements and the elements.
    fn open_legacy(bytes: FileBytes) -> Result<Self, Error> {
        let file = &bytes.0[..];
        if file.get(LEGACY.len()..LEGACY.len() + LEGACY_MAGIC.len()) != Some(LEGACY_MAGIC) {
            return Err(Error::Format { reason: "it starts with another number".into() });
        }
        let mut at = pickle::read(file)?.length;
        at += pickle::read(&file[at..])?.length;
        // The byte order of the system does not matter: PyTorch wrote numbers in this format as little-endian everywhere.
        at += pickle::read(&file[at..])?.length;
        let object = pickle::read(&file[at..])?;
        let range = at..at + object.length;
        let sizes = objects::element_sizes(&object);
        let keys = pickle::read(&file[range.end..])?;
        at = range.end + keys.length;
        let Object::List(list) = &keys.objects[keys.root] else {
            return Err(Error::damaged("the list of its storages is missing"));
        };
        let mut storages = HashMap::new();
        for &key in list {
            let Object::Text(key) = &keys.objects[key] else {
                return Err(Error::damaged("the list of its storages has an entry that is not text"));
            };
            let size =
                *sizes.get(&**key).ok_or_else(|| Error::damaged(format!("no tensor describes storage {key}")))?;
            let count = file[at..].first_chunk::<8>();
            let count = count.ok_or_else(|| Error::damaged(format!("storage {key} is missing")))?;
            at += count.len();
            let length = usize::try_from(u64::from_le_bytes(*count)).ok().and_then(|count| count.checked_mul(size));
            let end = length.and_then(|length| at.checked_add(length)).filter(|&end| end <= file.len());
            let end = end.ok_or_else(|| Error::damaged(format!("storage {key} is longer than the file")))?;
            storages.insert(key.to_string(), Storage { size: end - at, source: Source::File(at..end) });
            at = end;
        }
        Ok(Self { pickle: PickleBytes::File(range), bytes, zip: None, storages, is_big_endian: false })
    }

    /// Returns the bytes of a storage. Checks the checksum of an entry of a zip file at the first call.
    pub(crate) fn read<'a>(&'a self, storage: &'a Storage) -> Result<&'a [u8], String> {
        let (index, bytes) = match &storage.source {
            Source::File(range) => return Ok(&self.bytes.0[range.clone()]),
            Source::Entry(index, bytes) => (*index, bytes),
        };
        let bytes = bytes.get_or_init(|| self.check(index, storage.size)).as_ref().map_err(Clone::clone)?;
        Ok(match bytes {
            EntryBytes::File(range) => &self.bytes.0[range.clone()],
            EntryBytes::Decompressed(bytes) => bytes,
        })
    }

    fn check(&self, index: usize, size: usize) -> Result<EntryBytes, String> {
        // A clone shares the directory and the bytes of the file.
        let Some(mut zip) = self.zip.clone() else { return Err("is no entry of a zip file".into()) };
        let entry = zip.by_index_raw(index).map_err(|error| error.to_string())?;
        let (name, start, crc32) = (entry.name().to_owned(), entry.data_start(), entry.crc32());
        let is_stored = entry.compression() == CompressionMethod::Stored && !entry.encrypted();
        drop(entry);
        if !is_stored {
            return read_entry(&mut zip, index, size).map(EntryBytes::Decompressed);
        }
        let start = start.and_then(|start| usize::try_from(start).ok());
        let range = start.and_then(|start| Some(start..start.checked_add(size)?));
        let bytes = range.clone().and_then(|range| self.bytes.0.get(range));
        let (Some(range), Some(bytes)) = (range, bytes) else { return Err(format!("{name} is cut off")) };
        if crc32fast::hash(bytes) != crc32 {
            return Err(format!("{name} does not match its checksum"));
        }
        Ok(EntryBytes::File(range))
    }
}

/// Reads and decompresses an entry of `size` bytes. The reader checks the checksum.
fn read_entry(zip: &mut ZipArchive<Cursor<FileBytes>>, index: usize, size: usize) -> Result<Vec<u8>, String> {
    let entry = zip.by_index(index).map_err(|error| format!("an entry of the zip file: {error}"))?;
    let name = entry.name().to_owned();
    // The size comes from the file: memory grows with the bytes that are there.
    let mut bytes = Vec::new();
    let read = entry.take(size as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|error| format!("{name}: {error}"))?;
    if bytes.len() != size {
        return Err(format!("{name} has {} bytes instead of {size}", bytes.len()));
    }
    Ok(bytes)
}
