//! Compares networks on packed weights with the same networks on dense weights.

mod fold;
mod load;
mod modules;
mod networks;
mod products;
mod ternary;
mod threads;
