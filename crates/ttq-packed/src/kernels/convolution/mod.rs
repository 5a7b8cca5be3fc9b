//! Two-dimensional convolutions with packed weights.

mod dense;
mod geometry;
mod sparse;
mod strip;

use alloc::sync::Arc;
use alloc::vec::Vec;

pub use self::geometry::ConvolutionOptions;
use self::geometry::{Geometry, Window};
use self::sparse::NonzeroLists;
use self::strip::{CallContext, Factors, Strip, StripIndex};
use super::epilogue::Epilogue;
use super::memory::{Output, Scratch, Words};
use super::panels::{PANEL, Panels};
use super::{Activations, CodesView, Cost, KernelError, Level, Scales, workers};
use crate::Codes;

/// Time of a nonzero weight on the sparse path, relative to a weight on the dense path (see
/// [`PackedConvolution::path`]).
const SPARSE_COST: f64 = 1.25;

/// Maximum number of elements of a window, so that it fits in the L2 cache together with weights and output.
const MAX_WINDOW: usize = 1 << 16;

/// The algorithm of a convolution with float32 activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ConvolutionPath {
    /// Sums over lists of the nonzero weights.
    Sparse,
    /// Products of decoded weights and activations, including zeros.
    Dense,
}

/// A packed convolution of NCHW images, with an affine map and an activation function after the product.
///
/// For image `n`, output channel `o` of the channel group `g` and output position `i, j`, the output is
///
/// `y[n,o,i,j] = scale[o] (w_pos[o] P - w_neg[o] N) + shift[o]`,
///
/// followed by `max(y, 0)` after [`with_relu`](Self::with_relu). `P` and `N` are the sums of
/// `x[n, c, i s + a d - p, j s + b d - p]` over all `c, a, b` with the code `t[o,c,a,b]` = +1 and -1, with stride `s`,
/// dilation `d` and the padding `p` at the top and on the left. `x` is zero outside of the image, and `c` runs over the
/// channels of `g`. By default `scale` is 1 and `shift` is 0; [`with_bias`](Self::with_bias) and
/// [`with_affine`](Self::with_affine) change them. A clone shares the packed weights.
///
/// ```
/// use ttq_packed::Codes;
/// use ttq_packed::kernels::{CodesView, ConvolutionOptions, PackedConvolution, Scales, Scratch};
///
/// // A 1 x 3 kernel with one input and one output channel: the right neighbour minus half of the left neighbour.
/// let codes = Codes::pack(&[-1, 0, 1])?;
/// let options = ConvolutionOptions { padding: [[0, 0], [1, 1]], ..Default::default() };
/// let scales = Scales::PerTensor { w_pos: 1.0, w_neg: 0.5 };
/// let convolution = PackedConvolution::new(CodesView::new(&codes, [1, 1, 1, 3])?, options, scales)?;
/// let mut y = [0.0; 3];
/// convolution.forward(&[1.0, 2.0, 4.0], [1, 1, 1, 3], &mut y, &mut Scratch::new())?;
/// assert_eq!(y, [2.0, 4.0 - 0.5, -1.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct PackedConvolution {
    /// `[out, in / groups, height, width]`
    shape: [usize; 4],
    options: ConvolutionOptions,
    groups: Arc<Vec<ChannelGroup>>,
    nonzeros: usize,
    path: ConvolutionPath,
    level: Level,
    activations: Activations,
}

/// The weights of a channel group.
#[derive(Debug, Clone)]
struct ChannelGroup {
    weights: Weights,
    epilogue: Epilogue,
}

/// The weights in the form of their kernel.
#[derive(Debug, Clone)]
enum Weights {
    /// Dense path.
    Panels(Panels),
    /// Sparse path: float32 activations.
    Lists(NonzeroLists),
}

/// The order of the columns of panels: by four channels, then kernel position, then channel.
///
/// A word of four bytes thus belongs to one kernel position.
#[derive(Clone, Copy)]
struct ColumnOrder {
    channels: usize,
    kernel: [usize; 2],
}

