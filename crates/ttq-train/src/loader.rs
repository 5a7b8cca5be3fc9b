//! A data loader whose order and augmentation are a function of seed, epoch and index.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::{JoinHandle, spawn};

use burn::data::dataloader::batcher::Batcher;
use burn::data::dataloader::{DataLoader, DataLoaderIterator, Progress};
use burn::prelude::*;

/// Makes the item of an index in an epoch (both are told, so that augmentation can depend on them). Runs on the loader's
/// threads.
pub type MakeItem<I> = Arc<dyn Fn(usize, usize) -> I + Send + Sync>;

/// So many finished batches of each worker wait in line before it rests.
const PREFETCH: usize = 2;

/// A [`DataLoader`] for exact resume: what it yields in an epoch is a pure function of its seed, the epoch and nothing
/// else. Burn's own loaders draw from one generator for the whole run, so a resumed run sees other data.
///
/// - The order of epoch `e` is a Fisher-Yates shuffle from the last place to the second. With `mix` the finalizer of
///   splitmix64 and `s = mix(seed ^ mix(e))`, draw `k` (from 1) is `mix(s + k)` modulo the number of places left. It does
///   not depend on the version of any random-number crate.
/// - Every call of `iter` is the next epoch, beginning with [`first_epoch`](Self::first_epoch).
/// - Items and batches are made on threads of the loader's own and delivered in order; dropping the iterator ends them.
/// - A slice, which is what Burn gives each of several devices, takes the same share of *every* batch, so that all devices
///   together see exactly the batches that one device would see. The slice `[start, end)` of `n` items is, of a batch of
///   `b`, from `round(b start / n)` up to `round(b end / n)`; where that is empty it yields no batch. Rounding makes the
///   shares of `d` devices equal wherever `d` divides `b`, also where it does not divide `n`.
pub struct ReproducibleLoader<B: Backend, I, O> {
    make: MakeItem<I>,
    batcher: Arc<dyn Batcher<B, I, O>>,
    device: B::Device,
    len: usize,
    batch_size: usize,
    seed: Option<u64>,
    first_epoch: usize,
    next_epoch: AtomicUsize,
    workers: usize,
    whole_batches: bool,
    /// The part of every batch that this loader yields, as fractions of `len`.
    share: (usize, usize),
}

impl<B: Backend, I, O> Clone for ReproducibleLoader<B, I, O> {
    /// The clone counts its epochs from the first.
    fn clone(&self) -> Self {
        Self {
            make: self.make.clone(),
            batcher: self.batcher.clone(),
            device: self.device.clone(),
            next_epoch: AtomicUsize::new(self.first_epoch),
            ..*self
        }
    }
}

impl<B: Backend, I, O> ReproducibleLoader<B, I, O> {
    /// A loader of `len` items in their own order.
    ///
    /// # Panics
    /// Where `batch_size` is 0.
    pub fn new(
        len: usize,
        make: MakeItem<I>,
        batcher: Arc<dyn Batcher<B, I, O>>,
        batch_size: usize,
        device: B::Device,
    ) -> Self {
        assert!(batch_size > 0, "ReproducibleLoader: the batch size must be above 0");
        Self {
            make,
            batcher,
            device,
            len,
            batch_size,
            seed: None,
            first_epoch: 1,
            next_epoch: AtomicUsize::new(1),
            workers: 2,
            whole_batches: false,
            share: (0, len),
        }
    }

    /// Shuffles, differently in every epoch.
    #[must_use]
    pub fn shuffle(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// The epoch of the first call of `iter`: 1, or one after the checkpoint that training resumes from.
    #[must_use]
    pub fn first_epoch(mut self, epoch: usize) -> Self {
        self.first_epoch = epoch;
        self.next_epoch = AtomicUsize::new(epoch);
        self
    }

    /// Number of threads that make batches, 2 unless set.
    #[must_use]
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers.max(1);
        self
    }

    /// Leaves out a last batch that is smaller than the others. (Which items are left out differs by epoch; `num_items`
    /// still counts them, `progress` does not.)
    #[must_use]
    pub fn without_partial_batch(mut self) -> Self {
        self.whole_batches = true;
        self
    }

