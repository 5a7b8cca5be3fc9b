//! Entropy coding of ternary values for storage and transfer: about `H(s)` bits per value instead of 2.
//!
//! With sparsity `s` (the fraction of zeros) and as many +1 as -1, the entropy of a value is
//! `H(s) = -s log2 s - (1 - s) log2((1 - s) / 2)`: 1.5 bits at 50 % zeros, 0.57 bits at 90 %. The coder is a static
//! range asymmetric numeral system (rANS, Duda 2013, arXiv:1311.2540) of order 0 with one table of three frequencies, a
//! 32-bit state, and bytes as output.
//!
//! # Format
//!
//! Zero values take zero bytes. For `n > 0` values the archive consists of the following parts; all integers are
//! little-endian:
//!
//! | bytes | content |
//! |---|---|
//! | 0..2 | `f₋`, frequency of -1, u16 |
//! | 2..4 | `f₊`, frequency of +1, u16; the frequency of 0 is `f₀ = 65536 - f₋ - f₊` and must not be negative |
//! | 4..8 | initial state `x` of the decoder, u32, `2²³ <= x < 2³¹` |
//! | 8.. | bytes that the decoder reads, in the order of reading |
//! | to the end | zero bytes that pad the archive to `⌈n / 256⌉` bytes; none if it is at least that long |
//!
//! # Decoding
//!
//! The range `0..65536` is divided into the intervals `0..f₋` for -1, `f₋..f₋ + f₀` for 0 and `f₋ + f₀..65536` for +1.
//! Values are decoded in row-major order. For each value:
//!
//! ```text
//! r = x mod 65536                             the value is the one whose interval [start, start + f) contains r
//! x = f · ⌊x / 65536⌋ + r - start
//! while x < 2²³:  x = 256 x + next byte
//! ```
//!
//! After the last value `x` equals `2²³`, the initial state of the encoder. Any other final state is an error.
//!
//! # Memory bound
//!
//! A byte represents at most [`VALUES_PER_BYTE_LIMIT`] values, so decoding allocates at most 64 times the size of the
//! archive. A malicious file of one kilobyte therefore cannot cause an allocation of gigabytes. The limit affects only
//! weights with more than about 99.7 % zeros.

use alloc::vec::Vec;

use thiserror::Error;

use crate::codes::{Codes, CodesError, VALUES_PER_BYTE, ZEROS};

/// Maximum number of values that one byte of an archive represents (64 bytes of codes).
///
/// More than 32 values per byte occur only above 96 % zeros.
pub const VALUES_PER_BYTE_LIMIT: usize = 256;
/// Bytes of the frequencies and the initial state.
const HEADER: usize = 8;
/// Sum of the three frequencies. Rounding to this resolution costs less than 0.01 % at 95 % zeros, and the two stored
/// frequencies fit in u16.
const TOTAL: u32 = 1 << TOTAL_BITS;
const TOTAL_BITS: u32 = 16;
/// Lower bound of the state, which stays in `LOWER..256 * LOWER`. It is 2⁷ times [`TOTAL`], so the rounding loss of a
/// step is negligible, and the upper bound fits in 32 bits.
const LOWER: u32 = 1 << 23;

/// Error of decoding an archive.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// The archive ends before the last value.
    #[error("the archive of {bytes} bytes ends after {decoded} of {len} values: it is truncated or damaged")]
    Truncated {
        /// Length of the archive in bytes.
        bytes: usize,
        /// Number of values decoded.
        decoded: usize,
        /// Expected number of values.
        len: usize,
    },
    /// The archive is too short for the number of values.
    #[error(
        "an archive of {bytes} bytes cannot hold {len} values: a byte represents at most {VALUES_PER_BYTE_LIMIT} values"
    )]
    Ratio {
        /// Expected number of values.
        len: usize,
        /// Length of the archive in bytes.
        bytes: usize,
    },
    /// The frequencies of -1 and +1 add up to more than 65536.
    #[error("the frequencies {minus} of -1 and {plus} of +1 add up to more than {TOTAL}: the archive is damaged")]
    Frequencies {
        /// Frequency of -1.
        minus: u32,
        /// Frequency of +1.
        plus: u32,
    },
    /// The initial state is out of range.
    #[error("the initial state {state:#x} is not in {LOWER:#x}..{:#x}: the archive is damaged", LOWER << 8)]
    State {
        /// The state.
        state: u32,
    },
    /// The final state is not the initial state of the encoder.
    #[error(
        "the final state is {state:#x} instead of {LOWER:#x}: the archive is damaged or has another number of values"
    )]
    End {
        /// The state.
        state: u32,
    },
    /// The bytes after the last value are not the expected padding.
    #[error("{found} bytes follow the last value: expected {expected} zero bytes of padding and nothing else")]
    Trailing {
        /// Expected number of padding bytes, all zero.
        expected: usize,
        /// Actual number of bytes after the last value.
        found: usize,
    },
    /// The decoded bytes are not valid codes.
    #[error(transparent)]
    Codes(#[from] CodesError),
}

