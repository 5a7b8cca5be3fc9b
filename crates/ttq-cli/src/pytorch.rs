//! PyTorch checkpoints, and that all of their bytes are there.
//!
//! burn-store 0.21 fills a tensor with zeros where its bytes cannot be read: a file that was cut off would be a network with dead layers. So every
//! storage is read once before any tensor is believed.

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

/// How a zip file begins: PyTorch 1.6 and later.
pub(crate) const ZIP: &[u8] = b"PK\x03\x04";
/// How the first pickle of PyTorch 0.1.10 to 1.5 begins: a long integer.
pub(crate) const PICKLES: &[u8] = b"\x80\x02\x8a\x0a";

/// The tensors, or those of the dictionary `key` at the top level.
pub(crate) fn tensors(path: &Path, key: Option<&str>) -> Result<HashMap<String, TensorSnapshot>> {
    check_storages(path).context("is damaged: fetch or save it again")?;
    let reader = match key {
        Some(key) => PytorchReader::with_top_level_key(path, key),
        None => PytorchReader::new(path),
    };
    match (reader, key) {
        (Ok(reader), _) => Ok(reader.into_tensors()),
        (Err(PytorchError::KeyNotFound(_)), Some(key)) => bail!("has no dictionary `{key}` at its top level"),
        (Err(error), _) => bail!("cannot be read as a PyTorch checkpoint: {error}"),
    }
}

/// Reads every storage of the file.
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

/// Storages of a file of several pickles: magic number, version, system, tensors, names of the storages; and then the storages.
fn pickled_storages(path: &Path, mut file: BufReader<File>) -> Result<(Arc<LazyDataSource>, Vec<String>)> {
    let unreadable = |error| anyhow!("{error}");
    for _ in 0..3 {
        read_pickle(&mut file).map_err(unreadable)?;
    }
    let tensors = file.stream_position()?;
    skip_pickle(&mut file).map_err(unreadable)?;
    let Object::List(keys) = read_pickle(&mut file).map_err(unreadable)? else {
        bail!("it does not name its storages")
    };
    let names = keys.into_iter().filter_map(|key| if let Object::String(name) = key { Some(name) } else { None });
    let names: Vec<String> = names.collect();
    let start = file.stream_position()?;
    let end = file.seek(SeekFrom::End(0))?;
    let source = Arc::new(LazyDataSource::from_legacy_multi_storage(path, start, end - start));
    if let LazyDataSource::LegacyMultiStorage(storages) = &*source {
        storages.lock().map_err(|_| anyhow!("a reader before this one panicked"))?.set_storage_keys(names.clone());
    }
    file.seek(SeekFrom::Start(tensors))?;
    // The tensors say how long each storage is, in a damaged file perhaps longer than there is memory. Where the storage is no longer
    // than the file, one byte at the file's length is none.
    read_pickle_with_data(&mut file, source.clone()).map_err(unreadable)?;
    for name in &names {
        source.read_range(name, end as usize, 1).with_context(|| format!("storage {name} is longer than the file"))?;
    }
    Ok((source, names))
}
