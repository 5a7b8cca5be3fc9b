//! Reference convolution in f64, a direct implementation of the definition, for tests of the kernels.

use crate::kernels::Geometry;

/// Calls `work` with the output, input and weight index of every product.
fn each_product(geometry: &Geometry, mut work: impl FnMut(usize, usize, usize)) {
    let Geometry { batch, channels_in, channels_out, input: [h, w], kernel: [kh, kw], .. } = *geometry;
    let [oh, ow] = geometry.output().unwrap();
    for n in 0..batch {
        for o in 0..channels_out {
            for (oy, ox) in (0..oh).flat_map(|oy| (0..ow).map(move |ox| (oy, ox))) {
                for c in 0..channels_in {
                    for (i, j) in (0..kh).flat_map(|i| (0..kw).map(move |j| (i, j))) {
                        let y = (oy * geometry.stride[0] + i * geometry.dilation[0]).wrapping_sub(geometry.padding[0]);
                        let x = (ox * geometry.stride[1] + j * geometry.dilation[1]).wrapping_sub(geometry.padding[1]);
                        if y < h && x < w {
                            work(
                                ((n * channels_out + o) * oh + oy) * ow + ox,
                                ((n * channels_in + c) * h + y) * w + x,
                                ((o * channels_in + c) * kh + i) * kw + j,
                            );
                        }
                    }
                }
            }
        }
    }
}

/// For each element, the sum of its terms and the sum of their magnitudes. Errors are relative to the latter.
pub(crate) type Sums = Vec<(f64, f64)>;

fn add(sum: &mut (f64, f64), a: f32, b: f32) {
    let product = f64::from(a) * f64::from(b);
    *sum = (sum.0 + product, sum.1 + product.abs());
}

pub(crate) fn forward(geometry: &Geometry, x: &[f32], weight: &[f32], bias: &[f32]) -> Sums {
    let [oh, ow] = geometry.output().unwrap();
    let positions = oh * ow;
    let outputs = geometry.batch * geometry.channels_out * positions;
    let mut y: Sums = (0..outputs)
        .map(|i| f64::from(bias[i / positions % geometry.channels_out]))
        .map(|bias| (bias, bias.abs()))
        .collect();
    each_product(geometry, |o, i, w| add(&mut y[o], x[i], weight[w]));
    y
}

pub(crate) fn input_gradient(geometry: &Geometry, dy: &[f32], weight: &[f32]) -> Sums {
    let [h, w] = geometry.input;
    let mut dx = vec![(0.0, 0.0); geometry.batch * geometry.channels_in * h * w];
    each_product(geometry, |o, i, w| add(&mut dx[i], dy[o], weight[w]));
    dx
}

pub(crate) fn weight_gradient(geometry: &Geometry, x: &[f32], dy: &[f32]) -> Sums {
    let mut dw = vec![(0.0, 0.0); geometry.channels_out * geometry.channels_in * geometry.taps()];
    each_product(geometry, |o, i, w| add(&mut dw[w], dy[o], x[i]));
    dw
}

/// Returns the largest error relative to the sum of magnitudes.
pub(crate) fn error(found: &[f32], expected: &Sums) -> f64 {
    assert_eq!(found.len(), expected.len());
    let errors = found.iter().zip(expected).map(|(found, (sum, magnitude))| {
        assert!(found.is_finite());
        (f64::from(*found) - sum).abs() / magnitude.max(1e-30)
    });
    errors.fold(0.0, f64::max)
}

/// Returns the largest error relative to the largest sum of magnitudes.
pub(crate) fn error_of_largest(found: &[f32], expected: &Sums) -> f64 {
    let largest = expected.iter().fold(0.0, |largest, (_, magnitude)| magnitude.max(largest));
    error(found, &expected.iter().map(|(sum, _)| (*sum, largest)).collect())
}

/// Seeded random number generator.
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// xorshift64*
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// `n` floats between -1 and 1.
    pub(crate) fn floats(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0).collect()
    }

    /// An integer between `from` and `to`, inclusive.
    pub(crate) fn size(&mut self, from: usize, to: usize) -> usize {
        from + (self.next() >> 33) as usize % (to - from + 1)
    }
}