impl ColumnOrder {
    fn columns(self) -> usize {
        self.channels.next_multiple_of(4) * self.kernel[0] * self.kernel[1]
    }

    /// Returns the channel and the kernel position of a column. The channel may be a padding channel.
    fn element(self, column: usize) -> (usize, [usize; 2]) {
        let (quad, channel) = (column / 4, column % 4);
        let area = self.kernel[0] * self.kernel[1];
        let position = quad % area;
        (quad / area * 4 + channel, [position / self.kernel[1], position % self.kernel[1]])
    }

    /// Returns the index of a column into `[channels, height, width]`; `None` for a padding channel.
    fn index(self, column: usize) -> Option<usize> {
        let (channel, [y, x]) = self.element(column);
        (channel < self.channels).then_some((channel * self.kernel[0] + y) * self.kernel[1] + x)
    }

    /// Returns the column of an index into `[channels, height, width]`.
    fn column(self, index: usize) -> usize {
        let area = self.kernel[0] * self.kernel[1];
        let (channel, position) = (index / area, index % area);
        (channel / 4 * area + position) * 4 + channel % 4
    }
}

impl PackedConvolution {
    /// Packs a weight of the shape `[out, in / groups, height, width]`.
    ///
    /// The convolution uses the faster [path](Self::path) for float32 activations.
    ///
    /// # Errors
    /// - [`KernelError::Dimension`] if a dimension, stride, dilation or the number of groups is zero, if the number of
    ///   output channels is not a multiple of the number of groups, or if an output channel has more than 2²² weights
    ///   (with the input channels of a group rounded up to a multiple of 4);
    /// - [`KernelError::Length`] if the number of scales per row is not the number of output channels.
    pub fn new(codes: CodesView<'_, 4>, options: ConvolutionOptions, scales: Scales<'_>) -> Result<Self, KernelError> {
        let CodesView { codes, shape, strides } = codes;
        let [out, channels, height, width] = shape;
        let positive = [
            ("the number of output channels", out),
            ("the number of input channels of a group", channels),
            ("the height of the kernel", height),
            ("the width of the kernel", width),
        ];
        positive.into_iter().try_for_each(|(what, value)| KernelError::check_positive(what, value))?;
        options.check()?;
        if !out.is_multiple_of(options.groups) {
            let expected = "a multiple of the number of groups";
            return Err(KernelError::Dimension { what: "the number of output channels", value: out, expected });
        }
        if let Scales::PerRow { w_pos, w_neg } = scales {
            KernelError::check_length("w_pos", out, w_pos.len())?;
            KernelError::check_length("w_neg", out, w_neg.len())?;
        }
        let order = ColumnOrder { channels, kernel: [height, width] };
        let rows = out / options.groups;
        let mut nonzeros = 0;
        let mut groups = Vec::with_capacity(options.groups);
        for group in 0..options.groups {
            let offset = |column: usize| {
                let (channel, [y, x]) = order.element(column);
                (channel < channels).then_some(channel * strides[1] + y * strides[2] + x * strides[3])
            };
            let rows_at = [group * rows * strides[0], strides[0]];
            let panels = Panels::new([rows, order.columns()], codes, rows_at, offset)?;
            nonzeros += panels.counts().iter().flatten().map(|count| *count as usize).sum::<usize>();
            let epilogue = Epilogue::new(&panels, scales.part(group * rows, rows))?;
            groups.push(ChannelGroup { weights: Weights::Panels(panels), epilogue });
        }
        let (level, activations) = (Level::best(), Activations::Float32);
        let mut convolution = Self {
            shape,
            options,
            groups: Arc::new(groups),
            nonzeros,
            path: ConvolutionPath::Dense,
            level,
            activations,
        };
        convolution.path = convolution.faster_path();
        convolution.arrange();
        Ok(convolution)
    }

