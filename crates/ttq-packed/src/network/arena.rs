//! The memory plan: values that are never alive at the same time share memory.

use alloc::vec;
use alloc::vec::Vec;

/// Alignment of values, in elements: a cache line.
const ALIGN: usize = 16;

/// A value to place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lifetime {
    /// Number of elements.
    pub(super) len: usize,
    /// The step that writes the value.
    pub(super) first: usize,
    /// The last step that reads it.
    pub(super) last: usize,
}

/// Returns the offset of each value, and the number of elements of all.
///
/// Values are placed by descending size, each at the lowest offset that is free during its lifetime.
pub(super) fn place(values: &[Lifetime]) -> (Vec<usize>, usize) {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by_key(|i| core::cmp::Reverse(values[*i].len));
    let (mut offsets, mut total) = (vec![0; values.len()], 0);
    for (placed, i) in order.iter().enumerate() {
        let (value, len) = (values[*i], values[*i].len.next_multiple_of(ALIGN));
        let together = |other: &Lifetime| other.first <= value.last && value.first <= other.last;
        let mut taken: Vec<(usize, usize)> = order[..placed]
            .iter()
            .filter(|other| together(&values[**other]))
            .map(|other| (offsets[*other], offsets[*other] + values[*other].len.next_multiple_of(ALIGN)))
            .collect();
        taken.sort_unstable();
        let mut offset = 0;
        for (start, end) in taken {
            if offset + len <= start {
                break;
            }
            offset = offset.max(end);
        }
        total = total.max(offset + len);
        offsets[*i] = offset;
    }
    (offsets, total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_are_alive_at_the_same_time_do_not_overlap() {
        let mut rng = fastrand::Rng::with_seed(1);
        for _ in 0..200 {
            let value = |_| {
                let first = rng.usize(0..20);
                Lifetime { len: rng.usize(1..100), first, last: first + rng.usize(0..5) }
            };
            let values: Vec<Lifetime> = (0..30).map(value).collect();
            let (offsets, total) = place(&values);
            for i in 0..values.len() {
                assert!(offsets[i] + values[i].len <= total && offsets[i].is_multiple_of(ALIGN));
                for j in 0..i {
                    let together = values[i].first <= values[j].last && values[j].first <= values[i].last;
                    let apart = offsets[i] + values[i].len <= offsets[j] || offsets[j] + values[j].len <= offsets[i];
                    assert!(!together || apart, "{values:?} {offsets:?}");
                }
            }
        }
    }

    #[test]
    fn a_chain_needs_the_memory_of_two_neighbours() {
        let values: Vec<Lifetime> = (0..10).map(|i| Lifetime { len: 64, first: i, last: i + 1 }).collect();
        assert_eq!(place(&values).1, 128);
    }
}
