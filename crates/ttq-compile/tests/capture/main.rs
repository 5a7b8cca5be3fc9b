//! Captured networks compute what their modules compute, or the error says why not.

mod agreement;
mod layers;
mod networks;
mod refused;
mod ternary;
