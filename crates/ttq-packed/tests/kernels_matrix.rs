//! Matrix products on every available instruction set, compared with the definition in float64 and with exact integers.

use fastrand::Rng;
use ttq_packed::Codes;
use ttq_packed::kernels::{Activations, CodesView, KernelError, Level, PackedMatrix, Scales, Scratch};

/// Relative to the sum of the magnitudes of all terms.
const TOLERANCE: f64 = 1e-5;

/// A product with optional affine map and ReLU.
#[derive(Debug)]
struct Case {
    m: usize,
    rows: usize,
    columns: usize,
    t: Vec<i8>,
    w_pos: Vec<f32>,
    w_neg: Vec<f32>,
    affine: Option<[Vec<f32>; 2]>,
    relu: bool,
    x: Vec<f32>,
}

fn floats(rng: &mut Rng, n: usize) -> Vec<f32> {
    (0..n).map(|_| 2.0 * rng.f32() - 1.0).collect()
}

fn pack(shape: [usize; 2], t: &[i8], scales: Scales<'_>) -> Result<PackedMatrix, KernelError> {
    let codes = Codes::pack(t).unwrap();
    PackedMatrix::new(CodesView::new(&codes, shape)?, scales)
}

impl Case {
    fn new(rng: &mut Rng, [m, rows, columns]: [usize; 3]) -> Self {
        let zeros = rng.f32();
        let t = (0..rows * columns).map(|_| if rng.f32() < zeros { 0 } else { 2 * rng.i8(0..2) - 1 }).collect();
        let scales = |rng: &mut Rng| (0..rows).map(|_| 0.1 + rng.f32()).collect::<Vec<_>>();
        let (mut w_pos, mut w_neg) = (scales(rng), scales(rng));
        // A pair per row, one pair, one scale per row, or one scale.
        let kind = rng.usize(0..4);
        if kind % 2 == 1 {
            w_pos.fill(0.7);
            w_neg.fill(0.3);
        }
        if kind > 1 {
            w_neg.clone_from(&w_pos);
        }
        let affine = rng.bool().then(|| [floats(rng, rows), floats(rng, rows)]);
        Self { m, rows, columns, t, w_pos, w_neg, affine, relu: rng.bool(), x: floats(rng, m * columns) }
    }

    fn packed(&self) -> PackedMatrix {
        let scales = Scales::PerRow { w_pos: &self.w_pos, w_neg: &self.w_neg };
        let matrix = pack([self.rows, self.columns], &self.t, scales).unwrap();
        let matrix = match &self.affine {
            Some([scale, shift]) => matrix.with_affine(scale, shift).unwrap(),
            None => matrix,
        };
        if self.relu { matrix.with_relu() } else { matrix }
    }

    fn forward(&self, matrix: &PackedMatrix) -> Vec<f32> {
        let mut y = vec![f32::NAN; self.m * self.rows];
        matrix.forward(&self.x, &mut y, &mut Scratch::new()).unwrap();
        y
    }

    /// Returns each output and the sum of the magnitudes of its terms, computed in float64.
    fn definition(&self) -> Vec<[f64; 2]> {
        let mut y = Vec::new();
        for x in self.x.chunks_exact(self.columns) {
            for row in 0..self.rows {
                let (mut sum, mut magnitude) = (0.0, 0.0);
                for (t, x) in self.t[row * self.columns..].iter().zip(x) {
                    let w = match t {
                        1 => f64::from(self.w_pos[row]),
                        -1 => -f64::from(self.w_neg[row]),
                        _ => 0.0,
                    };
                    sum += w * f64::from(*x);
                    magnitude += (w * f64::from(*x)).abs();
                }
                if let Some([scale, shift]) = &self.affine {
                    let (scale, shift) = (f64::from(scale[row]), f64::from(shift[row]));
                    (sum, magnitude) = (scale * sum + shift, scale.abs() * magnitude + shift.abs());
                }
                y.push([if self.relu { sum.max(0.0) } else { sum }, magnitude]);
            }
        }
        y
    }

    /// Returns the integer sums `P` and `N` of each output, and the quantization factor of its activations.
    fn integers(&self) -> Vec<([i64; 2], f32)> {
        self.sums(|q| q)
    }

    /// Returns the sums of the magnitudes of the terms of `P` and `N`.
    fn magnitudes(&self) -> Vec<[i64; 2]> {
        self.sums(i64::abs).into_iter().map(|(sums, _)| sums).collect()
    }

