//! Runs ternary networks on microcontrollers.
//!
//! A build script compiles a graph of [`ttq-packed`](https://docs.rs/ttq-packed) to a [`Program`]: constants in Rust, with the
//! place of every value in one arena whose size is a constant, too. The program computes from the 2-bit codes where they are in
//! the packed file, so that weights take no memory beside the file in flash. It neither allocates nor reads the file's header.
//!
//! A ternary layer adds the inputs at codes +1 and those at codes -1, and multiplies each sum once:
//!
//! `y = activation(w_pos Σ₊ x - w_neg Σ₋ x + bias)`.
//!
//! With bytes as activations (int8), `x = scale (q - zero)`, the sums are exact integers, and with the feature `dsp` one
//! instruction of a Cortex-M4 (`UXTAB16`) adds two bytes. Layers whose weights are floats stay in float32.
//!
//! In the build script, with the feature `build`, which is enabled by default:
//!
//! ```no_run
//! # #[cfg(feature = "build")] {
//! use ttq_micro::build::{compile, source};
//! use ttq_packed::network::{Graph, Int8};
//!
//! let file = std::fs::read("network.safetensors")?;
//! let program = compile(&Graph::read(&file)?, Int8::Off)?;
//! let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
//! std::fs::write(out.join("program.rs"), source("NETWORK", &program, "FILE", &file))?;
//! # }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! On the microcontroller, without default features:
//!
//! ```text
//! static FILE: &[u8] = include_bytes!("network.safetensors");
//! include!(concat!(env!("OUT_DIR"), "/program.rs")); // pub static NETWORK: ttq_micro::Program
//!
//! let mut arena = [0.0; NETWORK.arena];
//! NETWORK.run(&mut arena, &pixels, &mut logits)?;
//! ```

#![cfg_attr(not(feature = "build"), no_std)]

#[cfg(feature = "build")]
pub mod build;
mod convolution;
mod linear;
mod pool;
mod program;
mod value;

pub use program::{Function, Layer, Program, RunError, Weights, part};

/// Compiles the code of `README.md` as a doc test.
#[cfg(all(doctest, feature = "build"))]
#[doc = include_str!("../README.md")]
struct ReadmeDocTests;