/// Returns the entropy of a value in bits, `-Σ p log2 p`, for the counts of -1, 0 and +1.
///
/// No code of order 0 uses fewer bits per value on average. Returns 0 if all counts are 0.
pub fn entropy(counts: [usize; 3]) -> f64 {
    let len: f64 = counts.iter().map(|&count| count as f64).sum();
    let part = |&count: &usize| if count == 0 { 0.0 } else { -(count as f64 / len) * libm::log2(count as f64 / len) };
    counts.iter().map(part).sum()
}

/// Encodes codes in the [format](self) of this module.
pub fn encode(codes: &Codes) -> Vec<u8> {
    if codes.is_empty() {
        return Vec::new();
    }
    let frequencies = frequencies(codes.counts());
    let starts = starts(frequencies);
    let mut state = LOWER;
    // rANS decodes in the opposite order: the encoder starts with the last value, and its bytes are reversed.
    let mut reversed = Vec::new();
    for index in (0..codes.len()).rev() {
        let symbol = (codes.get(index) + 1) as usize;
        let frequency = frequencies[symbol];
        while state >= frequency * ((LOWER >> TOTAL_BITS) << 8) {
            reversed.push(state as u8);
            state >>= 8;
        }
        state = ((state / frequency) << TOTAL_BITS) + starts[symbol] + state % frequency;
    }
    let [minus, _, plus] = frequencies.map(|frequency| frequency as u16);
    let mut bytes = Vec::with_capacity(HEADER + reversed.len());
    bytes.extend(minus.to_le_bytes());
    bytes.extend(plus.to_le_bytes());
    bytes.extend(state.to_le_bytes());
    bytes.extend(reversed.iter().rev());
    bytes.resize(bytes.len().max(codes.len().div_ceil(VALUES_PER_BYTE_LIMIT)), 0);
    bytes
}

/// Decodes `len` codes from bytes in the [format](self) of this module.
///
/// Allocates only the codes, and only after the check against [`VALUES_PER_BYTE_LIMIT`].
///
/// # Errors
/// Returns [`ArchiveError`] for every archive that [`encode`] cannot produce with any choice of frequencies.
pub fn decode(bytes: &[u8], len: usize) -> Result<Codes, ArchiveError> {
    if len == 0 {
        return if bytes.is_empty() {
            Ok(Codes::from_bytes(Vec::new(), 0)?)
        } else {
            Err(ArchiveError::Trailing { expected: 0, found: bytes.len() })
        };
    }
    if len.div_ceil(VALUES_PER_BYTE_LIMIT) > bytes.len() {
        return Err(ArchiveError::Ratio { len, bytes: bytes.len() });
    }
    let truncated = |decoded| ArchiveError::Truncated { bytes: bytes.len(), decoded, len };
    let Some((header, mut rest)) = bytes.split_first_chunk::<HEADER>() else { return Err(truncated(0)) };
    let (frequencies, mut state) = parse_header(*header)?;
    let starts = starts(frequencies);
    let mut packed = Vec::with_capacity(len.div_ceil(VALUES_PER_BYTE));
    for first in (0..len).step_by(VALUES_PER_BYTE) {
        let mut byte = ZEROS;
        for offset in 0..VALUES_PER_BYTE.min(len - first) {
            let slot = state & (TOTAL - 1);
            let symbol = usize::from(slot >= starts[1]) + usize::from(slot >= starts[2]);
            state = frequencies[symbol] * (state >> TOTAL_BITS) + slot - starts[symbol];
            while state < LOWER {
                let (&next, remaining) = rest.split_first().ok_or_else(|| truncated(first + offset))?;
                state = state << 8 | u32::from(next);
                rest = remaining;
            }
            byte ^= (symbol as u8 ^ 0b01) << (2 * offset);
        }
        packed.push(byte);
    }
    if state != LOWER {
        return Err(ArchiveError::End { state });
    }
    let expected = len.div_ceil(VALUES_PER_BYTE_LIMIT).saturating_sub(bytes.len() - rest.len());
    if rest.len() != expected || rest.iter().any(|&byte| byte != 0) {
        return Err(ArchiveError::Trailing { expected, found: rest.len() });
    }
    Ok(Codes::from_bytes(packed, len)?)
}

/// Returns the frequencies of -1, 0, +1 and the initial state.
fn parse_header([m0, m1, p0, p1, state @ ..]: [u8; HEADER]) -> Result<([u32; 3], u32), ArchiveError> {
    let minus = u32::from(u16::from_le_bytes([m0, m1]));
    let plus = u32::from(u16::from_le_bytes([p0, p1]));
    let Some(zero) = TOTAL.checked_sub(minus + plus) else { return Err(ArchiveError::Frequencies { minus, plus }) };
    let state = u32::from_le_bytes(state);
    if !(LOWER..LOWER << 8).contains(&state) {
        return Err(ArchiveError::State { state });
    }
    Ok(([minus, zero, plus], state))
}

