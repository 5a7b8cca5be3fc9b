//! Compiled networks, compared with the definition of their operations in float64.

#![allow(unreachable_pub, reason = "`resnet` is also part of a benchmark")]

mod equals_reference;
mod int8;
mod operations;
mod resnet;