    /// The items of an epoch: this loader's part of each batch.
    fn batches(&self, epoch: usize) -> Vec<Vec<usize>> {
        let mut order: Vec<usize> = (0..self.len).collect();
        if let Some(seed) = self.seed {
            shuffle(&mut order, mix(seed ^ mix(epoch as u64)));
        }
        let (start, end) = self.share;
        order
            .chunks(self.batch_size)
            .filter(|batch| !self.whole_batches || batch.len() == self.batch_size)
            .map(|batch| batch[self.part(start, batch.len())..self.part(end, batch.len())].to_vec())
            .filter(|batch| !batch.is_empty())
            .collect()
    }

    /// `at` of `len` items, in a batch of `n`: rounded to the nearest, for Burn rounds the ends of its slices down, and a
    /// second rounding down would give the first of two devices 63 of 128 items.
    fn part(&self, at: usize, n: usize) -> usize {
        let (at, n, len) = (at as u128, n as u128, self.len as u128);
        ((2 * n * at + len) / (2 * len).max(1)) as usize
    }
}

/// The finalizer of splitmix64.
fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Fisher-Yates. The bias of the modulo is below 2^-40 for any list that fits in memory.
fn shuffle(order: &mut [usize], mut state: u64) {
    for last in (1..order.len()).rev() {
        state = state.wrapping_add(1);
        order.swap(last, (mix(state) % (last as u64 + 1)) as usize);
    }
}

impl<B, I, O> DataLoader<B, O> for ReproducibleLoader<B, I, O>
where
    B: Backend,
    I: 'static,
    O: Send + 'static,
{
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<O> + 'a> {
        let epoch = self.next_epoch.fetch_add(1, Ordering::Relaxed);
        let batches = Arc::new(self.batches(epoch));
        let workers = (0..self.workers.min(batches.len()))
            .map(|first| {
                let (sender, receiver) = sync_channel(PREFETCH);
                let (batches, step) = (batches.clone(), self.workers.min(batches.len()));
                let (make, batcher, device) = (self.make.clone(), self.batcher.clone(), self.device.clone());
                let thread = spawn(move || {
                    for batch in batches.iter().skip(first).step_by(step) {
                        let items = batch.iter().map(|index| make(*index, epoch)).collect();
                        if sender.send(batcher.batch(items, &device)).is_err() {
                            return; // Nobody listens any more.
                        }
                    }
                });
                Worker { receiver, thread: Some(thread) }
            })
            .collect();
        let total = batches.iter().map(Vec::len).sum();
        Box::new(Batches { workers, batches, next: 0, processed: 0, total })
    }

    fn num_items(&self) -> usize {
        self.share.1 - self.share.0
    }

    fn to_device(&self, device: &B::Device) -> Arc<dyn DataLoader<B, O>> {
        Arc::new(Self { device: device.clone(), ..self.clone() })
    }

    fn slice(&self, start: usize, end: usize) -> Arc<dyn DataLoader<B, O>> {
        let (first, last) = self.share;
        let end = first.saturating_add(end).min(last);
        let share = (first.saturating_add(start).min(end), end);
        Arc::new(Self { share, ..self.clone() })
    }
}

struct Worker<O> {
    receiver: Receiver<O>,
    thread: Option<JoinHandle<()>>,
}

/// The batches of one epoch; batch `i` comes from worker `i` modulo their number.
struct Batches<O> {
    workers: Vec<Worker<O>>,
    batches: Arc<Vec<Vec<usize>>>,
    next: usize,
    processed: usize,
    total: usize,
}

impl<O> Iterator for Batches<O> {
    type Item = O;

    fn next(&mut self) -> Option<O> {
        let batch = self.batches.get(self.next)?;
        let index = self.next % self.workers.len();
        let worker = &mut self.workers[index];
        let Ok(output) = worker.receiver.recv() else {
            // The thread ended early: it panicked. Its panic goes on here.
            return match worker.thread.take().map(JoinHandle::join) {
                Some(Err(panic)) => resume_unwind(panic),
                _ => None,
            };
        };
        self.next += 1;
        self.processed += batch.len();
        Some(output)
    }
}

impl<O> Drop for Batches<O> {
    /// Workers stop at the next batch that nobody takes. They are waited for, so that none uses the device any more.
    fn drop(&mut self) {
        let threads: Vec<_> = self.workers.drain(..).filter_map(|Worker { thread, .. }| thread).collect();
        for thread in threads {
            // A panic in a batch that nobody asked for is no one's business.
            drop(thread.join());
        }
    }
}

