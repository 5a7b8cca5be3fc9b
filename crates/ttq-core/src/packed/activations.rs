//! The precision of a packed layer's activations, as a type: which one a network has is part of its type.

use std::fmt::Debug;

/// Precision of activations.
pub trait ActivationType: Debug + Clone + Default + Send + Sync + 'static {
    /// Are they quantized to int8?
    const INT8: bool;
}

/// Activations as they are: the result is the dense layer's, up to the order of sums.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Float32;

/// Activations quantized to int8 where the layer computes on the packed form: symmetrically, by the largest magnitude of each row of a
/// matrix and of each image. Faster, and no longer exact: measure the accuracy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Int8;

impl ActivationType for Float32 {
    const INT8: bool = false;
}

impl ActivationType for Int8 {
    const INT8: bool = true;
}
