//! Two-dimensional convolution with packed weights.

mod dense;
mod geometry;
mod sparse;
mod strip;

use alloc::vec::Vec;

pub use self::geometry::ConvolutionOptions;
use self::geometry::{Geometry, Window};
use self::sparse::Lists;
use self::strip::{Call, Factors, Place, Strip};
use super::epilogue::Epilogue;
use super::memory::{Output, Scratch, Words};
use super::panels::Panels;
use super::{Activations, Cost, KernelError, Level, Scales, workers};

/// What a nonzero weight costs on the sparse path, in weights of the dense one: see [`PackedConvolution::path`].
const SPARSE_COST: f64 = 1.25;

/// Most elements of a window: what lies in the second cache beside weights and output.
const WINDOW: usize = 1 << 16;

/// How exact activations are convolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Path {
    /// Sums over lists of the nonzero weights.
    Sparse,
    /// Decoded weights times activations, zeros included.
    Dense,
}

/// A packed convolution of NCHW images, with what follows it: for image `n`, output channel `o` of group `g` and place `i, j`
///
/// `y[n,o,i,j] = scale[o] (w_pos[o] P - w_neg[o] N) + shift[o]`,
///
/// then `max(y, 0)` if asked for. `P` and `N` are the sums of `x[n, c, i s + a d - p, j s + b d - p]` (stride `s`, dilation `d`,
/// padding `p`; zero outside the image; `c` over the channels of `g`) over the `c, a, b` where `t[o,c,a,b]` is +1 and -1. Without
/// further calls `scale` is 1 and `shift` is 0.
///
/// ```
/// use ttq_packed::kernels::{ConvolutionOptions, PackedConvolution, Scales, Scratch};
///
/// // One channel in, one out, 1 x 3: the value on the right minus half of the value on the left.
/// let t = [-1, 0, 1];
/// let options = ConvolutionOptions { padding: [0, 1], ..Default::default() };
/// let scales = Scales::PerTensor { w_pos: 1.0, w_neg: 0.5 };
/// let convolution = PackedConvolution::new([1, 1, 1, 3], options, scales, |_, k| t[k])?;
/// let mut y = [0.0; 3];
/// convolution.forward(&[1.0, 2.0, 4.0], [1, 1, 1, 3], &mut y, &mut Scratch::new())?;
/// assert_eq!(y, [2.0, 4.0 - 0.5, -1.0]);
/// # Ok::<(), ttq_packed::kernels::KernelError>(())
/// ```
#[derive(Debug, Clone)]
pub struct PackedConvolution {
    /// `[out, in / groups, height, width]`
    shape: [usize; 4],
    options: ConvolutionOptions,
    groups: Vec<ChannelGroup>,
    nonzeros: usize,
    path: Path,
    level: Level,
    activations: Activations,
}

/// The weights of a group of channels.
#[derive(Debug, Clone)]
struct ChannelGroup {
    panels: Panels,
    epilogue: Epilogue,
    /// For the sparse path.
    lists: Option<Lists>,
}

/// Columns of the panels are ordered by fours of channels, then place, then channel, so that a word of four bytes has one place.
#[derive(Clone, Copy)]
struct Order {
    channels: usize,
    kernel: [usize; 2],
}

impl Order {
    fn columns(self) -> usize {
        self.channels.next_multiple_of(4) * self.kernel[0] * self.kernel[1]
    }

    /// Channel and place of a column; the channel may be one that only fills up a four.
    fn element(self, column: usize) -> (usize, [usize; 2]) {
        let (quad, channel) = (column / 4, column % 4);
        let area = self.kernel[0] * self.kernel[1];
        let place = quad % area;
        (quad / area * 4 + channel, [place / self.kernel[1], place % self.kernel[1]])
    }

    /// The column of an index into `[channels, height, width]`.
    fn column(self, index: usize) -> usize {
        let area = self.kernel[0] * self.kernel[1];
        let (channel, place) = (index / area, index % area);
        (channel / 4 * area + place) * 4 + channel % 4
    }
}

