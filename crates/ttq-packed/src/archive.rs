//! Entropy coding of ternary values, for files that are kept or sent: about `H(s)` bits a value instead of two.
//!
//! With a share `s` of zeros and signs in balance, the entropy of a value is `H(s) = -s log2 s - (1 - s) log2((1 - s) / 2)`: 1.5 bits
//! at half zeros, 0.57 at 90 %. The coder is a static range asymmetric numeral system (rANS, Duda 2013, arXiv:1311.2540) of order 0:
//! one table of three frequencies, a 32-bit state, and bytes.
//!
//! # Bytes
//!
//! No values take no bytes. Otherwise, all integers little-endian:
//!
//! | bytes | what |
//! |---|---|
//! | 0..2 | `f₋`, frequency of -1, u16 |
//! | 2..4 | `f₊`, frequency of +1, u16; that of 0 is `f₀ = 65536 - f₋ - f₊`, which is not negative |
//! | 4..8 | the state `x` to start from, u32, `2²³ <= x < 2³¹` |
//! | 8.. | the bytes that the decoder takes, in its order |
//! | to the end | zeros, as many as make `⌈n / 256⌉` bytes of the whole; none where there are as many already |
//!
//! # Decoding
//!
//! The range `0..65536` is cut into `-1: 0..f₋`, `0: f₋..f₋ + f₀`, `+1: f₋ + f₀..65536`. Values come in row-major order; for each
//!
//! ```text
//! r = x mod 65536                             the value is the one whose interval [start, start + f) holds r
//! x = f · ⌊x / 65536⌋ + r - start
//! while x < 2²³:  x = 256 x + next byte
//! ```
//!
//! After the last value `x` is `2²³` again, where the encoder began; anything else is refused.
//!
//! # Bound
//!
//! A byte stands for at most [`VALUES_PER_BYTE_LIMIT`] values, so what decoding allocates is at most 64 times what was read: a hostile
//! file of a kilobyte cannot ask for gigabytes. The limit takes effect above about 99.7 % zeros only.

use alloc::vec::Vec;

use thiserror::Error;

use crate::codes::{Codes, CodesError, VALUES_PER_BYTE, ZEROS};

/// Most values that one byte of an archive may stand for: 64 bytes of codes. More than 32 values a byte need over 96 % zeros.
pub const VALUES_PER_BYTE_LIMIT: usize = 256;
/// Frequencies in front of the state, and the state.
const HEADER: usize = 8;
/// Frequencies are fractions of this: fine enough that rounding them costs less than 0.01 % at 95 % zeros, and two fit in u16.
const TOTAL: u32 = 1 << TOTAL_BITS;
const TOTAL_BITS: u32 = 16;
/// The state stays in `LOWER..256 * LOWER`. 2⁷ times the total, so a step loses next to nothing, and a byte above fits in 32 bits.
const LOWER: u32 = 1 << 23;

/// What is wrong with an archive.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// It ends before the last value.
    #[error("the archive of {bytes} bytes ends after {decoded} of {len} values: it was cut off or is damaged")]
    Truncated {
        /// Bytes there are.
        bytes: usize,
        /// Values decoded from them.
        decoded: usize,
        /// Values there should be.
        len: usize,
    },
    /// More values than the bytes may stand for.
    #[error("{len} values in an archive of {bytes} bytes: a byte stands for at most {VALUES_PER_BYTE_LIMIT}")]
    Ratio {
        /// Values there should be.
        len: usize,
        /// Bytes there are.
        bytes: usize,
    },
    /// Frequencies that leave less than nothing to zero.
    #[error("frequencies {minus} of -1 and {plus} of +1 add up to more than {TOTAL}")]
    Frequencies {
        /// Frequency of -1.
        minus: u32,
        /// Frequency of +1.
        plus: u32,
    },
    /// A first state out of range.
    #[error("state {state:#x} is not in {LOWER:#x}..{:#x}", LOWER << 8)]
    State {
        /// The state.
        state: u32,
    },
    /// Another last state than the encoder's first.
    #[error(
        "state {state:#x} behind the last value is not {LOWER:#x}: the archive is damaged or of another number of values"
    )]
    End {
        /// The state.
        state: u32,
    },
    /// Bytes behind the last value that are not the padding.
    #[error("{found} bytes behind the last value, the padding is {expected} zeros")]
    Trailing {
        /// Bytes of padding.
        expected: usize,
        /// Bytes there are.
        found: usize,
    },
    /// The decoded values are no codes.
    #[error(transparent)]
    Codes(#[from] CodesError),
}

