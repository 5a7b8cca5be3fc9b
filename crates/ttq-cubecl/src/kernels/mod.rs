//! The kernels, one file for each operation: its equations, its launch, and its device code.

pub(crate) mod activations;
pub(crate) mod gradients;
pub(crate) mod layout;
pub(crate) mod order;
pub(crate) mod product;
pub(crate) mod source;
pub(crate) mod ternarize;
pub(crate) mod threshold;
pub(crate) mod tile;
pub(crate) mod vector;
