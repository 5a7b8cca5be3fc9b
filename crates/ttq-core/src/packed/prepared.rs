//! What kernels make of parameters once.

use std::sync::{Arc, Mutex, PoisonError};

use burn::module::ParamId;

/// What kernels make of parameters once, for as long as these are the same. Clones share it.
#[derive(Debug)]
pub(super) struct Prepared<K>(Arc<Mutex<Option<Made<K>>>>);

/// A kernel, and what it was made of.
#[derive(Debug)]
struct Made<K> {
    of: Of,
    kernel: Arc<K>,
}

/// The parameters' identifiers, and two numbers beside them: the padding, or the device.
pub(super) type Of = (Vec<ParamId>, [usize; 2]);

impl<K> Prepared<K> {
    /// What was made of these parameters, or what `make` makes of them now.
    pub(super) fn get(&self, of: Of, make: impl FnOnce() -> K) -> Arc<K> {
        let mut prepared = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &*prepared {
            Some(made) if made.of == of => made.kernel.clone(),
            _ => {
                let kernel = Arc::new(make());
                *prepared = Some(Made { of, kernel: kernel.clone() });
                kernel
            }
        }
    }
}

impl<K> Clone for Prepared<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K> Default for Prepared<K> {
    fn default() -> Self {
        Self(Arc::default())
    }
}
