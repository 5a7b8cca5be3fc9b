//! Classifies ten digits on a Cortex-M4F, and prints the classes, the logits and the instructions over semihosting.
//!
//! `cargo xtask mcu` builds it and runs it in QEMU.

#![no_std]
#![no_main]

mod board;

use core::fmt::Write;

use board::{Console, Instructions};

// `NETWORK`, compiled by build.rs from `FILE`; `MEAN` and `STD` of the pixels; `EXPECTED`, the logits of another machine.
include!(concat!(env!("OUT_DIR"), "/network.rs"));

/// Ten digits of the MNIST test set, 0 to 9, each of 28 × 28 pixels from 0 to 255.
static DIGITS: &[u8] = include_bytes!("../digits.bin");

/// The memory of all activations.
static mut ARENA: [f32; NETWORK.arena] = [0.0; NETWORK.arena];
/// The pixels of a digit as the network reads them.
static mut PIXELS: [f32; NETWORK.input] = [0.0; NETWORK.input];

/// Runs after the memory is set up. Returns `true` if all digits are right.
fn main() -> bool {
    let mut right = 0;
    let (arena, pixels) = (&raw mut ARENA, &raw mut PIXELS);
    // SAFETY: this function is called once and by no interrupt, so that no other reference exists.
    let (arena, pixels) = unsafe { (&mut *arena, &mut *pixels) };
    let arithmetic = if cfg!(feature = "int8") { "int8" } else { "float32" };
    let arena_bytes = size_of_val(arena);
    let _ = writeln!(Console, "{arithmetic}: an arena of {arena_bytes} bytes");
    for (digit, image) in DIGITS.chunks(NETWORK.input).enumerate() {
        let mut logits = [0.0; NETWORK.output];
        let instructions = Instructions::start();
        for (pixel, byte) in pixels.iter_mut().zip(image) {
            *pixel = (f32::from(*byte) / 255.0 - MEAN) / STD;
        }
        let result = NETWORK.run(arena, pixels, &mut logits);
        let instructions = instructions.stop();
        if let Err(error) = result {
            let _ = writeln!(Console, "error: {error}");
            return false;
        }
        let class = (0..logits.len()).fold(0, |best, class| if logits[class] > logits[best] { class } else { best });
        let pairs = || logits.iter().zip(&EXPECTED[digit]);
        let largest = EXPECTED[digit].iter().fold(0.0, |max: f32, logit| max.max(logit.abs()));
        let difference = pairs().fold(0.0, |max: f32, (logit, expected)| max.max((logit - expected).abs()));
        right += usize::from(class == digit);
        let _ = writeln!(
            Console,
            "digit {digit}: class {class}, {instructions} instructions, difference {:e}, logits {logits:?}",
            difference / largest
        );
    }
    right == 10
}
