//! The file: what is written is read, what is wrong is refused.

mod archive;
mod bad_files;
mod forge;
mod mutations;
mod python;
mod random;
mod round_trip;
