//! The scales, the affine map and the activation function applied to the sums of a row.

use alloc::vec;
use alloc::vec::Vec;

use super::panels::Panels;
use super::{KernelError, quantize};

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
    /// `true` if `w_pos = w_neg` in every row, so that the single sum `P - N` suffices.
    pub(crate) symmetric: bool,
    /// Contribution of the zero point of unsigned bytes to `P` and to `N`: the zero point times the number of codes +1
    /// and -1.
    pub(crate) zero_pos: Vec<i32>,
    pub(crate) zero_neg: Vec<i32>,
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
            symmetric: false,
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
        self.symmetric = self.w_pos == self.w_neg;
        if same(&self.w_pos) && same(&self.w_neg) {
            self.shared = Some([self.w_pos[0], self.w_neg[0]]);
        } else if self.symmetric {
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

    pub(crate) fn bytes(&self) -> usize {
        4 * 6 * self.w_pos.len()
    }

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

    /// Computes `y` from integer sums of unsigned bytes.
    ///
    /// With `T = P - N`, `y = scale (factor (w_neg T + (w_pos - w_neg) P)) + shift`. The second term is zero if
    /// `w_pos = w_neg`. `sums` is `T` if the scales are symmetric, and otherwise `P` and `2 ^ neg_shift N`.
    #[inline(always)]
    pub(crate) fn integers(&self, row: usize, factor: f32, sums: [&[i32]; 2], neg_shift: u32, y: &mut [f32]) {
        let n = y.len();
        let (w_pos, w_neg) = (&self.w_pos[row..][..n], &self.w_neg[row..][..n]);
        let (zero_pos, zero_neg) = (&self.zero_pos[row..][..n], &self.zero_neg[row..][..n]);
        let (first, second) = (&sums[0][..n], &sums[1][..n]);
        if self.symmetric {
            for lane in 0..n {
                let difference = first[lane] - (zero_pos[lane] - zero_neg[lane]);
                y[lane] = factor * (w_neg[lane] * difference as f32);
            }
        } else {
            for lane in 0..n {
                let pos = first[lane] - zero_pos[lane];
                let neg = (second[lane] >> neg_shift) - zero_neg[lane];
                y[lane] = factor * (w_neg[lane] * (pos - neg) as f32 + (w_pos[lane] - w_neg[lane]) * pos as f32);
            }
        }
        self.floats(row, y);
    }
}

/// Computes `max(y, 0)`, and NaN for NaN.
#[inline(always)]
pub(crate) fn relu(y: f32) -> f32 {
    if y < 0.0 { 0.0 } else { y }
}
