//! CIFAR-10 (Krizhevsky 2009), binary version: records of a label and 3,072 bytes, red, green and blue planes of 32×32.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use flate2::read::GzDecoder;

use super::cache::{DataSet, read, write};
use super::{DataError, ImageSet, Images};

/// Name of the data set.
pub const NAME: &str = "CIFAR-10";
/// Its files on disk.
pub const DATA_SET: DataSet = DataSet { name: NAME, folder: "cifar-10-batches-bin", marker: "data_batch_1.bin" };
/// Address of its archive.
pub const URL: &str = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz";
const MD5: &str = "c32a1d4ab5d03f1284b67883e8d87530";
/// Its files: five for training, one for testing.
pub const FILES: [&str; 6] = [
    "data_batch_1.bin",
    "data_batch_2.bin",
    "data_batch_3.bin",
    "data_batch_4.bin",
    "data_batch_5.bin",
    "test_batch.bin",
];
/// Number of files for training.
const TRAIN: usize = 5;
const SHAPE: [usize; 3] = [3, 32, 32];
/// Bytes of an image.
pub const PIXELS: usize = 3 * 32 * 32;
const RECORDS: usize = 10_000;
/// Names of the classes, as in `batches.meta.txt`.
const NAMES: [&str; 10] = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];

/// Loads CIFAR-10: 50,000 training and 10,000 test images `[3, 32, 32]` of ten classes.
///
/// # Errors
/// [`DataError`] if it is not on disk and cannot be downloaded, or if a file is damaged.
pub fn cifar10(data: Option<&Path>) -> Result<Images, DataError> {
    let folder = match DATA_SET.find(data)? {
        Some(folder) => folder,
        None => {
            let cache = DATA_SET.cache()?;
            unpack(&DATA_SET.download(URL, MD5)?, &cache)?;
            cache.join(DATA_SET.folder)
        }
    };
    let source = format!("CIFAR-10 from {}", folder.display());
    let (train, test) = FILES.split_at(TRAIN);
    Ok(Images::new(NAME, source, NAMES, set(&folder, train)?, set(&folder, test)?))
}

/// Writes the archive's `.bin` files into their folder of the cache.
fn unpack(archive: &[u8], cache: &Path) -> Result<(), DataError> {
    let error = |error| DataError::File { action: "unpack", path: URL.into(), source: error };
    let mut files = BTreeMap::new();
    let mut archive = tar::Archive::new(GzDecoder::new(archive));
    for entry in archive.entries().map_err(error)? {
        let mut entry = entry.map_err(error)?;
        let path = entry.path().map_err(error)?.into_owned();
        if path.extension().is_some_and(|ending| ending == "bin") {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).map_err(error)?;
            files.insert(path.file_name().unwrap_or_default().to_os_string(), bytes);
        }
    }
    // The marker, the first file by name, is written last: an interrupted unpacking starts again.
    files.iter().rev().try_for_each(|(name, bytes)| write(&cache.join(DATA_SET.folder).join(name), bytes))
}

fn set(folder: &Path, names: &[&str]) -> Result<ImageSet, DataError> {
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    for name in names {
        for record in records(&folder.join(name))?.chunks_exact(1 + PIXELS) {
            labels.push(record[0]);
            pixels.extend_from_slice(&record[1..]);
        }
    }
    Ok(ImageSet::new(SHAPE, pixels, labels))
}

/// Reads and checks the bytes of one file: records of a label and [`PIXELS`] bytes.
///
/// # Errors
/// [`DataError`] if the file cannot be read, has another size or a label above 9.
pub fn records(path: &Path) -> Result<Vec<u8>, DataError> {
    let bytes = read(path)?;
    let expected = RECORDS * (1 + PIXELS);
    if bytes.len() != expected {
        return Err(DataError::damaged(path, "size", format!("{expected} bytes"), bytes.len()));
    }
    let largest = bytes.iter().step_by(1 + PIXELS).max().copied().unwrap_or_default();
    if largest > 9 {
        return Err(DataError::damaged(path, "largest label", "at most 9", largest));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_truncated_file_is_named_with_both_sizes() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("test_batch.bin"), vec![0; 3073 * 10]).unwrap();
        let error = set(directory.path(), &FILES[TRAIN..]).unwrap_err().to_string();
        assert!(
            error.contains("test_batch.bin") && error.contains("30730000 bytes") && error.contains("30730;"),
            "{error}"
        );
    }

    #[test]
    fn a_label_above_nine_is_named() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("test_batch.bin"), vec![77; 3073 * RECORDS]).unwrap();
        assert!(set(directory.path(), &FILES[TRAIN..]).unwrap_err().to_string().contains("at most 9 and is 77"));
    }

    #[test]
    fn a_missing_file_is_named() {
        let directory = tempfile::tempdir().unwrap();
        assert!(set(directory.path(), &FILES[..TRAIN]).unwrap_err().to_string().contains("data_batch_1.bin"));
    }

    #[test]
    fn an_archive_is_unpacked_into_its_folder() {
        let mut builder = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), Default::default()));
        let mut header = tar::Header::new_gnu();
        header.set_size(3);
        builder.append_data(&mut header, "cifar-10-batches-bin/test_batch.bin", &b"abc"[..]).unwrap();
        let archive = builder.into_inner().unwrap().finish().unwrap();
        let directory = tempfile::tempdir().unwrap();
        unpack(&archive, directory.path()).unwrap();
        assert_eq!(fs::read(directory.path().join("cifar-10-batches-bin/test_batch.bin")).unwrap(), b"abc");
    }
}
