//! CIFAR-10 smaller, without loss: each of its files as one picture, to be carried where there is little room.
//!
//! A file of `n` records becomes a WebP picture of 3200 columns: rows of a hundred images of 32×32, then the labels, byte after byte,
//! and 255 where there are none any more. All six take 119 MB of 184.

use std::path::Path;

use image_webp::{ColorType, WebPDecoder, WebPEncoder};

use super::cache::{read, write};
use super::cifar::{FILES, NAME, PIXELS, PLACE};
use super::{DataError, cifar};

const SIDE: usize = 32;
const PLANE: usize = SIDE * SIDE;
/// Images side by side.
const COLUMNS: usize = 100;
/// Bytes of a row of pixels.
const ROW: usize = 3 * SIDE * COLUMNS;
/// No label.
const NONE: u8 = 255;

/// Writes the files of CIFAR-10 in `data`, found as [`cifar10`](super::cifar10) finds them, as pictures into the directory `out`.
///
/// # Errors
/// [`DataError`] where there are none, one is damaged, or `out` cannot be written.
pub fn cifar10_to_mosaics(data: Option<&Path>, out: &Path) -> Result<(), DataError> {
    let folder = PLACE.find(data)?.ok_or(DataError::NotDownloaded { name: NAME, url: cifar::URL })?;
    for name in FILES {
        let picture = encode(&cifar::records(&folder.join(name))?);
        write(&out.join(name).with_extension("webp"), &picture)?;
    }
    Ok(())
}

/// Writes the files of CIFAR-10, from their pictures in the directory `mosaics`, into their folder of the directory `out`.
///
/// # Errors
/// [`DataError`] where a picture is missing or damaged, or `out` cannot be written.
pub fn cifar10_from_mosaics(mosaics: &Path, out: &Path) -> Result<(), DataError> {
    // The file by which the set is recognized, the first, comes last: an interrupted writing is begun again.
    for name in FILES.iter().rev() {
        let path = mosaics.join(name).with_extension("webp");
        let records = decode(&read(&path)?).map_err(|found| DataError::damaged(path, "content", "a mosaic", found))?;
        write(&out.join(PLACE.folder).join(name), &records)?;
    }
    Ok(())
}

/// Rows of pixels that the labels of so many rows of images take.
fn label_rows(image_rows: usize) -> usize {
    (image_rows * COLUMNS).div_ceil(ROW)
}

/// Records of a label and three planes to a WebP file.
fn encode(records: &[u8]) -> Vec<u8> {
    let (records, _) = records.as_chunks::<{ 1 + PIXELS }>();
    let image_rows = records.len().div_ceil(COLUMNS);
    let height = image_rows * SIDE + label_rows(image_rows);
    let mut picture = vec![NONE; height * ROW];
    let (images, labels) = picture.split_at_mut(image_rows * SIDE * ROW);
    for (index, (record, label)) in records.iter().zip(labels).enumerate() {
        *label = record[0];
        for (pixel, place) in places(index).enumerate() {
            let planes = [1, 1 + PLANE, 1 + 2 * PLANE].map(|plane| record[plane + pixel]);
            images[place..place + 3].copy_from_slice(&planes);
        }
    }
    let mut file = Vec::new();
    WebPEncoder::new(&mut file)
        .encode(&picture, (ROW / 3) as u32, height as u32, ColorType::Rgb8)
        .expect("a picture of at most 16,383 rows is written to memory");
    file
}

/// A WebP file to records, or what it is instead.
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
    let labels = labels.iter().take(image_rows * COLUMNS).take_while(|label| **label != NONE);
    let mut records = Vec::with_capacity(image_rows * COLUMNS * (1 + PIXELS));
    for (index, label) in labels.enumerate() {
        records.push(*label);
        for channel in 0..3 {
            records.extend(places(index).map(|place| images[place + channel]));
        }
    }
    Ok(records)
}

/// Where the pixels of an image lie, in the order of its planes.
fn places(index: usize) -> impl Iterator<Item = usize> {
    let corner = index / COLUMNS * SIDE * ROW + index % COLUMNS * SIDE * 3;
    (0..PLANE).map(move |pixel| corner + pixel / SIDE * ROW + pixel % SIDE * 3)
}

#[cfg(test)]
mod tests {
    use super::super::cache::tests::real_data;
    use super::*;

    /// Records of noise.
    fn noise(n: usize) -> Vec<u8> {
        let mut rng = fastrand::Rng::with_seed(1);
        (0..n * (1 + PIXELS)).map(|i| if i % (1 + PIXELS) == 0 { rng.u8(0..10) } else { rng.u8(..) }).collect()
    }

    #[test]
    fn records_come_back_as_they_were() {
        for n in [1, 99, 100, 101, 250] {
            let records = noise(n);
            assert!(decode(&encode(&records)).unwrap() == records, "{n} records");
        }
    }

    #[test]
    fn what_is_no_mosaic_is_refused() {
        assert!(decode(b"no picture").is_err());
        let mut file = Vec::new();
        WebPEncoder::new(&mut file).encode(&[0; 12], 2, 2, ColorType::Rgb8).unwrap();
        assert_eq!(decode(&file).unwrap_err(), "a picture of 2×2 pixels");
        let whole = encode(&noise(3));
        assert!(decode(&whole[..whole.len() / 2]).is_err());
    }

    #[test]
    fn a_real_file_is_restored_and_a_third_smaller() {
        let Some(data) = real_data() else { return };
        let folder = PLACE.find(Some(&data)).unwrap().unwrap();
        let records = cifar::records(&folder.join("test_batch.bin")).unwrap();
        let picture = encode(&records);
        assert!(picture.len() < records.len() * 2 / 3, "{} of {} bytes", picture.len(), records.len());
        assert!(decode(&picture).unwrap() == records);
    }
}
