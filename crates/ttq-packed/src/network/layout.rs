//! The layout of values in an arena.

use core::ops::Range;

/// Numbers as bytes: `q` stands for `scale (q - zero)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quantization {
    /// The distance between neighbouring numbers.
    pub scale: f32,
    /// The byte of the number 0.
    pub zero: u8,
}

/// A value in the arena: the items of a batch, each a grid of pixels with contiguous channels.
///
/// Channels are padded to [`pitch`](Self::pitch), with unspecified contents. The border holds the zeros that a
/// convolution adds at the sides; the layer that writes the value clears it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Image {
    /// Index of the first element in the arena, which counts as an array of such elements.
    pub(super) offset: usize,
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) channels: usize,
    /// Distance between pixels.
    pub(super) pitch: usize,
    /// `[[top, bottom], [left, right]]`, in pixels.
    pub(super) border: [[usize; 2]; 2],
    /// Elements are bytes if present, and otherwise floats.
    pub(super) quantization: Option<Quantization>,
}

impl Image {
    pub(super) fn new(height: usize, width: usize, channels: usize) -> Self {
        // Whole vectors, unless that would multiply the size.
        let pitch = if channels < 8 { channels } else { channels.next_multiple_of(16) };
        Self { offset: 0, height, width, channels, pitch, border: [[0; 2]; 2], quantization: None }
    }

    /// Returns the image with elements of bytes. Four channels are one word.
    pub(super) fn quantized(self, quantization: Quantization) -> Self {
        Self { pitch: self.pitch.next_multiple_of(4), quantization: Some(quantization), ..self }
    }

    /// Returns the distance between items, or `None` if it overflows.
    pub(super) fn checked_item(&self) -> Option<usize> {
        let [[top, bottom], [left, right]] = self.border;
        let height = self.height.checked_add(top)?.checked_add(bottom)?;
        let width = self.width.checked_add(left)?.checked_add(right)?;
        height.checked_mul(width)?.checked_mul(self.pitch)
    }

    /// Returns the number of floats that some items take.
    pub(super) fn floats(&self, items: usize) -> usize {
        let elements = items * self.item();
        if self.quantization.is_some() { elements.div_ceil(4) } else { elements }
    }

    /// Places the image at a float of the arena.
    pub(super) fn place(&mut self, float: usize) {
        self.offset = if self.quantization.is_some() { 4 * float } else { float };
    }

    /// Returns the distance between rows.
    #[inline(always)]
    pub(super) fn row(&self) -> usize {
        (self.width + self.border[1][0] + self.border[1][1]) * self.pitch
    }

    /// Returns the distance between items.
    #[inline(always)]
    pub(super) fn item(&self) -> usize {
        (self.height + self.border[0][0] + self.border[0][1]) * self.row()
    }

    /// Returns the index of the first channel of a pixel.
    #[inline(always)]
    pub(super) fn pixel(&self, item: usize, y: usize, x: usize) -> usize {
        let [[top, _], [left, _]] = self.border;
        self.offset + item * self.item() + (y + top) * self.row() + (x + left) * self.pitch
    }

    /// Returns `true` if both have the same size and strides, so that they can share memory element by element.
    pub(super) fn same_strides(&self, other: &Self) -> bool {
        let place = |image: &Self| Self { offset: 0, quantization: None, ..*image };
        place(self) == place(other) && self.quantization.is_some() == other.quantization.is_some()
    }

    /// Enlarges the border.
    pub(super) fn require_border(&mut self, border: [[usize; 2]; 2]) {
        for (own, required) in self.border.as_flattened_mut().iter_mut().zip(border.as_flattened()) {
            *own = (*own).max(*required);
        }
    }

    /// Clears the border at the sides of some rows, which count through all items, and above the first and below the
    /// last row of an item.
    ///
    /// # Safety
    /// `memory` must be the arena, and no other thread may access the border of these rows.
    #[inline(always)]
    pub(super) unsafe fn clear_border(&self, memory: *mut f32, rows: Range<usize>) {
        if self.border == [[0; 2]; 2] {
            return;
        }
        // SAFETY: guaranteed by the caller.
        unsafe {
            match self.quantization {
                Some(Quantization { zero, .. }) => self.clear::<u8>(memory.cast(), rows, zero),
                None => self.clear::<f32>(memory, rows, 0),
            }
        }
    }

    #[inline(always)]
    unsafe fn clear<T>(&self, memory: *mut T, rows: Range<usize>, byte: u8) {
        let [[top, bottom], [left, right]] = self.border;
        // SAFETY: border and pixels of an item lie within its `item()` elements, and the caller guarantees access.
        unsafe {
            let clear = |start: usize, len: usize| memory.add(start).write_bytes(byte, len);
            for row in rows {
                let (item, y) = (row / self.height, row % self.height);
                let first = self.pixel(item, y, 0);
                clear(first - left * self.pitch, left * self.pitch);
                clear(first + self.width * self.pitch, right * self.pitch);
                if y == 0 {
                    clear(self.offset + item * self.item(), top * self.row());
                }
                if y + 1 == self.height {
                    clear(self.offset + (item + 1) * self.item() - bottom * self.row(), bottom * self.row());
                }
            }
        }
    }
}
