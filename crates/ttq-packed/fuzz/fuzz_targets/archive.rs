//! Decoded codes must survive encoding and decoding unchanged. The first two bytes of an input are the number of
//! values.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ttq_packed::archive::{decode, encode};

fuzz_target!(|input: &[u8]| {
    let Some((len, bytes)) = input.split_first_chunk() else { return };
    let len = usize::from(u16::from_le_bytes(*len));
    if let Ok(codes) = decode(bytes, len) {
        assert_eq!(decode(&encode(&codes), len).expect("an encoded archive can be decoded"), codes);
    }
});
