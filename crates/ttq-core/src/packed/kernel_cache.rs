//! Cache of the kernel of a packed layer.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Cache of the kernel of one layer.
///
/// A kernel stays cached as long as it belongs to the current parameters of the layer, whatever other layers compute.
/// A clone of the layer has a cache of its own, and clones with the same parameters share one kernel.
#[derive(Debug)]
pub(super) struct KernelCache<K> {
    /// The kernel of the last call.
    own: Mutex<Option<Arc<K>>>,
    clones: Arc<Mutex<Kernels<K>>>,
}

/// The kernels of a layer and its clones.
#[derive(Debug)]
struct Kernels<K> {
    cached: Vec<Weak<K>>,
    /// The newest kernel, so that a clone that exists for one call only does not build its own.
    newest: Option<Arc<K>>,
}

impl<K> KernelCache<K> {
    /// Returns the cached kernel for which `is_current` returns `true`. Otherwise builds a kernel and stores it.
    pub(super) fn get_or_build(&self, is_current: impl Fn(&K) -> bool, build: impl FnOnce() -> K) -> Arc<K> {
        if let Some(kernel) = lock(&self.own).as_ref().filter(|kernel| is_current(kernel)) {
            return kernel.clone();
        }
        // Kernels are built without a lock, as building may wait for other threads.
        let shared = lock(&self.clones).find(is_current);
        let kernel = shared.unwrap_or_else(|| {
            let kernel = Arc::new(build());
            lock(&self.clones).insert(&kernel);
            kernel
        });
        *lock(&self.own) = Some(kernel.clone());
        kernel
    }
}

impl<K> Kernels<K> {
    fn find(&self, is_current: impl Fn(&K) -> bool) -> Option<Arc<K>> {
        self.cached.iter().filter_map(Weak::upgrade).find(|kernel| is_current(kernel))
    }

    fn insert(&mut self, kernel: &Arc<K>) {
        self.newest = Some(kernel.clone());
        self.cached.retain(|kernel| kernel.strong_count() > 0);
        self.cached.push(Arc::downgrade(kernel));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<K> Clone for KernelCache<K> {
    fn clone(&self) -> Self {
        Self { own: Mutex::new(lock(&self.own).clone()), clones: self.clones.clone() }
    }
}

impl<K> Default for KernelCache<K> {
    fn default() -> Self {
        let kernels = Kernels { cached: Vec::new(), newest: None };
        Self { own: Mutex::default(), clones: Arc::new(Mutex::new(kernels)) }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// A layer whose parameters and kernel are the same number. Counts how often kernels are built.
    fn call(cache: &KernelCache<u32>, parameters: u32, builds: &Cell<usize>) {
        let kernel = cache.get_or_build(
            |kernel| *kernel == parameters,
            || {
                builds.set(builds.get() + 1);
                parameters
            },
        );
        assert_eq!(*kernel, parameters);
    }

    #[test]
    fn clones_with_other_parameters_do_not_evict_each_other() {
        let builds = Cell::new(0);
        let layers = vec![KernelCache::default(); 5];
        for _ in 0..3 {
            layers.iter().zip(0..).for_each(|(cache, parameters)| call(cache, parameters, &builds));
        }
        assert_eq!(builds.get(), 5);
    }

    #[test]
    fn clones_with_the_same_parameters_share_a_kernel_even_if_each_exists_for_one_call() {
        let builds = Cell::new(0);
        let layer = KernelCache::default();
        (0..3).for_each(|_| call(&layer.clone(), 7, &builds));
        (0..3).for_each(|_| call(&layer, 7, &builds));
        vec![layer; 3].iter().for_each(|cache| call(cache, 7, &builds));
        assert_eq!(builds.get(), 1);
    }

    #[test]
    fn changed_parameters_free_the_kernel_before() {
        let builds = Cell::new(0);
        let layer = KernelCache::default();
        (0..100).for_each(|parameters| call(&layer, parameters, &builds));
        assert_eq!(builds.get(), 100);
        assert!(lock(&layer.clones).cached.len() <= 2);
    }
}
