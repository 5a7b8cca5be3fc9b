//! Seeds of single items, derived from one seed by splitmix64.

/// Returns the seed of item `index` in epoch `epoch` of a run with seed `seed`:
///
/// ```text
/// splitmix64(splitmix64(splitmix64(seed) ^ epoch) ^ index)
/// ```
///
/// Use it for everything random that must repeat when a run resumes: augmentation, hold-out splits.
pub fn item_seed(seed: u64, epoch: usize, index: usize) -> u64 {
    [epoch, index].into_iter().fold(splitmix64(seed), |state, value| splitmix64(state ^ value as u64))
}

/// The finalizer of splitmix64 (Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014).
pub(crate) fn splitmix64(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_value_from_seed_0_is_the_published_one() {
        assert_eq!(splitmix64(0), 0xe220_a839_7b1d_cdaf);
    }

    #[test]
    fn seeds_differ_by_run_epoch_and_item() {
        let seeds: std::collections::BTreeSet<u64> = (0..4)
            .flat_map(|run| (0..4).flat_map(move |epoch| (0..100).map(move |index| item_seed(run, epoch, index))))
            .collect();
        assert_eq!(seeds.len(), 1600);
    }
}
