//! Lossless compression of CIFAR-10 for transfer to another machine: each file becomes a mosaic, one picture of all
//! images.
//!
//! A mosaic is a WebP picture with 3200 columns: rows of a hundred images of 32×32 pixels, then the labels
//! as consecutive bytes, padded with 255. The six pictures take 119 MB instead of 184 MB.

use std::path::Path;

use image_webp::{ColorType, WebPDecoder, WebPEncoder};
use ttq_examples::data::DataError;
use ttq_examples::data::cache::{read, write};
use ttq_examples::data::cifar::{self, DATA_SET, FILES, NAME, PIXELS};

/// Height and width of an image.
const SIDE: usize = 32;
/// Bytes of a color plane of an image.
const PLANE: usize = SIDE * SIDE;
/// Number of images in a row of the picture.
const COLUMNS: usize = 100;
/// Bytes of a row of pixels of the picture.
const ROW: usize = 3 * SIDE * COLUMNS;
/// Padding after the labels.
const NO_LABEL: u8 = 255;

/// Writes a mosaic of each file of CIFAR-10 into the directory `out`. Finds the files as
/// [`cifar10`](ttq_examples::data::cifar10) does, but does not download them.
///
/// # Errors
/// Returns [`DataError`] if the files are missing or damaged, or if `out` cannot be written.
pub fn cifar10_to_mosaics(data: Option<&Path>, out: &Path) -> Result<(), DataError> {
    let folder = DATA_SET.find(data)?.ok_or(DataError::NotDownloaded { name: NAME, url: cifar::URL })?;
    for name in FILES {
        let picture = encode(&cifar::records(&folder.join(name))?);
        write(&out.join(name).with_extension("webp"), &picture)?;
    }
    Ok(())
}

/// Restores the files of CIFAR-10 from their mosaics in the directory `mosaics` and writes them into their folder in
/// the directory `out`.
///
/// # Errors
/// Returns [`DataError`] if a mosaic is missing or damaged, or if `out` cannot be written.
pub fn cifar10_from_mosaics(mosaics: &Path, out: &Path) -> Result<(), DataError> {
    // The first file marks a complete data set, so it is written last: after an interruption, the set is not found.
    for name in FILES.iter().rev() {
        let path = mosaics.join(name).with_extension("webp");
        let records = decode(&read(&path)?).map_err(|found| DataError::damaged(path, "content", "a mosaic", found))?;
        write(&out.join(DATA_SET.folder).join(name), &records)?;
    }
    Ok(())
}

/// Returns the number of rows of pixels that contain the labels of `image_rows` rows of images.
fn label_rows(image_rows: usize) -> usize {
    (image_rows * COLUMNS).div_ceil(ROW)
}

/// Encodes records of a label and three color planes as a WebP file.
fn encode(records: &[u8]) -> Vec<u8> {
    let (records, _) = records.as_chunks::<{ 1 + PIXELS }>();
    let image_rows = records.len().div_ceil(COLUMNS);
    let height = image_rows * SIDE + label_rows(image_rows);
    let mut picture = vec![NO_LABEL; height * ROW];
    let (images, labels) = picture.split_at_mut(image_rows * SIDE * ROW);
    for (index, (record, label)) in records.iter().zip(labels).enumerate() {
        *label = record[0];
        for (pixel, offset) in pixel_offsets(index).enumerate() {
            let planes = [1, 1 + PLANE, 1 + 2 * PLANE].map(|plane| record[plane + pixel]);
            images[offset..offset + 3].copy_from_slice(&planes);
        }
    }
    let mut file = Vec::new();
    WebPEncoder::new(&mut file)
        .encode(&picture, (ROW / 3) as u32, height as u32, ColorType::Rgb8)
        .expect("a picture of at most 16,383 rows can be encoded in memory");
    file
}

/// Decodes a WebP file to records. The error describes the content of a file that is not such a picture.
fn decode(file: &[u8]) -> Result<Vec<u8>, String> {
    let mut decoder = WebPDecoder::new(std::io::Cursor::new(file)).map_err(|error| error.to_string())?;
    let (width, height) = decoder.dimensions();
    let (width, height) = (width as usize, height as usize);
    let image_rows = (0..=height / SIDE).find(|rows| rows * SIDE + label_rows(*rows) == height);
    let image_rows = image_rows.filter(|_| 3 * width == ROW && !decoder.has_alpha());
    let image_rows = image_rows.ok_or_else(|| format!("a picture of {width}×{height} pixels"))?;
    let mut picture = vec![0; height * ROW];
    decoder.read_image(&mut picture).map_err(|error| error.to_string())?;
    let (images, labels) = picture.split_at(image_rows * SIDE * ROW);
    let labels = labels.iter().take(image_rows * COLUMNS).take_while(|label| **label != NO_LABEL);
    let mut records = Vec::with_capacity(image_rows * COLUMNS * (1 + PIXELS));
    for (index, label) in labels.enumerate() {
        records.push(*label);
        for channel in 0..3 {
            records.extend(pixel_offsets(index).map(|offset| images[offset + channel]));
        }
    }
    Ok(records)
}

/// Returns the offsets of an image's pixels in the picture, row by row.
fn pixel_offsets(index: usize) -> impl Iterator<Item = usize> {
    let corner = index / COLUMNS * SIDE * ROW + index % COLUMNS * SIDE * 3;
    (0..PLANE).map(move |pixel| corner + pixel / SIDE * ROW + pixel % SIDE * 3)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ttq_examples::data::cache::real_data;

    /// Returns records with random pixels and labels.
    fn noise(n: usize) -> Vec<u8> {
        let mut rng = fastrand::Rng::with_seed(1);
        (0..n * (1 + PIXELS)).map(|i| if i % (1 + PIXELS) == 0 { rng.u8(0..10) } else { rng.u8(..) }).collect()
    }

    #[test]
    fn decoded_records_equal_the_encoded_ones() {
        for n in [1, 99, 100, 101, 250] {
            let records = noise(n);
            assert!(decode(&encode(&records)).unwrap() == records, "{n} records");
        }
    }

    #[test]
    fn other_and_truncated_files_are_rejected() {
        assert!(decode(b"no picture").is_err());
        let mut file = Vec::new();
        WebPEncoder::new(&mut file).encode(&[0; 12], 2, 2, ColorType::Rgb8).unwrap();
        assert_eq!(decode(&file).unwrap_err(), "a picture of 2×2 pixels");
        let whole = encode(&noise(3));
        assert!(decode(&whole[..whole.len() / 2]).is_err());
    }

    #[test]
    fn a_real_file_is_restored_and_its_picture_is_at_least_a_third_smaller() {
        let Some(data) = real_data() else { return };
        let folder = DATA_SET.find(Some(&data)).unwrap().unwrap();
        let records = cifar::records(&folder.join("test_batch.bin")).unwrap();
        let picture = encode(&records);
        assert!(picture.len() < records.len() * 2 / 3, "{} of {} bytes", picture.len(), records.len());
        assert!(decode(&picture).unwrap() == records);
    }
}
