//! The file of a graph is refused, or its network runs.
//!
//! Each input is tried unchanged and with repaired checksums. Start from `seeds/network`:
//!
//! ```sh
//! cargo +nightly fuzz run network corpus/network seeds/network
//! ```

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/file/allocations.rs"]
mod allocations;
#[path = "../../tests/network/hostile.rs"]
mod hostile;

fuzz_target!(|file: &[u8]| {
    let repaired = hostile::repair(file.to_vec());
    for int8 in [false, true] {
        for file in [file, &repaired] {
            let _ = hostile::check(file, int8);
        }
    }
});
