//! The k-th smallest magnitude of each group, by a radix selection on the device, without sorting.
//!
//! Non-negative floats have the same order as their bits. Each of eight rounds determines one digit of four bits, the
//! highest digit first:
//!
//! ```text
//! counts[g, p, d] = members of part p of group g whose bits start with the found digits, followed by digit d
//! digit[g]        = the first d with k <= Σ_{e <= d} Σ_p counts[g, p, e]
//! k               = k - Σ_{e < digit[g]} Σ_p counts[g, p, e]
//! ```
//!
//! The first kernel of a round computes the counts, the second one the other two lines.

use burn_cubecl::CubeRuntime;
use burn_cubecl::ops::numeric::{empty_device_contiguous_dtype, empty_device_dtype};
use burn_cubecl::tensor::CubeTensor;
use burn_std::{DType, Shape};
use cubecl::prelude::*;
use cubecl::std::tensor::layout::linear::LinearView;

use super::layout::{Groups, Layout, UNITS, cubes};

/// Bits per digit.
const BITS: u32 = 4;
/// Number of values of a digit.
const DIGITS: u32 = 1 << BITS;
/// Position of the lowest bit of the first digit.
const FIRST: u32 = u32::BITS - BITS;

/// Computes the `k`-th smallest magnitude of each group, `[groups, 1]`, in the type of the weight. `k` is between 1 and
/// the number of members.
pub(crate) fn kth_smallest<R: CubeRuntime>(latent: CubeTensor<R>, groups: Groups, k: usize) -> CubeTensor<R> {
    let (client, device) = (latent.client.clone(), latent.device.clone());
    let words = |shape: Shape| empty_device_contiguous_dtype(client.clone(), device.clone(), shape, DType::U32);
    let counts = words(Shape::from([groups.groups, groups.parts(), DIGITS as usize]));
    let found = words(Shape::from([groups.groups, 2]));
    let result = empty_device_dtype(client.clone(), device.clone(), Shape::from([groups.groups, 1]), latent.dtype);
    for low in (0..=FIRST).rev().step_by(BITS as usize) {
        // SAFETY: members that are read and counts that are written lie within their tensors by `Layout::unit_range`.
        unsafe {
            count_kernel::launch_unchecked(
                &client,
                groups.cubes(&client),
                CubeDim::new_1d(UNITS),
                latent.clone().into_linear_view(),
                found.clone().into_array_arg(),
                counts.clone().into_array_arg(),
                groups.arguments(),
                low,
                groups.lanes(),
                latent.dtype.into(),
            );
        }
        // SAFETY: each group has one cube, which only reads the group's counts and writes the group's words of `found`
        // and its result.
        unsafe {
            select_kernel::launch_unchecked(
                &client,
                cubes(&client, groups.groups),
                CubeDim::new_1d(UNITS),
                counts.clone().into_array_arg(),
                found.clone().into_array_arg(),
                result.clone().into_linear_view(),
                groups.groups as u32,
                groups.parts() as u32,
                k as u32,
                low,
                latent.dtype.into(),
            );
        }
    }
    result
}

/// Counts the digits at bit `low`. `found` holds two words for each group: the bits found so far, and the rank among
/// the members that start with these bits. In the first round it is not read; the bits are empty and the rank is `k`.
#[cube(launch_unchecked)]
fn count_kernel<F: Float>(
    latent: &LinearView<F>,
    found: &Array<u32>,
    counts: &mut Array<u32>,
    layout: Layout,
    low: u32,
    #[comptime] lanes: u32,
    #[define(F)] _dtype: StorageType,
) {
    let unit = layout.unit_range(lanes);
    if unit.part >= layout.parts {
        terminate!();
    }
    let mut prefix = 0u32;
    if low < FIRST && unit.group < layout.groups {
        prefix = found[(2 * unit.group) as usize];
    }
    let mut own_counts = Array::<u32>::new(comptime!(DIGITS as usize));
    #[unroll]
    for digit in 0..DIGITS {
        own_counts[digit as usize] = 0u32;
    }
    let mut member = unit.first;
    while member < unit.end {
        let magnitude = f32::cast_from(latent[layout.index(unit.group, member)]).abs();
        let bits = u32::reinterpret(magnitude) >> low;
        let has_prefix = bits >> BITS == prefix;
        #[unroll]
        for digit in 0..DIGITS {
            own_counts[digit as usize] += select(has_prefix && bits % DIGITS == digit, 1u32, 0u32);
        }
        member += comptime!(UNITS / lanes);
    }

    let mut shared = SharedMemory::<u32>::new(comptime!((DIGITS * UNITS) as usize));
    #[unroll]
    for digit in 0..DIGITS {
        shared[(digit * UNITS + UNIT_POS) as usize] = own_counts[digit as usize];
    }
    sync_cube();
    #[unroll]
    for round in 0..comptime!((UNITS / lanes).ilog2()) {
        let step = comptime!(UNITS >> (round + 1));
        if UNIT_POS < step {
            #[unroll]
            for digit in 0..DIGITS {
                let at = digit * UNITS + UNIT_POS;
                shared[at as usize] += shared[(at + step) as usize];
            }
        }
        sync_cube();
    }
    if unit.row == 0 && unit.group < layout.groups {
        #[unroll]
        for digit in 0..DIGITS {
            let at = (unit.group * layout.parts + unit.part) * DIGITS + digit;
            counts[at as usize] = shared[(digit * UNITS + UNIT_POS) as usize];
        }
    }
}

/// Selects the digit of each group that contains the rank, and updates `found`. The last round (`low == 0`) writes the
/// result.
#[cube(launch_unchecked)]
fn select_kernel<F: Float>(
    counts: &Array<u32>,
    found: &mut Array<u32>,
    result: &mut LinearView<F, ReadWrite>,
    groups: u32,
    parts: u32,
    k: u32,
    low: u32,
    #[define(F)] _dtype: StorageType,
) {
    let group = CUBE_POS as u32;
    if group >= groups {
        terminate!();
    }
    // Sixteen units for each part, one for each digit.
    let mut sum = 0u32;
    let mut at = UNIT_POS;
    while at < parts * DIGITS {
        sum += counts[(group * parts * DIGITS + at) as usize];
        at += UNITS;
    }
    let mut shared = SharedMemory::<u32>::new(comptime!(UNITS as usize));
    shared[UNIT_POS as usize] = sum;
    sync_cube();
    if UNIT_POS < DIGITS {
        let mut sum = 0u32;
        #[unroll]
        for i in 0..comptime!(UNITS / DIGITS) {
            sum += shared[(i * DIGITS + UNIT_POS) as usize];
        }
        shared[UNIT_POS as usize] = sum;
    }
    sync_cube();
    if UNIT_POS == 0 {
        let mut prefix = 0u32;
        let mut rank = k;
        if low < FIRST {
            prefix = found[(2 * group) as usize];
            rank = found[(2 * group + 1) as usize];
        }
        // The digit is the number of digits whose members all precede the rank.
        let mut digit = 0u32;
        let mut before = 0u32;
        let mut sum = 0u32;
        #[unroll]
        for d in 0..DIGITS {
            sum += shared[d as usize];
            if sum < rank {
                digit += 1u32;
                before = sum;
            }
        }
        let prefix = prefix * DIGITS + digit;
        found[(2 * group) as usize] = prefix;
        found[(2 * group + 1) as usize] = rank - before;
        if low == 0 {
            result[group as usize] = F::cast_from(f32::reinterpret(prefix));
        }
    }
}
