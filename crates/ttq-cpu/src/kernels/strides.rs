//! Index spaces of tensors that are views: which runs of memory they visit.

/// An index space in row-major order with `K` operands: axes that every operand walks through evenly are one axis. The last
/// axis is the run, the others lead from run to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Runs<const K: usize> {
    /// Sizes of the leading axes and each operand's strides along them.
    leading: Vec<(usize, [isize; K])>,
    /// Elements of a run.
    pub(crate) len: usize,
    /// Each operand's stride within a run.
    pub(crate) steps: [isize; K],
    starts: [usize; K],
}

impl Runs<1> {
    /// Two axes of which the first has the smaller steps: a matrix that is read by columns.
    pub(crate) fn is_transposed_matrix(&self) -> bool {
        self.leading.len() == 1 && self.steps[0] > 1
    }
}

impl<const K: usize> Runs<K> {
    /// The space of `shape`, where operand `k` starts at `starts[k]` and has the strides `strides[k]`.
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
        // A tensor of one element has one run of one.
        let (len, steps) = axes.pop().unwrap_or((1, [1; K]));
        Self { leading: axes, len, steps, starts }
    }

    /// Cuts long runs, so that there are several to share among threads.
    pub(crate) fn cut(mut self, len: usize) -> Self {
        if self.leading.is_empty() && self.len > len && self.len.is_multiple_of(len) {
            self.leading.push((self.len / len, self.steps.map(|step| step * len as isize)));
            self.len = len;
        }
        self
    }

    /// Where each operand is at the start of run `index`.
    pub(crate) fn walk(&self, index: usize) -> Walk<'_, K> {
        let mut walk = Walk { runs: self, counters: vec![0; self.leading.len()], at: self.starts.map(|s| s as isize) };
        let mut rest = index;
        for (axis, (size, strides)) in self.leading.iter().enumerate().rev() {
            walk.counters[axis] = rest % size;
            rest /= size;
            for (at, stride) in walk.at.iter_mut().zip(strides) {
                *at += stride * walk.counters[axis] as isize;
            }
        }
        walk
    }
}

/// Goes from run to run.
pub(crate) struct Walk<'a, const K: usize> {
    runs: &'a Runs<K>,
    counters: Vec<usize>,
    at: [isize; K],
}

impl<const K: usize> Walk<'_, K> {
    /// Each operand's place at the start of this run.
    pub(crate) fn at(&self) -> [usize; K] {
        self.at.map(|at| at as usize)
    }

    pub(crate) fn advance(&mut self) {
        for (counter, (size, strides)) in self.counters.iter_mut().zip(&self.runs.leading).rev() {
            *counter += 1;
            let back = if *counter == *size { *size as isize } else { 0 };
            for (at, stride) in self.at.iter_mut().zip(strides) {
                *at += stride * (1 - back);
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
    fn axes_that_all_operands_walk_evenly_are_one() {
        // [2, 3, 4, 5] against one value for each of the three channels.
        let runs = Runs::new(&[2, 3, 4, 5], [&[60, 20, 5, 1], &[0, 1, 0, 0]], [0, 7]);
        assert_eq!((runs.len, runs.steps), (20, [1, 0]));
        assert_eq!(runs.leading, [(2, [60, 0]), (3, [20, 1])]);
        let mut walk = runs.walk(0);
        for index in 0..6 {
            assert_eq!(walk.at(), [20 * index, 7 + index % 3]);
            assert_eq!(runs.walk(index).at(), walk.at());
            walk.advance();
        }
    }

    #[test]
    fn a_whole_tensor_is_one_run_until_it_is_cut() {
        let runs = Runs::new(&[8, 1, 16], [&[16, 3, 1]], [5]);
        assert_eq!((runs.len, &runs.leading), (128, &vec![]));
        let runs = runs.cut(32);
        assert_eq!((runs.len, runs.walk(3).at()), (32, [101]));
        assert_eq!(Runs::new(&[], [&[]], [3]).walk(0).at(), [3]);
    }

    #[test]
    fn a_flipped_axis_walks_backwards() {
        let runs = Runs::new(&[3, 2], [&[-2, 1]], [4]);
        assert_eq!((0..3).map(|i| runs.walk(i).at()[0]).collect::<Vec<_>>(), [4, 2, 0]);
    }
}
