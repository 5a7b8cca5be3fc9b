//! Iteration over strided views as runs of evenly spaced elements.

/// A row-major index space over `K` strided operands. Adjacent axes that every operand traverses with one stride are
/// merged. The last axis is the run; the leading axes enumerate the runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Runs<const K: usize> {
    /// Sizes of the leading axes and each operand's strides along them.
    leading: Vec<(usize, [isize; K])>,
    /// Number of elements of a run.
    pub(crate) len: usize,
    /// Each operand's stride within a run.
    pub(crate) steps: [isize; K],
    starts: [usize; K],
}

impl Runs<1> {
    /// Returns whether the view is a transposed matrix: two axes, the last of which has the larger stride.
    pub(crate) fn is_transposed_matrix(&self) -> bool {
        self.leading.len() == 1 && self.steps[0] > 1
    }
}

impl<const K: usize> Runs<K> {
    /// Creates the index space of `shape`, where operand `k` starts at offset `starts[k]` and has the strides
    /// `strides[k]`.
    pub(crate) fn new(shape: &[usize], strides: [&[isize]; K], starts: [usize; K]) -> Self {
        let mut axes: Vec<(usize, [isize; K])> = Vec::new();
        for (axis, size) in shape.iter().copied().enumerate() {
            if size == 1 {
                continue;
            }
            let steps = strides.map(|strides| strides[axis]);
            match axes.last_mut() {
                Some((before, outer)) if (0..K).all(|k| outer[k] == steps[k] * size as isize) => {
                    *before *= size;
                    *outer = steps;
                }
                _ => axes.push((size, steps)),
            }
        }
        // A tensor with one element has one run of length one.
        let (len, steps) = axes.pop().unwrap_or((1, [1; K]));
        Self { leading: axes, len, steps, starts }
    }

    /// Returns the operands' offsets, positioned at run `index`.
    pub(crate) fn offsets_from(&self, index: usize) -> StridedOffsets<'_, K> {
        let starts = self.starts.map(|start| start as isize);
        let mut offsets = StridedOffsets { runs: self, counters: vec![0; self.leading.len()], offsets: starts };
        let mut rest = index;
        for (axis, (size, strides)) in self.leading.iter().enumerate().rev() {
            offsets.counters[axis] = rest % size;
            rest /= size;
            for (offset, stride) in offsets.offsets.iter_mut().zip(strides) {
                *offset += stride * offsets.counters[axis] as isize;
            }
        }
        offsets
    }
}

/// The operands' offsets at the start of a run.
pub(crate) struct StridedOffsets<'a, const K: usize> {
    runs: &'a Runs<K>,
    /// Index along each leading axis.
    counters: Vec<usize>,
    offsets: [isize; K],
}

impl<const K: usize> StridedOffsets<'_, K> {
    /// Returns each operand's offset at the start of the current run.
    pub(crate) fn current(&self) -> [usize; K] {
        self.offsets.map(|offset| offset as usize)
    }

    /// Moves to the next run.
    pub(crate) fn advance(&mut self) {
        for (counter, (size, strides)) in self.counters.iter_mut().zip(&self.runs.leading).rev() {
            *counter += 1;
            let back = if *counter == *size { *size as isize } else { 0 };
            for (offset, stride) in self.offsets.iter_mut().zip(strides) {
                *offset += stride * (1 - back);
            }
            if back == 0 {
                return;
            }
            *counter = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_with_even_strides_in_all_operands_are_merged() {
        // A tensor [2, 3, 4, 5] and one value for each of the three channels.
        let runs = Runs::new(&[2, 3, 4, 5], [&[60, 20, 5, 1], &[0, 1, 0, 0]], [0, 7]);
        assert_eq!((runs.len, runs.steps), (20, [1, 0]));
        assert_eq!(runs.leading, [(2, [60, 0]), (3, [20, 1])]);
        let mut offsets = runs.offsets_from(0);
        for index in 0..6 {
            assert_eq!(offsets.current(), [20 * index, 7 + index % 3]);
            assert_eq!(runs.offsets_from(index).current(), offsets.current());
            offsets.advance();
        }
    }

    #[test]
    fn a_contiguous_tensor_is_one_run() {
        let runs = Runs::new(&[8, 1, 16], [&[16, 3, 1]], [5]);
        assert_eq!((runs.len, &runs.leading), (128, &vec![]));
        assert_eq!(Runs::new(&[], [&[]], [3]).offsets_from(0).current(), [3]);
    }

    #[test]
    fn a_flipped_axis_has_decreasing_offsets() {
        let runs = Runs::new(&[3, 2], [&[-2, 1]], [4]);
        assert_eq!((0..3).map(|i| runs.offsets_from(i).current()[0]).collect::<Vec<_>>(), [4, 2, 0]);
    }
}
