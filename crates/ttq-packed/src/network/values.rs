//! What is known of some of the values of a graph.

use alloc::vec::Vec;
use core::ops::Index;

use super::Value;

/// A map from values, whose indices are small.
#[derive(Debug, Clone)]
pub(super) struct ValueMap<T> {
    entries: Vec<Option<T>>,
}

impl<T> Default for ValueMap<T> {
    fn default() -> Self {
        Self { entries: Vec::new() }
    }
}

impl<T> ValueMap<T> {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Sets the entry of a value.
    pub(super) fn insert(&mut self, value: Value, entry: T) {
        if self.entries.len() <= value.0 {
            self.entries.resize_with(value.0 + 1, || None);
        }
        self.entries[value.0] = Some(entry);
    }

    pub(super) fn get(&self, value: &Value) -> Option<&T> {
        self.entries.get(value.0)?.as_ref()
    }

    pub(super) fn contains_key(&self, value: &Value) -> bool {
        self.get(value).is_some()
    }

    pub(super) fn remove(&mut self, value: &Value) -> Option<T> {
        self.entries.get_mut(value.0)?.take()
    }

    /// Returns the entries in the order of the values.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Value, &T)> {
        self.entries.iter().enumerate().filter_map(|(i, entry)| Some((Value(i), entry.as_ref()?)))
    }
}

impl<T> Index<&Value> for ValueMap<T> {
    type Output = T;

    fn index(&self, value: &Value) -> &T {
        self.get(value).expect("the value has an entry")
    }
}
