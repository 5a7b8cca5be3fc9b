//! Ternary weights in memory, in the form that their kernel reads.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ttq_packed::Codes;
use ttq_packed::kernels::{CodesView, ConvolutionOptions, KernelError, PackedConvolution, PackedMatrix, Scales};

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
        let codes = match &state.codes {
            Some(codes) => Cow::Borrowed(codes),
            None => Cow::Owned(Codes::pack(&state.values()).expect("they are codes")),
        };
        let kernel = with_scales(scales, |scales| layout.build(&codes, int8, scales))?;
        state.kernels.push((layout, int8, kernel.clone()));
        state.codes = None;
        Ok(kernel)
    }
}

impl State {
    fn values(&self) -> Vec<i8> {
        match (&self.codes, self.kernels.first()) {
            (Some(codes), _) => codes.unpack(),
            (None, Some((layout, _, Kernel::Convolution(kernel)))) if layout.is_row_major() => kernel.values(),
            (None, _) => (0..self.len).map(|index| self.get(index)).collect(),
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
    /// Returns whether the elements of the rows, one after the other, have the order of the weight.
    fn is_row_major(&self) -> bool {
        let sizes = (0..4).map(|dim| self.shape[dim + 1..].iter().product::<usize>());
        self.shape.iter().zip(self.strides).zip(sizes).all(|((size, stride), next)| *size == 1 || stride == next)
    }

    fn build(self, codes: &Codes, int8: bool, scales: Scales<'_>) -> Result<Kernel, KernelError> {
        let activations = crate::activations::precision(int8);
        let Some(groups) = self.groups else {
            let ([outputs, inputs, ..], [output, input, ..]) = (self.shape, self.strides);
            let codes = CodesView::with_strides(codes, [outputs, inputs], [output, input])?;
            return Ok(Kernel::Matrix(Arc::new(PackedMatrix::new(codes, scales)?.with_activations(activations))));
        };
        let codes = CodesView::with_strides(codes, self.shape, self.strides)?;
        let options = ConvolutionOptions { groups, ..ConvolutionOptions::default() };
        let convolution = PackedConvolution::new(codes, options, scales)?;
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