impl<O> DataLoaderIterator<O> for Batches<O> {
    fn progress(&self) -> Progress {
        Progress::new(self.processed, self.total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::backend::Flex;
    use burn::data::dataloader::split::split_dataloader;

    struct Collect;

    impl Batcher<Flex, (usize, usize), Vec<(usize, usize)>> for Collect {
        fn batch(&self, items: Vec<(usize, usize)>, _device: &burn_flex::FlexDevice) -> Vec<(usize, usize)> {
            items
        }
    }

    type Loader = ReproducibleLoader<Flex, (usize, usize), Vec<(usize, usize)>>;

    fn loader(len: usize, batch_size: usize) -> Loader {
        let make: MakeItem<(usize, usize)> = Arc::new(|index, epoch| (index, epoch));
        Loader::new(len, make, Arc::new(Collect), batch_size, Default::default()).shuffle(7)
    }

    fn epoch(loader: &dyn DataLoader<Flex, Vec<(usize, usize)>>) -> Vec<Vec<(usize, usize)>> {
        loader.iter().collect()
    }

    fn indices(batches: &[Vec<(usize, usize)>]) -> Vec<usize> {
        batches.iter().flatten().map(|(index, _)| *index).collect()
    }

    #[test]
    fn every_epoch_is_another_permutation_and_repeats_with_the_seed() {
        let (a, b) = (loader(23, 4), loader(23, 4));
        let first = epoch(&a);
        assert_eq!(first, epoch(&b));
        let second = epoch(&a);
        assert_eq!(second, epoch(&b));
        assert_ne!(indices(&first), indices(&second));
        assert!(first.iter().flatten().all(|(_, epoch)| *epoch == 1));
        assert!(second.iter().flatten().all(|(_, epoch)| *epoch == 2));
        for batches in [first, second] {
            let mut sorted = indices(&batches);
            sorted.sort_unstable();
            assert_eq!(sorted, (0..23).collect::<Vec<_>>());
            assert_eq!(batches.iter().map(Vec::len).collect::<Vec<_>>(), [4, 4, 4, 4, 4, 3]);
        }
    }

    #[test]
    fn a_resumed_loader_goes_on_where_the_uninterrupted_one_does() {
        let whole = loader(23, 4);
        let epochs: Vec<_> = (0..4).map(|_| epoch(&whole)).collect();
        let resumed = loader(23, 4).first_epoch(3);
        assert_eq!([epoch(&resumed), epoch(&resumed)], epochs[2..]);
        assert_eq!(epoch(&*loader(23, 4).first_epoch(3).to_device(&Default::default())), epochs[2]);
    }

    #[test]
    fn the_number_of_threads_changes_nothing() {
        let expected = epoch(&loader(50, 3));
        for workers in [1, 3, 8, 99] {
            assert_eq!(epoch(&loader(50, 3).workers(workers)), expected);
        }
    }

    #[test]
    fn slices_together_are_the_batches_of_the_whole() {
        for devices in [2, 3] {
            let whole = epoch(&loader(47, 6));
            let slices = split_dataloader(Arc::new(loader(47, 6)), &vec![Default::default(); devices]);
            assert_eq!(slices.iter().map(|slice| slice.num_items()).sum::<usize>(), 47);
            let parts: Vec<_> = slices.iter().map(|slice| epoch(&**slice)).collect();
            for (index, batch) in whole.iter().enumerate() {
                let together: Vec<_> = parts.iter().flat_map(|part| part[index].clone()).collect();
                assert_eq!(&together, batch);
            }
        }
    }

    #[test]
    fn a_slice_of_a_slice_is_its_share_of_every_batch() {
        let whole = epoch(&loader(40, 8));
        let slice = loader(40, 8).slice(20, 40).slice(5, 10);
        assert_eq!(slice.num_items(), 5);
        let found = epoch(&*slice);
        assert_eq!(found, whole.iter().map(|batch| batch[5..6].to_vec()).collect::<Vec<_>>());
        // Out of range and backwards are empty.
        assert_eq!(loader(40, 8).slice(0, 5).slice(5, 90).num_items(), 0);
        assert_eq!(loader(40, 8).slice(7, 3).num_items(), 0);
    }

    #[test]
    fn devices_get_equal_shares_where_they_divide_the_batch() {
        for len in [47, 48, 49, 50] {
            let slices = split_dataloader(Arc::new(loader(len, 6).without_partial_batch()), &[Default::default(); 2]);
            for slice in slices {
                assert_eq!(epoch(&*slice).iter().map(Vec::len).collect::<Vec<_>>(), vec![3; len / 6], "{len} items");
            }
        }
    }

    #[test]
    fn a_slice_yields_no_batch_where_its_share_is_empty() {
        // The last batch holds one item for three devices.
        let slices = split_dataloader(Arc::new(loader(13, 6)), &[Default::default(); 3]);
        let counts: Vec<_> = slices.iter().map(|slice| epoch(&**slice).len()).collect();
        assert_eq!(counts.iter().sum::<usize>(), 7, "{counts:?}");
    }

    #[test]
    fn the_order_is_the_same_on_every_machine_and_in_every_version() {
        // The first value of splitmix64 from seed 0, as published; the orders were computed apart, from the documentation.
        assert_eq!(mix(0), 0xe220_a839_7b1d_cdaf);
        let loader = loader(10, 10).shuffle(42);
        assert_eq!(indices(&epoch(&loader)), [7, 8, 3, 1, 6, 5, 0, 9, 4, 2]);
        assert_eq!(indices(&epoch(&loader)), [3, 5, 1, 4, 2, 8, 0, 6, 9, 7]);
    }

    #[test]
    fn a_partial_batch_can_be_left_out() {
        let batches = epoch(&loader(23, 4).without_partial_batch());
        assert_eq!(batches.iter().map(Vec::len).collect::<Vec<_>>(), [4; 5]);
    }

    #[test]
    fn progress_counts_items() {
        let loader = loader(10, 4);
        let mut iterator = loader.iter();
        let mut seen = vec![];
        while iterator.next().is_some() {
            seen.push((iterator.progress().items_processed, iterator.progress().items_total));
        }
        assert_eq!(seen, [(4, 10), (8, 10), (10, 10)]);
    }

    #[test]
    fn an_empty_set_yields_no_batch() {
        assert!(epoch(&loader(0, 4)).is_empty());
        assert!(epoch(&*loader(0, 4).slice(0, 0)).is_empty());
    }

    #[test]
    fn an_iterator_dropped_early_leaves_no_thread_behind() {
        for (workers, taken) in [(1, 0), (2, 1), (8, 5)] {
            let made = Arc::new(AtomicUsize::new(0));
            let counter = made.clone();
            let make: MakeItem<(usize, usize)> = Arc::new(move |index, epoch| {
                counter.fetch_add(1, Ordering::Relaxed);
                (index, epoch)
            });
            let loader = Loader::new(1000, make.clone(), Arc::new(Collect), 2, Default::default()).workers(workers);
            let mut iterator = loader.iter();
            assert_eq!(iterator.by_ref().take(taken).count(), taken);
            drop(iterator);
            assert_eq!(Arc::strong_count(&make), 2, "the loader's and this one");
            // Bounded: what was taken, the line of each worker, one batch in hand and one in the making.
            assert!(made.load(Ordering::Relaxed) <= 2 * (taken + workers * (PREFETCH + 2)));
        }
    }

    #[test]
    fn a_panic_in_a_batch_that_nobody_takes_is_silent() {
        let make: MakeItem<(usize, usize)> = Arc::new(|index, epoch| {
            assert!(index < 2, "item {index} is broken");
            (index, epoch)
        });
        let loader = Loader::new(9, make, Arc::new(Collect), 2, Default::default()).workers(1);
        let mut iterator = loader.iter();
        assert_eq!(iterator.next().map(|batch| batch.len()), Some(2));
        drop(iterator);
    }

    #[test]
    #[should_panic(expected = "item 5 is broken")]
    fn a_panic_on_a_loader_thread_reaches_the_reader() {
        let make: MakeItem<(usize, usize)> = Arc::new(|index, epoch| {
            assert!(index != 5, "item {index} is broken");
            (index, epoch)
        });
        epoch(&Loader::new(9, make, Arc::new(Collect), 2, Default::default()));
    }
}
