//! The gradients of latent weight and scales, from the ternary weight `q` and its gradient `g`, in one pass.
//!
//! ```text
//! ∂L/∂w_i = g_i · slope_i
//! ∂L/∂W_p = Σ g_i where q_i > 0
//! ∂L/∂W_n = sign · Σ g_i where q_i < 0
//! ```
//!
//! If the weights of a group are divided into several parts, the first kernel writes sums `[groups,
//! parts, 2]` and a second kernel adds them in a fixed order.

use burn_cubecl::CubeRuntime;
use burn_cubecl::ops::numeric::{empty_device_contiguous_dtype, empty_device_dtype};
use burn_cubecl::tensor::CubeTensor;
use burn_std::{DType, Shape};
use cubecl::prelude::*;
use cubecl::std::tensor::layout::linear::LinearView;

use super::layout::{Fold, Groups, Layout, UNITS, cubes, fold_cube};
use super::threshold::zero_or_nan;

/// The slope `∂q/∂w` where the code is +1, 0 and -1: the factor of the latent gradient on `g`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Slope {
    /// `W_p / s`, 1, `W_n / s`, with `s = (W_p + W_n) / 2`.
    Relative,
    /// `W_p`, 1, `W_n`.
    Scaled,
    /// 1, 1, 1.
    Identity,
}

/// Variants of the gradients.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Estimator {
    /// Slope of the latent gradient.
    pub(crate) slope: Slope,
    /// Sign of the gradient of W_n.
    pub(crate) sign: f32,
}

/// Computes the gradients of the latent weight, in its shape and type, and of the scales, one pair for each group.
pub(crate) fn gradients<R: CubeRuntime>(
    grad: CubeTensor<R>,
    ternary: CubeTensor<R>,
    scales: CubeTensor<R>,
    groups: Groups,
    estimator: Estimator,
) -> [CubeTensor<R>; 2] {
    let (client, device) = (ternary.client.clone(), ternary.device.clone());
    let of_latent = empty_device_dtype(client.clone(), device.clone(), ternary.meta.shape().clone(), ternary.dtype);
    let of_scales = empty_device_dtype(client.clone(), device.clone(), scales.meta.shape().clone(), scales.dtype);
    let parts = groups.parts();
    let sums = if parts == 1 {
        of_scales.clone()
    } else {
        let shape = Shape::from([groups.groups, parts, 2]);
        empty_device_contiguous_dtype(client.clone(), device, shape, DType::F32)
    };
    let dtypes = [ternary.dtype.into(), scales.dtype.into(), sums.dtype.into()];
    // SAFETY: members that are read and written, and the pair of sums, lie within their tensors by
    // `Layout::unit_range`.
    unsafe {
        gradients_kernel::launch_unchecked(
            &client,
            groups.cubes(&client),
            CubeDim::new_1d(UNITS),
            grad.into_linear_view(),
            ternary.into_linear_view(),
            scales.into_linear_view(),
            of_latent.clone().into_linear_view(),
            sums.clone().into_linear_view(),
            groups.arguments(),
            estimator.sign,
            estimator.slope,
            groups.lanes(),
            dtypes,
        );
    }
    if parts > 1 {
        let dtype = of_scales.dtype.into();
        // SAFETY: each pair has one cube, which only reads its sums and writes the pair.
        unsafe {
            sum_kernel::launch_unchecked(
                &client,
                cubes(&client, groups.groups),
                CubeDim::new_1d(UNITS),
                sums.into_array_arg(),
                of_scales.clone().into_linear_view(),
                groups.groups as u32,
                parts as u32,
                dtype,
            );
        }
    }
    [of_latent, of_scales]
}

#[cube(launch_unchecked)]
fn gradients_kernel<F: Float, S: Float, O: Float>(
    grad: &LinearView<F>,
    ternary: &LinearView<F>,
    scales: &LinearView<S>,
    of_latent: &mut LinearView<F, ReadWrite>,
    sums: &mut LinearView<O, ReadWrite>,
    layout: Layout,
    sign: f32,
    #[comptime] slope: Slope,
    #[comptime] lanes: u32,
    #[define(F, S, O)] _dtypes: [StorageType; 3],
) {
    let unit = layout.unit_range(lanes);
    if unit.part >= layout.parts {
        terminate!();
    }
    let mut positive = 0.0f32;
    let mut negative = 0.0f32;
    if unit.first < unit.end {
        let pair = 2 * unit.group;
        let mut w_pos = f32::cast_from(scales[pair as usize]);
        let mut w_neg = f32::cast_from(scales[(pair + 1) as usize]);
        if comptime!(slope == Slope::Relative) {
            let mean = (w_pos + w_neg) * 0.5f32;
            w_pos /= mean;
            w_neg /= mean;
        }
        let mut member = unit.first;
        while member < unit.end {
            let index = layout.index(unit.group, member);
            let value = ternary[index];
            let grad = grad[index];
            let above = value > F::new(0.0);
            let below = value < F::new(0.0);
            let invalid = zero_or_nan::<F>(value);
            let sum = f32::cast_from(grad);
            let nothing = f32::cast_from(invalid);
            positive += select(above, sum, nothing);
            negative += select(below, sum, nothing);
            if comptime!(slope == Slope::Identity) {
                of_latent[index] = grad;
            } else {
                of_latent[index] = F::cast_from(sum * select(above, w_pos, select(below, w_neg, nothing + 1.0f32)));
            }
            member += comptime!(UNITS / lanes);
        }
    }
    let positive = fold_cube(positive, Fold::Sum, lanes);
    let negative = fold_cube(negative, Fold::Sum, lanes);
    if unit.row == 0 && unit.group < layout.groups {
        let pair = (2 * (unit.group * layout.parts + unit.part)) as usize;
        sums[pair] = O::cast_from(positive);
        sums[pair + 1] = O::cast_from(negative * sign);
    }
}

/// Adds all sums of each pair: `[pairs, n, 2]` to `[pairs, 2]`.
#[cube(launch_unchecked)]
fn sum_kernel<S: Float>(
    sums: &Array<f32>,
    output: &mut LinearView<S, ReadWrite>,
    pairs: u32,
    n: u32,
    #[define(S)] _dtype: StorageType,
) {
    let pair = CUBE_POS as u32;
    if pair >= pairs {
        terminate!();
    }
    let mut sum = 0.0f32;
    let mut index = UNIT_POS;
    while index < 2 * n {
        sum += sums[(2 * pair * n + index) as usize];
        index += UNITS;
    }
    // The sums of both sides are interleaved, so they are folded like two neighbouring groups.
    let sum = fold_cube(sum, Fold::Sum, 2u32);
    if UNIT_POS < 2 {
        output[(2 * pair + UNIT_POS) as usize] = S::cast_from(sum);
    }
}
