//! MNIST (LeCun, Cortes, Burges), four files in the IDX format: big-endian magic number and sizes, then bytes.

use std::io::Read;
use std::path::Path;

use flate2::read::GzDecoder;

use super::cache::{DataSet, read, write};
use super::digits::digits;
use super::{DataError, ImageSet, Images};

const DATA_SET: DataSet = DataSet { name: "MNIST", folder: "mnist", marker: "train-images-idx3-ubyte" };
/// The mirror that burn-dataset uses.
const URL: &str = "https://storage.googleapis.com/cvdf-datasets/mnist/";
/// Files and the MD5 sums of their compressed form.
const FILES: [(&str, &str); 4] = [
    ("train-images-idx3-ubyte", "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
    ("train-labels-idx1-ubyte", "d53e105ee54ea40749a09fcbcd1e9432"),
    ("t10k-images-idx3-ubyte", "9fb629c4189551a2d022fa330f9573f3"),
    ("t10k-labels-idx1-ubyte", "ec29112dd5afa0611ce80d1b7f02629c"),
];
const SIDE: usize = 28;
/// Names of the classes.
pub(super) const NAMES: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];

/// Loads MNIST: 60,000 training and 10,000 test images of digits, `[1, 28, 28]`. If it is not on disk and cannot be
/// downloaded, loads 1,797 smaller digits that are part of this program; [`Images::source`] says so.
///
/// # Errors
/// [`DataError`] if a given directory does not hold it, or if a file is damaged.
pub fn mnist(data: Option<&Path>) -> Result<Images, DataError> {
    let folder = match DATA_SET.find(data)? {
        Some(folder) => folder,
        None => {
            let folder = DATA_SET.cache()?.join(DATA_SET.folder);
            match download(&folder) {
                Ok(()) => folder,
                Err(DataError::Download { reason, .. }) => return Ok(digits(&reason)),
                Err(error) => return Err(error),
            }
        }
    };
    let train = set(&folder, FILES[0].0, FILES[1].0)?;
    let test = set(&folder, FILES[2].0, FILES[3].0)?;
    Ok(Images::new("MNIST", format!("MNIST from {}", folder.display()), NAMES, train, test))
}

fn download(folder: &Path) -> Result<(), DataError> {
    // The marker is downloaded last: an interrupted download starts again.
    for (name, md5) in FILES.into_iter().rev() {
        let bytes = DATA_SET.download(&format!("{URL}{name}.gz"), md5)?;
        write(&folder.join(format!("{name}.gz")), &bytes)?;
    }
    Ok(())
}

fn set(folder: &Path, images: &str, labels: &str) -> Result<ImageSet, DataError> {
    let (image_path, pixels) = idx(folder, images, &[SIDE, SIDE])?;
    let (label_path, labels) = idx(folder, labels, &[])?;
    let n = pixels.len() / (SIDE * SIDE);
    if labels.len() != n {
        return Err(DataError::damaged(
            label_path,
            "number of labels",
            format!("{n}, that of the images"),
            labels.len(),
        ));
    }
    if let Some(label) = labels.iter().find(|label| **label > 9) {
        return Err(DataError::damaged(label_path, "largest label", "at most 9", label));
    }
    if n == 0 {
        return Err(DataError::damaged(image_path, "number of images", "above 0", 0));
    }
    Ok(ImageSet::new([1, SIDE, SIDE], pixels, labels))
}

/// Reads an IDX file of bytes, plain or compressed, whose items have the dimensions `item`.
fn idx(folder: &Path, name: &str, item: &[usize]) -> Result<(std::path::PathBuf, Vec<u8>), DataError> {
    let (plain, compressed) = (folder.join(name), folder.join(format!("{name}.gz")));
    let (path, bytes) = if plain.is_file() {
        let bytes = read(&plain)?;
        (plain, bytes)
    } else {
        let mut bytes = Vec::new();
        GzDecoder::new(&read(&compressed)?[..])
            .read_to_end(&mut bytes)
            .map_err(|error| DataError::damaged(&compressed, "gzip stream", "whole", error))?;
        (compressed, bytes)
    };
    let rank = 1 + item.len();
    let header = 4 + 4 * rank;
    if bytes.len() < header {
        return Err(DataError::damaged(path, "size", format!("{header} bytes or more"), bytes.len()));
    }
    let magic = [0, 0, 8, rank as u8];
    if bytes[..4] != magic {
        return Err(DataError::damaged(path, "magic number", format!("{magic:?}"), format!("{:?}", &bytes[..4])));
    }
    let size = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]) as usize;
    let dims: Vec<usize> = (1..rank).map(|dim| size(4 + 4 * dim)).collect();
    if dims != item {
        return Err(DataError::damaged(path, "size of an image", format!("{item:?}"), format!("{dims:?}")));
    }
    let expected = header + size(4) * item.iter().product::<usize>();
    if bytes.len() != expected {
        return Err(DataError::damaged(path, "size", format!("{expected} bytes"), bytes.len()));
    }
    Ok((path, bytes[header..].to_vec()))
}
