//! The file of a graph is refused, or its network runs.
//!
//! Each input is tried unchanged and with repaired checksums. Start from `seeds/network`:
//!
//! ```sh
//! cargo +nightly fuzz run network corpus/network seeds/network
//! ```

#![no_main]

use libfuzzer_sys::fuzz_target;
use ttq_packed::network::Int8;

#[path = "../../tests/file/allocations.rs"]
mod allocations;
#[path = "../../tests/network/hostile.rs"]
mod hostile;

fuzz_target!(|file: &[u8]| {
    let repaired = hostile::repair(file.to_vec());
    for int8 in [Int8::Off, Int8::Inner] {
        for file in [file, &repaired] {
            let _ = hostile::check(file, int8);
        }
    }
});
