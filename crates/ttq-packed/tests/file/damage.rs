//! Random damage of files.

use fastrand::Rng;

use crate::forge::{assemble, open};

/// Applies one random damage: anywhere, or only to the header or the data, so that the other part stays readable.
pub(crate) fn damage(rng: &mut Rng, file: Vec<u8>) -> Vec<u8> {
    match (rng.u8(0..4), open(&file)) {
        (1, Some((header, data))) => assemble(&edit_number(rng, &header), &data),
        (2, Some((header, data))) => {
            let header = change(rng, header.into_bytes());
            [&(header.len() as u64).to_le_bytes(), header.as_slice(), &data].concat()
        }
        (3, Some((header, mut data))) if !data.is_empty() => {
            let at = rng.usize(0..data.len());
            data[at] = if rng.bool() { rng.u8(..) } else { data[at] ^ 1 << rng.u8(0..8) };
            assemble(&header, &data)
        }
        _ => change(rng, file),
    }
}

/// Flips a bit, replaces a byte, truncates the end, removes a piece, or copies a piece to another position.
fn change(rng: &mut Rng, mut bytes: Vec<u8>) -> Vec<u8> {
    if bytes.is_empty() {
        return bytes;
    }
    let at = rng.usize(0..bytes.len());
    match rng.u8(0..6) {
        0 => bytes[at] ^= 1 << rng.u8(0..8),
        1 => bytes[at] = rng.choice(*b"\0\x01\x7f\xff0129\"{}[],:-eU").unwrap(),
        2 => bytes.truncate(at),
        3 => drop(bytes.drain(at..(at + rng.usize(1..40)).min(bytes.len()))),
        kind => {
            let from = rng.usize(0..bytes.len());
            let piece = bytes[from..(from + rng.usize(1..40)).min(bytes.len())].to_vec();
            // Inserts the piece, or overwrites the bytes at this position.
            let end = if kind == 4 { at } else { (at + piece.len()).min(bytes.len()) };
            bytes.splice(at..end, piece);
        }
    }
    bytes
}

/// Replaces a number in the header by another one.
fn edit_number(rng: &mut Rng, header: &str) -> String {
    let digits: Vec<usize> = header.match_indices(|c: char| c.is_ascii_digit()).map(|(at, _)| at).collect();
    let Some(at) = rng.choice(digits) else { return header.to_string() };
    let (before, number) = header.split_at(at);
    let after = number.trim_start_matches(|c: char| c.is_ascii_digit());
    let numbers = ["0", "1", "2", "3", "7", "8", "255", "4294967296", "18446744073709551615", "99999999999999999999"];
    format!("{before}{}{after}", rng.choice(numbers).unwrap())
}
