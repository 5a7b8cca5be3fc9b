//! 2-bit codes of ternary values.
//!
//! # Layout
//!
//! A ternary value `t ∈ {-1, 0, +1}` has the code `t + 1`: `0b00`, `0b01`, `0b10`. The code `0b11` is unused and
//! rejected. Values are stored in the row-major order of the tensor, without gaps between rows. Value `i` is in byte
//! `i / 4`, at bits `2 (i mod 4)` and `2 (i mod 4) + 1`, so the first value of a byte is in its lowest bits. `n` values
//! take `⌈n / 4⌉` bytes. The unused bits of the last byte are filled with the code of zero, `0b01`.

use alloc::vec::Vec;

use thiserror::Error;

/// Number of values per byte.
pub const VALUES_PER_BYTE: usize = 4;
/// The 2-bit code that represents no value.
pub const UNUSED_CODE: u8 = 0b11;
/// Byte of four zero values.
pub(crate) const ZEROS: u8 = 0b01_01_01_01;

/// The four values encoded by each byte.
static VALUES: [[i8; VALUES_PER_BYTE]; 256] = {
    let mut table = [[0; VALUES_PER_BYTE]; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut i = 0;
        while i < VALUES_PER_BYTE {
            table[byte][i] = (byte >> (2 * i) & 0b11) as i8 - 1;
            i += 1;
        }
        byte += 1;
    }
    table
};

/// Ternary values, packed four per byte in the [layout](self) of this module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Codes {
    bytes: Vec<u8>,
    len: usize,
}

/// Error of packing values or validating packed bytes.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CodesError {
    /// A value is not -1, 0 or +1.
    #[error("value {index} is {value}: ternary values are -1, 0 and +1")]
    NotTernary {
        /// Index of the value.
        index: usize,
        /// The value.
        value: i8,
    },
    /// The number of bytes does not match the number of values.
    #[error("{len} values need {expected} bytes of codes, found {found}")]
    Length {
        /// Number of values.
        len: usize,
        /// Required number of bytes.
        expected: usize,
        /// Actual number of bytes.
        found: usize,
    },
    /// A value has the code `0b11`.
    #[error("value {index} has the unused code 0b11: valid codes are 0b00, 0b01 and 0b10")]
    UnusedCode {
        /// Index of the value.
        index: usize,
    },
    /// The bits after the last value are not filled with the code of zero.
    #[error("the last byte is {byte:#010b}: the bits after the last value must hold the code of zero, 0b01")]
    Padding {
        /// The last byte.
        byte: u8,
    },
}

impl Codes {
    /// Packs values, which are given in row-major order.
    ///
    /// # Errors
    /// [`CodesError::NotTernary`] if a value is not -1, 0 or +1.
    pub fn pack(values: &[i8]) -> Result<Self, CodesError> {
        let mut bytes = Vec::with_capacity(values.len().div_ceil(VALUES_PER_BYTE));
        for (chunk, values) in values.chunks(VALUES_PER_BYTE).enumerate() {
            let mut byte = ZEROS;
            for (i, &value) in values.iter().enumerate() {
                if !(-1..=1).contains(&value) {
                    return Err(CodesError::NotTernary { index: chunk * VALUES_PER_BYTE + i, value });
                }
                // Turns the 0b01 of a zero into the code: exclusive or with the bits that differ.
                byte ^= (((value + 1) as u8) ^ 0b01) << (2 * i);
            }
            bytes.push(byte);
        }
        Ok(Self { bytes, len: values.len() })
    }