impl PackedConvolution {
    /// Packs the weights `[out, in / groups, height, width]` = `shape` of the values -1, 0, +1: `value(o, k)` returns the one of
    /// output channel `o` with the index `k` into the other three dimensions, row-major. Exact activations take the quicker
    /// [path](Self::path).
    ///
    /// # Errors
    /// [`KernelError::NotTernary`]; [`KernelError::Dimension`] for a dimension or option of zero, channels that groups do not divide
    /// or a kernel of more than 2²² weights; [`KernelError::Length`] for scales of another number of channels.
    pub fn new(
        shape: [usize; 4],
        options: ConvolutionOptions,
        scales: Scales<'_>,
        mut value: impl FnMut(usize, usize) -> i8,
    ) -> Result<Self, KernelError> {
        let [out, channels, height, width] = shape;
        let positive = [
            ("the number of output channels", out),
            ("the number of input channels of a group", channels),
            ("the height of the kernel", height),
            ("the width of the kernel", width),
            ("the number of groups", options.groups),
            ("the vertical stride", options.stride[0]),
            ("the horizontal stride", options.stride[1]),
            ("the vertical dilation", options.dilation[0]),
            ("the horizontal dilation", options.dilation[1]),
        ];
        positive.into_iter().try_for_each(|(what, value)| KernelError::check_positive(what, value))?;
        if !out.is_multiple_of(options.groups) {
            let expected = "a multiple of the number of groups";
            return Err(KernelError::Dimension { what: "the number of output channels", value: out, expected });
        }
        if let Scales::PerRow { w_pos, w_neg } = scales {
            KernelError::check_length("w_pos", out, w_pos.len())?;
            KernelError::check_length("w_neg", out, w_neg.len())?;
        }
        let order = Order { channels, kernel: [height, width] };
        let rows = out / options.groups;
        let mut nonzeros = 0;
        let mut groups = Vec::with_capacity(options.groups);
        for group in 0..options.groups {
            let panels = Panels::new(rows, order.columns(), |row, column| {
                let (channel, [y, x]) = order.element(column);
                if channel >= channels {
                    return 0;
                }
                let value = value(group * rows + row, (channel * height + y) * width + x);
                nonzeros += usize::from(value != 0);
                value
            });
            let panels = panels.map_err(|error| in_weight(error, group * rows, order, width))?;
            let epilogue = Epilogue::new(&panels, scales.part(group * rows, rows))?;
            groups.push(ChannelGroup { panels, epilogue, lists: None });
        }
        let (level, activations) = (Level::best(), Activations::Float32);
        let mut convolution = Self { shape, options, groups, nonzeros, path: Path::Dense, level, activations };
        convolution.path = convolution.quicker_path();
        convolution.build_lists();
        Ok(convolution)
    }

    /// Adds a bias to each output channel, after all that is there: `y + bias[o]`.
    ///
    /// # Errors
    /// [`KernelError::Length`]
    pub fn with_bias(self, bias: &[f32]) -> Result<Self, KernelError> {
        self.then(None, Some(bias))
    }

    /// Another affine map after all that is there, `scale[o] y + shift[o]`: a batch normalization, folded. Signs do not matter.
    ///
    /// # Errors
    /// [`KernelError::Length`]
    pub fn with_affine(self, scale: &[f32], shift: &[f32]) -> Result<Self, KernelError> {
        self.then(Some(scale), Some(shift))
    }

    fn then(mut self, scale: Option<&[f32]>, shift: Option<&[f32]>) -> Result<Self, KernelError> {
        let rows = self.shape[0] / self.options.groups;
        for (what, values) in [("scale", scale), ("shift or bias", shift)] {
            values.map_or(Ok(()), |values| KernelError::check_length(what, self.shape[0], values.len()))?;
        }
        for (i, group) in self.groups.iter_mut().enumerate() {
            let part = |values: &'_ [f32]| -> Vec<f32> { values[i * rows..][..rows].to_vec() };
            group.epilogue.then(scale.map(part).as_deref(), shift.map(part).as_deref())?;
        }
        Ok(self)
    }

    /// `max(y, 0)` at the very end.
    pub fn with_relu(mut self) -> Self {
        self.groups.iter_mut().for_each(|group| group.epilogue.relu = true);
        self
    }

    /// Chooses the precision of activations; it is [`Activations::Float32`] at first.
    pub fn with_activations(mut self, activations: Activations) -> Self {
        self.activations = activations;
        self.build_lists();
        self
    }

