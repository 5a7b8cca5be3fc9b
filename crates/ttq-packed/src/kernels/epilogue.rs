//! The scales, the affine map and the activation function applied to the sums of a row.

use alloc::vec;
use alloc::vec::Vec;
use core::ops::Deref;

use super::panels::Panels;
use super::{KernelError, byte_weights, quantize};

/// The scales of a ternary weight: the code +1 has the value `w_pos`, the code -1 the value `-w_neg`.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Scales<'a> {
    /// One pair of scales for the whole tensor.
    PerTensor {
        /// Value of the code +1.
        w_pos: f32,
        /// Negated value of the code -1.
        w_neg: f32,
    },
    /// One pair of scales per row (output channel).
    PerRow {
        /// Value of the code +1 in each row, `[rows]`.
        w_pos: &'a [f32],
        /// Negated value of the code -1 in each row, `[rows]`.
        w_neg: &'a [f32],
    },
}

impl Scales<'_> {
    /// Returns the scales of the rows `first..first + rows`.
    pub(crate) fn part(&self, first: usize, rows: usize) -> Self {
        match *self {
            Self::PerRow { w_pos, w_neg } => {
                Self::PerRow { w_pos: &w_pos[first..][..rows], w_neg: &w_neg[first..][..rows] }
            }
            per_tensor => per_tensor,
        }
    }
}

/// Computes `y = scale (w_pos P - w_neg N) + shift` for each row, followed by `max(y, 0)` if `relu` is set.
///
/// `P` and `N` are the sums of the activations at the codes +1 and -1. The vectors have one element per row of the
/// panels, including padding.
#[derive(Debug, Clone)]
pub(crate) struct Epilogue {
    rows: usize,
    pub(crate) w_pos: Vec<f32>,
    pub(crate) w_neg: Vec<f32>,
    pub(crate) scale: Vec<f32>,
    pub(crate) shift: Vec<f32>,
    pub(crate) relu: bool,
    /// The pair of scales, if it is the same in all rows.
    pub(crate) shared: Option<[f32; 2]>,
    pub(crate) bytes: ByteScales,
    /// Contribution of the zero point of unsigned bytes to `P` and to `N`: the zero point times the number of codes +1
    /// and -1.
    pub(crate) zero_pos: Vec<i32>,
    pub(crate) zero_neg: Vec<i32>,
}

/// How the scales multiply sums of bytes.
#[derive(Debug, Clone)]
pub(crate) enum ByteScales {
    /// Exactly, with the sums `P` and `N`.
    Exact,
    /// As integers, see [`byte_weights`].
    Integers {
        /// One [table](byte_weights::table) per row.
        tables: Vec<u32>,
        /// One unit per row.
        units: Vec<f32>,
        /// `true` if the integers are 1 and 1 in every row, so that the weights are signs.
        signs: bool,
    },
}

impl ByteScales {
    fn new(w_pos: &[f32], w_neg: &[f32], columns: usize) -> Self {
        let (mut tables, mut units) = (Vec::new(), Vec::new());
        let mut last = None;
        for pair in w_pos.iter().zip(w_neg).map(|(pos, neg)| [*pos, *neg]) {
            let integers = match last {
                Some((same, integers)) if same == pair => integers,
                _ => byte_weights::integers(pair, columns),
            };
            last = Some((pair, integers));
            let Some((integers, unit)) = integers else { return Self::Exact };
            tables.push(byte_weights::table(integers));
            units.push(unit);
        }
        let signs = tables.iter().all(|table| *table == byte_weights::table([1, 1]));
        Self::Integers { tables, units, signs }
    }

    /// Returns the number of sums per output, where bytes of weights can have any value or only -1, 0 and 1.
    pub(crate) fn sums(&self, any_bytes: bool) -> usize {
        match self {
            Self::Integers { signs, .. } if any_bytes || *signs => 1,
            _ => 2,
        }
    }

