//! Elements of a value by their logical index, wherever they are stored.

use alloc::vec;
use alloc::vec::Vec;

use super::Order;
use crate::network::layout::Image;

/// The dimensions of a value, and the distance between neighbours along each of them.
#[derive(Debug, Clone, Default)]
pub(in crate::network) struct Strided {
    /// Index of the first element.
    pub(super) offset: usize,
    /// Distance between items.
    pub(super) item: usize,
    pub(super) dims: Vec<usize>,
    pub(super) strides: Vec<usize>,
}

impl Strided {
    /// Returns the elements of a value in the arena.
    pub(in crate::network) fn new(image: &Image, order: Order, dims: &[usize]) -> Self {
        let strides = match order {
            Order::ChannelsFirst => vec![1, image.row(), image.pitch],
            Order::ChannelsLast => {
                let mut strides = vec![1; dims.len()];
                let mut pixels = image.pitch;
                for i in (0..dims.len().saturating_sub(1)).rev() {
                    strides[i] = pixels;
                    pixels *= dims[i];
                }
                strides
            }
        };
        Self { offset: image.pixel(0, 0, 0), item: image.item(), dims: dims.into(), strides }
    }

    /// Returns the elements of a row-major array that all items share.
    pub(in crate::network) fn row_major(dims: &[usize]) -> Self {
        let mut strides = vec![1; dims.len()];
        for i in (1..dims.len()).rev() {
            strides[i - 1] = strides[i] * dims[i];
        }
        Self { offset: 0, item: 0, dims: dims.into(), strides }
    }

    /// Repeats the elements along axes that are missing or have the size 1.
    pub(super) fn broadcast(&self, dims: &[usize]) -> Self {
        let missing = dims.len() - self.dims.len();
        let stride = |i: usize| match i.checked_sub(missing) {
            Some(i) if self.dims[i] != 1 => self.strides[i],
            _ => 0,
        };
        Self { dims: dims.into(), strides: (0..dims.len()).map(stride).collect(), ..*self }
    }

    /// Permutes the axes.
    pub(super) fn permuted(&self, axes: &[usize]) -> Self {
        let pick = |values: &[usize]| axes.iter().map(|axis| values[*axis]).collect();
        Self { dims: pick(&self.dims), strides: pick(&self.strides), ..*self }
    }

    /// Restricts an axis to `count` elements from `start`, in steps.
    pub(super) fn part(&self, axis: usize, start: usize, count: usize, step: usize) -> Self {
        let mut part = self.clone();
        part.offset += start * self.strides[axis];
        // A longer step has no second element.
        part.strides[axis] *= step.min(self.dims[axis]);
        part.dims[axis] = count;
        part
    }

    /// Splits the last axis off. Returns the number of its elements and its stride.
    fn last(&self) -> (usize, usize) {
        (self.dims.last().copied().unwrap_or(1), self.strides.last().copied().unwrap_or(0))
    }
}

/// Calls `row` with the offsets of the first element of each row along the last axis, in all of some values with the same
/// dimensions. The offsets include those of the values.
pub(super) fn rows<const N: usize>(values: [&Strided; N], mut row: impl FnMut([usize; N])) {
    let outer = values[0].dims.len().saturating_sub(1);
    let mut index = vec![0; outer];
    let mut at = values.map(|value| value.offset);
    loop {
        row(at);
        // The next index, like an odometer.
        let mut axis = outer;
        loop {
            if axis == 0 {
                return;
            }
            axis -= 1;
            index[axis] += 1;
            let dim = values[0].dims[axis];
            for (at, value) in at.iter_mut().zip(values) {
                *at += value.strides[axis];
                if index[axis] == dim {
                    *at -= dim * value.strides[axis];
                }
            }
            if index[axis] < dim {
                break;
            }
            index[axis] = 0;
        }
    }
}

/// Calls `element` with the offsets of each element of two values with the same number of elements, in row-major order.
pub(super) fn pairs(from: &Strided, to: &Strided, mut element: impl FnMut(usize, usize)) {
    let ((inner, from_stride), (other, to_stride)) = (from.last(), to.last());
    if from.dims == to.dims {
        return rows([from, to], |[from, to]| {
            (0..inner).for_each(|i| element(from + i * from_stride, to + i * to_stride))
        });
    }
    let mut targets = Vec::new();
    rows([to], |[at]| targets.extend((0..other).map(|i| at + i * to_stride)));
    let mut targets = targets.into_iter();
    rows([from], |[at]| {
        for (i, to) in (0..inner).zip(&mut targets) {
            element(at + i * from_stride, to);
        }
    });
}