    /// Chooses how exact activations are convolved.
    pub fn with_path(mut self, path: Path) -> Self {
        self.path = path;
        self.build_lists();
        self
    }

    /// Chooses an instruction set; it is [`Level::best`] at first.
    ///
    /// # Errors
    /// [`KernelError::Unavailable`]
    pub fn with_level(mut self, level: Level) -> Result<Self, KernelError> {
        self.level = level.checked()?;
        Ok(self)
    }

    /// The weights' shape `[out, in / groups, height, width]`.
    pub fn shape(&self) -> [usize; 4] {
        self.shape
    }

    /// Stride, padding, dilation and groups.
    pub fn options(&self) -> ConvolutionOptions {
        self.options
    }

    /// The instruction set.
    pub fn level(&self) -> Level {
        self.level
    }

    /// The precision of activations.
    pub fn activations(&self) -> Activations {
        self.activations
    }

    /// How this convolution is done: [`Path::Dense`] for activations of 8 bits; for exact ones as chosen, and if nothing was chosen
    /// by the share of zeros. A nonzero weight costs the sparse path about 1.25 times what any weight costs the dense one, and the
    /// dense one has the weights that fill up 16 output and 4 input channels, too. So 20 % of zeros are enough for the sparse path
    /// where the channels of a group are multiples of these. (Measured with 3 × 3 kernels on an EPYC of the Zen 5 kind: the two are
    /// equal at 18 % zeros for 16 channels of 32 × 32, 2 % for 64 of 8 × 8, 17 % for 256 of 14 × 14 with AVX-512; at 15 to 30 % with
    /// AVX2; at the portable level the sparse path was ahead from 5 % on.)
    pub fn path(&self) -> Path {
        match self.activations {
            Activations::Float32 => self.path,
            Activations::Int8 => Path::Dense,
        }
    }

    /// A ternary value: the one of output channel `o` with the index `k` into the other three dimensions.
    ///
    /// # Panics
    /// Where there is no such weight.
    pub fn value(&self, o: usize, k: usize) -> i8 {
        let (rows, weights) = (self.shape[0] / self.options.groups, self.shape[1] * self.shape[2] * self.shape[3]);
        assert!(o < self.shape[0] && k < weights, "weight [{o}, {k}] of [{}, {weights}]", self.shape[0]);
        self.groups[o / rows].panels.get(o % rows, self.order().column(k))
    }

    /// The share of zeros among the weights.
    pub fn sparsity(&self) -> f64 {
        1.0 - self.nonzeros as f64 / self.shape.iter().product::<usize>() as f64
    }

    /// The shape of the output for an input of the shape `[images, channels, height, width]`.
    ///
    /// # Errors
    /// [`KernelError::Dimension`] for another number of channels, [`KernelError::InputTooSmall`]
    pub fn output_shape(&self, [images, channels, height, width]: [usize; 4]) -> Result<[usize; 4], KernelError> {
        if channels != self.shape[1] * self.options.groups {
            let expected = "the number of input channels of the weights";
            return Err(KernelError::Dimension { what: "the number of channels of x", value: channels, expected });
        }
        let geometry = Geometry::new(self.options, [self.shape[2], self.shape[3]], [height, width])?;
        Ok([images, self.shape[0], geometry.output[0], geometry.output[1]])
    }

    /// What a convolution of an input `[images, channels, height, width]` reads, writes and computes at least.
    ///
    /// # Errors
    /// As for [`output_shape`](Self::output_shape).
    pub fn cost(&self, input: [usize; 4]) -> Result<Cost, KernelError> {
        let outputs = self.output_shape(input)?.iter().product::<usize>();
        let weights = |group: &ChannelGroup| match &group.lists {
            Some(lists) => lists.bytes(),
            None => group.panels.bytes(),
        };
        Ok(Cost {
            weight_bytes: self.groups.iter().map(|group| weights(group) + group.epilogue.bytes()).sum(),
            input_bytes: 4 * input.iter().product::<usize>(),
            output_bytes: 4 * outputs,
            multiply_accumulates: outputs * self.shape[1] * self.shape[2] * self.shape[3],
        })
    }

