//! WebAssembly interface of [`ttq-packed`](ttq_packed): load a network from the bytes of a packed file, and run it.
//!
//! The exported functions take and return numbers and addresses in the memory of the module, so that a page calls them without generated
//! code:
//!
//! ```js
//! const { exports } = new WebAssembly.Instance(new WebAssembly.Module(bytes));
//! const session = exports.ttq_open(file.length);
//! if (!session) throw Error("the memory does not suffice");
//! new Uint8Array(exports.memory.buffer, exports.ttq_file(session), file.length).set(file);
//! let length = exports.ttq_load(session, 0);
//! if (length) throw Error(text(exports.ttq_error(session), length));
//! new Float32Array(exports.memory.buffer, exports.ttq_input(session), pixels.length).set(pixels);
//! length = exports.ttq_run(session); // the outputs are at exports.ttq_output(session)
//! ```
//!
//! A damaged file is an error of one sentence. If the memory of the module does not suffice, the module stops with a trap, and the page
//! needs a new instance.

#![cfg_attr(target_arch = "wasm32", no_std)]

extern crate alloc;

#[cfg(target_arch = "wasm32")]
mod runtime;

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use ttq_packed::Codes;
use ttq_packed::network::{Arena, CompileOptions, Constant, Graph, Int8, Network, NetworkError, Source};

/// Maximum number of elements of all values of an item: 128 MiB, half of the default, because pages have less memory.
const MAX_ELEMENTS: usize = 1 << 25;

/// A network with the memory of its file, input and output.
#[derive(Debug, Default)]
pub struct Session {
    file: Vec<u8>,
    network: Option<Network>,
    arena: Arena,
    input: Vec<f32>,
    output: Vec<f32>,
    /// Codes of the ternary weights, in the order of the graph.
    weights: Vec<Codes>,
    codes: Vec<i8>,
    error: String,
}

impl Session {
    fn load(&mut self, int8: u32) -> Result<(), String> {
        self.network = None;
        let int8 = Int8::from_number(int8).ok_or("the second argument of `ttq_load` must be 0, 1 or 2")?;
        self.compile(int8).map_err(|error| error.to_string())
    }

    fn compile(&mut self, int8: Int8) -> Result<(), NetworkError> {
        let graph = Graph::read(&self.file)?;
        let mut options = CompileOptions::default().with_int8(int8);
        options.max_elements = MAX_ELEMENTS;
        let network = Network::compile(&graph, &options)?;
        self.input = vec![0.0; network.input_dims().iter().product()];
        self.output = vec![0.0; network.output_dims().iter().product()];
        self.weights = graph
            .values()
            .filter_map(|value| match graph.source(value) {
                Source::Constant(Constant::Ternary(weight)) => Some(weight.codes().clone()),
                _ => None,
            })
            .collect();
        self.network = Some(network);
        Ok(())
    }

    fn run(&mut self) -> Result<(), String> {
        let network = self.network.as_ref().ok_or("no network is loaded: call `ttq_load` first")?;
        network.run(&mut self.arena, &self.input, &mut self.output).map_err(|error| error.to_string())
    }

    /// Keeps the sentence of an error, and returns its length.
    fn finish(&mut self, result: Result<(), String>) -> usize {
        self.error = result.err().unwrap_or_default();
        self.error.len()
    }
}

/// Opens a session with memory for a file of `len` bytes, or returns null if the memory does not suffice.
#[unsafe(no_mangle)]
pub extern "C" fn ttq_open(len: usize) -> Option<Box<Session>> {
    let mut file = Vec::new();
    file.try_reserve_exact(len).ok()?;
    file.resize(len, 0);
    Some(Box::new(Session { file, ..Session::default() }))
}

/// Closes a session.
#[unsafe(no_mangle)]
pub extern "C" fn ttq_close(_session: Option<Box<Session>>) {}

/// Returns the address of the file, whose bytes the caller writes before [`ttq_load`].
#[unsafe(no_mangle)]
pub extern "C" fn ttq_file(session: &mut Session) -> *mut u8 {
    session.file.as_mut_ptr()
}

/// Reads and compiles the network in the file: in float32 (0), or in int8, without the first and the last product (1) or with them (2), for
/// which the file must have ranges of values. After an error no network is loaded.
///
/// Returns 0, or the number of bytes of the sentence of an error.
#[unsafe(no_mangle)]
pub extern "C" fn ttq_load(session: &mut Session, int8: u32) -> usize {
    let result = session.load(int8);
    session.finish(result)
}

/// Returns the address of the sentence of the last error, in UTF-8.
#[unsafe(no_mangle)]
pub extern "C" fn ttq_error(session: &Session) -> *const u8 {
    session.error.as_ptr()
}

/// Returns a dimension of an item of the input (`of_output` is 0) or output (any other number), or 0 if it has no such axis.
#[unsafe(no_mangle)]
pub extern "C" fn ttq_dim(session: &Session, of_output: u32, axis: usize) -> usize {
    let dims = |network| if of_output == 0 { Network::input_dims(network) } else { Network::output_dims(network) };
    let dims = session.network.as_ref().map(dims);
    dims.and_then(|dims| dims.get(axis).copied()).unwrap_or(0)
}

/// Returns the address of the floats of the input, which the caller writes before [`ttq_run`].
#[unsafe(no_mangle)]
pub extern "C" fn ttq_input(session: &mut Session) -> *mut f32 {
    session.input.as_mut_ptr()
}

/// Computes the output. Returns 0, or the number of bytes of the sentence of an error.
#[unsafe(no_mangle)]
pub extern "C" fn ttq_run(session: &mut Session) -> usize {
    let result = session.run();
    session.finish(result)
}

/// Returns the address of the floats of the output.
#[unsafe(no_mangle)]
pub extern "C" fn ttq_output(session: &Session) -> *const f32 {
    session.output.as_ptr()
}

/// Unpacks the codes of a ternary weight, counted in the order of the graph. Returns their number, or 0 if there is no such weight.
#[unsafe(no_mangle)]
pub extern "C" fn ttq_unpack(session: &mut Session, weight: usize) -> usize {
    session.codes = session.weights.get(weight).map(Codes::unpack).unwrap_or_default();
    session.codes.len()
}

/// Returns the address of the unpacked codes: bytes -1, 0 and +1 in row-major order.
#[unsafe(no_mangle)]
pub extern "C" fn ttq_codes(session: &Session) -> *const i8 {
    session.codes.as_ptr()
}
