//! Values in the arena: floats or bytes.

/// The elements of a value that a layer reads.
#[derive(Clone, Copy)]
pub(crate) enum Input<'a> {
    Floats(&'a [f32]),
    Bytes(&'a [u8]),
}

impl<'a> Input<'a> {
    /// Returns the first `len` elements in these words.
    pub(crate) fn new(words: &'a [f32], len: usize, bytes: bool) -> Self {
        if bytes {
            // SAFETY: the words are initialized, and every bit pattern is a valid byte.
            let bytes = unsafe { core::slice::from_raw_parts(words.as_ptr().cast(), size_of_val(words)) };
            Self::Bytes(&bytes[..len])
        } else {
            Self::Floats(&words[..len])
        }
    }
}

/// The elements of a value that a layer writes.
pub(crate) enum Output<'a> {
    Floats(&'a mut [f32]),
    Bytes(&'a mut [u8]),
}

impl<'a> Output<'a> {
    /// Returns the first `len` elements in these words.
    pub(crate) fn new(words: &'a mut [f32], len: usize, bytes: bool) -> Self {
        if bytes {
            // SAFETY: the words are initialized, every bit pattern is a valid byte, and every four bytes are a valid float.
            let bytes = unsafe { core::slice::from_raw_parts_mut(words.as_mut_ptr().cast(), size_of_val(words)) };
            Self::Bytes(&mut bytes[..len])
        } else {
            Self::Floats(&mut words[..len])
        }
    }

    /// Stores elements, limited to a range, from an index.
    #[inline(always)]
    pub(crate) fn store(&mut self, index: usize, values: &[f32], [low, high]: [f32; 2]) {
        // NaN stays NaN.
        let limited = |value: f32| {
            if value < low {
                low
            } else if value > high {
                high
            } else {
                value
            }
        };
        match self {
            Self::Floats(to) => {
                to[index..][..values.len()].iter_mut().zip(values).for_each(|(to, value)| *to = limited(*value));
            }
            Self::Bytes(to) => {
                to[index..][..values.len()].iter_mut().zip(values).for_each(|(to, value)| *to = byte(limited(*value)));
            }
        }
    }
}

/// Rounds to a byte: limited to 0..=255, to nearest, ties to even.
#[inline(always)]
fn byte(value: f32) -> u8 {
    // The unit in the last place of this number is 1, so that the addition rounds.
    const UNIT: f32 = 12_582_912.0;
    let limited = if value > 0.0 { value } else { 0.0 };
    let limited = if limited < 255.0 { limited } else { 255.0 };
    (limited + UNIT).to_bits() as u8
}
