//! Quantization of activations to int8, with one factor for each row of a matrix or each image:
//!
//! ```text
//! factor = max |x| / 127        q = round(x / factor), 0 where the factor is 0
//! ```
//!
//! A word holds four values `q + 128`, the first in its lowest byte. Every row starts with a new word.

use burn_cubecl::CubeRuntime;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;
use burn_std::{DType, Shape};
use cubecl::prelude::*;
use cubecl::std::tensor::layout::linear::LinearView;

use super::layout::{Fold, Groups, Layout, UNITS};
use super::threshold::{Partials, ScaledFold, Thresholds};

/// Offset of stored values: `q + OFFSET` is not negative.
pub(crate) const OFFSET: i32 = 128;

/// Activations in int8.
pub(crate) struct Quantized<R: CubeRuntime> {
    /// Four values each, `[rows, ceil(length / 4)]`, u32.
    pub(crate) words: CubeTensor<R>,
    /// `[rows]`, float32.
    pub(crate) factors: CubeTensor<R>,
}

/// Quantizes `rows` rows of equal length.
pub(crate) fn quantize<R: CubeRuntime>(x: CubeTensor<R>, rows: usize) -> Quantized<R> {
    let (client, device) = (x.client.clone(), x.device.clone());
    let length = x.meta.shape().num_elements() / rows;
    let groups = Groups::new(&[rows, length], Some(0));
    let partials = Partials::of(&x, groups, ScaledFold { fold: Fold::Max, factor: (1.0 / 127.0) as f32 });
    let empty = |shape: Shape, dtype| empty_device_contiguous_dtype(client.clone(), device.clone(), shape, dtype);
    let words = empty(Shape::from([rows, length.div_ceil(4)]), DType::U32);
    let factors = empty(Shape::from([rows]), DType::F32);
    let dtype = x.dtype.into();
    let thresholds = partials.arguments();
    // SAFETY: a unit only writes words of its row and reads no element beyond the row, and one unit of each row writes
    // its factor.
    unsafe {
        quantize_kernel::launch_unchecked(
            &client,
            groups.cubes(&client),
            CubeDim::new_1d(UNITS),
            x.into_linear_view(),
            partials.values.into_array_arg(),
            words.clone().into_array_arg(),
            factors.clone().into_array_arg(),
            groups.arguments(),
            thresholds,
            groups.lanes(),
            dtype,
        );
    }
    Quantized { words, factors }
}

#[cube(launch_unchecked)]
fn quantize_kernel<F: Float>(
    x: &LinearView<F>,
    partials: &Array<f32>,
    words: &mut Array<u32>,
    factors: &mut Array<f32>,
    layout: Layout,
    thresholds: Thresholds,
    #[comptime] lanes: u32,
    #[define(F)] _dtype: StorageType,
) {
    let unit = layout.unit_range(lanes);
    if unit.part >= layout.parts {
        terminate!();
    }
    let factor = thresholds.at::<f32>(partials, &layout, unit, Fold::Max, lanes);
    if unit.group < layout.groups {
        if unit.part == 0 && unit.row == 0 {
            factors[unit.group as usize] = factor;
        }
        let length = layout.members;
        let per_row = length.div_ceil(4u32);
        // The units of all parts process the words of the row in an interleaved order.
        let units = comptime!(UNITS / lanes);
        let mut word = unit.part * units + unit.row;
        while word < per_row {
            let mut four = 0u32;
            #[unroll]
            for byte in 0..4u32 {
                let index = 4 * word + byte;
                let mut q = 0i32;
                if index < length && factor > 0.0f32 {
                    let value = f32::cast_from(x[layout.index(unit.group, index)]);
                    q = i32::cast_from((value / factor).round());
                }
                let q = u32::cast_from(clamp(q, -127, 127) + OFFSET);
                four |= q << (8 * byte);
            }
            words[(unit.group * per_row + word) as usize] = four;
            word += layout.parts * units;
        }
    }
}
