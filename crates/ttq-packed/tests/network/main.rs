//! Compiled networks, compared with the definition of their operations in float64.

mod equals_reference;
mod resnet;
