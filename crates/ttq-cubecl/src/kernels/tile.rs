//! Tiled product for many rows: `y[m, n] = Σ_k x[m, k] w[n, k] + bias[n]`.
//!
//! A cube computes a tile of `16 · ROWS` rows and `16 · columns` outputs. For each word of 16 values of `k` it copies
//! the activations and the unpacked weights to shared memory. A unit multiplies `ROWS` activations with `columns`
//! weights.
//!
//! With float activations, a weight is unpacked to its value. With int8 activations, it is unpacked to its sign `t`,
//! the sums `S = Σ t q` and `A = Σ |t| q` are computed in integers, and
//!
//! ```text
//! y = factor · (W_p (A + S) / 2 - W_n (A - S) / 2) + bias
//! ```

use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;
use cubecl::std::tensor::layout::linear::LinearView;

use super::layout::{UNITS, cubes};
use super::product::{Arguments, Parameters, Product, VALUES};
use super::source::{Geometry, ProductKind};

/// Number of units along each side of a cube.
const SIDE: u32 = 16;
/// Number of rows that a unit computes.
const ROWS: u32 = 4;

/// Computes a product and writes it to `output`.
pub(crate) fn multiply<R: CubeRuntime>(product: Product<R>, output: CubeTensor<R>) {
    let client = output.client.clone();
    let outputs = product.matrix.outputs / product.groups;
    // The narrowest tile of 16, 32 or 64 outputs that holds all outputs, else 64.
    let columns = match outputs {
        0..=16 => 1,
        17..=32 => 2,
        _ => 4,
    };
    let tiles = product.rows.div_ceil((SIDE * ROWS) as usize) * outputs.div_ceil((SIDE * columns) as usize);
    let count = cubes(&client, tiles * product.groups);
    let kind = product.kind;
    let shape =
        ShapeLaunch::new(product.rows as u32, product.matrix.inner as u32, outputs as u32, product.groups as u32);
    let Arguments { x, words, parameters, output, geometry, dtypes } = product.arguments(output);
    // SAFETY: rows, outputs and values of `k` beyond the end are neither read nor written; pixels beyond the border are
    // not read.
    unsafe {
        multiply_kernel::launch_unchecked(
            &client,
            count,
            CubeDim::new_1d(UNITS),
            x,
            words,
            parameters,
            output,
            geometry,
            shape,
            columns,
            kind,
            dtypes,
        );
    }
}

/// Numbers of rows, values of `k`, outputs per group, and groups.
#[derive(CubeLaunch, CubeType, Clone, Copy)]
struct Shape {
    rows: u32,
    inner: u32,
    outputs: u32,
    groups: u32,
}