    /// Appends a bias `[out]` to the affine map: `y + bias[o]`.
    ///
    /// # Errors
    /// [`KernelError::Length`] if `bias` does not have one element per output channel.
    pub fn with_bias(self, bias: &[f32]) -> Result<Self, KernelError> {
        self.append_affine(None, Some(bias))
    }

    /// Appends an affine map, `scale[o] y + shift[o]`, such as a folded batch normalization.
    ///
    /// `scale` and `shift` are `[out]`, with elements of any sign.
    ///
    /// # Errors
    /// [`KernelError::Length`] if `scale` or `shift` does not have one element per output channel.
    pub fn with_affine(self, scale: &[f32], shift: &[f32]) -> Result<Self, KernelError> {
        self.append_affine(Some(scale), Some(shift))
    }

    fn append_affine(mut self, scale: Option<&[f32]>, shift: Option<&[f32]>) -> Result<Self, KernelError> {
        let rows = self.rows();
        for (what, values) in [("scale", scale), ("shift or bias", shift)] {
            values.map_or(Ok(()), |values| KernelError::check_length(what, self.shape[0], values.len()))?;
        }
        for (i, group) in Arc::make_mut(&mut self.groups).iter_mut().enumerate() {
            let part = |values: &'_ [f32]| -> Vec<f32> { values[i * rows..][..rows].to_vec() };
            group.epilogue.append_affine(scale.map(part).as_deref(), shift.map(part).as_deref())?;
        }
        Ok(self)
    }

    /// Applies `max(y, 0)` after the affine map, independent of the order of calls.
    pub fn with_relu(mut self) -> Self {
        Arc::make_mut(&mut self.groups).iter_mut().for_each(|group| group.epilogue.relu = true);
        self
    }

    /// Sets stride, padding and dilation. The packed weight does not depend on them, and is shared.
    ///
    /// # Errors
    /// [`KernelError::Dimension`] if a stride or dilation is zero, or if the number of groups is not that of the packed
    /// weight.
    pub fn with_options(mut self, options: ConvolutionOptions) -> Result<Self, KernelError> {
        options.check()?;
        if options.groups != self.options.groups {
            let expected = "that of the packed weight";
            return Err(KernelError::Dimension { what: "the number of groups", value: options.groups, expected });
        }
        self.options = options;
        Ok(self)
    }

    /// Sets the precision of activations. The default is [`Activations::Float32`].
    pub fn with_activations(mut self, activations: Activations) -> Self {
        self.activations = activations;
        self.arrange();
        if activations == Activations::Int8 {
            let columns = self.order().columns();
            Arc::make_mut(&mut self.groups).iter_mut().for_each(|group| group.epilogue.use_integers(columns));
        }
        self
    }

    /// Sets the algorithm for float32 activations. The default is the expected faster one, see [`path`](Self::path).
    pub fn with_path(mut self, path: ConvolutionPath) -> Self {
        self.path = path;
        self.arrange();
        self
    }

    /// Sets the instruction set. The default is [`Level::best`].
    ///
    /// # Errors
    /// [`KernelError::Unavailable`] if this machine does not support it.
    pub fn with_level(mut self, level: Level) -> Result<Self, KernelError> {
        self.level = level.checked()?;
        Ok(self)
    }

    /// Returns the shape of the weight, `[out, in / groups, height, width]`.
    pub fn shape(&self) -> [usize; 4] {
        self.shape
    }

    /// Returns stride, padding, dilation and groups.
    pub fn options(&self) -> ConvolutionOptions {
        self.options
    }

    /// Returns the instruction set.
    pub fn level(&self) -> Level {
        self.level
    }

    /// Returns the precision of activations.
    pub fn activations(&self) -> Activations {
        self.activations
    }

