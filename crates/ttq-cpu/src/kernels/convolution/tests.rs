//! Compares every convolution kernel with the reference, on every instruction set that the processor supports.

use std::mem::MaybeUninit;

use super::images::Images;
use super::naive::{self, Rng};
use super::{forward, input_gradient, weight_gradient};
use crate::kernels::Geometry;
use crate::kernels::simd::Level;

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
    /// Order of the input and of the output's gradient in memory.
    order: [Order; 2],
}

impl Case {
    fn new(geometry: Geometry, rng: &mut Rng) -> Self {
        let [oh, ow] = geometry.output().unwrap();
        Self {
            geometry,
            x: rng.floats(geometry.batch * geometry.channels_in * geometry.input[0] * geometry.input[1]),
            dy: rng.floats(geometry.batch * geometry.channels_out * oh * ow),
            weight: rng.floats(geometry.channels_out * geometry.channels_in * geometry.taps()),
            bias: rng.floats(geometry.channels_out),
            order: [0, 1].map(|_| Order::ALL[rng.size(0, 3)]),
        }
    }

    fn check(&self, level: Level) {
        self.check_errors(level, naive::error);
    }

    fn check_errors(&self, level: Level, error: fn(&[f32], &naive::Sums) -> f64) {
        let Self { geometry, x, dy, weight, bias, order } = self;
        let output = geometry.output().unwrap();
        let x_shape = [geometry.batch, geometry.channels_in, geometry.input[0], geometry.input[1]];
        let dy_shape = [geometry.batch, geometry.channels_out, output[0], output[1]];
        let expected = naive::forward(geometry, x, weight, bias);
        let expected_dx = naive::input_gradient(geometry, dy, weight);
        let expected_dw = naive::weight_gradient(geometry, x, dy);
        let what = format!("{level:?} {order:?} {geometry:?}");
        let (x, dy) = (order[0].of(x, x_shape), order[1].of(dy, dy_shape));
        let (x, dy) = (x.images(), dy.images());
        let y = filled(expected.len(), |y| forward(level, geometry, output, x, weight, Some(bias), y));
        let forward = error(&channels_first(&y, dy_shape), &expected);
        assert!(forward < TOLERANCE, "forward {forward:e} {what}");
        let dx = filled(expected_dx.len(), |dx| input_gradient(level, geometry, dy, weight, dx));
        let input = error(&channels_first(&dx, x_shape), &expected_dx);
        assert!(input < TOLERANCE, "input gradient {input:e} {what}");
        let dw = filled(weight.len(), |dw| weight_gradient(level, geometry, x, dy, dw));
        let weights = error(&dw, &expected_dw);
        assert!(weights < TOLERANCE, "weight gradient {weights:e} {what}");
    }
}

/// Order of images in memory.
#[derive(Debug, Clone, Copy)]
enum Order {
    ChannelsLast,
    Contiguous,
    /// Channels-last, each pixel followed by other memory.
    Padded,
    /// Axes from last to first, each backwards.
    Reversed,
}

struct Ordered {
    memory: Vec<f32>,
    start: usize,
    shape: [usize; 4],
    strides: [isize; 4],
}

impl Order {
    const ALL: [Self; 4] = [Self::ChannelsLast, Self::Contiguous, Self::Padded, Self::Reversed];

    /// Stores contiguous images `[n, c, h, w]` in this order. Memory between the elements is NaN.
    fn of(self, x: &[f32], shape: [usize; 4]) -> Ordered {
        let [n, c, h, w] = shape.map(|size| size as isize);
        let strides = match self {
            Self::ChannelsLast => [h * w * c, 1, w * c, c],
            Self::Contiguous => [c * h * w, h * w, w, 1],
            Self::Padded => [h * w * (c + 3), 1, w * (c + 3), c + 3],
            Self::Reversed => [-1, -n, -n * c, -n * c * h],
        };
        let start: isize = strides.iter().zip(shape).map(|(stride, size)| (-stride).max(0) * (size as isize - 1)).sum();
        let mut memory = vec![f32::NAN; x.len() + 3 * shape[0] * shape[2] * shape[3]];
        for (value, [n, c, h, w]) in x.iter().zip(indices(shape)) {
            let offset: isize = [n, c, h, w].iter().zip(strides).map(|(index, stride)| *index as isize * stride).sum();
            memory[(start + offset) as usize] = *value;
        }
        Ordered { memory, start: start as usize, shape, strides }
    }
}

