//! Models as their authors write them, without regard to this library.

#![allow(clippy::large_enum_variant, clippy::type_complexity)]

pub(crate) mod containers;
pub(crate) mod convolutional;
pub(crate) mod gpt;
pub(crate) mod mlp;
pub(crate) mod own_layers;
pub(crate) mod random;
pub(crate) mod recurrent;