    /// Convolves `x` of the shape `input` = `[images, channels, height, width]` to `y` of [`output_shape`](Self::output_shape).
    ///
    /// # Errors
    /// As for [`output_shape`](Self::output_shape), and [`KernelError::Length`].
    pub fn forward(
        &self,
        x: &[f32],
        input: [usize; 4],
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
        let threads = workers::worthwhile(images * image_work);
        let parts = images * self.options.groups;
        let window = self.window(geometry, threads.div_ceil(parts));
        let Scratch { factors, offsets, workers, .. } = scratch;
        let offsets = self.offsets(window, offsets);
        let factors = self.factors(x, images, factors);
        workers.resize_with(workers.len().max(threads), Words::default);
        let call = Call { convolution: self, x, window, offsets, factors, output: Output::new(y) };
        let strips = height.div_ceil(window.strip);
        workers::run(parts * strips, &mut workers[..threads], |task, buffer| {
            let (part, strip) = (task / strips, task % strips);
            let place = Place { image: part / self.options.groups, group: part % self.options.groups, strip };
            // SAFETY: `with_level` and `Level::best` let in only levels that the machine has.
            unsafe { self.level.run(Strip { call, place, buffer }) };
        });
        Ok(())
    }

    fn order(&self) -> Order {
        Order { channels: self.shape[1], kernel: [self.shape[2], self.shape[3]] }
    }

    /// Lists are there where the path needs them.
    fn build_lists(&mut self) {
        let order = self.order();
        let sparse = self.path() == Path::Sparse;
        let columns = self.shape[1] * self.shape[2] * self.shape[3];
        for ChannelGroup { panels, lists, .. } in &mut self.groups {
            if sparse && lists.is_none() {
                *lists = Some(Lists::new(panels.rows(), columns, |row, k| panels.get(row, order.column(k))));
            } else if !sparse {
                *lists = None;
            }
        }
    }

    /// See [`path`](Self::path).
    fn quicker_path(&self) -> Path {
        let dense: usize = self.groups.iter().map(|group| group.panels.padded_rows() * group.panels.columns()).sum();
        if SPARSE_COST * self.nonzeros as f64 <= dense as f64 { Path::Sparse } else { Path::Dense }
    }

    /// Planes of a window.
    fn planes(&self) -> usize {
        match self.activations {
            Activations::Float32 => self.shape[1],
            Activations::Int8 => self.shape[1].div_ceil(4),
        }
    }

    /// Strips as high as windows may be large, and at least so many.
    fn window(&self, geometry: Geometry, strips: usize) -> Window {
        let mut strip = geometry.output[0].div_ceil(strips);
        while strip > 1 && self.planes() * Window::new(geometry, strip).plane() > WINDOW {
            strip = strip.div_ceil(2);
        }
        Window::new(geometry, strip)
    }

    /// From a pixel's first element to those under the kernel, in the order in which the path takes them.
    fn offsets<'a>(&self, window: Window, to: &'a mut Words) -> &'a [u32] {
        let [_, channels, height, width] = self.shape;
        let places = || (0..height).flat_map(|y| (0..width).map(move |x| [y, x]));
        let plane = window.plane();
        if self.activations == Activations::Float32 && self.path == Path::Dense {
            let to = to.reserve(channels.next_multiple_of(4) * height * width);
            let mut columns = to.iter_mut();
            for quad in (0..channels).step_by(4) {
                for place in places() {
                    // A channel that only fills up has weights of zero: any element will do.
                    let channels = (quad..quad + 4).map(|channel| channel.min(channels - 1));
                    let offsets = channels.map(|channel| (channel * plane + window.offset(place)) as u32);
                    offsets.zip(&mut columns).for_each(|(offset, to)| *to = offset);
                }
            }
            return to;
        }
        let to = to.reserve(self.planes() * height * width);
        for (index, to) in to.chunks_exact_mut(height * width).enumerate() {
            to.iter_mut().zip(places()).for_each(|(to, place)| *to = (index * plane + window.offset(place)) as u32);
        }
        to
    }

    /// The factor of each image and its inverse, for activations of 8 bits.
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

/// The place of a refused weight, in the caller's terms.
fn in_weight(error: KernelError, first: usize, order: Order, width: usize) -> KernelError {
    match error {
        KernelError::NotTernary { row, column, value } => {
            let (channel, [y, x]) = order.element(column);
            let column = (channel * order.kernel[0] + y) * width + x;
            KernelError::NotTernary { row: first + row, column, value }
        }
        error => error,
    }
}
