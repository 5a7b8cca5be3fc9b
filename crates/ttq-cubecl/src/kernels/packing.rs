//! Ternary weights as the product kernels read them.
//!
//! A weight is a matrix of `outputs` rows with `inner` values each. A device word holds 16 values of one row that follow one another, two
//! bits each: bit `2 j` says that value `j` is negative, bit `2 j + 1` that it is positive, so that what lies beyond the end is zero.
//! Words are `[ceil(inner / 16), outputs]`: units of neighbouring outputs read neighbouring words.
//!
//! The words of a file hold codes `t + 1` in the row-major order of the weight, and value `k` of row `n` is at `n · across + k · along`.

use burn_cubecl::CubeRuntime;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;
use burn_std::Shape;
use cubecl::prelude::*;

use super::layout::UNITS;

/// Values in a word.
pub(crate) const VALUES: u32 = 16;

/// A weight as a matrix, and where a file has its values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Matrix {
    pub(crate) outputs: usize,
    pub(crate) inner: usize,
    /// From one row to the next.
    pub(crate) across: usize,
    /// From one value of a row to the next.
    pub(crate) along: usize,
}

impl Matrix {
    /// Shape of its device words.
    pub(crate) fn words(self) -> [usize; 2] {
        [self.inner.div_ceil(VALUES as usize), self.outputs]
    }
}

/// The device words of a file's words.
pub(crate) fn pack<R: CubeRuntime>(codes: CubeTensor<R>, matrix: Matrix) -> CubeTensor<R> {
    let codes = into_contiguous(codes);
    let (client, device) = (codes.client.clone(), codes.device.clone());
    let shape = Shape::from(matrix.words());
    let units = CubeDim::new_1d(UNITS);
    let count = cubecl::calculate_cube_count_elemwise(&client, shape.num_elements(), units);
    let words = empty_device_contiguous_dtype(client.clone(), device, shape, codes.dtype);
    let [outputs, inner, across, along] =
        [matrix.outputs, matrix.inner, matrix.across, matrix.along].map(|number| number as u32);
    // SAFETY: a unit beyond the last word ends at once, and a value beyond the end of its row is not read.
    unsafe {
        pack_kernel::launch_unchecked(
            &client,
            count,
            units,
            codes.into_array_arg(),
            words.clone().into_array_arg(),
            outputs,
            inner,
            across,
            along,
        );
    }
    words
}

#[cube(launch_unchecked)]
fn pack_kernel(codes: &Array<u32>, words: &mut Array<u32>, outputs: u32, inner: u32, across: u32, along: u32) {
    let position = ABSOLUTE_POS as u32;
    if position >= inner.div_ceil(VALUES) * outputs {
        terminate!();
    }
    let output = position % outputs;
    let first = position / outputs * VALUES;
    let mut word = 0u32;
    for j in 0..VALUES {
        if first + j < inner {
            let at = output * across + (first + j) * along;
            let code = (codes[(at / VALUES) as usize] >> (2 * (at % VALUES))) & 3;
            // 0, 1, 2 become 1, 0, 2.
            let value = select(code == 2, 2u32, 1u32 - min(code, 1u32));
            word |= value << (2 * j);
        }
    }
    words[position as usize] = word;
}
