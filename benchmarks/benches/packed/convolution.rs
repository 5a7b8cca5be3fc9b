//! The convolutions of ResNet-20.

use std::hint::black_box;

use anyhow::{Result, anyhow};
use burn::backend::Flex;
use burn::prelude::*;
use burn::tensor::module::conv2d;
use burn::tensor::ops::ConvOptions;
use fastrand::Rng;
use ttq_benchmarks::measure::{self, Candidate, Row};
use ttq_cpu::Cpu;
use ttq_packed::Codes;
use ttq_packed::kernels::{
    Activations, CodesView, ConvolutionOptions, ConvolutionPath, Level, PackedConvolution, Scales, Scratch,
};

use crate::limits::Limits;
use crate::{SCALES, Suite};

/// A convolution with a square kernel on square images. The padding is half of the kernel, rounded down.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layer {
    /// Batch size.
    images: usize,
    channels: usize,
    out: usize,
    /// Height and width of the input.
    pub(crate) size: usize,
    kernel: usize,
    stride: usize,
}

impl Layer {
    /// Returns every shape of the convolutions of ResNet-20 after the first one.
    pub(crate) fn of_resnet20(images: usize) -> Vec<Self> {
        let layer = |(channels, out, size, kernel, stride)| Self { images, channels, out, size, kernel, stride };
        [
            (16, 16, 32, 3, 1),
            (32, 32, 16, 3, 1),
            (64, 64, 8, 3, 1),
            (16, 32, 32, 3, 2),
            (32, 64, 16, 3, 2),
            (16, 32, 32, 1, 2),
            (32, 64, 16, 1, 2),
        ]
        .map(layer)
        .to_vec()
    }

    /// Returns a convolution from the middle of ResNet-20.
    pub(crate) fn middle(images: usize) -> Self {
        Self { images, channels: 32, out: 32, size: 16, kernel: 3, stride: 1 }
    }

    fn title(&self, zeros: f32) -> String {
        let Self { images, channels, out, size, kernel, stride } = self;
        let stride = if *stride == 1 { String::new() } else { format!(", stride {stride}") };
        format!(
            "{kernel}×{kernel}{stride}, {channels} to {out} channels, {size}×{size}, {:.0} % zeros, batch {images}",
            100.0 * zeros
        )
    }

    fn input(&self) -> [usize; 4] {
        [self.images, self.channels, self.size, self.size]
    }

    fn weight(&self) -> [usize; 4] {
        [self.out, self.channels, self.kernel, self.kernel]
    }
}

/// Compares all candidates for a layer.
pub(crate) fn compare(suite: &Suite, limits: &Limits, layer: Layer, zeros: f32) -> Result<Vec<Row>> {
    let title = layer.title(zeros);
    if !title.contains(&suite.filter) {
        return Ok(Vec::new());
    }
    let mut rng = Rng::with_seed(2);
    let codes = crate::ternary(&mut rng, layer.weight().iter().product(), zeros);
    let packed_codes = Codes::pack(&codes)?;
    let x = crate::floats(&mut rng, layer.input().iter().product());
    let dense: Vec<f32> = codes.iter().copied().map(crate::weight).collect();

    let (flex, expected) = on_tensors::<Flex>("Flex float32", layer, &x, &dense)?;
    let (cpu, _) = on_tensors::<Cpu>("ttq-cpu float32", layer, &x, &dense)?;
    let bytes = 4 * (x.len() + dense.len() + expected.len());
    let operations = expected.len() * layer.channels * layer.kernel * layer.kernel;
    let mut candidates = vec![
        flex.with_bytes(bytes, limits.bandwidth(bytes)).with_operations(operations, limits.peak(Level::Avx2, false)),
        cpu.with_bytes(bytes, limits.bandwidth(bytes)).with_operations(operations, limits.peak(Level::best(), false)),
    ];
    for level in suite.levels.iter().copied() {
        for activations in [Activations::Float32, Activations::Int8] {
            let (stride, padding) = ([layer.stride; 2], [[layer.kernel / 2; 2]; 2]);
            let options = ConvolutionOptions { stride, padding, ..Default::default() };
            let [w_pos, w_neg] = SCALES;
            let scales = Scales::PerTensor { w_pos, w_neg };
            let codes = CodesView::new(&packed_codes, layer.weight())?;
            let convolution = PackedConvolution::new(codes, options, scales)?;
            let convolution = convolution.with_level(level)?.with_activations(activations);
            candidates.push(packed(convolution, limits, layer.input(), &x, &expected)?);
        }
    }
    measure::compare(&title, suite.budget, candidates)
}

/// Creates the candidate of a packed convolution, after a check of its result.
fn packed(
    convolution: PackedConvolution,
    limits: &Limits,
    input: [usize; 4],
    x: &[f32],
    expected: &[f32],
) -> Result<Candidate<'static>> {
    let cost = convolution.cost(input)?;
    let dense = cost.multiply_accumulates;
    let (name, tolerance, operations, note) = match (convolution.activations(), convolution.path()) {
        // One product per scale, but for levels whose bytes can be in the ratio of the scales.
        (Activations::Int8, _) if matches!(convolution.level(), Level::Avx512 | Level::AvxVnni) => {
            ("int8", 2e-2, dense, "")
        }
        (Activations::Int8, _) => ("int8", 2e-2, 2 * dense, ""),
        // One addition per nonzero weight, counted as a multiply-accumulate.
        (_, ConvolutionPath::Sparse) => {
            ("float32", 1e-5, ((1.0 - convolution.sparsity()) * dense as f64) as usize, "sparse path")
        }
        _ => ("float32", 1e-5, dense, "dense path"),
    };
    let name = format!("packed {name}, {:?}", convolution.level());
    let (x, len, mut scratch) = (x.to_vec(), expected.len(), Scratch::new());
    let mut y = vec![0.0; len];
    convolution.forward(&x, input, &mut y, &mut scratch)?;
    crate::check_result(&name, &y, expected, tolerance)?;
    let bytes = cost.weight_bytes + cost.input_bytes + cost.output_bytes;
    let peak = limits.peak(convolution.level(), convolution.activations() == Activations::Int8);
    let candidate = Candidate::new(name, move || {
        let mut y = vec![0.0; len];
        convolution.forward(&x, input, &mut y, &mut scratch).expect("the first call had the same shapes");
        black_box(&y);
    });
    Ok(candidate.with_bytes(bytes, limits.bandwidth(bytes)).with_operations(operations, peak).with_note(note))
}

/// Creates the candidate of Burn's operation on a backend, and returns its result as well.
fn on_tensors<B: Backend>(
    name: &str,
    layer: Layer,
    x: &[f32],
    dense: &[f32],
) -> Result<(Candidate<'static>, Vec<f32>)> {
    let device = Default::default();
    let tensor =
        |values: &[f32], shape: [usize; 4]| Tensor::<B, 4>::from_data(TensorData::new(values.to_vec(), shape), &device);
    let (x, weight) = (tensor(x, layer.input()), tensor(dense, layer.weight()));
    let convolve = move || {
        let options = ConvOptions::new([layer.stride; 2], [layer.kernel / 2; 2], [1, 1], 1);
        conv2d(x.clone(), weight.clone(), None, options)
    };
    let result = convolve().into_data().to_vec().map_err(|error| anyhow!("{name}: {error:?}"))?;
    let candidate = Candidate::new(name, move || {
        black_box(convolve());
    });
    Ok((candidate, result))
}
