//! Products of activations and the weight of a linear layer.

use std::hint::black_box;

use anyhow::Result;
use burn::backend::Flex;
use burn::prelude::*;
use burn::tensor::quantization::{QuantScheme, QuantValue};
use fastrand::Rng;
use ttq_benchmarks::measure::{self, Candidate, Row};
use ttq_packed::Codes;
use ttq_packed::kernels::{Activations, CodesView, Level, PackedMatrix, Scales, Scratch};

use crate::limits::Limits;
use crate::peers::{Peers, Version};
use crate::{SCALES, Suite};

/// Compares all candidates for products of `[m, inputs]` and a weight with 50 % zeros, to `[m, outputs]`, for each number of
/// rows `m` in `batches`. Returns the versions of other libraries, too.
pub(crate) fn compare(
    suite: &Suite,
    limits: &Limits,
    [outputs, inputs]: [usize; 2],
    batches: &[usize],
) -> Result<(Vec<Version>, Vec<Row>)> {
    let title = |m: usize| format!("linear {inputs} × {outputs}, batch {m}");
    let batches: Vec<usize> = batches.iter().copied().filter(|m| title(*m).contains(&suite.filter)).collect();
    if batches.is_empty() {
        return Ok(Default::default());
    }
    let mut rng = Rng::with_seed(1);
    let codes = crate::ternary(&mut rng, outputs * inputs, 0.5);
    let packed_codes = Codes::pack(&codes)?;
    // `[in, out]`, as in Burn's linear layer.
    let dense: Vec<f32> =
        (0..inputs * outputs).map(|i| crate::weight(codes[i % outputs * inputs + i / outputs])).collect();
    let mut peers = Peers::start(suite, &codes, [outputs, inputs])?;
    let mut rows = Vec::new();
    for m in batches {
        let x = crate::floats(&mut rng, m * inputs);
        let mut expected = vec![0.0; m * outputs];
        gemm_product([m, outputs, inputs], &x, &dense, &mut expected);

        let activation_bytes = 4 * m * (inputs + outputs);
        let operations = m * outputs * inputs;
        fn with_cost<'a>(candidate: Candidate<'a>, limits: &Limits, bytes: usize, operations: usize) -> Candidate<'a> {
            candidate.with_bytes(bytes, limits.bandwidth(bytes)).with_operations(operations, None)
        }
        let (weight, input, mut y) = (dense.clone(), x.clone(), expected.clone());
        let gemm = Candidate::new("gemm float32", move || {
            gemm_product([m, outputs, inputs], &input, &weight, &mut y);
            black_box(&y);
        });
        let bytes = 4 * outputs * inputs + activation_bytes;
        let peak = limits.peak(Level::Avx2, false);
        let mut candidates = vec![with_cost(gemm, limits, bytes, operations).with_operations(operations, peak)];
        for level in suite.levels.iter().copied() {
            for activations in [Activations::Float32, Activations::Int8] {
                let [w_pos, w_neg] = SCALES;
                let scales = Scales::PerTensor { w_pos, w_neg };
                let matrix = PackedMatrix::new(CodesView::new(&packed_codes, [outputs, inputs])?, scales)?;
                let matrix = matrix.with_level(level)?.with_activations(activations);
                candidates.push(packed(matrix, limits, &x, &expected)?);
            }
        }
        let q2s = flex_q2s(&x, dense.clone(), [m, outputs, inputs]);
        candidates.push(with_cost(q2s, limits, outputs * inputs + activation_bytes, operations));
        for (candidate, bytes) in peers.candidates(m) {
            candidates.push(with_cost(candidate, limits, bytes + activation_bytes, operations));
        }
        rows.extend(measure::compare(&title(m), 4 * suite.budget, candidates)?);
    }
    Ok((peers.versions, rows))
}

/// Creates the candidate of a packed matrix, after a check of its result.
fn packed(matrix: PackedMatrix, limits: &Limits, x: &[f32], expected: &[f32]) -> Result<Candidate<'static>> {
    let (x, mut y, mut scratch) = (x.to_vec(), vec![0.0; expected.len()], Scratch::new());
    let (name, tolerance, products) = match matrix.activations() {
        // One product per scale, but for levels whose bytes can be in the ratio of the scales.
        Activations::Int8 => {
            ("int8", 2e-2, if matches!(matrix.level(), Level::Avx512 | Level::AvxVnni) { 1 } else { 2 })
        }
        _ => ("float32", 1e-5, 1),
    };
    let name = format!("packed {name}, {:?}", matrix.level());
    matrix.forward(&x, &mut y, &mut scratch)?;
    crate::check_result(&name, &y, expected, tolerance)?;
    let cost = matrix.cost(x.len() / matrix.columns());
    let bytes = cost.weight_bytes + cost.input_bytes + cost.output_bytes;
    let peak = limits.peak(matrix.level(), matrix.activations() == Activations::Int8);
    let candidate = Candidate::new(name, move || {
        matrix.forward(&x, &mut y, &mut scratch).expect("the first call had the same shapes");
        black_box(&y);
    });
    Ok(candidate.with_bytes(bytes, limits.bandwidth(bytes)).with_operations(products * cost.multiply_accumulates, peak))
}

/// Creates the candidate of Burn's Q2S on Flex, with two bits and one scale; Flex stores one byte per weight.
fn flex_q2s(x: &[f32], dense: Vec<f32>, [m, outputs, inputs]: [usize; 3]) -> Candidate<'static> {
    let device = Default::default();
    let scheme = QuantScheme::default().with_value(QuantValue::Q2S);
    let weight = Tensor::<Flex, 2>::from_data(TensorData::new(dense, [inputs, outputs]), &device);
    let weight = weight.quantize_dynamic(&scheme);
    let x = Tensor::<Flex, 2>::from_data(TensorData::new(x.to_vec(), [m, inputs]), &device);
    Candidate::new("Burn Q2S", move || {
        black_box(x.clone().matmul(weight.clone()));
    })
}

/// Computes `y[m, n] = x[m, k] w[k, n]` on the current threads, all matrices row-major. Flex calls the same function.
fn gemm_product([m, n, k]: [usize; 3], x: &[f32], w: &[f32], y: &mut [f32]) {
    assert!(x.len() == m * k && w.len() == k * n && y.len() == m * n);
    let threads = match rayon::current_num_threads() {
        1 => gemm::Parallelism::None,
        threads => gemm::Parallelism::Rayon(threads),
    };
    let (columns, depth) = (n as isize, k as isize);
    // SAFETY: the slices are as long as their shapes say.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            y.as_mut_ptr(),
            1,
            columns,
            false,
            x.as_ptr(),
            1,
            depth,
            w.as_ptr(),
            1,
            columns,
            0.0_f32,
            1.0_f32,
            false,
            false,
            false,
            threads,
        );
    }
}
