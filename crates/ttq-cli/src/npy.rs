//! Arrays in `.npy` files, NumPy's format.
//!
//! A file is `\x93NUMPY`, two bytes of the version, the length of the header in two bytes (from version 2 on four), the
//! header, and the elements. The header is a Python dictionary:
//! `{'descr': '<f4', 'fortran_order': False, 'shape': (2, 10), }`.

use anyhow::{Context, Result, bail};

/// First bytes of a file.
pub(crate) const MAGIC: &[u8] = b"\x93NUMPY";
/// The elements start at a multiple of this.
const ALIGN: usize = 64;

/// Converts the bytes of an element.
type Convert = fn(&[u8]) -> f32;

/// An array, in row-major order.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Array {
    pub(crate) shape: Vec<usize>,
    /// Whether the elements of the file are floats, and no integers or booleans.
    pub(crate) is_float: bool,
    pub(crate) values: Vec<f32>,
}

/// Reads an array of floats, integers or booleans as float32.
pub(crate) fn read(bytes: &[u8]) -> Result<Array> {
    let cut = "is cut off: write it again";
    let Some([major, _minor, rest @ ..]) = bytes.strip_prefix(MAGIC) else {
        bail!("is not a .npy file: write one with numpy.save")
    };
    let (length, rest) = match major {
        1 => rest.split_first_chunk::<2>().map(|(length, rest)| (u16::from_le_bytes(*length).into(), rest)),
        2 | 3 => rest.split_first_chunk::<4>().map(|(length, rest)| (u32::from_le_bytes(*length) as usize, rest)),
        _ => bail!("has version {major} of the format, of which 1 to 3 are read"),
    }
    .context(cut)?;
    let (header, data) = rest.split_at_checked(length).context(cut)?;
    let header = String::from_utf8_lossy(header);
    let invalid = || format!("has an invalid header: {}", header.trim_end());
    let descr = field(&header, "descr").with_context(invalid)?;
    let order = field(&header, "fortran_order").with_context(invalid)?;
    let shape = field(&header, "shape").and_then(tuple).with_context(invalid)?;
    let (size, convert) = element(descr)?;
    let count = shape.iter().try_fold(1_usize, |count, dim| count.checked_mul(*dim));
    let expected = count.and_then(|count| count.checked_mul(size));
    if expected != Some(data.len()) {
        bail!("has {} bytes of elements, which are not those of the shape {shape:?}: write it again", data.len());
    }
    let values: Vec<f32> = data.chunks_exact(size).map(convert).collect();
    let values = if order.starts_with("True") { to_row_major(&shape, &values) } else { values };
    let is_float = descr.trim_start_matches(['\'', '"', '<', '>', '=', '|']).starts_with('f');
    Ok(Array { shape, is_float, values })
}

/// Returns the bytes of a file of float32.
pub(crate) fn write(shape: &[usize], values: &[f32]) -> Vec<u8> {
    let dims: Vec<String> = shape.iter().map(usize::to_string).collect();
    // A tuple of one element ends with a comma.
    let dims = dims.join(", ") + if shape.len() == 1 { "," } else { "" };
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({dims}), }}");
    let short = header.len() + ALIGN <= usize::from(u16::MAX);
    let before = MAGIC.len() + if short { 4 } else { 6 };
    header += &" ".repeat((before + header.len() + 1).next_multiple_of(ALIGN) - before - header.len() - 1);
    header.push('\n');
    let mut bytes = MAGIC.to_vec();
    match u16::try_from(header.len()) {
        Ok(length) if short => bytes.extend([&[1, 0][..], &length.to_le_bytes()].concat()),
        _ => bytes.extend([&[2, 0][..], &(header.len() as u32).to_le_bytes()].concat()),
    }
    bytes.extend(header.as_bytes());
    bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    bytes
}

/// Returns the text after the colon of an entry.
fn field<'a>(header: &'a str, name: &str) -> Option<&'a str> {
    let key = ['\'', '"'].map(|quote| format!("{quote}{name}{quote}"));
    let at = key.iter().find_map(|key| header.find(key.as_str()).map(|at| at + key.len()))?;
    Some(header[at..].trim_start().strip_prefix(':')?.trim_start())
}

/// Parses a tuple of sizes at the start of a text.
fn tuple(text: &str) -> Option<Vec<usize>> {
    let (inner, _) = text.strip_prefix('(')?.split_once(')')?;
    inner.split(',').map(str::trim).filter(|dim| !dim.is_empty()).map(|dim| dim.parse().ok()).collect()
}

