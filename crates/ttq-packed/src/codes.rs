//! 2-bit codes of ternary values.
//!
//! # Layout
//!
//! A ternary value `t ∈ {-1, 0, +1}` has the code `t + 1`: `0b00`, `0b01`, `0b10`; `0b11` stands for nothing and is refused. Values
//! follow each other in the row-major order of the tensor without gaps between rows. Value `i` lies in byte `i / 4`, at bits
//! `2 (i mod 4)` and `2 (i mod 4) + 1`, so the first value of a byte is in its lowest bits. `n` values take `⌈n / 4⌉` bytes; what is
//! left of the last byte is filled with the code of zero, `0b01`.

use alloc::vec::Vec;

use thiserror::Error;

/// Values in a byte.
pub const VALUES_PER_BYTE: usize = 4;
/// The code that stands for no value.
pub const UNUSED: u8 = 0b11;
/// A byte of zeros.
pub(crate) const ZEROS: u8 = 0b01_01_01_01;

/// The four values of each byte.
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

/// Ternary values, four in a byte; see the [module](self) for the layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Codes {
    bytes: Vec<u8>,
    len: usize,
}

/// What is wrong with values or bytes that should be ternary.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CodesError {
    /// A value that is none of -1, 0, +1.
    #[error("value {index} is {value}: ternary values are -1, 0 and +1")]
    NotTernary {
        /// Its place.
        index: usize,
        /// The value.
        value: i8,
    },
    /// More or fewer bytes than the values take.
    #[error("{found} bytes of codes, {len} values take {expected}")]
    Length {
        /// Values.
        len: usize,
        /// Bytes that they take.
        expected: usize,
        /// Bytes there are.
        found: usize,
    },
    /// The code `0b11`.
    #[error("value {index} has the unused code 0b11")]
    UnusedCode {
        /// Its place.
        index: usize,
    },
    /// Something else than zeros behind the last value.
    #[error("the last byte is {byte:#010b}: behind the last value it must be filled with the code of zero, 0b01")]
    Padding {
        /// The last byte.
        byte: u8,
    },
}

impl Codes {
    /// Packs values in row-major order.
    ///
    /// # Errors
    /// [`CodesError::NotTernary`]
    pub fn pack(values: &[i8]) -> Result<Self, CodesError> {
        let mut bytes = Vec::with_capacity(values.len().div_ceil(VALUES_PER_BYTE));
        for (chunk, values) in values.chunks(VALUES_PER_BYTE).enumerate() {
            let mut byte = ZEROS;
            for (i, &value) in values.iter().enumerate() {
                if !(-1..=1).contains(&value) {
                    return Err(CodesError::NotTernary { index: chunk * VALUES_PER_BYTE + i, value });
                }
                // 0b01 becomes the code: exclusive or with the two bits in which they differ.
                byte ^= (((value + 1) as u8) ^ 0b01) << (2 * i);
            }
            bytes.push(byte);
        }
        Ok(Self { bytes, len: values.len() })
    }

    /// Takes bytes in the [layout](self) for `len` values.
    ///
    /// # Errors
    /// [`CodesError::Length`], [`CodesError::UnusedCode`], [`CodesError::Padding`]
    pub fn from_bytes(bytes: Vec<u8>, len: usize) -> Result<Self, CodesError> {
        let expected = len.div_ceil(VALUES_PER_BYTE);
        if bytes.len() != expected {
            return Err(CodesError::Length { len, expected, found: bytes.len() });
        }
        // Both bits of a pair are set where the code is unused.
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

    /// The values, -1, 0 and +1, in row-major order.
    pub fn unpack(&self) -> Vec<i8> {
        let mut values = Vec::with_capacity(self.bytes.len() * VALUES_PER_BYTE);
        values.extend(self.bytes.iter().flat_map(|byte| VALUES[usize::from(*byte)]));
        values.truncate(self.len);
        values
    }

    /// The values one after the other.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = i8> + '_ {
        (0..self.len).map(|index| self.get(index))
    }

    /// One value.
    ///
    /// # Panics
    /// Where `index` is not less than [`len`](Self::len).
    pub fn get(&self, index: usize) -> i8 {
        assert!(index < self.len, "value {index} of {}", self.len);
        let code = self.bytes[index / VALUES_PER_BYTE] >> (2 * (index % VALUES_PER_BYTE)) & 0b11;
        code as i8 - 1
    }

    /// How many are -1, 0 and +1.
    pub fn counts(&self) -> [usize; 3] {
        let count = |bits: u8| self.bytes.iter().map(|&byte| (byte & bits).count_ones() as usize).sum::<usize>();
        // The high bit of a pair is set in +1 alone, the low bit in 0 alone; the last byte is filled with zeros.
        let padding = self.bytes.len() * VALUES_PER_BYTE - self.len;
        let (plus, zero) = (count(!ZEROS), count(ZEROS) - padding);
        [self.len - zero - plus, zero, plus]
    }

    /// Values, not bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Are there none?
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The packed bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn the_layout_is_the_documented_one() {
        let codes = Codes::pack(&[-1, 0, 1, 1, -1]).unwrap();
        assert_eq!(codes.as_bytes(), [0b10_10_01_00, 0b01_01_01_00]);
        assert!(Codes::pack(&[]).unwrap().as_bytes().is_empty());
    }

    #[test]
    fn every_length_comes_back() {
        for len in 0..40 {
            let values: Vec<i8> = (0..len).map(|i| (i * i % 7 % 3) as i8 - 1).collect();
            let codes = Codes::pack(&values).unwrap();
            assert_eq!(codes.unpack(), values);
            assert_eq!(codes.counts(), [-1, 0, 1].map(|t| values.iter().filter(|&&value| value == t).count()));
            assert_eq!(Codes::from_bytes(codes.as_bytes().to_vec(), len).unwrap(), codes);
        }
    }

    #[test]
    fn what_is_not_ternary_is_refused() {
        assert_eq!(Codes::pack(&[0, 0, 0, 0, 2]), Err(CodesError::NotTernary { index: 4, value: 2 }));
        assert_eq!(Codes::from_bytes(vec![0, 0b00_11_00_00], 8), Err(CodesError::UnusedCode { index: 6 }));
        assert_eq!(Codes::from_bytes(vec![0], 5), Err(CodesError::Length { len: 5, expected: 2, found: 1 }));
        assert_eq!(Codes::from_bytes(vec![0b01_01_00_00], 1), Err(CodesError::Padding { byte: 0b01_01_00_00 }));
    }
}
