//! What the examples share: data, networks and the command line.

pub mod model;
