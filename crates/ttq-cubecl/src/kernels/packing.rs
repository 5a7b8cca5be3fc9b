//! Conversion of packed weights from the layout of files to the layout of the product kernels.
//!
//! A weight is a matrix of `outputs` rows with `inner` values each. A device word holds 16 consecutive values of one
//! row, two bits each: bit `2 j` is set if value `j` is negative, bit `2 j + 1` if it is positive. Padding beyond the
//! end of a row is therefore zero. Words are `[ceil(inner / 16), outputs]`, so units of neighbouring outputs read
//! neighbouring words.
//!
//! The words of a file hold codes `t + 1` in row-major order of the weight. The index of value `k` of row `n` is
//! `n · row_stride + k · value_stride`.

use burn_cubecl::CubeRuntime;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;
use burn_std::Shape;
use cubecl::prelude::*;

use super::layout::UNITS;

/// Values in a word.
pub(crate) const VALUES: u32 = 16;

/// A weight as a matrix, and the positions of its values in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Matrix {
    pub(crate) outputs: usize,
    pub(crate) inner: usize,
    /// Distance in a file from one row to the next.
    pub(crate) row_stride: usize,
    /// Distance in a file from one value of a row to the next.
    pub(crate) value_stride: usize,
}

impl Matrix {
    /// Shape of the device words.
    pub(crate) fn words_shape(self) -> [usize; 2] {
        [self.inner.div_ceil(VALUES as usize), self.outputs]
    }
}

/// Converts the words of a file to device words.
pub(crate) fn pack<R: CubeRuntime>(codes: CubeTensor<R>, matrix: Matrix) -> CubeTensor<R> {
    let codes = into_contiguous(codes);
    let (client, device) = (codes.client.clone(), codes.device.clone());
    let shape = Shape::from(matrix.words_shape());
    let units = CubeDim::new_1d(UNITS);
    let count = cubecl::calculate_cube_count_elemwise(&client, shape.num_elements(), units);
    let words = empty_device_contiguous_dtype(client.clone(), device, shape, codes.dtype);
    let [outputs, inner, row_stride, value_stride] =
        [matrix.outputs, matrix.inner, matrix.row_stride, matrix.value_stride].map(|number| number as u32);
    // SAFETY: a unit beyond the last word terminates at once, and values beyond the end of a row are not read.
    unsafe {
        pack_kernel::launch_unchecked(
            &client,
            count,
            units,
            codes.into_array_arg(),
            words.clone().into_array_arg(),
            outputs,
            inner,
            row_stride,
            value_stride,
        );
    }
    words
}

#[cube(launch_unchecked)]
fn pack_kernel(
    codes: &Array<u32>,
    words: &mut Array<u32>,
    outputs: u32,
    inner: u32,
    row_stride: u32,
    value_stride: u32,
) {
    let position = ABSOLUTE_POS as u32;
    if position >= inner.div_ceil(VALUES) * outputs {
        terminate!();
    }
    let output = position % outputs;
    let first = position / outputs * VALUES;
    let mut word = 0u32;
    for j in 0..VALUES {
        if first + j < inner {
            let at = output * row_stride + (first + j) * value_stride;
            let code = (codes[(at / VALUES) as usize] >> (2 * (at % VALUES))) & 3;
            // Maps 0, 1, 2 to 1, 0, 2.
            let value = select(code == 2, 2u32, 1u32 - min(code, 1u32));
            word |= value << (2 * j);
        }
    }
    words[position as usize] = word;
}