/// Returns the starts of the intervals of -1, 0, +1.
fn starts([minus, zero, _]: [u32; 3]) -> [u32; 3] {
    [0, minus, minus + zero]
}

/// Scales counts to frequencies with the sum [`TOTAL`].
///
/// A value that occurs has a frequency of at least 1. Those of -1 and +1 are less than [`TOTAL`], since they are stored
/// in 16 bits.
fn frequencies(counts: [usize; 3]) -> [u32; 3] {
    let len: u128 = counts.iter().map(|&count| count as u128).sum();
    let share = |count: usize| match count {
        0 => 0,
        _ => ((count as u128 * u128::from(TOTAL) + len / 2) / len).clamp(1, u128::from(TOTAL) - 1) as u32,
    };
    let (mut minus, mut plus) = (share(counts[0]), share(counts[2]));
    // Zero gets the remainder. If rounding leaves no remainder although zero occurs, the more frequent sign is reduced.
    let excess = (minus + plus + u32::from(counts[1] > 0)).saturating_sub(TOTAL);
    *(if minus > plus { &mut minus } else { &mut plus }) -= excess;
    [minus, TOTAL - minus - plus, plus]
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn frequencies_sum_to_the_total_and_are_positive_for_values_that_occur() {
        let samples = [0, 1, 2, 3, 1000, 65_535, 65_536, 1 << 40];
        for minus in samples {
            for zero in samples {
                for plus in samples {
                    let counts = [minus, zero, plus];
                    let found = frequencies(if counts == [0; 3] { [1, 0, 0] } else { counts });
                    assert_eq!(found.iter().sum::<u32>(), TOTAL, "{counts:?}");
                    assert!(found[0] < TOTAL && found[2] < TOTAL, "{counts:?}");
                    assert!(counts.iter().zip(found).all(|(&count, f)| count == 0 || f > 0), "{counts:?}: {found:?}");
                }
            }
        }
    }

    #[test]
    fn the_bytes_match_the_documentation() {
        let codes = Codes::pack(&[1, -1]).unwrap();
        let bytes = encode(&codes);
        // f₋ = f₊ = 32768. The last value is encoded first: -1 maps 2²³ to 2²³ / 32768 · 65536 = 2²⁴, then +1 maps this
        // state to 2²⁴ / 32768 · 65536 + 32768.
        assert_eq!(bytes, [0x00, 0x80, 0x00, 0x80, 0x00, 0x80, 0x00, 0x02]);
        assert_eq!(decode(&bytes, 2).unwrap(), codes);
    }

    #[test]
    fn a_constant_tensor_takes_the_minimum_archive_length() {
        let codes = Codes::pack(&vec![0; 100_000]).unwrap();
        let bytes = encode(&codes);
        assert_eq!(bytes.len(), 100_000usize.div_ceil(VALUES_PER_BYTE_LIMIT));
        assert_eq!(decode(&bytes, 100_000).unwrap(), codes);
        assert_eq!(decode(&bytes, 200_000), Err(ArchiveError::Ratio { len: 200_000, bytes: bytes.len() }));
        for value in [-1, 1] {
            let codes = Codes::pack(&vec![value; 5000]).unwrap();
            assert_eq!(decode(&encode(&codes), 5000).unwrap(), codes);
        }
    }

    #[test]
    fn each_kind_of_damage_has_its_own_error() {
        let values: Vec<i8> = (0..500u32).map(|i| (i * i % 11 % 3) as i8 - 1).collect();
        let bytes = encode(&Codes::pack(&values).unwrap());
        let changed = |at: usize, value: u8| {
            let mut bytes = bytes.clone();
            bytes[at] = value;
            decode(&bytes, 500)
        };
        assert!(matches!(decode(&bytes[..7], 500), Err(ArchiveError::Truncated { decoded: 0, .. })));
        assert!(matches!(decode(&bytes[..bytes.len() - 3], 500), Err(ArchiveError::Truncated { .. })));
        assert!(matches!(decode(&bytes, 501), Err(ArchiveError::Truncated { .. } | ArchiveError::End { .. })));
        assert!(matches!(decode(&bytes, 499), Err(ArchiveError::End { .. })));
        assert!(matches!(changed(1, 0xff), Err(ArchiveError::Frequencies { .. })));
        assert!(matches!(changed(7, 0xff), Err(ArchiveError::State { .. })));
        assert!(matches!(changed(7, 0), Err(ArchiveError::State { .. })));
        let longer = [bytes.as_slice(), &[0]].concat();
        assert_eq!(decode(&longer, 500), Err(ArchiveError::Trailing { expected: 0, found: 1 }));
        assert_eq!(decode(&[0], 0), Err(ArchiveError::Trailing { expected: 0, found: 1 }));
    }
}
