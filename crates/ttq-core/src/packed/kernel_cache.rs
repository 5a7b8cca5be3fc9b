//! Cache of the kernel of a packed layer.

use std::sync::{Arc, Mutex, PoisonError};

use burn::module::ParamId;

/// Cache of one kernel, which is rebuilt when its parameters change. Clones share the cache.
#[derive(Debug)]
pub(super) struct KernelCache<K>(Arc<Mutex<Option<CachedKernel<K>>>>);

/// A kernel and the key that it was built for.
#[derive(Debug)]
struct CachedKernel<K> {
    key: CacheKey,
    kernel: Arc<K>,
}

/// Key of a cached kernel: the identifiers of the parameters, and two more numbers, the padding or the device.
pub(super) type CacheKey = (Vec<ParamId>, [usize; 2]);

impl<K> KernelCache<K> {
    /// Returns the cached kernel if it was built for `key`. Otherwise builds a kernel and stores it.
    pub(super) fn get_or_build(&self, key: CacheKey, build: impl FnOnce() -> K) -> Arc<K> {
        let mut cache = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &*cache {
            Some(cached) if cached.key == key => cached.kernel.clone(),
            _ => {
                let kernel = Arc::new(build());
                *cache = Some(CachedKernel { key, kernel: kernel.clone() });
                kernel
            }
        }
    }
}

impl<K> Clone for KernelCache<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K> Default for KernelCache<K> {
    fn default() -> Self {
        Self(Arc::default())
    }
}
