//! The ternary weight.
//!
//! ```text
//! q_i = +W_p where w_i > Δ, -W_n where w_i < -Δ, 0 elsewhere; NaN where Δ is
//! ```

use burn_cubecl::CubeRuntime;
use burn_cubecl::ops::numeric::empty_device_dtype;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;
use cubecl::std::tensor::layout::linear::LinearView;

use super::layout::{Fold, Groups, Layout, UNITS};
use super::threshold::{Partials, Thresholds, zero_or_nan};

/// Computes the ternary weight of a latent weight, in its shape and type. There is one pair of scales for each group or for
/// all.
pub(crate) fn ternarize<R: CubeRuntime>(
    latent: CubeTensor<R>,
    scales: CubeTensor<R>,
    partials: Partials<R>,
    groups: Groups,
) -> CubeTensor<R> {
    let (client, device) = (latent.client.clone(), latent.device.clone());
    let ternary = empty_device_dtype(client.clone(), device, latent.meta.shape().clone(), latent.dtype);
    let dtypes = [latent.dtype.into(), scales.dtype.into()];
    let pair_stride = u32::from(scales.meta.shape()[0] > 1);
    let thresholds = partials.arguments();
    // SAFETY: members that are read and written lie within their tensors by `Layout::unit_range`.
    unsafe {
        ternarize_kernel::launch_unchecked(
            &client,
            groups.cubes(&client),
            CubeDim::new_1d(UNITS),
            latent.into_linear_view(),
            scales.into_linear_view(),
            partials.values.into_array_arg(),
            ternary.clone().into_linear_view(),
            groups.arguments(),
            thresholds,
            pair_stride,
            partials.rule.fold,
            groups.lanes(),
            dtypes,
        );
    }
    ternary
}

#[cube(launch_unchecked)]
fn ternarize_kernel<F: Float, S: Float>(
    latent: &LinearView<F>,
    scales: &LinearView<S>,
    partials: &Array<f32>,
    ternary: &mut LinearView<F, ReadWrite>,
    layout: Layout,
    thresholds: Thresholds,
    pair_stride: u32,
    #[comptime] fold: Fold,
    #[comptime] lanes: u32,
    #[define(F, S)] _dtypes: [StorageType; 2],
) {
    let unit = layout.unit_range(lanes);
    if unit.part >= layout.parts {
        terminate!();
    }
    let delta = thresholds.at::<F>(partials, &layout, unit, fold, lanes);
    if unit.first < unit.end {
        let pair = 2 * unit.group * pair_stride;
        let w_pos = F::cast_from(scales[pair as usize]);
        let w_neg = F::cast_from(scales[(pair + 1) as usize]);
        let zero = zero_or_nan::<F>(delta);
        let mut member = unit.first;
        while member < unit.end {
            let index = layout.index(unit.group, member);
            let weight = latent[index];
            ternary[index] = select(weight > delta, w_pos, select(weight < zero - delta, zero - w_neg, zero));
            member += comptime!(UNITS / lanes);
        }
    }
}
