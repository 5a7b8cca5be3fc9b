//! Programs: networks as constants, and their execution.

use thiserror::Error;

use crate::convolution::{Bytes, Dense, Geometry, Ternary, convolution};
use crate::linear;
use crate::pool;
use crate::value::{Input, Output};

/// A network as constants: a chain of layers.
///
/// Values are row-major `[channels, height, width]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Program<'a> {
    /// Number of elements of the input.
    pub input: usize,
    /// Number of elements of the output.
    pub output: usize,
    /// Number of floats of the arena.
    pub arena: usize,
    /// The layers. The first reads the input, each other what the layer before wrote, and the last one writes the output.
    pub layers: &'a [Layer<'a>],
}

/// A layer of a program.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Layer<'a> {
    /// What it computes.
    pub function: Function<'a>,
    /// Shapes of what it reads and writes.
    pub shapes: [[usize; 3]; 2],
    /// Where that is in the arena, in floats. Not used for the input and the output of the program.
    pub places: [usize; 2],
    /// Whether its elements are bytes.
    pub bytes: [bool; 2],
}

/// The function of a layer. Pairs are `[vertical, horizontal]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Function<'a> {
    /// A convolution with weights `[out, in, kernel height, kernel width]`.
    Convolution {
        /// Height and width of the kernel.
        kernel: [usize; 2],
        /// Distance between neighbouring windows.
        stride: [usize; 2],
        /// Elements added above and at the left.
        padding: [usize; 2],
        /// What an element in the padding is: the byte of 0, if elements are bytes.
        zero: u8,
        /// Weights.
        weights: Weights<'a>,
        /// One number per output channel, added to the sum.
        bias: &'a [f32],
        /// Limits of the result: an activation function.
        limits: [f32; 2],
    },
    /// A linear layer with weights `[in, out]`.
    Linear {
        /// Weights.
        weights: Weights<'a>,
        /// One number per output, added to the sum.
        bias: &'a [f32],
        /// Limits of the result: an activation function.
        limits: [f32; 2],
    },
    /// The maximum of each window; padding is never the maximum.
    MaxPool {
        /// Height and width of the window.
        size: [usize; 2],
        /// Distance between neighbouring windows.
        stride: [usize; 2],
        /// Elements added above and at the left.
        padding: [usize; 2],
    },
    /// The mean of each window, without padding.
    AveragePool {
        /// Height and width of the window.
        size: [usize; 2],
        /// Distance between neighbouring windows.
        stride: [usize; 2],
    },
}

/// Weights, in units of the output.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Weights<'a> {
    /// Floats, for floats.
    Float(&'a [f32]),
    /// Codes of 2 bits, four per byte and from the lowest bits on, for floats.
    Ternary {
        /// -1, 0 and +1 as `0b00`, `0b01` and `0b10`.
        codes: &'a [u8],
        /// `[w_pos, w_neg]` of each output channel.
        scales: &'a [[f32; 2]],
    },
    /// Codes for bytes.
    TernaryBytes {
        /// As above.
        codes: &'a [u8],
        /// The integers `[a, b]` of each output channel: its weights are `scale a`, 0 and `-scale b`.
        levels: &'a [[i8; 2]],
        /// The scale of each output channel.
        scales: &'a [f32],
    },
}

/// Error of [`Program::run`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RunError {
    /// A slice has the wrong number of elements.
    #[error("the {what} has {found} floats: the network needs {expected}")]
    Length {
        /// `input`, `output` or `arena`.
        what: &'static str,
        /// Required number; an arena can have more.
        expected: usize,
        /// Actual number.
        found: usize,
    },
}

impl Program<'_> {
    /// Computes the output of an item.
    ///
    /// # Errors
    /// [`RunError::Length`] if input or output have another length than [`input`](Self::input) and
    /// [`output`](Self::output), or if the arena has fewer floats than [`arena`](Self::arena).
    ///
    /// # Panics
    /// If the program was written by hand and its fields contradict each other.
    pub fn run(&self, arena: &mut [f32], input: &[f32], output: &mut [f32]) -> Result<(), RunError> {
        let lengths = [
            ("input", self.input, input.len(), self.input == input.len()),
            ("output", self.output, output.len(), self.output == output.len()),
            ("arena", self.arena, arena.len(), self.arena <= arena.len()),
        ];
        for (what, expected, found, fits) in lengths {
            if !fits {
                return Err(RunError::Length { what, expected, found });
            }
        }
        for (i, layer) in self.layers.iter().enumerate() {
            let [from, to] = layer.places;
            let (first, last) = (i == 0, i + 1 == self.layers.len());
            let (x, y) = if from < to {
                let (low, high) = arena.split_at_mut(to);
                (&low[from..], high)
            } else {
                let (low, high) = arena.split_at_mut(from);
                (&*high, &mut low[to..])
            };
            layer.run(if first { input } else { x }, if last { &mut *output } else { y });
        }
        Ok(())
    }
}

impl Layer<'_> {
    fn run(&self, x: &[f32], y: &mut [f32]) {
        let [from, to] = self.shapes;
        let [x_len, y_len] = self.shapes.map(|shape| shape.iter().product());
        let x = Input::new(x, x_len, self.bytes[0]);
        let mut y = Output::new(y, y_len, self.bytes[1]);
        match self.function {
            Function::Convolution { kernel, stride, padding, zero, weights, bias, limits } => {
                let geometry = Geometry { from, to, kernel, stride, padding };
                let y = &mut y;
                match (x, weights) {
                    (Input::Floats(x), Weights::Float(weights)) => {
                        convolution(&geometry, x, 0.0, Dense::new(weights), bias, limits, y);
                    }
                    (Input::Floats(x), Weights::Ternary { codes, scales }) => {
                        convolution(&geometry, x, 0.0, Ternary::new(codes, scales), bias, limits, y);
                    }
                    (Input::Bytes(x), Weights::TernaryBytes { codes, levels, scales }) => {
                        convolution(&geometry, x, zero, Bytes::new(codes, levels, scales), bias, limits, y);
                    }
                    _ => unreachable!("the weights are for elements of another type"),
                }
            }
            Function::Linear { weights, bias, limits } => linear::run(x, weights, bias, limits, &mut y),
            Function::MaxPool { size, stride, padding } => match (x, y) {
                (Input::Floats(x), Output::Floats(y)) => {
                    pool::max(from, to, [size, stride, padding], x, y, f32::NEG_INFINITY);
                }
                (Input::Bytes(x), Output::Bytes(y)) => pool::max(from, to, [size, stride, padding], x, y, 0),
                _ => unreachable!("a maximum has the type of its operands"),
            },
            Function::AveragePool { size, stride } => match (x, y) {
                (Input::Floats(x), Output::Floats(y)) => pool::mean(from, to, [size, stride], x, y),
                _ => unreachable!("means are of floats"),
            },
        }
    }
}

/// Returns the bytes `start..start + len` of a file, in constants.
///
/// # Panics
/// If the file is shorter.
pub const fn part(file: &[u8], start: usize, len: usize) -> &[u8] {
    file.split_at(start).1.split_at(len).0
}
