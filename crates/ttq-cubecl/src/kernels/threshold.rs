//! The threshold Δ of each group.
//!
//! ```text
//! partials[g, p] = max or sum of |w| over part p of group g             first kernel
//! Δ[g]           = factor · (max or sum over p of partials[g, p])       computed in every kernel that needs it
//! ```
//!
//! The factor is `t` for a fraction of the maximum and `f / n` for a fraction of the mean of `n` weights. A given
//! threshold is a single partial with factor 1. If a weight of the group is not finite, Δ is NaN.

use burn_cubecl::tensor::CubeTensor;
use burn_cubecl::{CubeRuntime, ops::numeric::empty_device_contiguous_dtype, ops::numeric::empty_device_dtype};
use burn_std::{DType, Shape};
use cubecl::prelude::*;
use cubecl::std::tensor::layout::linear::LinearView;

use super::layout::{Fold, Groups, Layout, UNITS, UnitRange, cubes, fold_cube, fold_pair};

/// Bits of a float32 without its sign.
const MAGNITUDE: u32 = 0x7fff_ffff;
/// Bits of infinity. NaN has larger ones.
const INFINITY: u32 = 0x7f80_0000;
/// The bit that turns infinity into NaN.
const QUIET_NAN: u32 = 0x0040_0000;

/// Partial results of thresholds.
#[derive(Clone)]
pub(crate) struct Partials<R: CubeRuntime> {
    /// `[groups, parts]`, float32; a single row if all groups share one threshold.
    pub(crate) values: CubeTensor<R>,
    /// Reduction of the partials of a group to its threshold.
    pub(crate) rule: ScaledFold,
}

/// Reduction to a threshold: `factor · fold(|w|)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct ScaledFold {
    pub(crate) fold: Fold,
    pub(crate) factor: f32,
}

/// Arguments for the reduction of partials to thresholds, on the device.
#[derive(CubeLaunch, CubeType, Clone, Copy)]
pub(crate) struct Thresholds {
    factor: f32,
    parts: u32,
    /// 0 if all groups share one threshold, else 1.
    group_stride: u32,
}

impl<R: CubeRuntime> Partials<R> {
    /// Computes the partials of a weight.
    pub(crate) fn of(latent: &CubeTensor<R>, groups: Groups, rule: ScaledFold) -> Self {
        let (client, device) = (latent.client.clone(), latent.device.clone());
        let shape = Shape::from([groups.groups, groups.parts()]);
        let partials = empty_device_contiguous_dtype(client.clone(), device, shape, DType::F32);
        // SAFETY: members that are read and the partial that is written lie within their tensors by
        // `Layout::unit_range`.
        unsafe {
            partials_kernel::launch_unchecked(
                &client,
                groups.cubes(&client),
                CubeDim::new_1d(UNITS),
                latent.clone().into_linear_view(),
                partials.clone().into_array_arg(),
                groups.arguments(),
                rule.fold,
                groups.lanes(),
                latent.dtype.into(),
            );
        }
        Self { values: partials, rule }
    }

    /// Kernel arguments.
    pub(crate) fn arguments(&self) -> ThresholdsLaunch<R> {
        let [thresholds, parts] = [0, 1].map(|axis| self.values.meta.shape()[axis]);
        ThresholdsLaunch::new(self.rule.factor, parts as u32, u32::from(thresholds > 1))
    }

    /// Computes the thresholds, `[groups, 1]`, in the type of the weight.
    pub(crate) fn finish(self, dtype: DType) -> CubeTensor<R> {
        let (client, device) = (self.values.client.clone(), self.values.device.clone());
        let groups = self.values.meta.shape()[0];
        let thresholds = empty_device_dtype(client.clone(), device, Shape::from([groups, 1]), dtype);
        // SAFETY: each group has one cube, which only reads the group's partials and writes its threshold.
        unsafe {
            finish_kernel::launch_unchecked(
                &client,
                cubes(&client, groups),
                CubeDim::new_1d(UNITS),
                self.values.clone().into_array_arg(),
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
fn partials_kernel<F: Float>(
    latent: &LinearView<F>,
    partials: &mut Array<f32>,
    layout: Layout,
    #[comptime] fold: Fold,
    #[comptime] lanes: u32,
    #[define(F)] _dtype: StorageType,
) {
    let unit = layout.unit_range(lanes);
    if unit.part >= layout.parts {
        terminate!();
    }
    let mut partial = 0.0f32;
    let mut member = unit.first;
    while member < unit.end {
        let magnitude = f32::cast_from(latent[layout.index(unit.group, member)]).abs();
        partial = fold_pair(partial, magnitude, fold);
        member += comptime!(UNITS / lanes);
    }
    let partial = fold_cube(partial, fold, lanes);
    if unit.row == 0 && unit.group < layout.groups {
        partials[(unit.group * layout.parts + unit.part) as usize] = partial;
    }
}

#[cube(launch_unchecked)]
fn finish_kernel<F: Float>(
    partials: &Array<f32>,
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
    let threshold = thresholds.of::<F>(partials, group, UNIT_POS, true, fold, 1u32);
    if UNIT_POS == 0 {
        output[group as usize] = threshold;
    }
}

/// Returns whether the float32 with these bits is finite. (Compilers of shaders may replace `x - x` by 0 and assume that no
/// number is NaN.)
#[cube]
fn is_finite_bits(bits: u32) -> bool {
    (bits & MAGNITUDE) < INFINITY
}

/// Returns 0, or NaN if the threshold is NaN.
#[cube]
pub(crate) fn zero_or_nan<F: Float>(threshold: F) -> F {
    select(is_finite_bits(u32::reinterpret(f32::cast_from(threshold))), F::new(0.0), threshold)
}

#[cube]
impl Thresholds {
    /// Returns Δ of the unit's group, in the type of the weight, in which weights are compared with it. All units of a
    /// cube must call this function, since it synchronizes them.
    pub(crate) fn at<F: Float>(
        &self,
        partials: &Array<f32>,
        layout: &Layout,
        unit: UnitRange,
        #[comptime] fold: Fold,
        #[comptime] lanes: u32,
    ) -> F {
        self.of::<F>(partials, unit.group, unit.row, unit.group < layout.groups, fold, lanes)
    }

    fn of<F: Float>(
        &self,
        partials: &Array<f32>,
        group: u32,
        row: u32,
        exists: bool,
        #[comptime] fold: Fold,
        #[comptime] lanes: u32,
    ) -> F {
        let mut threshold = 0.0f32;
        if exists {
            let first = group * self.group_stride * self.parts;
            let mut part = row;
            while part < self.parts {
                threshold = fold_pair(threshold, partials[(first + part) as usize], fold);
                part += comptime!(UNITS / lanes);
            }
        }
        let bits = u32::reinterpret(fold_cube(threshold, fold, lanes) * self.factor);
        // An infinite threshold becomes NaN.
        let bits = select(is_finite_bits(bits), bits, bits | QUIET_NAN);
        F::cast_from(f32::reinterpret(bits))
    }
}
