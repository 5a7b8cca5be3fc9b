//! The gradients of latent weight and scales, from the gradient `g` of the ternary weight, in one pass.
//!
//! ```text
//! ∂L/∂w_i = g_i · (W_p where w_i > Δ, W_n where w_i < -Δ, 1 elsewhere)
//! ∂L/∂W_p = Σ g_i where w_i > Δ
//! ∂L/∂W_n = sign · Σ g_i where w_i < -Δ
//! ```
//!
//! If a group has several parts, the first kernel writes sums `[groups, parts, 2]` and a second kernel adds them in a
//! fixed order.

use burn_cubecl::CubeRuntime;
use burn_cubecl::ops::numeric::{empty_device_contiguous_dtype, empty_device_dtype};
use burn_cubecl::tensor::CubeTensor;
use burn_std::{DType, Shape};
use cubecl::prelude::*;
use cubecl::std::tensor::layout::linear::LinearView;

use super::layout::{Fold, Groups, Layout, UNITS, cubes, fold_cube};
use super::threshold::{Partials, Thresholds};

/// Variants of the gradients.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Estimator {
    /// Whether the latent gradient is multiplied by the scales.
    pub(crate) scaled: bool,
    /// Sign of the gradient of W_n.
    pub(crate) sign: f32,
}

/// Computes the gradients of the latent weight, in its shape and type, and of the scales, `[groups, 2]`.
pub(crate) fn gradients<R: CubeRuntime>(
    grad: CubeTensor<R>,
    latent: CubeTensor<R>,
    scales: CubeTensor<R>,
    partials: Partials<R>,
    groups: Groups,
    estimator: Estimator,
) -> [CubeTensor<R>; 2] {
    let (client, device) = (latent.client.clone(), latent.device.clone());
    let of_latent = empty_device_dtype(client.clone(), device.clone(), latent.meta.shape().clone(), latent.dtype);
    let of_scales = empty_device_dtype(client.clone(), device.clone(), scales.meta.shape().clone(), scales.dtype);
    let parts = groups.parts();
    let sums = if parts == 1 {
        of_scales.clone()
    } else {
        let shape = Shape::from([groups.groups, parts, 2]);
        empty_device_contiguous_dtype(client.clone(), device, shape, DType::F32)
    };
    let dtypes = [latent.dtype.into(), scales.dtype.into(), sums.dtype.into()];
    let thresholds = partials.arguments();
    // SAFETY: members that are read and written, and the pair of sums, lie within their tensors by
    // `Layout::unit_range`.
    unsafe {
        gradients_kernel::launch_unchecked(
            &client,
            groups.cubes(&client),
            CubeDim::new_1d(UNITS),
            grad.into_linear_view(),
            latent.into_linear_view(),
            scales.into_linear_view(),
            partials.values.into_array_arg(),
            of_latent.clone().into_linear_view(),
            sums.clone().into_linear_view(),
            groups.arguments(),
            thresholds,
            estimator.sign,
            estimator.scaled,
            partials.rule.fold,
            groups.lanes(),
            dtypes,
        );
    }
    if parts > 1 {
        let dtype = of_scales.dtype.into();
        // SAFETY: each group has one cube, which only reads the group's sums and writes its pair.
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
    latent: &LinearView<F>,
    scales: &LinearView<S>,
    partials: &Array<f32>,
    of_latent: &mut LinearView<F, ReadWrite>,
    sums: &mut LinearView<O, ReadWrite>,
    layout: Layout,
    thresholds: Thresholds,
    sign: f32,
    #[comptime] scaled: bool,
    #[comptime] fold: Fold,
    #[comptime] lanes: u32,
    #[define(F, S, O)] _dtypes: [StorageType; 3],
) {
    let unit = layout.unit_range(lanes);
    if unit.part >= layout.parts {
        terminate!();
    }
    let delta = thresholds.at::<F>(partials, &layout, unit, fold, lanes);
    let mut positive = 0.0f32;
    let mut negative = 0.0f32;
    if unit.first < unit.end {
        let w_pos = F::cast_from(scales[(2 * unit.group) as usize]);
        let w_neg = F::cast_from(scales[(2 * unit.group + 1) as usize]);
        let mut member = unit.first;
        while member < unit.end {
            let index = layout.index(unit.group, member);
            let weight = latent[index];
            let grad = grad[index];
            let above = weight > delta;
            let below = weight < F::new(0.0) - delta;
            let sum = f32::cast_from(grad);
            positive += select(above, sum, 0.0f32);
            negative += select(below, sum, 0.0f32);
            if comptime!(scaled) {
                of_latent[index] = grad * select(above, w_pos, select(below, w_neg, F::new(1.0)));
            } else {
                of_latent[index] = grad;
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

/// Adds the sums of all parts: `[groups, parts, 2]` to `[groups, 2]`.
#[cube(launch_unchecked)]
fn sum_kernel<S: Float>(
    sums: &Array<f32>,
    output: &mut LinearView<S, ReadWrite>,
    groups: u32,
    parts: u32,
    #[define(S)] _dtype: StorageType,
) {
    let group = CUBE_POS as u32;
    if group >= groups {
        terminate!();
    }
    let mut sum = 0.0f32;
    let mut index = UNIT_POS;
    while index < 2 * parts {
        sum += sums[(2 * group * parts + index) as usize];
        index += UNITS;
    }
    // The sums of both sides are interleaved, so they are folded like two neighbouring groups.
    let sum = fold_cube(sum, Fold::Sum, 2u32);
    if UNIT_POS < 2 {
        output[(2 * group + UNIT_POS) as usize] = S::cast_from(sum);
    }
}
