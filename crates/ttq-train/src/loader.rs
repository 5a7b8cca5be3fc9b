//! A data loader whose order and augmentation are a function of seed, epoch and index.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::{JoinHandle, spawn};

use burn::data::dataloader::batcher::Batcher;
use burn::data::dataloader::{DataLoader, DataLoaderIterator, Progress};
use burn::data::dataset::Dataset;
use burn::prelude::*;

use crate::seed::{item_seed, splitmix64};

/// Identifies one use of a dataset item. An augmentation that depends on this value alone repeats exactly when training
/// resumes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ItemKey {
    /// Index of the item in the dataset, from 0.
    pub index: usize,
    /// The epoch, from 1.
    pub epoch: usize,
    /// Seed of this use: [`item_seed`](crate::item_seed) of the loader's seed, the epoch and the index.
    pub seed: u64,
}

/// Makes the item of a key. It runs on the loader's threads.
pub type MakeItem<I> = Arc<dyn Fn(ItemKey) -> I + Send + Sync>;

/// Number of finished batches that a worker buffers before it blocks.
const PREFETCH: usize = 2;

/// A [`DataLoader`] for exact resume: the batches of an epoch are a pure function of the seed and the epoch.
///
/// Burn's own loaders draw from one random generator for the whole run, so that a resumed run sees other data.
///
/// - The order of epoch `e` is a Fisher-Yates shuffle from the last position to the second. With `mix` the finalizer of
///   splitmix64 and `s = mix(seed ^ mix(e))`, draw `k` (from 1) is `mix(s + k)` modulo the number of positions left.
///   The order does not depend on the version of any random-number crate.
/// - Each call of `iter` starts the next epoch, beginning with [`first_epoch`](Self::first_epoch).
/// - Worker threads make items and batches; the iterator yields them in order. Dropping the iterator ends the threads.
/// - A slice, which Burn gives to each of several devices, takes the same share of *every* batch: all devices together
///   see exactly the batches that one device would see. The slice `[start, end)` of `n` items takes, of a batch of `b`
///   items, those from `round(b start / n)` up to `round(b end / n)`. It yields no batch where that range is empty.
///   Rounding makes the shares of `d` devices equal wherever `d` divides `b`, even where `d` does not divide `n`.
///
/// ```
/// use std::sync::Arc;
///
/// use burn::backend::Flex;
/// use burn::data::dataloader::DataLoader;
/// use burn::data::dataloader::batcher::Batcher;
/// use burn::data::dataset::InMemDataset;
/// use burn::prelude::*;
/// use ttq_train::ReproducibleLoader;
///
/// struct ToTensor;
///
/// impl<B: Backend> Batcher<B, f32, Tensor<B, 1>> for ToTensor {
///     fn batch(&self, items: Vec<f32>, device: &B::Device) -> Tensor<B, 1> {
///         Tensor::from_floats(items.as_slice(), device)
///     }
/// }
///
/// let dataset = Arc::new(InMemDataset::new(vec![1.0, 2.0, 3.0, 4.0, 5.0]));
/// let loader: ReproducibleLoader<Flex, _, _> =
///     ReproducibleLoader::from_dataset(dataset, Arc::new(ToTensor), 2, Default::default())
///         .augment(|value, key| value + (key.seed % 10) as f32 / 100.0)
///         .shuffle(42);
/// assert_eq!(loader.iter().count(), 3);
/// ```
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
    seeds_backend: bool,
    /// The part of each batch that this loader yields, as start and end of `len` items.
    share: (usize, usize),
}

impl<B: Backend, I, O> Clone for ReproducibleLoader<B, I, O> {
    /// The clone starts again at its first epoch.
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

impl<B: Backend, I: 'static, O> ReproducibleLoader<B, I, O> {
    /// Creates a loader of a Burn dataset, in the dataset's order.
    ///
    /// # Panics
    /// If `batch_size` is 0. The iterator panics if the dataset has no item at an index below its length.
    pub fn from_dataset(
        dataset: Arc<dyn Dataset<I>>,
        batcher: Arc<dyn Batcher<B, I, O>>,
        batch_size: usize,
        device: B::Device,
    ) -> Self {
        let len = dataset.len();
        let make = move |key: ItemKey| match dataset.get(key.index) {
            Some(item) => item,
            None => panic!("ReproducibleLoader: the dataset has no item {} of {len}", key.index),
        };
        Self::new(len, Arc::new(make), batcher, batch_size, device)
    }

