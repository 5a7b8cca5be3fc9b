//! The ternary weight.
//!
//! ```text
//! q_i = +W_p where w_i > Δ, -W_n where w_i < -Δ, 0 elsewhere
//! ```

use burn_cubecl::CubeRuntime;
use burn_cubecl::ops::numeric::empty_device_dtype;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;
use cubecl::std::tensor::layout::linear::LinearView;

use super::layout::{Fold, Groups, Layout, UNITS};
use super::threshold::{Pieces, Thresholds};

/// The ternary weight of a latent one, in its shape and type. Scales are `[groups, 2]`.
pub(crate) fn ternarize<R: CubeRuntime>(
    latent: CubeTensor<R>,
    scales: CubeTensor<R>,
    pieces: Pieces<R>,
    groups: Groups,
) -> CubeTensor<R> {
    let (client, device) = (latent.client.clone(), latent.device.clone());
    let ternary = empty_device_dtype(client.clone(), device, latent.meta.shape().clone(), latent.dtype);
    let dtypes = [latent.dtype.into(), scales.dtype.into()];
    let thresholds = pieces.arguments();
    // SAFETY: members that are read and written lie within their tensors by `Layout::place`.
    unsafe {
        ternarize_kernel::launch_unchecked(
            &client,
            groups.cubes(&client),
            CubeDim::new_1d(UNITS),
            latent.into_linear_view(),
            scales.into_linear_view(),
            pieces.pieces.into_array_arg(),
            ternary.clone().into_linear_view(),
            groups.arguments(),
            thresholds,
            pieces.rule.fold,
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
    pieces: &Array<f32>,
    ternary: &mut LinearView<F, ReadWrite>,
    layout: Layout,
    thresholds: Thresholds,
    #[comptime] fold: Fold,
    #[comptime] lanes: u32,
    #[define(F, S)] _dtypes: [StorageType; 2],
) {
    let place = layout.place(lanes);
    if place.part >= layout.parts {
        terminate!();
    }
    let delta = thresholds.at::<F>(pieces, &layout, place, fold, lanes);
    if place.first < place.end {
        let w_pos = F::cast_from(scales[(2 * place.group) as usize]);
        let w_neg = F::cast_from(scales[(2 * place.group + 1) as usize]);
        let zero = F::new(0.0);
        let mut member = place.first;
        while member < place.end {
            let index = layout.index(place.group, member);
            let weight = latent[index];
            ternary[index] = select(weight > delta, w_pos, select(weight < zero - delta, zero - w_neg, zero));
            member += comptime!(UNITS / lanes);
        }
    }
}
