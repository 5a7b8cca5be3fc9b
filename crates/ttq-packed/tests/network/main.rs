//! Compiled networks, compared with the definition of their operations in float64; their files.

#![allow(unreachable_pub, reason = "`resnet` is also part of a benchmark")]

#[path = "../file/allocations.rs"]
mod allocations;
mod cases;
#[path = "../file/damage.rs"]
mod damage;
mod equals_reference;
mod file;
#[path = "../file/forge.rs"]
#[allow(dead_code, reason = "the tests of the file format use the rest")]
mod forge;
mod hostile;
mod int8;
mod layers;
mod mutations;
mod not_finite;
mod operations;
mod resnet;