    fn sums(&self, term: impl Fn(i64) -> i64) -> Vec<([i64; 2], f32)> {
        let mut sums = Vec::new();
        for x in self.x.chunks_exact(self.columns) {
            let largest = x.iter().fold(0.0, |a: f32, b| a.max(b.abs()));
            let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
            let q: Vec<i64> = x.iter().map(|x| (x * inverse).round_ties_even() as i64).collect();
            for row in self.t.chunks_exact(self.columns) {
                let sum = |sign| row.iter().zip(&q).filter(|(t, _)| **t == sign).map(|(_, q)| term(*q)).sum::<i64>();
                sums.push(([sum(1), sum(-1)], largest / 127.0));
            }
        }
        sums
    }
}

fn check_floats(case: &Case, y: &[f32], what: &dyn std::fmt::Debug) {
    for (i, (y, [expected, magnitude])) in y.iter().zip(case.definition()).enumerate() {
        let error = (f64::from(*y) - expected).abs();
        assert!(
            error <= TOLERANCE * magnitude,
            "expected {expected} at {i}, found {y}: {what:?} {:?}",
            [case.m, case.rows, case.columns]
        );
    }
}

fn shapes(rng: &mut Rng, n: usize) -> Vec<[usize; 3]> {
    let mut shapes: Vec<_> = (0..n).map(|_| [rng.usize(0..20), rng.usize(1..131), rng.usize(1..301)]).collect();
    shapes.extend([[1, 1, 1], [0, 3, 5], [1, 64, 16], [2, 65, 17], [70, 33, 40], [130, 3, 7], [3, 200, 1500]]);
    // Few rows of activations and many rows of weights: tables of bytes.
    shapes.extend([[1, 1024, 1], [2, 1041, 16], [1, 1050, 17], [2, 1100, 32], [1, 1090, 289]]);
    shapes
}

#[test]
fn products_match_the_definition_on_every_instruction_set() {
    let mut rng = Rng::with_seed(1);
    for shape in shapes(&mut rng, 150) {
        let case = Case::new(&mut rng, shape);
        for level in Level::available() {
            check_floats(&case, &case.forward(&case.packed().with_level(level).unwrap()), &level);
        }
    }
}

#[test]
fn the_order_of_the_codes_in_memory_does_not_matter() {
    let mut rng = Rng::with_seed(8);
    for _ in 0..40 {
        let [rows, columns] = [rng.usize(1..90), rng.usize(1..90)];
        let case = Case::new(&mut rng, [2, rows, columns]);
        let scales = Scales::PerRow { w_pos: &case.w_pos, w_neg: &case.w_neg };
        let transposed: Vec<i8> = (0..rows * columns).map(|i| case.t[i % rows * columns + i / rows]).collect();
        let codes = Codes::pack(&transposed).unwrap();
        let view = CodesView::with_strides(&codes, [rows, columns], [1, rows]).unwrap();
        let one = PackedMatrix::new(view, scales).unwrap();
        let other = pack([rows, columns], &case.t, scales).unwrap();
        assert_eq!(case.forward(&one), case.forward(&other), "{rows} {columns}");
    }
}

#[test]
fn lookup_tables_match_the_definition() {
    let mut rng = Rng::with_seed(2);
    for _ in 0..60 {
        let shape = [rng.usize(1..11), rng.usize(1..600), rng.usize(1..400)];
        let case = Case::new(&mut rng, shape);
        for level in Level::available() {
            check_floats(&case, &case.forward(&case.packed().with_level(level).unwrap()), &level);
        }
    }
}

#[test]
fn int8_results_are_identical_on_every_instruction_set() {
    let mut rng = Rng::with_seed(3);
    for shape in shapes(&mut rng, 150) {
        let case = Case::new(&mut rng, shape);
        let packed = case.packed().with_activations(Activations::Int8);
        let portable = case.forward(&packed.clone().with_level(Level::Portable).unwrap());
        for level in Level::available() {
            let y = case.forward(&packed.clone().with_level(level).unwrap());
            assert!(y.iter().zip(&portable).all(|(a, b)| a.to_bits() == b.to_bits()), "{level:?} {shape:?}");
        }
    }
}

