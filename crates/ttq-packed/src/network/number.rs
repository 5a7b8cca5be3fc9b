//! Numbers in the JSON of a graph, which has none that are not finite: these are strings.

use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Number {
    Finite(f32),
    Other(Name),
}

#[derive(Serialize, Deserialize)]
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

impl From<Number> for f32 {
    fn from(number: Number) -> Self {
        match number {
            Number::Finite(x) => x,
            Number::Other(Name::Infinity) => Self::INFINITY,
            Number::Other(Name::MinusInfinity) => Self::NEG_INFINITY,
            Number::Other(Name::NaN) => Self::NAN,
        }
    }
}

/// Serializes one number.
pub(super) mod one {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::Number;

    pub(in crate::network) fn serialize<S: Serializer>(x: &f32, serializer: S) -> Result<S::Ok, S::Error> {
        Number::from(*x).serialize(serializer)
    }

    pub(in crate::network) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f32, D::Error> {
        Number::deserialize(deserializer).map(f32::from)
    }
}

/// Serializes two numbers.
pub(super) mod pair {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::Number;

    pub(in crate::network) fn serialize<S: Serializer>(pair: &[f32; 2], serializer: S) -> Result<S::Ok, S::Error> {
        pair.map(Number::from).serialize(serializer)
    }

    pub(in crate::network) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[f32; 2], D::Error> {
        <[Number; 2]>::deserialize(deserializer).map(|pair| pair.map(f32::from))
    }
}