/// Returns the number of bytes of an element, and the function that converts them, for a type such as `'<f4'`.
fn element(descr: &str) -> Result<(usize, Convert)> {
    macro_rules! from {
        ($type:ty, $bytes:ident) => {
            |bytes| <$type>::$bytes(bytes.try_into().expect("a chunk of the size of an element")) as f32
        };
    }
    let quoted = descr.get(1..).and_then(|rest| rest.split(['\'', '"']).next()).unwrap_or_default();
    let convert: Convert = match quoted {
        "<f4" => from!(f32, from_le_bytes),
        ">f4" => from!(f32, from_be_bytes),
        "<f8" => from!(f64, from_le_bytes),
        ">f8" => from!(f64, from_be_bytes),
        "<f2" => |bytes| half::f16::from_le_bytes([bytes[0], bytes[1]]).to_f32(),
        "|b1" | "|u1" => from!(u8, from_le_bytes),
        "|i1" => from!(i8, from_le_bytes),
        "<u2" => from!(u16, from_le_bytes),
        "<i2" => from!(i16, from_le_bytes),
        "<u4" => from!(u32, from_le_bytes),
        "<i4" => from!(i32, from_le_bytes),
        "<u8" => from!(u64, from_le_bytes),
        "<i8" => from!(i64, from_le_bytes),
        _ => {
            let found = if quoted.is_empty() { descr.trim_end() } else { quoted };
            bail!("has elements of the type {found}, which is not read: convert it with astype(numpy.float32)")
        }
    };
    Ok((usize::from(quoted.as_bytes()[2] - b'0'), convert))
}

/// Returns elements in row-major order, from the order in which the first axis is contiguous.
fn to_row_major(shape: &[usize], values: &[f32]) -> Vec<f32> {
    let element = |mut index: usize| {
        let mut at = 0;
        for (axis, dim) in shape.iter().enumerate().rev() {
            at += index % dim * shape[..axis].iter().product::<usize>();
            index /= dim;
        }
        values[at]
    };
    (0..values.len()).map(element).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a file with another header.
    fn file(header: &str, data: &[u8]) -> Vec<u8> {
        [MAGIC, &[1, 0], &(header.len() as u16).to_le_bytes(), header.as_bytes(), data].concat()
    }

    #[test]
    fn an_array_survives_writing_and_reading() {
        let long = vec![1; 30_000];
        for shape in [&[][..], &[3], &[2, 0], &[2, 3, 4], &long] {
            let values: Vec<f32> = (0..shape.iter().product()).map(|i| i as f32 / 3.0).collect();
            let bytes = write(shape, &values);
            assert!((bytes.len() - 4 * values.len()).is_multiple_of(ALIGN));
            let found = read(&bytes).unwrap();
            assert_eq!((found.shape, found.values), (shape.into(), values));
        }
    }

    #[test]
    fn the_header_is_the_one_that_numpy_writes() {
        let text = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 10), }";
        let bytes = write(&[2, 10], &[0.0; 20]);
        assert_eq!(String::from_utf8_lossy(&bytes[10..128]).trim_end(), text);
        assert_eq!((&bytes[..8], bytes[127]), (&b"\x93NUMPY\x01\x00"[..], b'\n'));
    }

    #[test]
    fn elements_of_all_types_become_float32() {
        let array = |descr: &str, data: &[u8]| {
            read(&file(&format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': (2,)}}"), data)).unwrap().values
        };
        assert_eq!(array("<f8", &[1.5_f64, -2.0].map(f64::to_le_bytes).concat()), [1.5, -2.0]);
        assert_eq!(array(">f4", &[1.5_f32, -2.0].map(f32::to_be_bytes).concat()), [1.5, -2.0]);
        assert_eq!(array("<f2", &[0, 0x3c, 0, 0xc0]), [1.0, -2.0]);
        assert_eq!(array("<i8", &[7_i64, -2].map(i64::to_le_bytes).concat()), [7.0, -2.0]);
        assert_eq!(array("|u1", &[200, 2]), [200.0, 2.0]);
        assert_eq!(array("|i1", &[200, 2]), [-56.0, 2.0]);
    }

    #[test]
    fn an_array_whose_first_axis_is_contiguous_is_transposed() {
        let header = "{\"shape\": (2, 3), \"fortran_order\": True, \"descr\": \"|u1\"}";
        assert_eq!(read(&file(header, &[1, 4, 2, 5, 3, 6])).unwrap().values, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    }

    #[test]
    fn invalid_files_are_refused() {
        let error = |bytes: &[u8]| read(bytes).unwrap_err().to_string();
        let header = |descr: &str, shape: &str| {
            file(&format!("{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}"), &[0; 8])
        };
        assert!(error(b"PK").contains("is not a .npy file"));
        assert!(error(&write(&[3], &[0.0; 3])[..40]).contains("is cut off"));
        assert!(error(b"\x93NUMPY\x09\x00").contains("version 9"));
        assert!(error(&header("'<f4'", "(3,)")).contains("8 bytes of elements, which are not those of the shape [3]"));
        assert!(error(&header("'<f4'", "(4294967296, 4294967296, 4294967296)")).contains("not those of the shape"));
        for descr in ["'<c8'", "'|O'", "[('a', '<f4')]", "'", "", "'<f4x"] {
            let message = error(&header(descr, "(2,)"));
            assert!(message.contains("which is not read") || message.contains("not those"), "{descr}: {message}");
        }
        assert!(error(&header("'<f4'", "(2")).contains("invalid header"));
        assert!(error(&header("'<f4'", "(-2,)")).contains("invalid header"));
        assert!(error(&file("{}", &[])).contains("invalid header"));
    }
}