    /// Applies `change` to every item. Let random changes depend on the key alone, so that they repeat when training
    /// resumes.
    #[must_use]
    pub fn augment(mut self, change: impl Fn(I, ItemKey) -> I + Send + Sync + 'static) -> Self {
        let make = self.make;
        self.make = Arc::new(move |key| change(make(key), key));
        self
    }
}

impl<B: Backend, I, O> ReproducibleLoader<B, I, O> {
    /// Creates a loader of `len` items, in order of their indices.
    ///
    /// # Panics
    /// If `batch_size` is 0.
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
            seeds_backend: false,
            share: (0, len),
        }
    }

    /// Shuffles the items, differently in each epoch.
    #[must_use]
    pub fn shuffle(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Sets the epoch of the first call of `iter`: 1 by default, or the epoch after the checkpoint that training
    /// resumes from.
    #[must_use]
    pub fn first_epoch(mut self, epoch: usize) -> Self {
        self.first_epoch = epoch;
        self.next_epoch = AtomicUsize::new(epoch);
        self
    }

    /// Sets the number of threads that make batches, 2 by default.
    #[must_use]
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers.max(1);
        self
    }

    /// Leaves out the last batch of an epoch if it is smaller than the others. The items left out differ between
    /// epochs; `num_items` counts them, `progress` does not.
    #[must_use]
    pub fn without_partial_batch(mut self) -> Self {
        self.whole_batches = true;
        self
    }

    /// Seeds the backend's generator of random numbers at the start of each epoch, so that what the model draws, such as
    /// masks of dropout, is a function of the seed and the epoch too. Slices have seeds of their own.
    pub(crate) fn seeding_backend(mut self) -> Self {
        self.seeds_backend = true;
        self
    }

    /// Returns the number of batches of an epoch, over all devices.
    pub fn batches_per_epoch(&self) -> usize {
        if self.whole_batches { self.len / self.batch_size } else { self.len.div_ceil(self.batch_size) }
    }

    /// Returns the numbers of items of an epoch's batches, over all devices.
    pub(crate) fn batch_sizes(&self) -> Vec<usize> {
        let first = |batch: usize| batch * self.batch_size;
        (0..self.batches_per_epoch()).map(|batch| self.batch_size.min(self.len - first(batch))).collect()
    }

    /// Returns the indices of an epoch's items: this loader's part of each batch.
    fn batches(&self, epoch: usize) -> Vec<Vec<usize>> {
        let mut order: Vec<usize> = (0..self.len).collect();
        if let Some(seed) = self.seed {
            shuffle(&mut order, splitmix64(seed ^ splitmix64(epoch as u64)));
        }
        let (start, end) = self.share;
        order
            .chunks(self.batch_size)
            .filter(|batch| !self.whole_batches || batch.len() == self.batch_size)
            .map(|batch| batch[self.part(start, batch.len())..self.part(end, batch.len())].to_vec())
            .filter(|batch| !batch.is_empty())
            .collect()
    }

    /// Converts position `at` of `len` items to a position in a batch of `n`, rounded to the nearest. (Burn rounds the
    /// ends of its slices down; rounding down twice would give the first of two devices 63 of 128 items.)
    fn part(&self, at: usize, n: usize) -> usize {
        let (at, n, len) = (at as u128, n as u128, self.len as u128);
        ((2 * n * at + len) / (2 * len).max(1)) as usize
    }
}

