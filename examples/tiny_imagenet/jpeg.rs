//! Parallel decoding of JPEG files.

use std::io;
use std::panic::catch_unwind;
use std::path::PathBuf;

use mozjpeg::Decompress;
use rayon::prelude::*;
use ttq_examples::data::{DataError, ImageSet};

/// An encoded image.
pub(crate) struct JpegFile<'a> {
    /// Path of the file, for error messages.
    pub(crate) path: PathBuf,
    /// Class of the image.
    pub(crate) label: u8,
    /// Reads the bytes of the file.
    pub(crate) read: Box<dyn Fn() -> io::Result<Vec<u8>> + Sync + Send + 'a>,
}

/// Maximum number of files that an error message names.
const MAX_NAMED: usize = 3;

/// Decodes images of `side` × `side` pixels to `[3, side, side]`: planes of red, green and blue, which are equal for
/// grey images.
///
/// # Errors
/// Returns [`DataError::Undecodable`] with the first files that cannot be read, are not JPEG files, or have another
/// size.
pub(crate) fn decode_all(name: &'static str, side: usize, files: &[JpegFile]) -> Result<ImageSet, DataError> {
    let size = 3 * side * side;
    let mut pixels = vec![0; files.len() * size];
    let mut bad: Vec<(usize, String)> = pixels
        .par_chunks_mut(size)
        .zip(files)
        .enumerate()
        .filter_map(|(index, (pixels, file))| decode(file, side, pixels).err().map(|reason| (index, reason)))
        .collect();
    if bad.is_empty() {
        return Ok(ImageSet::new([3, side, side], pixels, files.iter().map(|file| file.label).collect()));
    }
    bad.sort_unstable();
    let first =
        bad.iter().take(MAX_NAMED).map(|(index, reason)| format!("{} ({reason})", files[*index].path.display()));
    Err(DataError::Undecodable { name, bad: bad.len(), all: files.len(), first: first.collect::<Vec<_>>().join(", ") })
}

/// Decodes a file to three planes. The error is the reason of a failure.
fn decode(file: &JpegFile, side: usize, pixels: &mut [u8]) -> Result<(), String> {
    let bytes = (file.read)().map_err(|error| error.to_string())?;
    // libjpeg fills the missing part of a truncated file with grey.
    if !bytes.windows(2).any(|pair| pair == END_OF_IMAGE) {
        return Err("not a JPEG file, or truncated".into());
    }
    let rgb = catch_unwind(|| rgb(&bytes, side)).map_err(|panic| {
        // mozjpeg reports errors of libjpeg by unwinding, without calling the panic hook.
        panic.downcast::<String>().map_or_else(|_| "libjpeg failed".into(), |message| *message)
    })??;
    let plane = side * side;
    for (at, rgb) in rgb.iter().enumerate() {
        (0..3).for_each(|channel| pixels[channel * plane + at] = rgb[channel]);
    }
    Ok(())
}

/// Marker after the compressed data, in which it cannot occur.
const END_OF_IMAGE: [u8; 2] = [0xff, 0xd9];

/// Decodes a file to pixels in row-major order.
fn rgb(bytes: &[u8], side: usize) -> Result<Vec<[u8; 3]>, String> {
    let text = |error: io::Error| error.to_string();
    let mut decoder = Decompress::new_mem(bytes).and_then(Decompress::rgb).map_err(text)?;
    if (decoder.width(), decoder.height()) != (side, side) {
        return Err(format!("{}×{} pixels instead of {side}×{side}", decoder.width(), decoder.height()));
    }
    let pixels = decoder.read_scanlines().map_err(text)?;
    decoder.finish().map_err(text)?;
    Ok(pixels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_contains_the_number_of_bad_files_and_the_first_names() {
        let file = |name: &str, bytes: &'static [u8]| JpegFile {
            path: name.into(),
            label: 0,
            read: Box::new(move || Ok(bytes.to_vec())),
        };
        let mut files: Vec<JpegFile> = (0..5).map(|i| file(&format!("val_{i}.JPEG"), b"no jpeg")).collect();
        files.push(JpegFile {
            path: "gone.JPEG".into(),
            label: 0,
            read: Box::new(|| Err(io::ErrorKind::NotFound.into())),
        });
        let error = decode_all("Toy", 64, &files).unwrap_err().to_string();
        assert!(error.contains("6 of 6") && error.contains("val_0.JPEG (") && !error.contains("val_3.JPEG"), "{error}");
        // Start marker, frame of 64×64 grey pixels, scan without tables, end marker.
        let bare: &[u8] = &[
            0xff, 0xd8, 0xff, 0xc0, 0, 11, 8, 0, 64, 0, 64, 1, 1, 0x11, 0, 0xff, 0xda, 0, 8, 1, 1, 0, 0, 63, 0, 0xff,
            0xd9,
        ];
        let error = decode_all("Toy", 64, &[file("bare.JPEG", bare)]).unwrap_err().to_string();
        assert!(error.contains("bare.JPEG (libjpeg fatal error"), "{error}");
        let error = decode_all("Toy", 64, &files[5..]).unwrap_err().to_string();
        assert!(error.contains("gone.JPEG (entity not found)"), "{error}");
    }
}
