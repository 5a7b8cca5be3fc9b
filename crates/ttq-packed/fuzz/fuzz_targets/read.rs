//! Whatever is read is a model: it is written and read again as it was. Every input is tried as it is and with its checksum mended.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ttq_packed::{Coding, PackedModel};

#[path = "../../tests/file/forge.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod forge;

fuzz_target!(|file: &[u8]| {
    check(file);
    check(&forge::seal(file.to_vec()));
});

fn check(file: &[u8]) {
    let Ok(model) = PackedModel::read(file) else { return };
    for coding in [Coding::Plain, Coding::Archive] {
        let written = model.write(coding).expect("what is read can be written");
        assert_eq!(PackedModel::read(&written).expect("what is written can be read"), model);
    }
}
