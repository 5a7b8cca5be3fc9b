//! What happens to a row's sums.

use alloc::vec;
use alloc::vec::Vec;

use super::panels::Panels;
use super::{KernelError, quantize};

/// The two scales of ternary weights: +1 stands for `w_pos`, -1 for `-w_neg`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scales<'a> {
    /// One pair for the whole tensor.
    PerTensor {
        /// The value of +1.
        w_pos: f32,
        /// Minus the value of -1.
        w_neg: f32,
    },
    /// A pair for each row (output channel).
    PerRow {
        /// The values of +1.
        w_pos: &'a [f32],
        /// Minus the values of -1.
        w_neg: &'a [f32],
    },
}

impl Scales<'_> {
    /// Those of some rows.
    pub(crate) fn part(&self, first: usize, rows: usize) -> Self {
        match *self {
            Self::PerRow { w_pos, w_neg } => {
                Self::PerRow { w_pos: &w_pos[first..][..rows], w_neg: &w_neg[first..][..rows] }
            }
            per_tensor => per_tensor,
        }
    }
}

/// For each row `y = scale (w_pos P - w_neg N) + shift`, then `max(y, 0)` where `relu` is set. `P` and `N` are the sums of the
/// activations at weights of +1 and of -1. Vectors have as many elements as the panels have rows.
#[derive(Debug, Clone)]
pub(crate) struct Epilogue {
    rows: usize,
    pub(crate) w_pos: Vec<f32>,
    pub(crate) w_neg: Vec<f32>,
    pub(crate) scale: Vec<f32>,
    pub(crate) shift: Vec<f32>,
    pub(crate) relu: bool,
    /// The pair of all rows, where they have the same.
    pub(crate) shared: Option<[f32; 2]>,
    /// Is `w_pos = w_neg` in every row? Then one sum is enough.
    pub(crate) symmetric: bool,
    /// What unsigned bytes add to `P` and to `N`: their zero point times the number of weights of +1 and of -1.
    pub(crate) zero_pos: Vec<i32>,
    pub(crate) zero_neg: Vec<i32>,
}

impl Epilogue {
    /// Scales alone.
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
        for row in 0..rows {
            for column in 0..panels.columns() {
                match panels.get(row, column) {
                    1 => epilogue.zero_pos[row] += quantize::ZERO_POINT,
                    -1 => epilogue.zero_neg[row] += quantize::ZERO_POINT,
                    _ => {}
                }
            }
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
            // The factor of a row is as well applied to its sum: then all rows have the pair 1, 1.
            self.scale.copy_from_slice(&self.w_pos);
            self.w_pos[..rows].fill(1.0);
            self.w_neg[..rows].fill(1.0);
            self.shared = Some([1.0, 1.0]);
        }
        Ok(())
    }

    /// Another affine map after all that is there: `scale[row] y + shift[row]`. Of either sign: kernels never assume one.
    pub(crate) fn then(&mut self, scale: Option<&[f32]>, shift: Option<&[f32]>) -> Result<(), KernelError> {
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

    /// `y` of sums that have the scales of the weights already.
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

    /// `y` of integer sums: with `T = P - N`, `y = scale (factor (w_neg T + (w_pos - w_neg) P)) + shift`, where the second term is
    /// exactly zero if one scale is enough. `sums` are `T`, or `P` and `2 ^ neg_shift N`, of unsigned bytes.
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

/// `max(y, 0)`, NaN for NaN.
#[inline(always)]
pub(crate) fn relu(y: f32) -> f32 {
    if y < 0.0 { 0.0 } else { y }
}