    /// Returns the algorithm of this convolution.
    ///
    /// It is [`ConvolutionPath::Dense`] for int8 activations. For float32 activations it is the choice of
    /// [`with_path`](Self::with_path), or by default the result of a comparison of costs. A nonzero weight on the
    /// sparse path costs about 1.25 times as much as any weight on the dense path. The dense path also computes padding
    /// weights: output channels of a group are padded to a multiple of 16 and input channels to a multiple of 4.
    /// Without such padding, the sparse path is chosen at 20 % zeros or more.
    ///
    /// Measured with 3 × 3 kernels on an EPYC (Zen 5): with AVX-512, both paths are equally fast at 18 % zeros for 16
    /// channels of 32 × 32, at 2 % for 64 channels of 8 × 8, and at 17 % for 256 channels of 14 × 14; with AVX2 at 15
    /// to 30 %. At the portable level, the sparse path is faster from 5 % zeros on.
    pub fn path(&self) -> ConvolutionPath {
        match self.activations {
            Activations::Float32 => self.path,
            Activations::Int8 => ConvolutionPath::Dense,
        }
    }

    /// Returns the ternary value (-1, 0, +1) of output channel `o` at the row-major index `k` into the other three
    /// dimensions.
    ///
    /// # Panics
    /// If `o` or `k` is out of range.
    pub fn value(&self, o: usize, k: usize) -> i8 {
        let (rows, weights) = (self.rows(), self.shape[1] * self.shape[2] * self.shape[3]);
        assert!(
            o < self.shape[0] && k < weights,
            "index [{o}, {k}] is out of range for weights [{}, {weights}]",
            self.shape[0]
        );
        match &self.groups[o / rows].weights {
            Weights::Panels(panels) => panels.get(o % rows, self.order().column(k)),
            Weights::Lists(lists) => lists.get(o % rows, k),
        }
    }

    /// Returns all ternary values, in the row-major order of [`shape`](Self::shape).
    pub fn values(&self) -> Vec<i8> {
        let (order, rows) = (self.order(), self.rows());
        let columns = self.shape[1] * self.shape[2] * self.shape[3];
        let columns_of: Vec<usize> = (0..columns).map(|k| order.column(k)).collect();
        let values = |group: &ChannelGroup| match &group.weights {
            Weights::Panels(panels) => {
                let row = |row: usize| columns_of.iter().map(move |column| panels.get(row, *column));
                (0..rows).flat_map(row).collect()
            }
            Weights::Lists(lists) => lists.values(),
        };
        self.groups.iter().flat_map(values).collect()
    }

    /// Returns the sparsity of the weight: the fraction of zeros, from 0 to 1.
    pub fn sparsity(&self) -> f64 {
        1.0 - self.nonzeros as f64 / self.shape.iter().product::<usize>() as f64
    }

    /// Returns the output shape `[images, out, height, width]` for an input shape `[images, in, height, width]`.
    ///
    /// # Errors
    /// - [`KernelError::Dimension`] if the number of input channels does not match the weight;
    /// - [`KernelError::InputTooSmall`] if the padded input is smaller than the dilated kernel.
    pub fn output_shape(&self, [images, channels, height, width]: [usize; 4]) -> Result<[usize; 4], KernelError> {
        if channels != self.shape[1] * self.options.groups {
            let expected = "the number of input channels of the weights";
            return Err(KernelError::Dimension { what: "the number of channels of x", value: channels, expected });
        }
        let geometry = Geometry::new(self.options, [self.shape[2], self.shape[3]], [height, width])?;
        Ok([images, self.shape[0], geometry.output[0], geometry.output[1]])
    }

    /// Returns the minimum memory traffic and the arithmetic for an input shape `[images, in, height, width]`.
    ///
    /// # Errors
    /// The errors of [`output_shape`](Self::output_shape).
    pub fn cost(&self, input: [usize; 4]) -> Result<Cost, KernelError> {
        let outputs = self.output_shape(input)?.iter().product::<usize>();
        let weights = |group: &ChannelGroup| match &group.weights {
            Weights::Panels(panels) => panels.bytes(),
            Weights::Lists(lists) => lists.bytes(),
        };
        Ok(Cost {
            weight_bytes: self.groups.iter().map(|group| weights(group) + group.epilogue.size()).sum(),
            input_bytes: 4 * input.iter().product::<usize>(),
            output_bytes: 4 * outputs,
            multiply_accumulates: outputs * self.shape[1] * self.shape[2] * self.shape[3],
        })
    }