    /// Returns the tables, if there are any.
    pub(crate) fn tables(&self) -> *const u32 {
        match self {
            Self::Exact => core::ptr::null(),
            Self::Integers { tables, .. } => tables.as_ptr(),
        }
    }
}

impl Epilogue {
    /// Creates an epilogue with scales and the identity as affine map.
    pub(crate) fn new(panels: &Panels, scales: Scales<'_>) -> Result<Self, KernelError> {
        let (rows, padded) = (panels.rows(), panels.padded_rows());
        let mut epilogue = Self {
            rows,
            w_pos: vec![0.0; padded],
            w_neg: vec![0.0; padded],
            scale: vec![1.0; padded],
            shift: vec![0.0; padded],
            relu: false,
            shared: None,
            bytes: ByteScales::Exact,
            zero_pos: vec![0; padded],
            zero_neg: vec![0; padded],
        };
        epilogue.set_scales(scales)?;
        for (row, [pos, neg]) in panels.counts().into_iter().enumerate() {
            epilogue.zero_pos[row] = quantize::ZERO_POINT * pos as i32;
            epilogue.zero_neg[row] = quantize::ZERO_POINT * neg as i32;
        }
        Ok(epilogue)
    }

    /// Prepares for int8 activations: replaces the scales by integers, if they have such.
    pub(crate) fn use_integers(&mut self, columns: usize) {
        self.bytes = ByteScales::new(&self.w_pos, &self.w_neg, columns);
    }

    fn set_scales(&mut self, scales: Scales<'_>) -> Result<(), KernelError> {
        let rows = self.rows;
        match scales {
            Scales::PerTensor { w_pos, w_neg } => {
                self.w_pos[..rows].fill(w_pos);
                self.w_neg[..rows].fill(w_neg);
            }
            Scales::PerRow { w_pos, w_neg } => {
                KernelError::check_length("w_pos", rows, w_pos.len())?;
                KernelError::check_length("w_neg", rows, w_neg.len())?;
                self.w_pos[..rows].copy_from_slice(w_pos);
                self.w_neg[..rows].copy_from_slice(w_neg);
            }
        }
        let same = |values: &[f32]| values[..rows].iter().all(|value| *value == values[0]);
        if same(&self.w_pos) && same(&self.w_neg) {
            self.shared = Some([self.w_pos[0], self.w_neg[0]]);
        } else if self.w_pos == self.w_neg {
            // Moves the scale of a row into the affine map, so that all rows share the pair 1, 1.
            self.scale.copy_from_slice(&self.w_pos);
            self.w_pos[..rows].fill(1.0);
            self.w_neg[..rows].fill(1.0);
            self.shared = Some([1.0, 1.0]);
        }
        Ok(())
    }

    /// Appends the affine map `scale[row] y + shift[row]`, with elements of any sign.
    pub(crate) fn append_affine(&mut self, scale: Option<&[f32]>, shift: Option<&[f32]>) -> Result<(), KernelError> {
        if let Some(scale) = scale {
            KernelError::check_length("scale", self.rows, scale.len())?;
            for (row, factor) in scale.iter().enumerate() {
                self.scale[row] *= factor;
                self.shift[row] *= factor;
            }
        }
        if let Some(shift) = shift {
            KernelError::check_length("shift or bias", self.rows, shift.len())?;
            for (row, term) in shift.iter().enumerate() {
                self.shift[row] += term;
            }
        }
        Ok(())
    }

    /// Returns the size in memory.
    pub(crate) fn size(&self) -> usize {
        let vectors = if matches!(self.bytes, ByteScales::Exact) { 6 } else { 8 };
        4 * vectors * self.w_pos.len()
    }

    /// Writes the shift plus the bias of a call.
    pub(crate) fn add_bias(&self, bias: &[f32], shifts: &mut [f32]) {
        for ((to, shift), bias) in shifts.iter_mut().zip(&self.shift).zip(bias) {
            *to = shift + bias;
        }
    }
}

