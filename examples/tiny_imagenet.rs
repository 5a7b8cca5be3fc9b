//! Tiny ImageNet.
fn main() {}