#[test]
fn integer_sums_match_the_definition() {
    let mut rng = Rng::with_seed(4);
    for shape in shapes(&mut rng, 100) {
        let mut case = Case::new(&mut rng, shape);
        (case.affine, case.relu) = (None, false);
        // Scales that return P, -N, or P - N.
        for [pos, neg] in [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]] {
            case.w_pos.fill(pos);
            case.w_neg.fill(neg);
            for level in Level::available() {
                let packed = case.packed().with_level(level).unwrap().with_activations(Activations::Int8);
                for (y, ([p, n], factor)) in case.forward(&packed).into_iter().zip(case.integers()) {
                    let expected = pos as i64 * p - neg as i64 * n;
                    assert_eq!(y, factor * expected as f32, "{level:?} {shape:?} {pos} {neg}");
                }
            }
        }
    }
}

#[test]
fn no_row_of_activations_is_no_error() {
    for rows in [1, 300, 1024] {
        let case = Case::new(&mut Rng::with_seed(3), [0, rows, 16]);
        for (level, activations) in
            Level::available().flat_map(|level| [(level, Activations::Float32), (level, Activations::Int8)])
        {
            let packed = case.packed().with_level(level).unwrap().with_activations(activations);
            assert!(case.forward(&packed).is_empty(), "{level:?} {rows}");
        }
    }
}

/// Scales whose ratio is one of small integers, or far from 1, or with many columns.
#[test]
fn int8_sums_with_two_scales_match_the_definition() {
    let mut rng = Rng::with_seed(9);
    let mut shapes = shapes(&mut rng, 60);
    shapes.push([2, 17, 70_000]);
    for shape in shapes {
        for [pos, neg] in [[2.0, 1.0], [0.75, 1.0], [100.0, 63.0], [1.0, 1024.0], [-3.0, 5.0]] {
            let mut case = Case::new(&mut rng, shape);
            (case.affine, case.relu) = (None, false);
            case.w_pos.fill(pos);
            case.w_neg.fill(neg);
            let packed = case.packed().with_activations(Activations::Int8);
            for level in Level::available() {
                let y = case.forward(&packed.clone().with_level(level).unwrap());
                let outputs = y.into_iter().zip(case.integers()).zip(case.magnitudes());
                for ((y, ([p, n], factor)), [p_magnitude, n_magnitude]) in outputs {
                    let weigh =
                        |p: i64, n: i64| f64::from(factor) * (f64::from(pos) * p as f64 + f64::from(neg) * n as f64);
                    let error = (f64::from(y) - weigh(p, -n)).abs();
                    let magnitude =
                        f64::from(factor) * f64::from(pos.abs().max(neg.abs())) * (p_magnitude + n_magnitude) as f64;
                    assert!(error <= 1e-6 * magnitude, "{level:?} {shape:?} {pos} {neg}");
                }
            }
        }
    }
}

#[test]
fn the_largest_int8_activations_do_not_overflow() {
    for (rows, columns) in [(17, 4096), (17, 16384), (17, 70000), (1030, 4096)] {
        for (sign, value) in [(1, 127.0), (1, -127.0), (-1, 127.0), (-1, -127.0)] {
            for [w_pos, w_neg] in [[1.0, 1.0], [1.0, 0.5], [0.5, 1.0]] {
                let x = vec![value; columns];
                let scales = Scales::PerTensor { w_pos, w_neg };
                let matrix = pack([rows, columns], &vec![sign; rows * columns], scales).unwrap();
                let weight = if sign == 1 { w_pos } else { -w_neg };
                for level in Level::available() {
                    let matrix = matrix.clone().with_level(level).unwrap().with_activations(Activations::Int8);
                    let mut y = vec![0.0; rows];
                    matrix.forward(&x, &mut y, &mut Scratch::new()).unwrap();
                    assert_eq!(y, vec![weight * columns as f32 * value; rows], "{level:?} {rows} {columns}");
                }
            }
        }
    }
}

#[test]
fn the_int8_error_is_within_the_bounds_of_activations_and_scales() {
    let mut rng = Rng::with_seed(5);
    for shape in shapes(&mut rng, 60) {
        let mut case = Case::new(&mut rng, shape);
        if rng.u8(0..3) == 0 && case.rows > 0 {
            // A ratio without integers: the scales stay exact.
            let row = rng.usize(0..case.rows);
            case.w_neg[row] = 200.0 * case.w_pos[row];
        }
        (case.affine, case.relu) = (None, false);
        let y = case.forward(&case.packed().with_activations(Activations::Int8));
        let (definition, integers) = (case.definition(), case.integers());
        for i in 0..y.len() {
            let row = i % case.rows;
            let weights: f32 = case.t[row * case.columns..][..case.columns]
                .iter()
                .map(|t| if *t == 1 { case.w_pos[row] } else { case.w_neg[row] * f32::from(t.abs()) })
                .sum();
            let ([expected, magnitude], factor) = (definition[i], integers[i].1);
            let bound = f64::from(0.5 * factor * weights) + (1.0 / 256.0 + TOLERANCE) * magnitude;
            assert!((f64::from(y[i]) - expected).abs() <= bound, "{shape:?} {i}: {} {expected} {bound}", y[i]);
        }
    }
}

