//! Benchmark of the packed kernels against float32 products of the `gemm` crate, on one thread.
//!
//! ```sh
//! cargo bench -p ttq-packed --bench kernels -- [matrix|convolution] [SECONDS]
//! ```
//!
//! `SECONDS` is the time per candidate (default 0.3). The environment variable `LEVEL` selects one instruction set, for
//! example `LEVEL=Avx2`. A timed call includes all of its work: building tables, quantizing activations, unrolling
//! images. Calls of the candidates alternate, so that other load on the machine affects all of them equally. A line
//! shows the fastest call, the median, and the ratio of the fastest call of the reference to the fastest call of the
//! candidate.

use std::hint::black_box;
use std::time::{Duration, Instant};

use fastrand::Rng;
use ttq_packed::Codes;
use ttq_packed::kernels::{
    Activations, CodesView, ConvolutionOptions, ConvolutionPath, Level, PackedConvolution, PackedMatrix, Scales,
    Scratch,
};

/// Returns all levels of the machine, or the one that the environment variable `LEVEL` names.
fn levels() -> impl Iterator<Item = Level> {
    let wanted = std::env::var("LEVEL").ok();
    Level::available().filter(move |level| wanted.as_ref().is_none_or(|wanted| *wanted == format!("{level:?}")))
}

/// A named call and its times.
struct Candidate<'a> {
    name: String,
    call: Box<dyn FnMut() + 'a>,
    times: Vec<Duration>,
}

impl<'a> Candidate<'a> {
    fn new(name: impl Into<String>, call: impl FnMut() + 'a) -> Self {
        Self { name: name.into(), call: Box::new(call), times: Vec::new() }
    }
}

/// Times the candidates and prints a line for each. The first one is the reference.
fn compare(title: &str, multiply_accumulates: usize, seconds: f64, mut candidates: Vec<Candidate>) {
    println!("\n{title}");
    let budget = Duration::from_secs_f64(seconds * candidates.len() as f64);
    let start = Instant::now();
    while start.elapsed() < budget || candidates[0].times.len() < 5 {
        for Candidate { call, times, .. } in &mut candidates {
            // Several consecutive calls, because the caches hold the data of another candidate at the first one.
            for _ in 0..4 {
                let start = Instant::now();
                call();
                times.push(start.elapsed());
            }
        }
    }
    let reference = *candidates[0].times.iter().min().expect("at least one call");
    for Candidate { name, times, .. } in &mut candidates {
        times.sort();
        let best = times[0].as_secs_f64();
        println!(
            "  {name:34} {:10.1} us, median {:10.1}   {:6.1} GFLOP/s   {:5.2}x",
            best * 1e6,
            times[times.len() / 2].as_secs_f64() * 1e6,
            2.0 * multiply_accumulates as f64 / best / 1e9,
            reference.as_secs_f64() / best,
        );
    }
}

fn floats(rng: &mut Rng, n: usize) -> Vec<f32> {
    (0..n).map(|_| 2.0 * rng.f32() - 1.0).collect()
}

/// Returns random ternary values. `zeros` is the probability of zero.
fn ternary(rng: &mut Rng, n: usize, zeros: f32) -> Codes {
    let values: Vec<i8> = (0..n).map(|_| if rng.f32() < zeros { 0 } else { 2 * rng.i8(0..2) - 1 }).collect();
    Codes::pack(&values).unwrap()
}