/// Shuffles by Fisher-Yates. The bias of the modulo is below 2^-40 for any list that fits in memory.
fn shuffle(order: &mut [usize], mut state: u64) {
    for last in (1..order.len()).rev() {
        state = state.wrapping_add(1);
        order.swap(last, (splitmix64(state) % (last as u64 + 1)) as usize);
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
        if self.seeds_backend {
            // Not the seed of an item.
            B::seed(&self.device, item_seed(!self.seed.unwrap_or_default(), epoch, self.share.0));
        }
        let workers = (0..self.workers.min(batches.len()))
            .map(|first| {
                let (sender, receiver) = sync_channel(PREFETCH);
                let (batches, step) = (batches.clone(), self.workers.min(batches.len()));
                let (make, batcher, device) = (self.make.clone(), self.batcher.clone(), self.device.clone());
                let seed = self.seed.unwrap_or_default();
                let thread = spawn(move || {
                    for batch in batches.iter().skip(first).step_by(step) {
                        let key = |index| ItemKey { index, epoch, seed: item_seed(seed, epoch, index) };
                        let items = batch.iter().map(|index| make(key(*index))).collect();
                        if sender.send(batcher.batch(items, &device)).is_err() {
                            return; // The iterator was dropped.
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

/// The batches of one epoch. Batch `i` comes from worker `i` modulo the number of workers.
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
            // The thread ended early because it panicked: the panic continues here.
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
    /// Ends the workers at their next batch and joins them, so that none uses the device afterwards.
    fn drop(&mut self) {
        let threads: Vec<_> = self.workers.drain(..).filter_map(|Worker { thread, .. }| thread).collect();
        for thread in threads {
            // Panics in unconsumed batches are ignored.
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
    use burn::data::dataset::InMemDataset;

    struct Collect;

    impl Batcher<Flex, (usize, usize), Vec<(usize, usize)>> for Collect {
        fn batch(&self, items: Vec<(usize, usize)>, _device: &burn_flex::FlexDevice) -> Vec<(usize, usize)> {
            items
        }
    }

    type Loader = ReproducibleLoader<Flex, (usize, usize), Vec<(usize, usize)>>;

    fn loader(len: usize, batch_size: usize) -> Loader {
        let make: MakeItem<(usize, usize)> = Arc::new(|key| (key.index, key.epoch));
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
        // These orders were computed by another program, from the documentation.
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
    fn batches_per_epoch_is_the_number_of_batches_that_an_epoch_yields() {
        for len in [0, 3, 4, 23, 24] {
            assert_eq!(loader(len, 4).batches_per_epoch(), epoch(&loader(len, 4)).len());
            let whole = || loader(len, 4).without_partial_batch();
            assert_eq!(whole().batches_per_epoch(), epoch(&whole()).len());
        }
    }

    #[test]
    fn a_dataset_is_loaded_item_by_item_and_its_augmentation_repeats() {
        let dataset = Arc::new(InMemDataset::new((0..10).map(|k| (k, 0)).collect()));
        let loader = || {
            Loader::from_dataset(dataset.clone(), Arc::new(Collect), 3, Default::default())
                .augment(|(item, _), key| (item, (key.seed % 1000) as usize))
                .shuffle(5)
        };
        let whole = loader();
        let epochs = [epoch(&whole), epoch(&whole)];
        let mut items = indices(&epochs[0]);
        items.sort_unstable();
        assert_eq!(items, (0..10).collect::<Vec<_>>());
        assert_eq!(epoch(&loader().first_epoch(2)), epochs[1]);
        let change = |batches: &[Vec<(usize, usize)>]| batches.iter().flatten().map(|item| item.1).collect::<Vec<_>>();
        assert_ne!(change(&epochs[0]), change(&epochs[1]));
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
            let make: MakeItem<(usize, usize)> = Arc::new(move |key| {
                counter.fetch_add(1, Ordering::Relaxed);
                (key.index, key.epoch)
            });
            let loader = Loader::new(1000, make.clone(), Arc::new(Collect), 2, Default::default()).workers(workers);
            let mut iterator = loader.iter();
            assert_eq!(iterator.by_ref().take(taken).count(), taken);
            drop(iterator);
            assert_eq!(Arc::strong_count(&make), 2, "the loader's and this one");
            // Bounded: the batches taken, each worker's buffer, one batch being sent and one being made.
            assert!(made.load(Ordering::Relaxed) <= 2 * (taken + workers * (PREFETCH + 2)));
        }
    }

    #[test]
    fn a_panic_in_an_unconsumed_batch_is_ignored() {
        let make: MakeItem<(usize, usize)> = Arc::new(|key| {
            assert!(key.index < 2, "item {} is broken", key.index);
            (key.index, key.epoch)
        });
        let loader = Loader::new(9, make, Arc::new(Collect), 2, Default::default()).workers(1);
        let mut iterator = loader.iter();
        assert_eq!(iterator.next().map(|batch| batch.len()), Some(2));
        drop(iterator);
    }

    #[test]
    #[should_panic(expected = "item 5 is broken")]
    fn a_panic_on_a_loader_thread_reaches_the_reader() {
        let make: MakeItem<(usize, usize)> = Arc::new(|key| {
            assert!(key.index != 5, "item {} is broken", key.index);
            (key.index, key.epoch)
        });
        epoch(&Loader::new(9, make, Arc::new(Collect), 2, Default::default()));
    }
}
