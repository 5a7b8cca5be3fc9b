//! Tests of the file format: round trips, rejection of invalid files, and readers in Python.

mod allocations;
mod archive;
mod bad_files;
mod damage;
mod forge;
mod mutations;
mod python;
mod random;
mod round_trip;
