//! C interface of [`ttq-packed`](ttq_packed): load a network from the bytes of a packed file, and run it.
//!
//! C and C++ include `include/ttq.h` and link `libttq_c.a` or `libttq_c.so`, which `cargo build --release -p ttq-c` makes.
//! `examples/classify.c` is a whole program.

use std::cell::RefCell;
use std::ffi::{CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::slice;

use ttq_packed::network::{Arena, CompileOptions, Int8, Network, NetworkError};

/// What a function returns.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TtqStatus {
    /// No error.
    Ok = 0,
    /// A pointer is null, or not aligned for its type, or a length is larger than the memory of any machine.
    BadPointer = 1,
    /// The bytes are no packed file with a network, or are damaged.
    BadFile = 2,
    /// The network is larger than the options allow.
    TooLarge = 3,
    /// The network has an operation that this library does not compute.
    Unsupported = 4,
    /// The input is not a whole number of items, or the output does not have as many.
    BadLength = 5,
    /// An error of this library. The network that was used must be freed.
    Internal = 6,
    /// The options have a number without a meaning, or ask for int8 and the file has no ranges of values.
    BadOptions = 7,
}

/// Which products are computed in int8: convolutions and linear layers that read a value whose range the file has.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TtqInt8 {
    /// None.
    Off = 0,
    /// All but the first and the last product, which matter most for the accuracy.
    Inner = 1,
    /// All.
    All = 2,
}

/// How a network is compiled. All zeros are the defaults.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct TtqOptions {
    /// A value of `TtqInt8`.
    pub int8: u32,
    /// Maximum number of elements of all values of an item, or 0 for 67,108,864. A file of a few bytes can describe a network of any
    /// size: files that are not trusted need a limit.
    pub max_elements: usize,
}

/// A compiled network with its memory.
#[derive(Debug)]
pub struct TtqNetwork {
    network: Network,
    arena: Arena,
}

/// An error: its status and its sentence.
type Failure = (TtqStatus, String);

thread_local! {
    static LAST_ERROR: RefCell<CString> = RefCell::default();
}

fn set_error(text: &str) {
    let text = CString::new(text.replace('\0', "?")).unwrap_or_default();
    // It fails in a destructor that runs after that of the text.
    LAST_ERROR.try_with(|error| *error.borrow_mut() = text).ok();
}

/// Runs a function, and turns its error or panic into a status.
fn status(function: impl FnOnce() -> Result<(), Failure>) -> TtqStatus {
    let (status, text) = match catch_unwind(AssertUnwindSafe(function)) {
        Ok(Ok(())) => return TtqStatus::Ok,
        Ok(Err(failure)) => failure,
        Err(_) => (TtqStatus::Internal, "an error of ttq: please report it with the file that causes it".to_string()),
    };
    set_error(&text);
    status
}

fn failure(error: NetworkError) -> Failure {
    let status = match error {
        NetworkError::TooLarge { .. } => TtqStatus::TooLarge,
        NetworkError::Unsupported { .. } => TtqStatus::Unsupported,
        NetworkError::Length { .. } => TtqStatus::BadLength,
        NetworkError::NoRanges => TtqStatus::BadOptions,
        _ => TtqStatus::BadFile,
    };
    (status, error.to_string())
}

/// Checks a pointer to some elements.
fn check<T>(what: &str, pointer: *const T, len: usize) -> Result<(), Failure> {
    let reason = if pointer.is_null() {
        "is null"
    } else if !pointer.is_aligned() {
        "is not aligned for its elements"
    } else if len > isize::MAX as usize / size_of::<T>() {
        "has a length that no memory has"
    } else {
        return Ok(());
    };
    Err((TtqStatus::BadPointer, format!("the {what} {reason}")))
}

