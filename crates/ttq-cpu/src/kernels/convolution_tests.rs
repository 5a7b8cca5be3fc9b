//! Compares every convolution kernel with the reference, on every instruction set that the processor supports.

use std::mem::MaybeUninit;

use super::naive::{self, Rng};
use super::simd::Level;
use super::{Geometry, direct};

/// Largest error relative to the sum of magnitudes.
const TOLERANCE: f64 = 1e-6;

/// A random geometry that has an output.
fn random_geometry(rng: &mut Rng, max_stride: usize) -> Geometry {
    loop {
        let geometry = Geometry {
            batch: rng.size(1, 5),
            channels_in: rng.size(1, 11),
            channels_out: rng.size(1, 19),
            input: [rng.size(1, 19), rng.size(1, 37)],
            kernel: [rng.size(1, 5), rng.size(1, 5)],
            stride: [rng.size(1, max_stride), rng.size(1, max_stride)],
            padding: [rng.size(0, 3), rng.size(0, 3)],
            dilation: [rng.size(1, 3), rng.size(1, 3)],
        };
        if geometry.output().is_some() {
            return geometry;
        }
    }
}

fn filled(n: usize, write: impl FnOnce(&mut [MaybeUninit<f32>])) -> Vec<f32> {
    // Elements that are not written stay NaN, which `naive::error` rejects.
    let mut memory = vec![MaybeUninit::new(f32::NAN); n];
    write(&mut memory);
    // SAFETY: every element was initialized with NaN.
    memory.into_iter().map(|x| unsafe { x.assume_init() }).collect()
}

struct Case {
    geometry: Geometry,
    x: Vec<f32>,
    dy: Vec<f32>,
    weight: Vec<f32>,
    bias: Vec<f32>,
}

impl Case {
    fn new(geometry: Geometry, rng: &mut Rng) -> Self {
        let [oh, ow] = geometry.output().unwrap();
        Self {
            geometry,
            x: rng.floats(geometry.batch * geometry.channels_in * geometry.input[0] * geometry.input[1]),
            dy: rng.floats(geometry.batch * geometry.channels_out * oh * ow),
            weight: rng.floats(geometry.weights()),
            bias: rng.floats(geometry.channels_out),
        }
    }

    fn check(&self, level: Level) {
        let Self { geometry, x, dy, weight, bias } = self;
        let output = geometry.output().unwrap();
        let y = filled(dy.len(), |y| direct::forward(level, geometry, output, x, weight, Some(bias), y));
        let error = naive::error(&y, &naive::forward(geometry, x, weight, bias));
        assert!(error < TOLERANCE, "forward {error:e} {level:?} {geometry:?}");
        let dx = filled(x.len(), |dx| direct::input_gradient(level, geometry, output, dy, weight, dx));
        let error = naive::error(&dx, &naive::input_gradient(geometry, dy, weight));
        assert!(error < TOLERANCE, "input gradient {error:e} {level:?} {geometry:?}");
        let dw = filled(weight.len(), |dw| direct::weight_gradient(level, geometry, output, x, dy, dw));
        let error = naive::error(&dw, &naive::weight_gradient(geometry, x, dy));
        assert!(error < TOLERANCE, "weight gradient {error:e} {level:?} {geometry:?}");
    }
}

#[test]
fn kernels_match_the_reference_on_every_instruction_set() {
    let mut rng = Rng::new(1);
    for case in 0..200 {
        let geometry = random_geometry(&mut rng, 1 + case % 3);
        let case = Case::new(geometry, &mut rng);
        Level::available().for_each(|level| case.check(level));
    }
}

#[test]
fn kernels_match_the_reference_for_several_images_per_strip_and_several_strips() {
    let mut rng = Rng::new(3);
    for (batch, channels, size) in [(40, 3, 4), (19, 20, 9), (3, 16, 33), (1, 40, 40)] {
        let geometry = Geometry {
            batch,
            channels_in: channels,
            channels_out: channels + 1,
            input: [size, size],
            kernel: [3, 3],
            stride: [1, 1],
            padding: [1, 1],
            dilation: [1, 1],
        };
        let case = Case::new(geometry, &mut rng);
        Level::available().for_each(|level| case.check(level));
    }
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let mut rng = Rng::new(4);
    let geometry = Geometry {
        batch: 37,
        channels_in: 5,
        channels_out: 9,
        input: [13, 11],
        kernel: [3, 3],
        stride: [1, 1],
        padding: [1, 1],
        dilation: [1, 1],
    };
    let Case { x, dy, .. } = Case::new(geometry, &mut rng);
    let with_threads = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let gradient = |dw: &mut [_]| direct::weight_gradient(Level::best(), &geometry, [13, 11], &x, &dy, dw);
            filled(geometry.weights(), gradient)
        })
    };
    let single_threaded = with_threads(1);
    for threads in [2, 3, 7] {
        assert_eq!(with_threads(threads), single_threaded, "{threads} threads");
    }
}