    /// Computes the output `y` of the images `x`.
    ///
    /// # Shapes
    /// - `x`: `input` = `[images, in, height, width]`, row-major
    /// - `y`: [`output_shape`](Self::output_shape) of `input`, row-major; it is overwritten
    ///
    /// # Errors
    /// The errors of [`output_shape`](Self::output_shape), and [`KernelError::Length`] if the length of `x` or `y` does
    /// not match its shape.
    pub fn forward(
        &self,
        x: &[f32],
        input: [usize; 4],
        y: &mut [f32],
        scratch: &mut Scratch,
    ) -> Result<(), KernelError> {
        self.forward_with_bias(x, input, None, y, scratch)
    }

    /// Computes [`forward`](Self::forward) with a `bias` `[out]` of this call, which the affine map adds.
    ///
    /// # Errors
    /// As for [`forward`](Self::forward), and [`KernelError::Length`] if `bias` does not have one element per output
    /// channel.
    pub fn forward_with_bias(
        &self,
        x: &[f32],
        input: [usize; 4],
        bias: Option<&[f32]>,
        y: &mut [f32],
        scratch: &mut Scratch,
    ) -> Result<(), KernelError> {
        let [images, out, height, width] = self.output_shape(input)?;
        KernelError::check_length("x", input.iter().product(), x.len())?;
        KernelError::check_length("y", images * out * height * width, y.len())?;
        if images == 0 {
            return Ok(());
        }
        let geometry = Geometry::new(self.options, [self.shape[2], self.shape[3]], [input[2], input[3]])?;
        let image_work = self.shape.iter().product::<usize>() * height * width;
        let threads = workers::count(images * image_work);
        let parts = images * self.options.groups;
        let window = self.window(geometry, threads.div_ceil(parts));
        let Scratch { factors, shifts, offsets, workers, .. } = scratch;
        let shifts = self.shifts(bias, shifts)?;
        let offsets = self.offsets(window, offsets);
        let factors = self.factors(x, images, factors);
        workers.resize_with(workers.len().max(threads), Words::default);
        let context = CallContext { convolution: self, x, window, offsets, factors, shifts, output: Output::new(y) };
        let strips = height.div_ceil(window.strip);
        workers::run(parts * strips, &mut workers[..threads], |task, buffer| {
            let (part, strip) = (task / strips, task % strips);
            let index = StripIndex { image: part / self.options.groups, group: part % self.options.groups, strip };
            // SAFETY: `with_level` and `Level::best` ensure that the machine supports the level.
            unsafe { self.level.run(Strip { context, index, buffer }) };
        });
        Ok(())
    }

    fn order(&self) -> ColumnOrder {
        ColumnOrder { channels: self.shape[1], kernel: [self.shape[2], self.shape[3]] }
    }

    /// Returns the number of output channels of a group.
    fn rows(&self) -> usize {
        self.shape[0] / self.options.groups
    }

    /// Brings the weights into the form of the path.
    fn arrange(&mut self) {
        let (order, rows, is_sparse) = (self.order(), self.rows(), self.path() == ConvolutionPath::Sparse);
        let columns = self.shape[1] * self.shape[2] * self.shape[3];
        if self.groups.iter().all(|group| matches!(group.weights, Weights::Lists(_)) == is_sparse) {
            return;
        }
        for ChannelGroup { weights, .. } in Arc::make_mut(&mut self.groups) {
            match weights {
                Weights::Panels(panels) => {
                    let columns_of: Vec<usize> = (0..columns).map(|k| order.column(k)).collect();
                    let value = |row: usize, k: usize| panels.get(row, columns_of[k]);
                    *weights = Weights::Lists(NonzeroLists::new(rows, columns, value));
                }
                Weights::Lists(lists) => {
                    let codes = Codes::pack(&lists.values()).unwrap_or_else(|error| unreachable!("{error}"));
                    let panels = Panels::new([rows, order.columns()], &codes, [0, columns], |k| order.index(k));
                    *weights = Weights::Panels(panels.unwrap_or_else(|error| unreachable!("{error}")));
                }
            }
        }
    }