#[test]
fn the_bias_of_a_call_is_that_of_the_affine_map() {
    let mut rng = Rng::with_seed(10);
    let mut scratch = Scratch::new();
    for shape in shapes(&mut rng, 40) {
        let case = Case::new(&mut rng, shape);
        let bias = floats(&mut rng, case.rows);
        for activations in [Activations::Float32, Activations::Int8] {
            let packed = case.packed().with_activations(activations);
            let mut y = vec![f32::NAN; case.m * case.rows];
            packed.forward_with_bias(&case.x, Some(&bias), &mut y, &mut scratch).unwrap();
            assert_eq!(y, case.forward(&packed.with_bias(&bias).unwrap()), "{shape:?}");
        }
    }
}

#[cfg(feature = "std")]
#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let mut rng = Rng::with_seed(6);
    for m in [1, 2, 5, 150] {
        let case = Case::new(&mut rng, [m, 700, 9000 / m + 500]);
        for activations in [Activations::Float32, Activations::Int8] {
            let packed = case.packed().with_activations(activations);
            let on = |threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| case.forward(&packed))
            };
            let single = on(1);
            assert!([2, 3, 5].into_iter().all(|threads| on(threads) == single), "{m} {activations:?}");
        }
    }
}

#[test]
fn buffers_can_be_reused_for_other_shapes() {
    let mut rng = Rng::with_seed(7);
    let mut scratch = Scratch::new();
    for shape in [[9, 40, 100], [1, 20, 30], [3, 5, 7], [1, 100, 333]] {
        let case = Case::new(&mut rng, shape);
        for activations in [Activations::Float32, Activations::Int8] {
            let packed = case.packed().with_activations(activations);
            let mut y = vec![f32::NAN; case.m * case.rows];
            packed.forward(&case.x, &mut y, &mut scratch).unwrap();
            assert_eq!(y, case.forward(&packed));
        }
    }
}

#[test]
fn invalid_arguments_are_rejected() {
    let scales = Scales::PerTensor { w_pos: 1.0, w_neg: 1.0 };
    let matrix = pack([2, 3], &[0; 6], scales).unwrap();
    let mut scratch = Scratch::new();
    let length = |what, expected, found| Err(KernelError::Length { what, expected, found });
    assert_eq!(matrix.forward(&[0.0; 4], &mut [0.0; 2], &mut scratch), length("x", 3, 4));
    assert_eq!(matrix.forward(&[0.0; 3], &mut [0.0; 3], &mut scratch), length("y", 2, 3));
    let y = &mut [0.0; 2];
    assert_eq!(matrix.forward_with_bias(&[0.0; 3], Some(&[0.0]), y, &mut scratch), length("bias", 2, 1));
    assert_eq!(matrix.clone().with_bias(&[0.0]).map(|_| ()), length("shift or bias", 2, 1));
    assert!(matches!(pack([0, 3], &[], scales), Err(KernelError::Dimension { value: 0, .. })));
    assert_eq!(pack([2, 3], &[0; 5], scales).map(|_| ()), length("the codes", 6, 5));
    let codes = Codes::pack(&[0; 7]).unwrap();
    let last = |strides| CodesView::with_strides(&codes, [2, 3], strides).map(|_| ());
    assert_eq!(last([4, 1]), Ok(()));
    assert_eq!(last([3, 2]), length("the codes", 8, 7));
    assert_eq!(last([1, usize::MAX]), length("the codes", usize::MAX, 7));
    let row = CodesView::with_strides(&codes, [1, 3], [usize::MAX, 2]).unwrap();
    assert!(PackedMatrix::new(row, scales).is_ok());
    if let Some(level) = [Level::Avx2, Level::Avx512].into_iter().find(|level| !level.is_available()) {
        assert_eq!(matrix.with_level(level).map(|_| ()), Err(KernelError::Unavailable { level }));
    }
}
