//! Items of the input of a network: an array in a `.npy` file, or pictures.

use std::borrow::Cow;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::npy::{self, Array};
use crate::picture::{self, Normalization};

/// Extensions of the pictures in a directory.
const EXTENSIONS: [&str; 3] = ["png", "jpg", "jpeg"];

/// Items, which are read batch by batch.
pub(crate) enum Items {
    /// The elements of all items.
    Array(Vec<f32>),
    /// A picture per item: its path, and the bytes of the file if they have been read, since a pipe is read once.
    Pictures(Vec<(PathBuf, Option<Vec<u8>>)>),
}

impl Items {
    /// Finds the items in files and directories. `dims` is the shape of an item.
    pub(crate) fn find(paths: &[PathBuf], dims: &[usize], normalization: &Normalization) -> Result<Self> {
        if let [path] = paths
            && !path.is_dir()
        {
            let bytes = read(path)?;
            if picture::is_picture(&bytes) {
                return Ok(Self::Pictures(vec![(path.clone(), Some(bytes))]));
            }
            let file = || path.display().to_string();
            let array = npy::read(&bytes).with_context(file)?;
            normalization.check_array(array.is_float).with_context(file)?;
            return items(array, dims).map(Self::Array).with_context(file);
        }
        let mut pictures = Vec::new();
        for path in paths {
            if path.is_dir() {
                let found = in_directory(path).with_context(|| format!("{}: cannot be read", path.display()))?;
                if found.is_empty() {
                    bail!("{}: contains no file with the extension {}", path.display(), EXTENSIONS.join(", "));
                }
                pictures.extend(found);
            } else {
                pictures.push(path.clone());
            }
        }
        Ok(Self::Pictures(pictures.into_iter().map(|path| (path, None)).collect()))
    }

    /// Returns the number of items of `len` elements.
    pub(crate) fn count(&self, len: usize) -> usize {
        match self {
            Self::Array(values) => values.len() / len,
            Self::Pictures(pictures) => pictures.len(),
        }
    }

    /// Returns the name of an item: its index, or the path of its picture.
    pub(crate) fn name(&self, index: usize) -> String {
        match self {
            Self::Array(_) => index.to_string(),
            Self::Pictures(pictures) => pictures[index].0.display().to_string(),
        }
    }

    /// Returns the elements of the items `start..end`.
    pub(crate) fn values(
        &self,
        start: usize,
        end: usize,
        dims: &[usize],
        normalization: &Normalization,
    ) -> Result<Vec<f32>> {
        let len: usize = dims.iter().product();
        match self {
            Self::Array(values) => Ok(values[start * len..end * len].to_vec()),
            Self::Pictures(pictures) => {
                let mut values = Vec::with_capacity((end - start) * len);
                for (path, bytes) in &pictures[start..end] {
                    let file = || path.display().to_string();
                    let bytes =
                        bytes.as_ref().map_or_else(|| read(path).map(Cow::Owned), |bytes| Ok(Cow::Borrowed(bytes)))?;
                    if !picture::is_picture(&bytes) {
                        bail!("{}: is not a PNG or JPEG file: pass pictures, or one .npy file alone", path.display());
                    }
                    values.extend(normalization.values(&bytes, dims).with_context(file)?);
                }
                Ok(values)
            }
        }
    }
}

/// Checks the shape of an array: the shape of an item, or that after the number of items.
fn items(array: Array, dims: &[usize]) -> Result<Vec<f32>> {
    let is_batch = array.shape.split_first().is_some_and(|(_, rest)| rest == dims);
    if !is_batch && array.shape != dims {
        let dims: String = dims.iter().map(|dim| format!(", {dim}")).collect();
        bail!("has the shape {:?}, but the network's input is [items{dims}]", array.shape);
    }
    Ok(array.values)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("{}: cannot be read", path.display()))
}

/// Returns the pictures in a directory, in the order of their names.
fn in_directory(path: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = path.read_dir()?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.retain(|path| {
        let extension = path.extension().map(|extension| extension.to_string_lossy().to_lowercase());
        extension.is_some_and(|extension| EXTENSIONS.contains(&extension.as_str()))
    });
    paths.sort();
    Ok(paths)
}