    /// Returns the path with the lower estimated cost, see [`path`](Self::path).
    fn faster_path(&self) -> ConvolutionPath {
        let dense = self.options.groups * self.rows().next_multiple_of(PANEL) * self.order().columns();
        let sparse_is_faster = SPARSE_COST * self.nonzeros as f64 <= dense as f64;
        if sparse_is_faster { ConvolutionPath::Sparse } else { ConvolutionPath::Dense }
    }

    /// Returns the number of planes of a window.
    fn planes(&self) -> usize {
        match self.activations {
            Activations::Float32 => self.shape[1],
            Activations::Int8 => self.shape[1].div_ceil(4),
        }
    }

    /// Returns a window with the largest strip such that there are at least `strips` strips and the window is not
    /// larger than [`MAX_WINDOW`], up to rounding.
    fn window(&self, geometry: Geometry, strips: usize) -> Window {
        let mut strip = geometry.output[0].div_ceil(strips);
        while strip > 1 && self.planes() * Window::new(geometry, strip).plane() > MAX_WINDOW {
            strip = strip.div_ceil(2);
        }
        Window::new(geometry, strip)
    }

    /// Returns the offsets from the first element of a pixel to the elements under the kernel, in the order of the
    /// path.
    fn offsets<'a>(&self, window: Window, to: &'a mut Words) -> &'a [u32] {
        let [_, channels, height, width] = self.shape;
        let positions = || (0..height).flat_map(|y| (0..width).map(move |x| [y, x]));
        let plane = window.plane();
        if self.activations == Activations::Float32 && self.path == ConvolutionPath::Dense {
            let to = to.reserve(channels.next_multiple_of(4) * height * width);
            let mut columns = to.iter_mut();
            for quad in (0..channels).step_by(4) {
                for position in positions() {
                    // The weights of padding channels are zero, so their elements are arbitrary.
                    let channels = (quad..quad + 4).map(|channel| channel.min(channels - 1));
                    let offsets = channels.map(|channel| (channel * plane + window.offset(position)) as u32);
                    offsets.zip(&mut columns).for_each(|(offset, to)| *to = offset);
                }
            }
            return to;
        }
        let to = to.reserve(self.planes() * height * width);
        for (index, to) in to.chunks_exact_mut(height * width).enumerate() {
            let targets = to.iter_mut().zip(positions());
            targets.for_each(|(to, position)| *to = (index * plane + window.offset(position)) as u32);
        }
        to
    }

    /// Returns the shifts of the rows of all groups with the bias of a call, and nothing without a bias.
    fn shifts<'a>(&self, bias: Option<&[f32]>, to: &'a mut Words) -> Result<&'a [f32], KernelError> {
        let Some(bias) = bias else { return Ok(&[]) };
        KernelError::check_length("bias", self.shape[0], bias.len())?;
        let padded = self.rows().next_multiple_of(PANEL);
        let to = to.reserve(padded * self.options.groups);
        let parts = bias.chunks_exact(self.rows()).zip(to.chunks_exact_mut(padded));
        self.groups.iter().zip(parts).for_each(|(group, (bias, to))| group.epilogue.add_bias(bias, to));
        Ok(to)
    }

    /// Returns the quantization factor of each image and its inverse for int8 activations, and nothing for float32.
    fn factors<'a>(&self, x: &[f32], images: usize, to: &'a mut Words) -> &'a [f32] {
        if self.activations == Activations::Float32 {
            return &[];
        }
        let to = to.reserve(2 * images);
        // SAFETY: as in `forward`.
        unsafe { self.level.run(Factors { x, images, to }) };
        to
    }
}
