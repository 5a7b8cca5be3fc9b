//! Compiled networks and their execution.

use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::{AtomicUsize, Ordering};

use super::compile::{Compiled, CompiledLayer, compile};
use super::graph::Graph;
use super::layers::{Call, Layer, Split};
use super::layout::Image;
use super::{CompileOptions, NetworkError, Value};
use crate::kernels::Level;
use crate::kernels::memory::{Output, Words};

/// Number of floats after the arena that a vector may touch.
const SLACK: usize = 64;

/// A compiled network.
///
/// ```
/// use ttq_packed::network::{Arena, CompileOptions, Constant, Graph, Network, Operation};
///
/// let mut graph = Graph::new([3])?;
/// let weight = graph.constant("weight", Constant::float([3, 2], [1.0, 0.0, 0.0, -1.0, 1.0, 1.0]))?;
/// let y = graph.apply("linear", Operation::Linear, &[graph.input(), weight])?;
/// graph.set_output(y)?;
/// let network = Network::compile(&graph, &CompileOptions::default())?;
/// let mut output = [0.0; 4];
/// network.run(&mut Arena::new(), &[1.0, 2.0, 4.0, 0.0, 1.0, 0.0], &mut output)?;
/// assert_eq!(output, [5.0, 2.0, 0.0, -1.0]);
/// # Ok::<(), ttq_packed::network::NetworkError>(())
/// ```
#[derive(Debug)]
pub struct Network {
    compiled: Compiled,
    input: Vec<usize>,
    output: Vec<usize>,
    level: Level,
}

/// A layer of a compiled network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct LayerInfo<'a> {
    /// Name of the operation that it computes, or of the product among several.
    pub name: &'a str,
    /// Algorithm, such as `winograd`, `direct` or `int8`.
    pub algorithm: &'static str,
    /// Multiplications, each with an addition, for an item by the [definition](Graph::multiply_adds): Winograd's algorithm
    /// executes fewer.
    pub multiply_adds: usize,
}

/// Memory of calls of [`Network::run`], which is allocated at the first call and reused.
#[derive(Debug, Default)]
pub struct Arena {
    workers: Vec<Memory>,
}

/// Memory of a thread.
#[derive(Debug, Default)]
struct Memory {
    values: Words,
    scratch: Words,
}

impl Arena {
    /// Creates an empty arena.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the values of the last call on one thread.
    pub(super) fn values(&self) -> &[f32] {
        self.workers.first().map_or(&[], |memory| memory.values.as_floats())
    }
}

impl Network {
    /// Compiles a graph.
    ///
    /// # Errors
    /// [`NetworkError::Unsupported`] if no layer computes an operation of the graph, [`NetworkError::TooLarge`] if it
    /// exceeds [`CompileOptions::max_elements`], and [`NetworkError::NoRanges`] if [`CompileOptions::int8`] needs ranges and
    /// the graph has none.
    pub fn compile(graph: &Graph, options: &CompileOptions) -> Result<Self, NetworkError> {
        let compiled = compile(graph, options)?;
        let dims = |value| graph.shape(value).dims.clone();
        let (input, output) = (dims(graph.input()), dims(graph.output()));
        Ok(Self { compiled, input, output, level: Level::best() })
    }

    /// Reads a graph from the bytes of a [file](super::format) and compiles it.
    ///
    /// # Errors
    /// The errors of [`Graph::read`] and [`compile`](Self::compile).
    pub fn read(file: &[u8], options: &CompileOptions) -> Result<Self, NetworkError> {
        Self::compile(&Graph::read(file)?, options)
    }

    /// Loads a graph from the file `path` and compiles it.
    ///
    /// # Errors
    /// The errors of [`Graph::load`] and [`compile`](Self::compile).
    #[cfg(feature = "std")]
    pub fn load(path: impl AsRef<std::path::Path>, options: &CompileOptions) -> Result<Self, NetworkError> {
        Self::compile(&Graph::load(path)?, options)
    }

    /// Sets the instruction set. The default is [`Level::best`].
    ///
    /// # Errors
    /// [`NetworkError::Unavailable`] if this machine does not support it.
    pub fn with_level(mut self, level: Level) -> Result<Self, NetworkError> {
        if !level.is_available() {
            return Err(NetworkError::Unavailable { level });
        }
        self.level = level;
        Ok(self)
    }

    /// Returns the dimensions of an item of the input.
    pub fn input_dims(&self) -> &[usize] {
        &self.input
    }

