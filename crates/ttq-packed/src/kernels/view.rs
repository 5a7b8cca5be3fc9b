//! Codes as tensors.

use super::KernelError;
use crate::Codes;

/// Codes as a tensor with `D` dimensions: its element `i` is the value number `Σ_d i[d] strides[d]` of the codes.
///
/// ```
/// use ttq_packed::Codes;
/// use ttq_packed::kernels::CodesView;
///
/// let codes = Codes::pack(&[1, 0, -1, 0, 1, 1])?;
/// let matrix = CodesView::new(&codes, [2, 3])?;
/// // The same memory as a matrix [in, out] = [2, 3] that is read as [out, in].
/// let transposed = CodesView::with_strides(&codes, [3, 2], [1, 3])?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct CodesView<'a, const D: usize> {
    pub(crate) codes: &'a Codes,
    pub(crate) shape: [usize; D],
    pub(crate) strides: [usize; D],
}

impl<'a, const D: usize> CodesView<'a, D> {
    /// Views codes as a tensor in row-major order.
    ///
    /// # Errors
    /// [`KernelError::Length`] if the tensor does not have as many elements as there are codes.
    pub fn new(codes: &'a Codes, shape: [usize; D]) -> Result<Self, KernelError> {
        let elements = shape.iter().try_fold(1_usize, |product, size| product.checked_mul(*size));
        KernelError::check_length("the codes", elements.unwrap_or(usize::MAX), codes.len())?;
        let mut strides = [1; D];
        for d in (1..D).rev() {
            strides[d - 1] = strides[d] * shape[d];
        }
        Ok(Self { codes, shape, strides })
    }

    /// Views codes as a tensor whose neighbours along dimension `d` have the distance `strides[d]`.
    ///
    /// # Errors
    /// [`KernelError::Length`] if the last element is not among the codes.
    pub fn with_strides(codes: &'a Codes, shape: [usize; D], strides: [usize; D]) -> Result<Self, KernelError> {
        let last = shape.iter().zip(strides).try_fold(0_usize, |last, (size, stride)| {
            size.saturating_sub(1).checked_mul(stride).and_then(|distance| last.checked_add(distance))
        });
        match last {
            Some(last) if last < codes.len() => {
                // The distance to a neighbour that does not exist could be any number.
                let strides = core::array::from_fn(|d| if shape[d] > 1 { strides[d] } else { 0 });
                Ok(Self { codes, shape, strides })
            }
            _ => {
                let expected = last.and_then(|last| last.checked_add(1)).unwrap_or(usize::MAX);
                Err(KernelError::Length { what: "the codes", expected, found: codes.len() })
            }
        }
    }
}