/// The epilogue of a call, whose shift can contain a bias.
#[derive(Clone, Copy)]
pub(crate) struct Finish<'a> {
    pub(crate) epilogue: &'a Epilogue,
    /// One element per row of the panels, including padding.
    pub(crate) shift: &'a [f32],
}

impl Deref for Finish<'_> {
    type Target = Epilogue;

    fn deref(&self) -> &Epilogue {
        self.epilogue
    }
}

impl Finish<'_> {
    /// Computes `y` in place from sums that already include the scales of the weights.
    #[inline(always)]
    pub(crate) fn floats(&self, row: usize, sums: &mut [f32]) {
        let (scale, shift) = (&self.scale[row..][..sums.len()], &self.shift[row..][..sums.len()]);
        for lane in 0..sums.len() {
            sums[lane] = sums[lane] * scale[lane] + shift[lane];
        }
        if self.relu {
            sums.iter_mut().for_each(|y| *y = relu(*y));
        }
    }

    /// Computes `y` from integer sums of unsigned bytes: `T = a P - b N` alone, or `P` and `2 ^ neg_shift N`.
    ///
    /// With integers for scales, `y = scale (factor (unit T)) + shift`. With exact scales,
    /// `y = scale (factor (w_neg (P - N) + (w_pos - w_neg) P)) + shift`.
    #[inline(always)]
    pub(crate) fn integers(&self, row: usize, factor: f32, sums: Sums<'_>, y: &mut [f32]) {
        let n = y.len();
        let (zero_pos, zero_neg) = (&self.zero_pos[row..][..n], &self.zero_neg[row..][..n]);
        match (&self.bytes, sums) {
            (ByteScales::Exact, Sums::Two { pos, neg, neg_shift }) => {
                let (w_pos, w_neg) = (&self.w_pos[row..][..n], &self.w_neg[row..][..n]);
                for lane in 0..n {
                    let pos = pos[lane] - zero_pos[lane];
                    let neg = (neg[lane] >> neg_shift) - zero_neg[lane];
                    y[lane] = factor * (w_neg[lane] * (pos - neg) as f32 + (w_pos[lane] - w_neg[lane]) * pos as f32);
                }
            }
            (ByteScales::Integers { tables, units, .. }, sums) => {
                let (tables, units) = (&tables[row..][..n], &units[row..][..n]);
                for lane in 0..n {
                    let [a, minus_b] = byte_weights::weights(tables[lane]);
                    let sum = match sums {
                        Sums::One(sums) => sums[lane] - (a * zero_pos[lane] + minus_b * zero_neg[lane]),
                        Sums::Two { pos, neg, neg_shift } => {
                            let neg = (neg[lane] >> neg_shift) - zero_neg[lane];
                            a * (pos[lane] - zero_pos[lane]) + minus_b * neg
                        }
                    };
                    y[lane] = factor * (units[lane] * sum as f32);
                }
            }
            (ByteScales::Exact, Sums::One(_)) => unreachable!("exact scales need two sums"),
        }
        self.floats(row, y);
    }
}

/// Integer sums of unsigned bytes for some rows.
#[derive(Clone, Copy)]
pub(crate) enum Sums<'a> {
    /// `a P - b N`
    One(&'a [i32]),
    /// `P` and `2 ^ neg_shift N`
    Two { pos: &'a [i32], neg: &'a [i32], neg_shift: u32 },
}

impl<'a> Sums<'a> {
    /// Takes the first one or two arrays.
    #[inline(always)]
    pub(crate) fn new(planes: usize, [first, second]: [&'a [i32]; 2], neg_shift: u32) -> Self {
        if planes == 1 { Self::One(first) } else { Self::Two { pos: first, neg: second, neg_shift } }
    }
}

/// Computes `max(y, 0)`, and NaN for NaN.
#[inline(always)]
pub(crate) fn relu(y: f32) -> f32 {
    if y < 0.0 { 0.0 } else { y }
}