/// Computes `y[m, n] = x[m, k] w[k, n]` on one thread. All matrices are row-major.
fn dense([m, n, k]: [usize; 3], x: &[f32], w: &[f32], y: &mut [f32]) {
    assert!(x.len() >= m * k && w.len() >= k * n && y.len() >= m * n);
    // SAFETY: the slices have at least the lengths of their shapes.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            y.as_mut_ptr(),
            1,
            n as isize,
            false,
            x.as_ptr(),
            1,
            k as isize,
            w.as_ptr(),
            1,
            n as isize,
            0.0f32,
            1.0f32,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

fn matrix(seconds: f64, [m, n, k]: [usize; 3]) {
    let mut rng = Rng::with_seed(1);
    let codes = ternary(&mut rng, n * k, 0.5);
    let (x, w) = (floats(&mut rng, m * k), floats(&mut rng, n * k));
    let mut y = vec![0.0; m * n];
    let mut candidates = vec![Candidate::new("gemm f32", move || {
        dense([m, n, k], &x, &w, &mut y);
        black_box(&y);
    })];
    let per_row: Vec<f32> = (0..n).map(|row| 0.5 + row as f32 / n as f32).collect();
    let kinds = [
        ("", Scales::PerTensor { w_pos: 0.7, w_neg: 0.4 }),
        (" per row", Scales::PerRow { w_pos: &per_row, w_neg: &per_row[..] }),
        (" one scale", Scales::PerTensor { w_pos: 0.7, w_neg: 0.7 }),
    ];
    let mut reversed = per_row.clone();
    reversed.reverse();
    for level in levels() {
        for activations in [Activations::Float32, Activations::Int8] {
            for (name, scales) in &kinds {
                let scales = match scales {
                    Scales::PerRow { w_pos, .. } => Scales::PerRow { w_pos, w_neg: &reversed },
                    scales => *scales,
                };
                if matches!(
                    (activations, *name),
                    (Activations::Float32, " one scale") | (Activations::Int8, " per row")
                ) {
                    continue;
                }
                let matrix = PackedMatrix::new(CodesView::new(&codes, [n, k]).unwrap(), scales).unwrap();
                let matrix = matrix.with_level(level).unwrap().with_activations(activations);
                let x = floats(&mut rng, m * k);
                let (mut y, mut scratch) = (vec![0.0; m * n], Scratch::new());
                candidates.push(Candidate::new(format!("{level:?} {activations:?}{name}"), move || {
                    matrix.forward(&x, &mut y, &mut scratch).unwrap();
                    black_box(&y);
                }));
            }
        }
    }
    compare(&format!("{m} x {k} times {k} x {n}"), m * n * k, seconds, candidates);
}

/// Unrolls an image (im2col): writes the elements under the kernel, `[in · height · width, pixels]`.
fn unroll(x: &[f32], [channels, height, width]: [usize; 3], kernel: usize, stride: usize, to: &mut [f32]) {
    let (padding, out) = (kernel / 2, [height.div_ceil(stride), width.div_ceil(stride)]);
    for (line, to) in to.chunks_exact_mut(out[0] * out[1]).take(channels * kernel * kernel).enumerate() {
        let (channel, a, b) = (line / (kernel * kernel), line / kernel % kernel, line % kernel);
        for (i, to) in to.chunks_exact_mut(out[1]).enumerate() {
            let y = (i * stride + a).wrapping_sub(padding);
            if y >= height {
                to.fill(0.0);
                continue;
            }
            let row = &x[(channel * height + y) * width..][..width];
            for (j, to) in to.iter_mut().enumerate() {
                *to = row.get((j * stride + b).wrapping_sub(padding)).copied().unwrap_or(0.0);
            }
        }
    }
}

/// A convolution of `[images, channels, size, size]` to `out` channels, with a `kernel × kernel` kernel and the padding
/// `kernel / 2`.
#[derive(Clone, Copy)]
struct Layer {
    images: usize,
    channels: usize,
    out: usize,
    size: usize,
    kernel: usize,
    stride: usize,
}

fn convolution(seconds: f64, layer: Layer, zeros: f32) {
    let Layer { images, channels, out, size, kernel, stride } = layer;
    let mut rng = Rng::with_seed(2);
    let depth = channels * kernel * kernel;
    let pixels = size.div_ceil(stride).pow(2);
    let codes = ternary(&mut rng, out * depth, zeros);
    let x = floats(&mut rng, images * channels * size * size);
    let w = floats(&mut rng, out * depth);
    let (mut lines, mut y) = (vec![0.0; depth * pixels], vec![0.0; images * out * pixels]);
    let input = x.clone();
    let mut candidates = vec![Candidate::new("unroll + gemm f32", move || {
        let images = input.chunks_exact(channels * size * size).zip(y.chunks_exact_mut(out * pixels));
        for (x, y) in images {
            unroll(x, [channels, size, size], kernel, stride, &mut lines);
            dense([out, pixels, depth], &w, &lines, y);
        }
        black_box(&y);
    })];
    let options = ConvolutionOptions { stride: [stride; 2], padding: [[kernel / 2; 2]; 2], ..Default::default() };
    for level in levels() {
        for (name, w_neg, activations, path) in [
            ("Float32 Sparse", 0.4, Activations::Float32, ConvolutionPath::Sparse),
            ("Float32 Dense", 0.4, Activations::Float32, ConvolutionPath::Dense),
            ("Int8", 0.4, Activations::Int8, ConvolutionPath::Dense),
            ("Int8 one scale", 0.7, Activations::Int8, ConvolutionPath::Dense),
        ] {
            let scales = Scales::PerTensor { w_pos: 0.7, w_neg };
            let codes = CodesView::new(&codes, [out, channels, kernel, kernel]).unwrap();
            let layer = PackedConvolution::new(codes, options, scales).unwrap();
            let layer = layer.with_level(level).unwrap().with_activations(activations).with_path(path);
            let (x, mut y, mut scratch) = (&x, vec![0.0; images * out * pixels], Scratch::new());
            candidates.push(Candidate::new(format!("{level:?} {name}"), move || {
                layer.forward(x, [images, channels, size, size], &mut y, &mut scratch).unwrap();
                black_box(&y);
            }));
        }
    }
    let title = format!("{images} x {channels} x {size} x {size}, {kernel} x {kernel}, stride {stride}, {out}");
    let title = format!("{title} channels out, {:.0} % zeros", 100.0 * zeros);
    compare(&title, images * out * pixels * depth, seconds, candidates);
}

fn convolutions(seconds: f64) {
    for images in [1, 32] {
        for (channels, out, size, stride) in
            [(16, 16, 32, 1), (16, 32, 32, 2), (32, 32, 16, 1), (32, 64, 16, 2), (64, 64, 8, 1)]
        {
            convolution(seconds, Layer { images, channels, out, size, kernel: 3, stride }, 0.5);
        }
    }
    // Sparsities around the point where both paths are equally fast.
    for zeros in [0.05, 0.2, 0.3, 0.4] {
        for (channels, size) in [(16, 32), (64, 8), (256, 14)] {
            let layer = Layer { images: 1, channels, out: channels, size, kernel: 3, stride: 1 };
            convolution(seconds, layer, zeros);
        }
    }
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let wants = |name: &str| !words.iter().any(|word| word.parse::<f64>().is_err()) || words.iter().any(|w| w == name);
    let seconds = words.iter().find_map(|word| word.parse().ok()).unwrap_or(0.3);
    let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    one.install(|| {
        if wants("matrix") {
            for shape in [[1, 4096, 4096], [4, 4096, 4096], [64, 4096, 4096], [1, 10, 64], [64, 512, 512]] {
                matrix(seconds, shape);
            }
        }
        if wants("convolution") {
            convolutions(seconds);
        }
    });
}
