//! Every convolution kernel, on every instruction set at hand, against the definition.

use std::mem::MaybeUninit;

use super::naive::{self, Numbers};
use super::simd::Level;
use super::{Geometry, direct};

/// Relative to the sum of magnitudes.
const TOLERANCE: f64 = 1e-6;

/// A geometry with an output.
fn random(numbers: &mut Numbers, stride: usize) -> Geometry {
    loop {
        let geometry = Geometry {
            batch: numbers.size(1, 5),
            channels_in: numbers.size(1, 11),
            channels_out: numbers.size(1, 19),
            input: [numbers.size(1, 19), numbers.size(1, 37)],
            kernel: [numbers.size(1, 5), numbers.size(1, 5)],
            stride: [numbers.size(1, stride), numbers.size(1, stride)],
            padding: [numbers.size(0, 3), numbers.size(0, 3)],
            dilation: [numbers.size(1, 3), numbers.size(1, 3)],
        };
        if geometry.output().is_some() {
            return geometry;
        }
    }
}

fn filled(n: usize, write: impl FnOnce(&mut [MaybeUninit<f32>])) -> Vec<f32> {
    // What is not written stays NaN, and `naive::error` refuses that.
    let mut memory = vec![MaybeUninit::new(f32::NAN); n];
    write(&mut memory);
    // SAFETY: all were initialized.
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
    fn new(geometry: Geometry, numbers: &mut Numbers) -> Self {
        let [oh, ow] = geometry.output().unwrap();
        Self {
            geometry,
            x: numbers.floats(geometry.batch * geometry.channels_in * geometry.input[0] * geometry.input[1]),
            dy: numbers.floats(geometry.batch * geometry.channels_out * oh * ow),
            weight: numbers.floats(geometry.weights()),
            bias: numbers.floats(geometry.channels_out),
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
fn kernels_are_the_definition_on_every_instruction_set() {
    let mut numbers = Numbers::new(1);
    for case in 0..200 {
        let geometry = random(&mut numbers, 1 + case % 3);
        let case = Case::new(geometry, &mut numbers);
        Level::available().for_each(|level| case.check(level));
    }
}

#[test]
fn many_images_share_a_strip_and_many_strips_share_the_work() {
    let mut numbers = Numbers::new(3);
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
        let case = Case::new(geometry, &mut numbers);
        Level::available().for_each(|level| case.check(level));
    }
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let mut numbers = Numbers::new(4);
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
    let Case { x, dy, .. } = Case::new(geometry, &mut numbers);
    let with_threads = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let gradient = |dw: &mut [_]| direct::weight_gradient(Level::best(), &geometry, [13, 11], &x, &dy, dw);
            filled(geometry.weights(), gradient)
        })
    };
    let alone = with_threads(1);
    for threads in [2, 3, 7] {
        assert_eq!(with_threads(threads), alone, "{threads} threads");
    }
}