    /// Returns the dimensions of an item of the output.
    pub fn output_dims(&self) -> &[usize] {
        &self.output
    }

    /// Returns the layers in the order of execution.
    pub fn layers(&self) -> impl ExactSizeIterator<Item = LayerInfo<'_>> {
        self.compiled.layers.iter().map(|CompiledLayer { name, layer, multiply_adds }| LayerInfo {
            name,
            algorithm: layer.describe(),
            multiply_adds: *multiply_adds,
        })
    }

    /// Returns the number of items that go through the network together, and the bytes of the arena per thread.
    pub fn memory(&self) -> (usize, usize) {
        (self.compiled.items, 4 * self.compiled.elements)
    }

    /// Computes the outputs of a batch of items.
    ///
    /// With the feature `std`, the call uses the threads of the current rayon pool: a thread takes whole items if there
    /// are enough, and otherwise all threads share each layer. The result does not depend on their number.
    ///
    /// # Errors
    /// [`NetworkError::Length`] if the input is not a whole number of items, or the output does not have as many.
    pub fn run(&self, arena: &mut Arena, input: &[f32], output: &mut [f32]) -> Result<(), NetworkError> {
        let batch = self.batch(input, output)?;
        let threads = threads();
        let shared = batch < 2 * threads;
        // Equal shares for all threads.
        let most = self.compiled.items;
        let items = if shared { most } else { most.min(batch.div_ceil(threads)) };
        if arena.workers.len() < threads {
            arena.workers.resize_with(threads, Memory::default);
        }
        let output = Output::new(output);
        let chunk = |first: usize, memory: *mut f32| self.call(first..batch.min(first + items), memory, input, &output);
        let len = self.compiled.elements + SLACK;
        if shared {
            let (first, _) = arena.workers.split_first_mut().expect("at least one worker");
            let memory = core::mem::take(&mut first.values);
            let mut values = memory;
            let pointer = values.reserve::<f32>(len).as_mut_ptr();
            for first in (0..batch).step_by(items) {
                self.run_shared(&chunk(first, pointer), &mut arena.workers[..threads]);
            }
            arena.workers[0].values = values;
        } else {
            let next = AtomicUsize::new(0);
            for_each(&mut arena.workers[..threads], |memory| {
                let pointer = memory.values.reserve::<f32>(len).as_mut_ptr();
                loop {
                    let first = next.fetch_add(items, Ordering::Relaxed);
                    if first >= batch {
                        break;
                    }
                    self.run_alone(&chunk(first, pointer), &mut memory.scratch);
                }
            });
        }
        Ok(())
    }

    /// Computes the outputs of a batch on this thread, and returns the seconds of each of the [layers](Self::layers).
    ///
    /// # Errors
    /// The errors of [`run`](Self::run).
    #[cfg(feature = "std")]
    pub fn run_timed(&self, arena: &mut Arena, input: &[f32], output: &mut [f32]) -> Result<Vec<f64>, NetworkError> {
        let batch = self.batch(input, output)?;
        if arena.workers.is_empty() {
            arena.workers.push(Memory::default());
        }
        let Memory { values, scratch } = &mut arena.workers[0];
        let memory = values.reserve::<f32>(self.compiled.elements + SLACK).as_mut_ptr();
        let output = Output::new(output);
        let mut seconds = alloc::vec![0.0; self.compiled.layers.len()];
        let mut start = std::time::Instant::now();
        let items = self.compiled.items;
        for first in (0..batch).step_by(items) {
            let call = self.call(first..batch.min(first + items), memory, input, &output);
            for (CompiledLayer { layer, .. }, seconds) in self.compiled.layers.iter().zip(&mut seconds) {
                run_layer(layer.as_ref(), &call, scratch);
                let end = std::time::Instant::now();
                *seconds += (end - start).as_secs_f64();
                start = end;
            }
        }
        Ok(seconds)
    }

    /// Returns the values that are stored, and where.
    pub(super) fn values(&self) -> &[(Value, Image)] {
        &self.compiled.values
    }

    /// Checks the sizes of input and output, and returns the number of items.
    fn batch(&self, input: &[f32], output: &[f32]) -> Result<usize, NetworkError> {
        let [from, to] = self.lengths();
        // A graph has no empty values.
        let batch = input.len() / from;
        for (what, expected, found) in [("input", batch * from, input.len()), ("output", batch * to, output.len())] {
            if expected != found {
                return Err(NetworkError::Length { what, batch, expected, found });
            }
        }
        Ok(batch)
    }

    /// Returns the numbers of elements of an item of the input and of the output.
    fn lengths(&self) -> [usize; 2] {
        [&self.input, &self.output].map(|dims| dims.iter().product())
    }

    /// Returns the data of the call for some items of a batch, whose sizes [`batch`](Self::batch) has checked. Calls at
    /// the same time must have different items.
    fn call<'a>(&self, items: Range<usize>, memory: *mut f32, input: &'a [f32], output: &Output<'a>) -> Call<'a> {
        let [from, to] = self.lengths();
        let input = &input[items.start * from..items.end * from];
        // SAFETY: chunks have disjoint outputs.
        let output = Output::new(unsafe { output.slice(items.start * to, items.len() * to) });
        Call { level: self.level, items: items.len(), memory, input, output }
    }

    /// Runs all layers on this thread.
    fn run_alone(&self, call: &Call<'_>, scratch: &mut Words) {
        for CompiledLayer { layer, .. } in &self.compiled.layers {
            run_layer(layer.as_ref(), call, scratch);
        }
    }

    /// Runs all layers, each on all threads.
    ///
    /// A thread takes the next task of a layer until none is left, and then waits for those that other threads have
    /// taken. No thread waits for one that has not started.
    fn run_shared(&self, call: &Call<'_>, workers: &mut [Memory]) {
        if workers.len() == 1 {
            return self.run_alone(call, &mut workers[0].scratch);
        }
        let layers = || self.compiled.layers.iter().map(|layer| layer.layer.as_ref());
        let progress: Vec<Progress> =
            layers().map(|layer| Progress::new(layer.split(call.items, workers.len()))).collect();
        for_each(workers, |memory| {
            for (layer, progress) in layers().zip(&progress) {
                while let Some(task) = progress.take() {
                    let _finishes = Finishes(progress);
                    // SAFETY: as in `run_layer`; each task is taken once, and `wait` separates layers.
                    unsafe { layer.run(progress.split.task(task), call, &mut memory.scratch) }
                }
                progress.wait();
            }
        });
    }
}

