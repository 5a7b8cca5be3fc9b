//! Elements of a value by their logical index, wherever they are stored, and loops over them.

use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

use super::Order;
use crate::network::layout::Image;

/// Most axes of a loop: a value has at most 2³⁰ elements, and axes of size 1 are left out.
const MAX_AXES: usize = 30;
/// Number of elements from which on rows are not joined: tasks divide rows.
const LONG: usize = 1 << 10;

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

    /// Returns the same elements under the dimensions of a view.
    pub(in crate::network) fn viewed(&self, view: &View) -> Self {
        let stride = |axis: &ViewAxis| self.strides.get(axis.stored).map_or(0, |stride| stride * axis.factor);
        Self { dims: view.dims(), strides: view.axes.iter().map(stride).collect(), ..*self }
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

    /// Splits the axes before `axis` from the others.
    pub(super) fn split_at(&self, axis: usize) -> [Self; 2] {
        [0..axis, axis..self.dims.len()].map(|axes| {
            let strides = self.strides[axes.clone()].into();
            Self { dims: self.dims[axes].into(), strides, ..*self }
        })
    }

    /// Returns the index of an element of an item, by its position in row-major order.
    pub(super) fn at(&self, mut position: usize) -> usize {
        let mut at = self.offset;
        for (dim, stride) in self.dims.iter().zip(&self.strides).rev() {
            at += position % dim * stride;
            position /= dim;
        }
        at
    }

    /// Splits the axes of two values with the same number of elements, so that both have the same dimensions and each
    /// element keeps its position in row-major order. Returns `None` if an axis of one cannot be split at those of the other.
    pub(super) fn aligned(&self, other: &Self) -> Option<[Self; 2]> {
        let axes = |value: &Self| -> Vec<(usize, usize)> {
            value.dims.iter().copied().zip(value.strides.iter().copied()).filter(|(dim, _)| *dim != 1).collect()
        };
        let mut left = [axes(self), axes(other)];
        let (mut dims, mut strides) = (Vec::new(), [Vec::new(), Vec::new()]);
        while let [Some((a, _)), Some((b, _))] = [0, 1].map(|i| left[i].last().copied()) {
            let common = a.min(b);
            dims.push(common);
            for (axes, strides) in left.iter_mut().zip(&mut strides) {
                let (dim, stride) = axes.last_mut()?;
                if *dim % common != 0 {
                    return None;
                }
                strides.push(*stride);
                (*dim, *stride) = (*dim / common, *stride * common);
                if *dim == 1 {
                    axes.pop();
                }
            }
        }
        dims.reverse();
        let [a, b] = strides.map(|mut strides| {
            strides.reverse();
            strides
        });
        Some([Self { dims: dims.clone(), strides: a, ..*self }, Self { dims, strides: b, ..*other }])
    }
}

/// A stored value with other dimensions, each of which is a stored one or a part of it.
#[derive(Debug, Clone)]
pub(in crate::network) struct View {
    axes: Vec<ViewAxis>,
}

#[derive(Debug, Clone, Copy)]
struct ViewAxis {
    dim: usize,
    stored: usize,
    /// Factor of the stride of the stored dimension.
    factor: usize,
}

impl View {
    /// The stored dimensions.
    pub(in crate::network) fn new(dims: &[usize]) -> Self {
        let axis = |(stored, dim): (usize, &usize)| ViewAxis { dim: *dim, stored, factor: 1 };
        Self { axes: dims.iter().enumerate().map(axis).collect() }
    }

    fn dims(&self) -> Vec<usize> {
        self.axes.iter().map(|axis| axis.dim).collect()
    }

    pub(in crate::network) fn permuted(&self, axes: &[usize]) -> Self {
        Self { axes: axes.iter().map(|axis| self.axes[*axis]).collect() }
    }

    /// Splits axes. Returns `None` if an axis of the result is no part of one axis.
    pub(in crate::network) fn reshaped(&self, dims: &[usize]) -> Option<Self> {
        let mut left = self.axes.iter().copied().filter(|axis| axis.dim != 1);
        let mut current = ViewAxis { dim: 1, stored: 0, factor: 0 };
        let split = |dim: &usize| {
            if *dim != 1 && current.dim == 1 {
                current = left.next()?;
            }
            if !current.dim.is_multiple_of(*dim) {
                return None;
            }
            current.dim /= dim;
            let factor = if *dim == 1 { 0 } else { current.factor * current.dim };
            Some(ViewAxis { dim: *dim, factor, ..current })
        };
        Some(Self { axes: dims.iter().map(split).collect::<Option<_>>()? })
    }
}