    /// Validates `bytes` in the [layout](self) of this module as the codes of `len` values.
    ///
    /// # Errors
    /// - [`CodesError::Length`] if `bytes` does not have `⌈len / 4⌉` elements;
    /// - [`CodesError::UnusedCode`] if a value has the code `0b11`;
    /// - [`CodesError::Padding`] if the bits after the last value do not hold the code of zero.
    pub fn from_bytes(bytes: Vec<u8>, len: usize) -> Result<Self, CodesError> {
        let expected = len.div_ceil(VALUES_PER_BYTE);
        if bytes.len() != expected {
            return Err(CodesError::Length { len, expected, found: bytes.len() });
        }
        // The unused code is the one with both bits set.
        if let Some(at) = bytes.iter().position(|byte| byte & (byte >> 1) & ZEROS != 0) {
            let pair = (bytes[at] & (bytes[at] >> 1) & ZEROS).trailing_zeros() as usize / 2;
            return Err(CodesError::UnusedCode { index: at * VALUES_PER_BYTE + pair });
        }
        let used = len % VALUES_PER_BYTE;
        if let Some(&byte) = bytes.last()
            && used != 0
            && byte >> (2 * used) != ZEROS >> (2 * used)
        {
            return Err(CodesError::Padding { byte });
        }
        Ok(Self { bytes, len })
    }

    /// Returns all values (-1, 0, +1) in row-major order.
    pub fn unpack(&self) -> Vec<i8> {
        let mut values = Vec::with_capacity(self.bytes.len() * VALUES_PER_BYTE);
        values.extend(self.bytes.iter().flat_map(|byte| VALUES[usize::from(*byte)]));
        values.truncate(self.len);
        values
    }

    /// Returns an iterator over the values (-1, 0, +1) in row-major order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = i8> + '_ {
        (0..self.len).map(|index| self.get(index))
    }

    /// Returns the value at `index`: -1, 0 or +1.
    ///
    /// # Panics
    /// If `index` is not less than [`len`](Self::len).
    pub fn get(&self, index: usize) -> i8 {
        assert!(index < self.len, "index {index} is out of range for {} values", self.len);
        let code = self.bytes[index / VALUES_PER_BYTE] >> (2 * (index % VALUES_PER_BYTE)) & 0b11;
        code as i8 - 1
    }

    /// Returns the number of values that are -1, 0 and +1, in this order.
    pub fn counts(&self) -> [usize; 3] {
        let count = |bits: u8| self.bytes.iter().map(|&byte| (byte & bits).count_ones() as usize).sum::<usize>();
        // Only +1 sets the high bit of a pair, only 0 the low bit. The padding of the last byte counts as zeros.
        let padding = self.bytes.len() * VALUES_PER_BYTE - self.len;
        let (plus, zero) = (count(!ZEROS), count(ZEROS) - padding);
        [self.len - zero - plus, zero, plus]
    }

    /// Returns the number of values (not bytes).
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns `true` if there are no values.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the packed bytes, `⌈len / 4⌉` of them.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn the_layout_matches_the_documentation() {
        let codes = Codes::pack(&[-1, 0, 1, 1, -1]).unwrap();
        assert_eq!(codes.as_bytes(), [0b10_10_01_00, 0b01_01_01_00]);
        assert!(Codes::pack(&[]).unwrap().as_bytes().is_empty());
    }

    #[test]
    fn packing_and_unpacking_round_trips_at_every_length() {
        for len in 0..40 {
            let values: Vec<i8> = (0..len).map(|i| (i * i % 7 % 3) as i8 - 1).collect();
            let codes = Codes::pack(&values).unwrap();
            assert_eq!(codes.unpack(), values);
            assert_eq!(codes.counts(), [-1, 0, 1].map(|t| values.iter().filter(|&&value| value == t).count()));
            assert_eq!(Codes::from_bytes(codes.as_bytes().to_vec(), len).unwrap(), codes);
        }
    }

    #[test]
    fn invalid_values_and_bytes_are_rejected() {
        assert_eq!(Codes::pack(&[0, 0, 0, 0, 2]), Err(CodesError::NotTernary { index: 4, value: 2 }));
        assert_eq!(Codes::from_bytes(vec![0, 0b00_11_00_00], 8), Err(CodesError::UnusedCode { index: 6 }));
        assert_eq!(Codes::from_bytes(vec![0], 5), Err(CodesError::Length { len: 5, expected: 2, found: 1 }));
        assert_eq!(Codes::from_bytes(vec![0b01_01_00_00], 1), Err(CodesError::Padding { byte: 0b01_01_00_00 }));
    }
}
