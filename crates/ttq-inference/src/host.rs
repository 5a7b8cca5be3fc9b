//! Ternary weights in memory, in the form that their kernel reads.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ttq_packed::Codes;
use ttq_packed::kernels::{ConvolutionOptions, KernelError, PackedConvolution, PackedMatrix, Scales};

/// The codes of a weight: those of a file, or in the form of the kernels that have read them.
///
/// The first product replaces the codes by its kernel. A product in which the weight has another role (transposed, or
/// with other groups or activations) adds a kernel.
#[derive(Debug)]
pub(crate) struct Host(Mutex<State>);

#[derive(Debug)]
struct State {
    len: usize,
    /// `None` if there is a kernel.
    codes: Option<Codes>,
    kernels: Vec<(Layout, bool, Kernel)>,
}

/// The role of a weight in a product: its rows are outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Outputs, and the three dimensions of a row.
    pub(crate) shape: [usize; 4],
    /// Distances between neighbours along these dimensions, in the row-major order of the weight.
    pub(crate) strides: [usize; 4],
    /// Groups of a convolution; `None` for a matrix.
    pub(crate) groups: Option<usize>,
}

/// A kernel with its packed weight. Clones share the weight.
#[derive(Debug, Clone)]
pub(crate) enum Kernel {
    Matrix(Arc<PackedMatrix>),
    Convolution(PackedConvolution),
}

impl Host {
    pub(crate) fn new(codes: Codes) -> Self {
        Self(Mutex::new(State { len: codes.len(), codes: Some(codes), kernels: Vec::new() }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns all codes, in the order of the weight.
    pub(crate) fn values(&self) -> Vec<i8> {
        self.lock().values()
    }

    /// Returns the codes at these indices into the weight.
    pub(crate) fn gather(&self, indices: impl Iterator<Item = usize>) -> Vec<i8> {
        let state = self.lock();
        indices.map(|index| state.get(index)).collect()
    }

    /// Returns the kernel for this role and type of activations. Builds it at the first call.
    pub(crate) fn kernel(&self, layout: Layout, int8: bool, scales: &[[f32; 2]]) -> Result<Kernel, KernelError> {
        // Threads that need the kernel wait for the one that builds it. Building waits for no other thread.
        let mut state = self.lock();
        let built = state.kernels.iter().find(|(built, built_int8, _)| (*built, *built_int8) == (layout, int8));
        if let Some((_, _, kernel)) = built {
            return Ok(kernel.clone());
        }
        let kernel = with_scales(scales, |scales| layout.build(state.values(), int8, scales))?;
        state.kernels.push((layout, int8, kernel.clone()));
        state.codes = None;
        Ok(kernel)
    }
}

impl State {
    fn values(&self) -> Vec<i8> {
        match &self.codes {
            Some(codes) => codes.unpack(),
            None => (0..self.len).map(|index| self.get(index)).collect(),
        }
    }

    fn get(&self, index: usize) -> i8 {
        if let Some(codes) = &self.codes {
            return codes.get(index);
        }
        let (layout, _, kernel) = &self.kernels[0];
        let [row, rest @ ..] = [0, 1, 2, 3].map(|dim| index / layout.strides[dim].max(1) % layout.shape[dim]);
        let column = (rest[0] * layout.shape[2] + rest[1]) * layout.shape[3] + rest[2];
        match kernel {
            Kernel::Matrix(matrix) => matrix.value(row, column),
            Kernel::Convolution(convolution) => convolution.value(row, column),
        }
    }
}

impl Layout {
    fn build(self, values: Vec<i8>, int8: bool, scales: Scales<'_>) -> Result<Kernel, KernelError> {
        let activations = crate::activations::precision(int8);
        let [outputs, channels, height, width] = self.shape;
        let [output, channel, y, x] = self.strides;
        let inner = channels * height * width;
        let Some(groups) = self.groups else {
            // Rows that are contiguous in memory are read faster.
            let (values, output, input) = match output {
                1 if channel == outputs => (transpose(&values, outputs), inner, 1),
                _ => (values, output, channel),
            };
            let code = |row: usize, column: usize| values[row * output + column * input];
            let matrix = PackedMatrix::new(outputs, inner, scales, code)?;
            return Ok(Kernel::Matrix(Arc::new(matrix.with_activations(activations))));
        };
        let taps = (0..height).flat_map(|row| (0..width).map(move |column| row * y + column * x));
        let offsets: Vec<usize> =
            (0..channels).flat_map(|index| taps.clone().map(move |tap| index * channel + tap)).collect();
        let code = |row: usize, index: usize| values[row * output + offsets[index]];
        let options = ConvolutionOptions { groups, ..ConvolutionOptions::default() };
        let convolution = PackedConvolution::new(self.shape, options, scales, code)?;
        Ok(Kernel::Convolution(convolution.with_activations(activations)))
    }
}

/// Calls `work` with the scales in the form that the kernels use.
fn with_scales<T>(scales: &[[f32; 2]], work: impl FnOnce(Scales<'_>) -> T) -> T {
    if let [[w_pos, w_neg]] = *scales {
        return work(Scales::PerTensor { w_pos, w_neg });
    }
    let [w_pos, w_neg] = [0, 1].map(|column| scales.iter().map(|pair| pair[column]).collect::<Vec<f32>>());
    work(Scales::PerRow { w_pos: &w_pos, w_neg: &w_neg })
}

/// Transposes a row-major matrix with the given number of columns, in square blocks that fit into the cache.
fn transpose(matrix: &[i8], columns: usize) -> Vec<i8> {
    const SIDE: usize = 64;
    let rows = matrix.len().checked_div(columns).unwrap_or(0);
    let mut transposed = vec![0; matrix.len()];
    for top in (0..rows).step_by(SIDE) {
        for left in (0..columns).step_by(SIDE) {
            for column in left..columns.min(left + SIDE) {
                for row in top..rows.min(top + SIDE) {
                    transposed[column * rows + row] = matrix[row * columns + column];
                }
            }
        }
    }
    transposed
}
