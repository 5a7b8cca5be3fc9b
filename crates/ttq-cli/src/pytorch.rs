//! Reads PyTorch checkpoints and checks that they are complete.
//!
//! burn-store 0.21 fills a tensor with zeros if its bytes cannot be read, so a truncated file would yield a network
//! with dead layers. Therefore every storage is read once before the tensors are used.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use burn_store::TensorSnapshot;
use burn_store::pytorch::lazy_data::LazyDataSource;
use burn_store::pytorch::pickle_reader::{Object, read_pickle, read_pickle_with_data, skip_pickle};
use burn_store::pytorch::{PytorchError, PytorchReader};

/// First bytes of a zip file, as written by PyTorch 1.6 and later.
pub(crate) const ZIP: &[u8] = b"PK\x03\x04";
/// First bytes of a file of PyTorch 0.1.10 to 1.5: a pickle of a long integer.
pub(crate) const PICKLES: &[u8] = b"\x80\x02\x8a\x0a";

/// Reads the tensors of a checkpoint, or those of its top-level dictionary `key`.
pub(crate) fn tensors(path: &Path, key: Option<&str>) -> Result<HashMap<String, TensorSnapshot>> {
    check_storages(path).context("is damaged: download or save it again")?;
    let reader = match key {
        Some(key) => PytorchReader::with_top_level_key(path, key),
        None => PytorchReader::new(path),
    };
    match (reader, key) {
        (Ok(reader), _) => Ok(reader.into_tensors()),
        (Err(PytorchError::KeyNotFound(_)), Some(key)) => {
            bail!("has no dictionary `{key}` at its top level: pass another --key")
        }
        (Err(error), _) => bail!("cannot be read as a PyTorch checkpoint: {error}"),
    }
}

/// Reads every storage of the file once.
fn check_storages(path: &Path) -> Result<()> {
    let mut file = BufReader::new(File::open(path)?);
    let (source, keys) = if file.fill_buf()?.starts_with(ZIP) {
        let source = LazyDataSource::from_zip(path)?;
        let keys = source.keys();
        (Arc::new(source), keys)
    } else {
        pickled_storages(path, file)?
    };
    for key in keys {
        source.read(&key).with_context(|| format!("storage {key}"))?;
    }
    Ok(())
}

/// Returns the storages of a file of pickles and their names.
///
/// The file consists of five pickles (magic number, version, system, tensors, names of the storages), followed by the
/// storages.
fn pickled_storages(path: &Path, mut file: BufReader<File>) -> Result<(Arc<LazyDataSource>, Vec<String>)> {
    let unreadable = |error| anyhow!("{error}");
    for _ in 0..3 {
        read_pickle(&mut file).map_err(unreadable)?;
    }
    let tensors = file.stream_position()?;
    skip_pickle(&mut file).map_err(unreadable)?;
    let Object::List(keys) = read_pickle(&mut file).map_err(unreadable)? else {
        bail!("the list of its storages is missing")
    };
    let names = keys.into_iter().filter_map(|key| if let Object::String(name) = key { Some(name) } else { None });
    let names: Vec<String> = names.collect();
    let start = file.stream_position()?;
    let end = file.seek(SeekFrom::End(0))?;
    let source = Arc::new(LazyDataSource::from_legacy_multi_storage(path, start, end - start));
    if let LazyDataSource::LegacyMultiStorage(storages) = &*source {
        storages.lock().map_err(|_| anyhow!("the lock of its storages is poisoned"))?.set_storage_keys(names.clone());
    }
    file.seek(SeekFrom::Start(tensors))?;
    // The tensors give the length of each storage, which in a damaged file may exceed the memory. Reading one byte at
    // offset `end` detects this without a large allocation: the result is empty unless the storage is longer than the
    // file.
    read_pickle_with_data(&mut file, source.clone()).map_err(unreadable)?;
    for name in &names {
        source.read_range(name, end as usize, 1).with_context(|| format!("storage {name} is longer than the file"))?;
    }
    Ok((source, names))
}
