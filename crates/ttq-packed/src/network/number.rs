//! Numbers in the JSON of a graph, which has none that are not finite: these are strings.

use core::fmt;

use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

#[derive(Serialize)]
#[serde(untagged)]
enum Number {
    Finite(f32),
    Other(Name),
}

#[derive(Serialize)]
enum Name {
    #[serde(rename = "inf")]
    Infinity,
    #[serde(rename = "-inf")]
    MinusInfinity,
    #[serde(rename = "nan")]
    NaN,
}

impl From<f32> for Number {
    fn from(x: f32) -> Self {
        match x {
            x if x.is_finite() => Self::Finite(x),
            x if x.is_nan() => Self::Other(Name::NaN),
            x if x > 0.0 => Self::Other(Name::Infinity),
            _ => Self::Other(Name::MinusInfinity),
        }
    }
}

/// A number that was read.
struct Read(f32);

impl<'de> Deserialize<'de> for Read {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NumberVisitor;

        impl Visitor<'_> for NumberVisitor {
            type Value = Read;

            fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
                formatter.write_str("a number, or \"inf\", \"-inf\" or \"nan\"")
            }

            fn visit_f64<E: Error>(self, x: f64) -> Result<Read, E> {
                Ok(Read(x as f32))
            }

            fn visit_i64<E: Error>(self, x: i64) -> Result<Read, E> {
                Ok(Read(x as f32))
            }

            fn visit_u64<E: Error>(self, x: u64) -> Result<Read, E> {
                Ok(Read(x as f32))
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<Read, E> {
                match name {
                    "inf" => Ok(Read(f32::INFINITY)),
                    "-inf" => Ok(Read(f32::NEG_INFINITY)),
                    "nan" => Ok(Read(f32::NAN)),
                    _ => Err(E::invalid_value(Unexpected::Str(name), &self)),
                }
            }
        }

        deserializer.deserialize_any(NumberVisitor)
    }
}

/// Serializes one number.
pub(super) mod one {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::{Number, Read};

    pub(in crate::network) fn serialize<S: Serializer>(x: &f32, serializer: S) -> Result<S::Ok, S::Error> {
        Number::from(*x).serialize(serializer)
    }

    pub(in crate::network) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f32, D::Error> {
        Read::deserialize(deserializer).map(|Read(x)| x)
    }
}

/// Serializes two numbers.
pub(super) mod pair {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::{Number, Read};

    pub(in crate::network) fn serialize<S: Serializer>(pair: &[f32; 2], serializer: S) -> Result<S::Ok, S::Error> {
        pair.map(Number::from).serialize(serializer)
    }

    pub(in crate::network) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[f32; 2], D::Error> {
        <[Read; 2]>::deserialize(deserializer).map(|pair| pair.map(|Read(x)| x))
    }
}