/// Bits a value that no code of order 0 can go below, for counts of -1, 0 and +1: `-Σ p log2 p`; 0 where there are no values.
pub fn entropy(counts: [usize; 3]) -> f64 {
    let len: f64 = counts.iter().map(|&count| count as f64).sum();
    let part = |&count: &usize| if count == 0 { 0.0 } else { -(count as f64 / len) * libm::log2(count as f64 / len) };
    counts.iter().map(part).sum()
}

/// Codes to bytes; see the [module](self).
pub fn encode(codes: &Codes) -> Vec<u8> {
    if codes.is_empty() {
        return Vec::new();
    }
    let frequencies = frequencies(codes.counts());
    let starts = starts(frequencies);
    let mut state = LOWER;
    // The decoder runs the other way: last value first, and the bytes come out in reverse.
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

/// Bytes to `len` codes; see the [module](self). Allocates the codes and nothing else, and those only for a lawful ratio.
///
/// # Errors
/// [`ArchiveError`]: every archive that [`encode`] could not have written for some frequencies.
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
        for place in 0..VALUES_PER_BYTE.min(len - first) {
            let slot = state & (TOTAL - 1);
            let symbol = usize::from(slot >= starts[1]) + usize::from(slot >= starts[2]);
            state = frequencies[symbol] * (state >> TOTAL_BITS) + slot - starts[symbol];
            while state < LOWER {
                let (&next, behind) = rest.split_first().ok_or_else(|| truncated(first + place))?;
                state = state << 8 | u32::from(next);
                rest = behind;
            }
            byte ^= (symbol as u8 ^ 0b01) << (2 * place);
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

/// Frequencies of -1, 0, +1, and the first state.
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

/// Where the intervals of -1, 0, +1 start.
fn starts([minus, zero, _]: [u32; 3]) -> [u32; 3] {
    [0, minus, minus + zero]
}

/// Counts as fractions of [`TOTAL`]: at least 1 for what occurs, and less than all for a sign, since it is stored in 16 bits.
fn frequencies(counts: [usize; 3]) -> [u32; 3] {
    let len: u128 = counts.iter().map(|&count| count as u128).sum();
    let share = |count: usize| match count {
        0 => 0,
        _ => ((count as u128 * u128::from(TOTAL) + len / 2) / len).clamp(1, u128::from(TOTAL) - 1) as u32,
    };
    let (mut minus, mut plus) = (share(counts[0]), share(counts[2]));
    // Zero takes what is left. Where rounding leaves it nothing although it occurs, the more frequent sign gives way.
    let excess = (minus + plus + u32::from(counts[1] > 0)).saturating_sub(TOTAL);
    *(if minus > plus { &mut minus } else { &mut plus }) -= excess;
    [minus, TOTAL - minus - plus, plus]
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn frequencies_add_up_and_leave_out_nothing_that_occurs() {
        let sides = [0, 1, 2, 3, 1000, 65_535, 65_536, 1 << 40];
        for minus in sides {
            for zero in sides {
                for plus in sides {
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
    fn the_bytes_are_the_documented_ones() {
        let codes = Codes::pack(&[1, -1]).unwrap();
        let bytes = encode(&codes);
        // f₋ = f₊ = 32768. The last value first: -1 takes 2²³ to 2²³ / 32768 · 65536 = 2²⁴, +1 that to 2²⁴ / 32768 · 65536 + 32768.
        assert_eq!(bytes, [0x00, 0x80, 0x00, 0x80, 0x00, 0x80, 0x00, 0x02]);
        assert_eq!(decode(&bytes, 2).unwrap(), codes);
    }

    #[test]
    fn one_value_alone_takes_the_least_a_byte_may_stand_for() {
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
    fn damage_is_refused_by_name() {
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
