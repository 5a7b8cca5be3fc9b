//! A model that was read must survive writing and reading unchanged.
//!
//! Each input is tried unchanged and with a repaired checksum.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ttq_packed::{Coding, PackedModel};

#[path = "../../tests/file/forge.rs"]
#[allow(dead_code, reason = "the tests use the other functions")]
mod forge;

fuzz_target!(|file: &[u8]| {
    check(file);
    check(&forge::repair_checksum(file.to_vec()));
});

fn check(file: &[u8]) {
    let Ok(model) = PackedModel::read(file) else { return };
    for coding in [Coding::Plain, Coding::Archive] {
        let written = model.write(coding).expect("a model that was read can be written");
        assert_eq!(PackedModel::read(&written).expect("a written model can be read"), model);
    }
}
