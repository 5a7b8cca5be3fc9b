//! The threshold Δ of each group.
//!
//! ```text
//! pieces[g, p] = max or sum of |w| over part p of group g         first kernel
//! Δ[g]         = factor · (max or sum over p of pieces[g, p])     in every kernel that needs it
//! ```
//!
//! The factor is `t` for the share of the maximum and `f / n` for the share of the mean. A threshold that is known is one piece with the
//! factor 1.

use burn_cubecl::tensor::CubeTensor;
use burn_cubecl::{CubeRuntime, ops::numeric::empty_device_contiguous_dtype, ops::numeric::empty_device_dtype};
use burn_std::{DType, Shape};
use cubecl::prelude::*;
use cubecl::std::tensor::layout::linear::LinearView;

use super::layout::{Fold, Groups, Layout, Place, UNITS, cubes, fold_cube, join};

/// What thresholds are made of.
#[derive(Clone)]
pub(crate) struct Pieces<R: CubeRuntime> {
    /// `[groups, parts]`, float32.
    pub(crate) pieces: CubeTensor<R>,
    pub(crate) rule: Rule,
}

/// How pieces become a threshold.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Rule {
    pub(crate) fold: Fold,
    pub(crate) factor: f32,
}

/// How pieces become a threshold, on the device.
#[derive(CubeLaunch, CubeType, Clone, Copy)]
pub(crate) struct Thresholds {
    factor: f32,
    parts: u32,
}

impl<R: CubeRuntime> Pieces<R> {
    /// The pieces of a weight.
    pub(crate) fn of(latent: &CubeTensor<R>, groups: Groups, rule: Rule) -> Self {
        let (client, device) = (latent.client.clone(), latent.device.clone());
        let shape = Shape::from([groups.groups, groups.parts()]);
        let pieces = empty_device_contiguous_dtype(client.clone(), device, shape, DType::F32);
        // SAFETY: members that are read and the piece that is written lie within their tensors by `Layout::place`.
        unsafe {
            pieces_kernel::launch_unchecked(
                &client,
                groups.cubes(&client),
                CubeDim::new_1d(UNITS),
                latent.clone().into_linear_view(),
                pieces.clone().into_array_arg(),
                groups.arguments(),
                rule.fold,
                groups.lanes(),
                latent.dtype.into(),
            );
        }
        Self { pieces, rule }
    }

    /// What a kernel is told.
    pub(crate) fn arguments(&self) -> ThresholdsLaunch<R> {
        ThresholdsLaunch::new(self.rule.factor, self.pieces.meta.shape()[1] as u32)
    }

    /// The thresholds in the type of the weight, `[groups, 1]`.
    pub(crate) fn finish(self, dtype: DType) -> CubeTensor<R> {
        let (client, device) = (self.pieces.client.clone(), self.pieces.device.clone());
        let groups = self.pieces.meta.shape()[0];
        let thresholds = empty_device_dtype(client.clone(), device, Shape::from([groups, 1]), dtype);
        // SAFETY: one cube for each group, which reads the group's pieces and writes its threshold.
        unsafe {
            finish_kernel::launch_unchecked(
                &client,
                cubes(&client, groups),
                CubeDim::new_1d(UNITS),
                self.pieces.clone().into_array_arg(),
                thresholds.clone().into_linear_view(),
                self.arguments(),
                groups as u32,
                self.rule.fold,
                dtype.into(),
            );
        }
        thresholds
    }
}

#[cube(launch_unchecked)]
fn pieces_kernel<F: Float>(
    latent: &LinearView<F>,
    pieces: &mut Array<f32>,
    layout: Layout,
    #[comptime] fold: Fold,
    #[comptime] lanes: u32,
    #[define(F)] _dtype: StorageType,
) {
    let place = layout.place(lanes);
    if place.part >= layout.parts {
        terminate!();
    }
    let mut piece = 0.0f32;
    let mut member = place.first;
    while member < place.end {
        let magnitude = f32::cast_from(latent[layout.index(place.group, member)]).abs();
        piece = join(piece, magnitude, fold);
        member += comptime!(UNITS / lanes);
    }
    let piece = fold_cube(piece, fold, lanes);
    if place.row == 0 && place.group < layout.groups {
        pieces[(place.group * layout.parts + place.part) as usize] = piece;
    }
}

#[cube(launch_unchecked)]
fn finish_kernel<F: Float>(
    pieces: &Array<f32>,
    output: &mut LinearView<F, ReadWrite>,
    thresholds: Thresholds,
    groups: u32,
    #[comptime] fold: Fold,
    #[define(F)] _dtype: StorageType,
) {
    let group = CUBE_POS as u32;
    if group >= groups {
        terminate!();
    }
    let threshold = thresholds.of::<F>(pieces, group, UNIT_POS, true, fold, 1u32);
    if UNIT_POS == 0 {
        output[group as usize] = threshold;
    }
}

#[cube]
impl Thresholds {
    /// Δ of the group of a place, in the type of the weight, in which it is compared. Every unit of a cube must call it.
    pub(crate) fn at<F: Float>(
        &self,
        pieces: &Array<f32>,
        layout: &Layout,
        place: Place,
        #[comptime] fold: Fold,
        #[comptime] lanes: u32,
    ) -> F {
        self.of::<F>(pieces, place.group, place.row, place.group < layout.groups, fold, lanes)
    }

    fn of<F: Float>(
        &self,
        pieces: &Array<f32>,
        group: u32,
        row: u32,
        exists: bool,
        #[comptime] fold: Fold,
        #[comptime] lanes: u32,
    ) -> F {
        let mut threshold = 0.0f32;
        if exists {
            let mut part = row;
            while part < self.parts {
                threshold = join(threshold, pieces[(group * self.parts + part) as usize], fold);
                part += comptime!(UNITS / lanes);
            }
        }
        F::cast_from(fold_cube(threshold, fold, lanes) * self.factor)
    }
}
