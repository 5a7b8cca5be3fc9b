//! Product for few rows: `y[m, n] = Σ_k x[m, k] w[n, k] + bias[n]`. Each word of the weight is read once.
//!
//! A unit processes every eighth word of one output, for all rows. It adds the activations of positive weights to `P`
//! and those of negative weights to `N`, in floats or integers. Then
//!
//! ```text
//! y = factor · (W_p P - W_n N) + bias
//! ```

use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;
use cubecl::std::tensor::layout::linear::LinearView;

use super::layout::{Fold, UNITS, cubes, fold_cube};
use super::product::{Arguments, Matrix, Parameters, Product, VALUES};
use super::source::{Geometry, ProductKind};

/// Maximum number of rows.
pub(crate) const ROWS: usize = 4;
/// Number of outputs per cube.
const LANES: u32 = 32;
/// Number of words whose activations are in shared memory at a time.
const STAGE: u32 = 32;

/// Computes a product of at most [`ROWS`] rows of a matrix and writes it to `output`.
pub(crate) fn multiply<R: CubeRuntime>(product: Product<R>, output: CubeTensor<R>) {
    let client = output.client.clone();
    let count = cubes(&client, product.matrix.outputs.div_ceil(LANES as usize));
    let (Matrix { outputs, inner }, rows, kind) = (product.matrix, product.rows, product.kind);
    let Arguments { x, words, parameters, output, geometry, dtypes } = product.arguments(output);
    // SAFETY: outputs and values of `k` beyond the end are neither read nor written.
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
            outputs as u32,
            inner as u32,
            rows as u32,
            kind,
            dtypes,
        );
    }
}

#[cube(launch_unchecked)]
fn multiply_kernel<X: Numeric, O: Float, E: Numeric>(
    x: &LinearView<X>,
    words: &Array<u32>,
    parameters: Parameters,
    output: &mut LinearView<O, ReadWrite>,
    geometry: Geometry,
    outputs: u32,
    inner: u32,
    #[comptime] rows: u32,
    #[comptime] kind: ProductKind,
    #[define(X, O, E)] _dtypes: [StorageType; 3],
) {
    let first = CUBE_POS as u32 * LANES;
    if first >= outputs {
        terminate!();
    }
    let n = first + UNIT_POS % LANES;
    let word_offset = UNIT_POS / LANES;
    let word_step = comptime!(UNITS / LANES);
    let stage = comptime!(STAGE * VALUES);
    let mut shared = SharedMemory::<E>::new(comptime!((rows * STAGE * VALUES) as usize));
    let mut positive = Array::<E>::new(comptime!(rows as usize));
    let mut negative = Array::<E>::new(comptime!(rows as usize));
    #[unroll]
    for m in 0..rows {
        positive[m as usize] = E::from_int(0);
        negative[m as usize] = E::from_int(0);
    }

    let all_words = inner.div_ceil(VALUES);
    for chunk in 0..inner.div_ceil(stage) {
        #[unroll]
        for m in 0..rows {
            let row = geometry.row(m, kind);
            #[unroll]
            for i in 0..comptime!(STAGE * VALUES / UNITS) {
                let local = i * UNITS + UNIT_POS;
                let k = chunk * stage + local;
                let mut value = E::from_int(0);
                if k < inner {
                    value = geometry.read::<X, E>(x, row, k, 0u32, kind);
                }
                shared[(m * stage + local) as usize] = value;
            }
        }
        sync_cube();
        #[unroll]
        for i in 0..comptime!(STAGE * LANES / UNITS) {
            let local = i * word_step + word_offset;
            let word = chunk * STAGE + local;
            if word < all_words && n < outputs {
                let bits = words[(word * outputs + n) as usize];
                #[unroll]
                for j in 0..VALUES {
                    #[unroll]
                    for m in 0..rows {
                        let value = shared[(m * stage + local * VALUES + j) as usize];
                        let zero = E::from_int(0);
                        positive[m as usize] += select((bits & comptime!(2u32 << (2 * j))) != 0, value, zero);
                        negative[m as usize] += select((bits & comptime!(1u32 << (2 * j))) != 0, value, zero);
                    }
                }
            }
        }
        sync_cube();
    }

    #[unroll]
    for m in 0..rows {
        let mut part = 0.0f32;
        if n < outputs {
            let positive = f32::cast_from(positive[m as usize]);
            let negative = f32::cast_from(negative[m as usize]);
            part = parameters.combine(positive, negative, n, kind);
        }
        let sum = fold_cube(part, Fold::Sum, LANES);
        if word_offset == 0 && n < outputs {
            output[(m * outputs + n) as usize] = O::cast_from(parameters.finish(sum, m, n));
        }
    }
}
