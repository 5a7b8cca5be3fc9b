//! Compares matrix products with their definition, on every instruction set that the processor supports.

use std::mem::MaybeUninit;

use super::super::convolution::naive::Rng;
use super::super::simd::Level;
use super::{COLUMN_BLOCK, K_BLOCK, Matrices, Product};

/// Largest error relative to the sum of magnitudes. Rounding errors of equal terms, those of expanded operands, have the
/// same sign.
const TOLERANCE: f64 = 3e-5;

/// Memory of `[batch, rows, columns]` with random strides: axes in random order, gaps between elements, expanded axes.
struct Operand {
    floats: Vec<f32>,
    strides: [isize; 4],
}

impl Operand {
    fn new(rng: &mut Rng, shape: [usize; 4]) -> Self {
        let mut order = [0, 1, 2, 3];
        for axis in (1..4).rev() {
            // Most operands are row-major or have transposed matrices.
            let swaps = rng.size(0, 3);
            match swaps {
                0 => order.swap(axis, rng.size(0, axis)),
                1 if axis == 3 => order.swap(2, 3),
                _ => {}
            }
        }
        let mut strides = [0; 4];
        let mut stride = if rng.size(0, 9) == 0 { 3 } else { 1 };
        for axis in order.into_iter().rev() {
            let is_expanded = rng.size(0, 9) == 0;
            if !is_expanded {
                strides[axis] = stride as isize;
                stride *= shape[axis];
                stride += rng.size(0, 3) / 3;
            }
        }
        let highest: usize = (0..4).map(|axis| (shape[axis] - 1) * strides[axis] as usize).sum();
        Self { floats: rng.floats(highest + 1), strides }
    }

    fn matrices(&self) -> Matrices<'_> {
        Matrices { floats: &self.floats, start: 0, strides: [self.strides[2], self.strides[3]] }
    }

    fn at(&self, index: [usize; 4]) -> f64 {
        let offset: usize = index.into_iter().zip(self.strides).map(|(index, stride)| index * stride as usize).sum();
        f64::from(self.floats[offset])
    }
}

struct Case {
    batch: [usize; 2],
    /// `m`, `k` and `n`.
    sizes: [usize; 3],
    a: Operand,
    b: Operand,
    bias: Option<Vec<f32>>,
}

impl Case {
    fn new(rng: &mut Rng, batch: [usize; 2], [m, k, n]: [usize; 3]) -> Self {
        let a = Operand::new(rng, [batch[0], batch[1], m, k]);
        let b = Operand::new(rng, [batch[0], batch[1], k, n]);
        let bias = (rng.size(0, 1) == 1).then(|| rng.floats(n));
        Self { batch, sizes: [m, k, n], a, b, bias }
    }

    fn product(&self) -> Product<'_> {
        let batch = [0, 1].map(|axis| (self.batch[axis], [self.a.strides[axis], self.b.strides[axis]]));
        let bias = self.bias.as_deref();
        Product::new(batch.to_vec(), self.sizes, self.a.matrices(), self.b.matrices(), bias)
    }

    fn compute(&self, level: Level) -> Vec<f32> {
        let [m, _, n] = self.sizes;
        // Elements that are not written stay NaN.
        let mut c = vec![MaybeUninit::new(f32::NAN); self.batch[0] * self.batch[1] * m * n];
        self.product().compute(level, &mut c);
        // SAFETY: every element was initialized with NaN.
        c.into_iter().map(|c| unsafe { c.assume_init() }).collect()
    }

    fn check(&self) {
        let [m, k, n] = self.sizes;
        let mut expected = Vec::new();
        for entry in 0..self.batch[0] * self.batch[1] {
            let [i, j] = [entry / self.batch[1], entry % self.batch[1]];
            for (row, column) in (0..m).flat_map(|row| (0..n).map(move |column| (row, column))) {
                let bias = self.bias.as_ref().map_or(0.0, |bias| f64::from(bias[column]));
                let terms = (0..k).map(|index| self.a.at([i, j, row, index]) * self.b.at([i, j, index, column]));
                let (sum, magnitude) =
                    terms.fold((bias, bias.abs()), |(sum, magnitude), term| (sum + term, magnitude + term.abs()));
                expected.push((sum, magnitude));
            }
        }
        for level in Level::available() {
            for (c, (sum, magnitude)) in self.compute(level).into_iter().zip(&expected) {
                let error = (f64::from(c) - sum).abs();
                let (a, b) = (self.a.strides, self.b.strides);
                assert!(error <= TOLERANCE * magnitude, "{level:?} {:?} {:?} {a:?} {b:?}", self.batch, self.sizes);
            }
        }
    }
}

#[test]
fn products_match_the_definition_for_all_small_shapes_and_strides() {
    let mut rng = Rng::new(1);
    for _ in 0..600 {
        let batch = [rng.size(1, 3), rng.size(1, 3)];
        let sizes = [0; 3].map(|_| if rng.size(0, 4) == 0 { 1 } else { rng.size(1, 70) });
        Case::new(&mut rng, batch, sizes).check();
    }
}

#[test]
fn products_match_the_definition_for_sizes_about_those_of_the_blocks() {
    let mut rng = Rng::new(2);
    for sizes in [
        [3, K_BLOCK + 5, 20],
        [1, 2 * K_BLOCK, 150],
        [67, 9, COLUMN_BLOCK + 1],
        [129, K_BLOCK + 1, 17],
        [5, 3, 2 * COLUMN_BLOCK + 40],
        [200, K_BLOCK + 16, 1],
    ] {
        for _ in 0..4 {
            Case::new(&mut rng, [1, 1], sizes).check();
        }
    }
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let mut rng = Rng::new(3);
    for (batch, sizes) in
        [([1, 1], [300, 400, 130]), ([1, 1], [70, 500, 600]), ([7, 3], [50, 40, 60]), ([1, 1], [1, 900, 800])]
    {
        let case = Case::new(&mut rng, batch, sizes);
        let with_threads = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| case.compute(Level::best()))
        };
        let single_threaded = with_threads(1);
        for threads in [2, 3, 16] {
            assert_eq!(with_threads(threads), single_threaded, "{threads} threads, {sizes:?}");
        }
    }
}
