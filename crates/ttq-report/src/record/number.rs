//! Serde functions for numbers that are not finite, which JSON does not have.
//!
//! NaN and infinities are written as `null`, as `serde_json` does, and `null` is read as NaN.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

/// A number, or a collection of numbers, in which `null` is NaN.
pub(crate) trait NullIsNan: Sized {
    /// The same with `None` for `null`.
    type Nullable: for<'de> Deserialize<'de>;

    fn from_nullable(value: Self::Nullable) -> Self;
}

macro_rules! float {
    ($($float:ident),*) => {$(
        impl NullIsNan for $float {
            type Nullable = Option<$float>;

            fn from_nullable(value: Option<$float>) -> Self {
                value.unwrap_or($float::NAN)
            }
        }
    )*};
}

float!(f32, f64);

impl<T: NullIsNan> NullIsNan for Vec<T> {
    type Nullable = Vec<T::Nullable>;

    fn from_nullable(values: Self::Nullable) -> Self {
        values.into_iter().map(T::from_nullable).collect()
    }
}

impl<T: NullIsNan> NullIsNan for BTreeMap<String, T> {
    type Nullable = BTreeMap<String, T::Nullable>;

    fn from_nullable(values: Self::Nullable) -> Self {
        values.into_iter().map(|(name, value)| (name, T::from_nullable(value))).collect()
    }
}

/// For `#[serde(deserialize_with = "null_is_nan")]`.
pub(crate) fn null_is_nan<'de, T: NullIsNan, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    T::Nullable::deserialize(deserializer).map(T::from_nullable)
}
