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

/// Batches that two of a worker's own wait in line before it rests.
const PREFETCH: usize = 2;

/// A [`DataLoader`] for exact resume: what it yields in an epoch is a pure function of its seed, the epoch and nothing
/// else. Burn's own loaders draw from one generator for the whole run, so a resumed run sees other data.
///
/// - The order of epoch `e` is a Fisher-Yates shuffle driven by splitmix64 from `(seed, e)`; it does not depend on the
///   version of any random-number crate.
/// - Every call of `iter` is the next epoch, beginning with [`first_epoch`](Self::first_epoch).
/// - Items and batches are made on threads of the loader's own and delivered in order; dropping the iterator ends them.
/// - A slice, which is what Burn gives each of several devices, takes the same share of *every* batch, so that all devices
///   together see exactly the batches that one device would see.
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

    /// Leaves out a last batch that is smaller than the others. (Which items are left out differs by epoch.)
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
        let part = |at: usize, n: usize| (n as u128 * at as u128 / self.len.max(1) as u128) as usize;
        order
            .chunks(self.batch_size)
            .filter(|batch| !self.whole_batches || batch.len() == self.batch_size)
            .map(|batch| batch[part(self.share.0, batch.len())..part(self.share.1, batch.len())].to_vec())
            .filter(|batch| !batch.is_empty())
            .collect()
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
        let share = ((first + start).min(last), (first + end).min(last));
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
        let slice = loader(40, 10).slice(0, 20).slice(10, 20);
        assert_eq!(slice.num_items(), 10);
        assert_eq!(epoch(&*slice).len(), 4);
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
    fn an_empty_set_yields_no_batch_and_an_iterator_may_be_dropped_early() {
        assert!(epoch(&loader(0, 4)).is_empty());
        let loader = loader(1000, 2);
        let mut iterator = loader.iter();
        assert!(iterator.next().is_some());
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