/// Runs a layer on this thread, after the layers before.
fn run_layer(layer: &dyn Layer, call: &Call<'_>, scratch: &mut Words) {
    let split = layer.split(call.items, 1);
    for task in 0..split.tasks() {
        // SAFETY: `with_level` checks the level, `batch` the sizes, and layers run one after the other.
        unsafe { layer.run(split.task(task), call, scratch) }
    }
}

/// The tasks of a layer in a call.
struct Progress {
    split: Split,
    next: AtomicUsize,
    finished: AtomicUsize,
}

impl Progress {
    fn new(split: Split) -> Self {
        Self { split, next: AtomicUsize::new(0), finished: AtomicUsize::new(0) }
    }

    /// Returns the next task.
    fn take(&self) -> Option<usize> {
        let task = self.next.fetch_add(1, Ordering::Relaxed);
        (task < self.split.tasks()).then_some(task)
    }

    /// Waits until all tasks are finished. All have been taken, so that running threads finish them.
    fn wait(&self) {
        let mut spins = 0_u32;
        while self.finished.load(Ordering::Acquire) < self.split.tasks() {
            spins = spins.wrapping_add(1);
            core::hint::spin_loop();
            #[cfg(feature = "std")]
            if spins.is_multiple_of(1 << 12) {
                std::thread::yield_now();
            }
        }
    }
}

/// Counts a task as finished at the end of its scope, also after a panic: other threads wait for it.
struct Finishes<'a>(&'a Progress);

impl Drop for Finishes<'_> {
    fn drop(&mut self) {
        self.0.finished.fetch_add(1, Ordering::Release);
    }
}

fn threads() -> usize {
    #[cfg(feature = "std")]
    return rayon::current_num_threads();
    #[cfg(not(feature = "std"))]
    1
}

/// Calls a function for each worker, on several threads if there are several workers.
fn for_each(workers: &mut [Memory], work: impl Fn(&mut Memory) + Sync) {
    match workers {
        [only] => work(only),
        #[cfg(feature = "std")]
        workers => {
            let (first, others) = workers.split_first_mut().expect("at least one worker");
            rayon::in_place_scope(|scope| {
                for worker in others {
                    scope.spawn(|_| work(worker));
                }
                work(first);
            });
        }
        #[cfg(not(feature = "std"))]
        workers => workers.iter_mut().for_each(work),
    }
}