impl Ordered {
    fn images(&self) -> Images<'_> {
        Images::new(&self.memory, self.start, self.shape, self.strides)
    }
}

/// All indices of images `[n, c, h, w]` in row-major order.
fn indices([n, c, h, w]: [usize; 4]) -> impl Iterator<Item = [usize; 4]> {
    (0..n * c * h * w).map(move |i| [i / (c * h * w), i / (h * w) % c, i / w % h, i % w])
}

/// Returns channels-last images in the order `[n, c, h, w]`.
fn channels_first(x: &[f32], shape: [usize; 4]) -> Vec<f32> {
    let [_, channels, height, width] = shape;
    indices(shape).map(|[n, c, h, w]| x[((n * height + h) * width + w) * channels + c]).collect()
}

#[test]
fn kernels_match_the_reference_on_every_instruction_set() {
    let mut rng = Rng::new(1);
    for case in 0..150 {
        let geometry = random_geometry(&mut rng, 1 + case % 3);
        let case = Case::new(geometry, &mut rng);
        Level::available().for_each(|level| case.check(level));
    }
}

#[test]
fn kernels_match_the_reference_for_several_images_per_task_several_tasks_and_several_passes() {
    let mut rng = Rng::new(3);
    for (batch, channels, size) in [(40, 3, 4), (19, 20, 9), (3, 16, 33), (1, 40, 20), (2, 70, 3)] {
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

/// An output that sums few products, at a border, shares the rounding errors of the others of its tile.
#[test]
fn winograd_matches_the_reference() {
    let mut rng = Rng::new(5);
    for _ in 0..30 {
        let geometry = Geometry {
            batch: rng.size(1, 4),
            channels_in: rng.size(8, 40),
            channels_out: rng.size(8, 40),
            input: [rng.size(1, 13), rng.size(1, 21)],
            kernel: [3, 3],
            stride: [1, 1],
            padding: [rng.size(1, 3), rng.size(1, 3)],
            dilation: [1, 1],
        };
        let case = Case::new(geometry, &mut rng);
        Level::available().for_each(|level| case.check_errors(level, naive::error_of_largest));
    }
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let mut rng = Rng::new(4);
    for channels in [[5, 9], [9, 40]] {
        let geometry = Geometry {
            batch: 37,
            channels_in: channels[0],
            channels_out: channels[1],
            input: [13, 11],
            kernel: [3, 3],
            stride: [1, 1],
            padding: [1, 1],
            dilation: [1, 1],
        };
        let Case { x, dy, weight, .. } = Case::new(geometry, &mut rng);
        let x = Order::ChannelsLast.of(&x, [37, channels[0], 13, 11]);
        let dy = Order::ChannelsLast.of(&dy, [37, channels[1], 13, 11]);
        let with_threads = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let (level, x, dy) = (Level::best(), x.images(), dy.images());
                let n = 37 * 13 * 11;
                let y = |y: &mut [_]| forward(level, &geometry, [13, 11], x, &weight, None, y);
                let dx = |dx: &mut [_]| input_gradient(level, &geometry, dy, &weight, dx);
                let dw = |dw: &mut [_]| weight_gradient(level, &geometry, x, dy, dw);
                [filled(n * channels[1], y), filled(n * channels[0], dx), filled(weight.len(), dw)]
            })
        };
        let single_threaded = with_threads(1);
        for threads in [2, 3, 7] {
            assert_eq!(with_threads(threads), single_threaded, "{threads} threads");
        }
    }
}