/// Reads a network from the `len` bytes of a packed file, compiles it, and stores a pointer to it in `network`.
///
/// `options` can be null for the defaults. The bytes are not used after the call. `network` becomes null in the case of an error;
/// otherwise it must be freed by `ttq_free`.
///
/// # Safety
/// `file` must point to `len` bytes, `options` to its type or be null, and `network` to a pointer that can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ttq_load(
    file: *const u8,
    len: usize,
    options: *const TtqOptions,
    network: *mut *mut TtqNetwork,
) -> TtqStatus {
    status(|| {
        check("pointer to the network", network, 1)?;
        // SAFETY: the caller guarantees that the pointer can be written.
        unsafe { network.write(ptr::null_mut()) };
        check("file", file, len)?;
        let mut compile = CompileOptions::default();
        if !options.is_null() {
            check("options", options, 1)?;
            // SAFETY: the caller guarantees its contents.
            let options = unsafe { &*options };
            compile.int8 = Int8::from_number(options.int8).ok_or_else(|| {
                (TtqStatus::BadOptions, format!("`int8` is {}: it must be a value of `TtqInt8`", options.int8))
            })?;
            if options.max_elements > 0 {
                compile.max_elements = options.max_elements;
            }
        }
        // SAFETY: the caller guarantees as many bytes.
        let file = unsafe { slice::from_raw_parts(file, len) };
        let loaded = Network::read(file, &compile).map_err(failure)?;
        let loaded = Box::new(TtqNetwork { network: loaded, arena: Arena::new() });
        // SAFETY: as above.
        unsafe { network.write(Box::into_raw(loaded)) };
        Ok(())
    })
}

/// Frees a network. Null is ignored.
///
/// # Safety
/// `network` must be null or come from `ttq_load`, and must not be used afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ttq_free(network: *mut TtqNetwork) {
    if !network.is_null() {
        // SAFETY: the caller guarantees that `ttq_load` made it and that it is not used any more.
        drop(unsafe { Box::from_raw(network) });
    }
}

/// Stores the dimensions of an item of the input, at most `capacity` of them, and returns their number: 0 if a pointer is not valid, or
/// if an item is a single number.
///
/// # Safety
/// `network` must be null or come from `ttq_load`, and `dims` must point to `capacity` numbers, or be null if that is 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ttq_input_shape(network: *const TtqNetwork, dims: *mut usize, capacity: usize) -> usize {
    // SAFETY: guaranteed by the caller.
    unsafe { shape(network, Network::input_dims, dims, capacity) }
}

/// Stores the dimensions of an item of the output, at most `capacity` of them, and returns their number: 0 if a pointer is not valid, or
/// if an item is a single number.
///
/// # Safety
/// `network` must be null or come from `ttq_load`, and `dims` must point to `capacity` numbers, or be null if that is 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ttq_output_shape(network: *const TtqNetwork, dims: *mut usize, capacity: usize) -> usize {
    // SAFETY: guaranteed by the caller.
    unsafe { shape(network, Network::output_dims, dims, capacity) }
}

unsafe fn shape(network: *const TtqNetwork, get: fn(&Network) -> &[usize], dims: *mut usize, capacity: usize) -> usize {
    let mut rank = 0;
    status(|| {
        check("network", network, 1)?;
        // SAFETY: guaranteed by the caller.
        let found = get(unsafe { &(*network).network });
        if capacity > 0 {
            check("array of dimensions", dims, capacity)?;
            let count = found.len().min(capacity);
            // SAFETY: the caller guarantees `capacity` elements.
            unsafe { dims.copy_from_nonoverlapping(found.as_ptr(), count) };
        }
        rank = found.len();
        Ok(())
    });
    rank
}

/// Computes the outputs of one item or several.
///
/// `input_len` and `output_len` are numbers of floats: those of as many items. The first call allocates memory, which later calls use,
/// and starts the threads of the process. A process that is forked afterwards does not have them and must not call this function.
///
/// # Safety
/// `network` must come from `ttq_load`, and no other thread may use it. `input` must point to `input_len` floats and `output` to
/// `output_len` floats that can be written, and they must not overlap.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ttq_run(
    network: *mut TtqNetwork,
    input: *const f32,
    input_len: usize,
    output: *mut f32,
    output_len: usize,
) -> TtqStatus {
    status(|| {
        check("network", network, 1)?;
        check("input", input, input_len)?;
        check("output", output, output_len)?;
        // SAFETY: the caller guarantees pointers, lengths and exclusive access; `check` the alignment.
        let (network, input, output) = unsafe {
            (&mut *network, slice::from_raw_parts(input, input_len), slice::from_raw_parts_mut(output, output_len))
        };
        network.network.run(&mut network.arena, input, output).map_err(failure)
    })
}

/// Returns the sentence of the last error of this thread, in UTF-8, or an empty text if there was none.
///
/// The text is valid until the next error of this thread.
#[unsafe(no_mangle)]
pub extern "C" fn ttq_last_error() -> *const c_char {
    LAST_ERROR.try_with(|error| error.borrow().as_ptr()).unwrap_or(c"".as_ptr())
}