/// Nested loops over the elements of some values with the same dimensions, and over items.
///
/// The loops have the order of the strides of the first value: its neighbours form rows, the innermost loop.
#[derive(Debug, Clone)]
pub(super) struct Loops<const N: usize> {
    /// Number of rows along each axis, and the distances between them.
    outer: Vec<(usize, [usize; N])>,
    /// Number of elements of a row.
    pub(super) len: usize,
    /// Distances between the elements of a row.
    pub(super) steps: [usize; N],
    /// Number of rows of an item.
    pub(super) rows: usize,
    offset: [usize; N],
    item: [usize; N],
}

impl<const N: usize> Loops<N> {
    pub(super) fn new(values: [&Strided; N]) -> Self {
        let mut loops = Self::lines(values);
        if let Some((len, steps)) = loops.outer.pop() {
            loops.rows /= len;
            (loops.len, loops.steps) = (len, steps);
        }
        loops
    }

    /// Creates loops whose rows are single elements.
    pub(super) fn lines(values: [&Strided; N]) -> Self {
        let mut axes: Vec<(usize, [usize; N])> = (0..values[0].dims.len())
            .map(|axis| (values[0].dims[axis], values.map(|value| value.strides[axis])))
            .filter(|(dim, _)| *dim != 1)
            .collect();
        axes.sort_by_key(|(_, strides)| core::cmp::Reverse(strides[0]));
        let mut outer: Vec<(usize, [usize; N])> = Vec::new();
        for (dim, strides) in axes {
            match outer.last_mut() {
                Some((last, distances)) if *last * dim <= LONG && *distances == strides.map(|stride| stride * dim) => {
                    (*last, *distances) = (*last * dim, strides);
                }
                _ => outer.push((dim, strides)),
            }
        }
        let rows = outer.iter().map(|(dim, _)| dim).product();
        let (offset, item) = (values.map(|value| value.offset), values.map(|value| value.item));
        Self { outer, len: 1, steps: [0; N], rows, offset, item }
    }

    /// Returns the indices of the first elements of some rows, which count through all items.
    #[inline(always)]
    pub(super) fn iter(&self, rows: Range<usize>) -> Rows<'_, N> {
        let (mut index, mut at, mut rest) = ([0; MAX_AXES], self.offset, rows.start);
        for (axis, (dim, distances)) in self.outer.iter().enumerate().rev() {
            index[axis] = rest % dim;
            rest /= dim;
            shift(&mut at, distances, index[axis]);
        }
        shift(&mut at, &self.item, rest);
        Rows { loops: self, left: rows.len(), index, at }
    }
}

/// Moves indices by a number of elements.
#[inline(always)]
fn shift<const N: usize>(at: &mut [usize; N], distances: &[usize; N], count: usize) {
    for n in 0..N {
        at[n] = at[n].wrapping_add(count.wrapping_mul(distances[n]));
    }
}

/// An iterator over rows.
pub(super) struct Rows<'a, const N: usize> {
    loops: &'a Loops<N>,
    left: usize,
    index: [usize; MAX_AXES],
    at: [usize; N],
}

impl<const N: usize> Iterator for Rows<'_, N> {
    type Item = [usize; N];

    #[inline(always)]
    fn next(&mut self) -> Option<[usize; N]> {
        self.left = self.left.checked_sub(1)?;
        let at = self.at;
        // The next row, like an odometer.
        let mut axis = self.loops.outer.len();
        loop {
            if axis == 0 {
                shift(&mut self.at, &self.loops.item, 1);
                break;
            }
            axis -= 1;
            let (dim, distances) = &self.loops.outer[axis];
            self.index[axis] += 1;
            if self.index[axis] < *dim {
                shift(&mut self.at, distances, 1);
                break;
            }
            self.index[axis] = 0;
            shift(&mut self.at, distances, (dim - 1).wrapping_neg());
        }
        Some(at)
    }
}