#[cube(launch_unchecked)]
fn multiply_kernel<X: Numeric, O: Float, E: Numeric>(
    x: &LinearView<X>,
    words: &Array<u32>,
    parameters: Parameters,
    output: &mut LinearView<O, ReadWrite>,
    geometry: Geometry,
    shape: Shape,
    #[comptime] columns: u32,
    #[comptime] kind: ProductKind,
    #[define(X, O, E)] _dtypes: [StorageType; 3],
) {
    let tile_m = comptime!(SIDE * ROWS);
    let tile_n = comptime!(SIDE * columns);
    let tiles_m = shape.rows.div_ceil(tile_m);
    let tiles_n = shape.outputs.div_ceil(tile_n);
    let cube = CUBE_POS as u32;
    let group = cube / (tiles_m * tiles_n);
    if group >= shape.groups {
        terminate!();
    }
    let first_m = cube % tiles_m * tile_m;
    let first_n = cube / tiles_m % tiles_n * tile_n;
    let all_outputs = shape.outputs * shape.groups;

    // All weights that this unit unpacks belong to one output.
    let own_output = first_n + UNIT_POS % tile_n;
    let exists = own_output < shape.outputs;
    let own_output = group * shape.outputs + min(own_output, shape.outputs - 1);
    let mut plus = E::from_int(1);
    let mut minus = E::from_int(-1);
    if comptime!(!kind.int8) {
        plus = E::cast_from(parameters.w_pos(own_output, kind));
        minus = E::cast_from(0.0f32 - parameters.w_neg(own_output, kind));
    }

    let mut shared_x = SharedMemory::<E>::new(comptime!((VALUES * SIDE * ROWS) as usize));
    let mut shared_w = SharedMemory::<E>::new(comptime!((VALUES * tile_n) as usize));
    let mut sums = Array::<E>::new(comptime!((ROWS * columns) as usize));
    let mut nonzero_sums = Array::<E>::new(comptime!((ROWS * columns) as usize));
    let mut own_x = Array::<E>::new(comptime!(ROWS as usize));
    #[unroll]
    for i in 0..comptime!(ROWS * columns) {
        sums[i as usize] = E::from_int(0);
        nonzero_sums[i as usize] = E::from_int(0);
    }

    // In a convolution, consecutive units read and write consecutive rows. In a matrix, they read along a row.
    let low = UNIT_POS % SIDE;
    let high = UNIT_POS / SIDE;
    let m = select(comptime!(kind.windows), low, high);
    let n = select(comptime!(kind.windows), high, low);

    for word in 0..shape.inner.div_ceil(VALUES) {
        #[unroll]
        for i in 0..ROWS {
            let index = i * UNITS + UNIT_POS;
            let local_m = if comptime!(kind.windows) { index % tile_m } else { index / VALUES };
            let local_k = if comptime!(kind.windows) { index / tile_m } else { index % VALUES };
            let k = word * VALUES + local_k;
            let mut value = E::from_int(0);
            if first_m + local_m < shape.rows && k < shape.inner {
                let row = geometry.row(first_m + local_m, kind);
                value = geometry.read::<X, E>(x, row, k, group, kind);
            }
            shared_x[(local_k * tile_m + local_m) as usize] = value;
        }
        let mut bits = 0u32;
        if exists {
            bits = words[(word * all_outputs + own_output) as usize];
        }
        #[unroll]
        for i in 0..columns {
            let local_k = (i * UNITS + UNIT_POS) / tile_n;
            let code = (bits >> (2 * local_k)) & 3;
            let zero = E::from_int(0);
            let value = select(code == 2, plus, select(code == 1, minus, zero));
            shared_w[(local_k * tile_n + UNIT_POS % tile_n) as usize] = value;
        }
        sync_cube();
        for k in 0..VALUES {
            #[unroll]
            for i in 0..ROWS {
                own_x[i as usize] = shared_x[(k * tile_m + m + SIDE * i) as usize];
            }
            #[unroll]
            for j in 0..columns {
                let weight = shared_w[(k * tile_n + n + SIDE * j) as usize];
                #[unroll]
                for i in 0..ROWS {
                    let at = comptime!((j * ROWS + i) as usize);
                    sums[at] += own_x[i as usize] * weight;
                    if comptime!(kind.int8) {
                        nonzero_sums[at] += own_x[i as usize] * weight * weight;
                    }
                }
            }
        }
        sync_cube();
    }

    #[unroll]
    for j in 0..columns {
        let local = first_n + n + SIDE * j;
        if local < shape.outputs {
            let output_n = group * shape.outputs + local;
            #[unroll]
            for i in 0..ROWS {
                let at = comptime!((j * ROWS + i) as usize);
                let output_m = first_m + m + SIDE * i;
                if output_m < shape.rows {
                    let row = geometry.row(output_m, kind);
                    let mut value = f32::cast_from(sums[at]);
                    if comptime!(kind.int8) {
                        let positive = f32::cast_from((nonzero_sums[at] + sums[at]) / E::from_int(2));
                        let negative = f32::cast_from((nonzero_sums[at] - sums[at]) / E::from_int(2));
                        value = parameters.combine(positive, negative, output_n, kind);
                    }
                    let value = parameters.finish(value, row.index, output_n);
                    let index = if comptime!(kind.windows) {
                        let pixel = geometry.out_pixels.modulo(output_m);
                        (row.index * all_outputs + output_n) * geometry.pixels + pixel
                    } else {
                        output_m * all_outputs + output_n
                    };
                    output[index as usize] = O::cast_from(value);
                }
            }
        }
    }
}
