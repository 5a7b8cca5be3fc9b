//! Convolutions on every available instruction set and path, compared with the definition in float64 and with exact
//! integers.

use fastrand::Rng;
use ttq_packed::Codes;
use ttq_packed::kernels::{
    Activations, CodesView, ConvolutionOptions, ConvolutionPath, KernelError, Level, PackedConvolution, Scales, Scratch,
};

/// Relative to the sum of the magnitudes of all terms.
const TOLERANCE: f64 = 1e-5;

#[derive(Debug, Clone)]
struct Case {
    input: [usize; 4],
    shape: [usize; 4],
    options: ConvolutionOptions,
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

fn pack(
    shape: [usize; 4],
    options: ConvolutionOptions,
    scales: Scales<'_>,
    t: &[i8],
) -> Result<PackedConvolution, KernelError> {
    let codes = Codes::pack(t).unwrap();
    PackedConvolution::new(CodesView::new(&codes, shape)?, options, scales)
}

impl Case {
    fn new(rng: &mut Rng, input: [usize; 4], shape: [usize; 4], options: ConvolutionOptions) -> Self {
        let zeros = rng.f32();
        let weights = shape.iter().product();
        let t = (0..weights).map(|_| if rng.f32() < zeros { 0 } else { 2 * rng.i8(0..2) - 1 }).collect();
        let scales = |rng: &mut Rng| (0..shape[0]).map(|_| 0.1 + rng.f32()).collect::<Vec<_>>();
        let (mut w_pos, mut w_neg) = (scales(rng), scales(rng));
        let kind = rng.usize(0..4);
        if kind % 2 == 1 {
            w_pos.fill(0.7);
            w_neg.fill(0.3);
        }
        if kind > 1 {
            w_neg.clone_from(&w_pos);
        }
        let affine = rng.bool().then(|| [floats(rng, shape[0]), floats(rng, shape[0])]);
        let x = floats(rng, input.iter().product());
        Self { input, shape, options, t, w_pos, w_neg, affine, relu: rng.bool(), x }
    }

    /// Returns a case with random sizes for which an output exists.
    fn random(rng: &mut Rng) -> Self {
        loop {
            let pair = |rng: &mut Rng, from, to| [rng.usize(from..=to), rng.usize(from..=to)];
            let groups = [1, 1, 2, 3][rng.usize(0..4)];
            let options = ConvolutionOptions {
                stride: pair(rng, 1, 3),
                padding: [pair(rng, 0, 3), pair(rng, 0, 3)],
                dilation: pair(rng, 1, 2),
                groups,
            };
            let [kh, kw] = pair(rng, 0, 3).map(|i| [1, 3, 5, 7][i]);
            let channels = rng.usize(1..=9);
            let most = [20, 70][rng.usize(0..2)];
            let shape = [groups * rng.usize(1..=most), channels, kh, kw];
            let [height, width] = pair(rng, 1, 20);
            let input = [rng.usize(0..=3), groups * channels, height, width];
            let fits = |i: usize, size: usize, k: usize| {
                size + options.padding[i].iter().sum::<usize>() > options.dilation[i] * (k - 1)
            };
            if fits(0, height, kh) && fits(1, width, kw) {
                return Self::new(rng, input, shape, options);
            }
        }
    }

    fn packed(&self) -> PackedConvolution {
        let scales = Scales::PerRow { w_pos: &self.w_pos, w_neg: &self.w_neg };
        let packed = pack(self.shape, self.options, scales, &self.t).unwrap();
        let packed = match &self.affine {
            Some([scale, shift]) => packed.with_affine(scale, shift).unwrap(),
            None => packed,
        };
        if self.relu { packed.with_relu() } else { packed }
    }

    fn forward(&self, packed: &PackedConvolution) -> Vec<f32> {
        let mut y = vec![f32::NAN; packed.output_shape(self.input).unwrap().iter().product()];
        packed.forward(&self.x, self.input, &mut y, &mut Scratch::new()).unwrap();
        y
    }

    /// Calls `term(y, o, t, x)` for every output and every weight whose input is inside of the image.
    ///
    /// `y` is the index of the output, `o` its channel, `t` the ternary value, and `x` the index of the input.
    fn terms(&self, mut term: impl FnMut(usize, usize, i8, usize)) {
        let [_, channels, kh, kw] = self.shape;
        let ConvolutionOptions { stride, padding, dilation, groups } = self.options;
        let [images, outs, height, width] = self.packed().output_shape(self.input).unwrap();
        let outputs = (0..images).flat_map(|n| (0..outs).map(move |o| (n, o)));
        let pixels = outputs.flat_map(|at| (0..height * width).map(move |p| (at, p / width, p % width)));
        for (index, ((n, o), i, j)) in pixels.enumerate() {
            for k in 0..channels * kh * kw {
                let (c, a, b) = (k / (kh * kw), k / kw % kh, k % kw);
                let c = o / (outs / groups) * channels + c;
                let y = (i * stride[0] + a * dilation[0]).wrapping_sub(padding[0][0]);
                let x = (j * stride[1] + b * dilation[1]).wrapping_sub(padding[1][0]);
                if y < self.input[2] && x < self.input[3] {
                    let at = ((n * self.input[1] + c) * self.input[2] + y) * self.input[3] + x;
                    term(index, o, self.t[o * channels * kh * kw + k], at);
                }
            }
        }
    }

    /// Returns each output and the sum of the magnitudes of its terms, computed in float64.
    fn definition(&self) -> Vec<[f64; 2]> {
        let [images, outs, height, width] = self.packed().output_shape(self.input).unwrap();
        let mut y = vec![[0.0; 2]; images * outs * height * width];
        self.terms(|index, o, t, at| {
            let w = [-f64::from(self.w_neg[o]), 0.0, f64::from(self.w_pos[o])][(t + 1) as usize];
            let product = w * f64::from(self.x[at]);
            y[index][0] += product;
            y[index][1] += product.abs();
        });
        for (index, [y, magnitude]) in y.iter_mut().enumerate() {
            let o = index / (height * width) % outs;
            if let Some([scale, shift]) = &self.affine {
                let (scale, shift) = (f64::from(scale[o]), f64::from(shift[o]));
                (*y, *magnitude) = (scale * *y + shift, scale.abs() * *magnitude + shift.abs());
            }
            if self.relu {
                *y = y.max(0.0);
            }
        }
        y
    }

    /// Returns the integer sums `P` and `N` of each output, and the quantization factor of its image.
    fn integers(&self) -> Vec<([i64; 2], f32)> {
        let [images, outs, height, width] = self.packed().output_shape(self.input).unwrap();
        let mut sums = vec![([0; 2], 0.0); images * outs * height * width];
        let image = self.x.len() / images.max(1);
        let factors: Vec<[f32; 2]> = self
            .x
            .chunks_exact(image.max(1))
            .map(|x| {
                let largest = x.iter().fold(0.0, |a: f32, b| a.max(b.abs()));
                [largest / 127.0, if largest > 0.0 { 127.0 / largest } else { 0.0 }]
            })
            .collect();
        self.terms(|index, _, t, at| {
            let [factor, inverse] = factors[at / image];
            let q = (self.x[at] * inverse).round_ties_even() as i64;
            sums[index].0[0] += i64::from(t == 1) * q;
            sums[index].0[1] += i64::from(t == -1) * q;
            sums[index].1 = factor;
        });
        sums
    }

    fn check(&self) {
        let definition = self.definition();
        for level in Level::available() {
            for path in [ConvolutionPath::Sparse, ConvolutionPath::Dense] {
                let y = self.forward(&self.packed().with_level(level).unwrap().with_path(path));
                for (i, (y, [expected, magnitude])) in y.iter().zip(&definition).enumerate() {
                    let error = (f64::from(*y) - expected).abs();
                    assert!(
                        error <= TOLERANCE * magnitude,
                        "expected {expected} at {i}, found {y}: {level:?} {path:?} {:?} {:?} {:?}",
                        self.input,
                        self.shape,
                        self.options,
                    );
                }
            }
        }
    }
}

/// Returns the shapes of a residual network for small images, and edge cases of vectors, tiles and windows.
fn special_cases(rng: &mut Rng) -> Vec<Case> {
    let same = |stride| ConvolutionOptions { stride: [stride; 2], padding: [[1; 2]; 2], ..Default::default() };
    let shapes = [
        ([2, 16, 32, 32], [16, 16, 3, 3], same(1)),
        ([1, 16, 32, 32], [32, 16, 3, 3], same(2)),
        ([2, 32, 16, 16], [32, 32, 3, 3], same(1)),
        ([1, 64, 8, 8], [64, 64, 3, 3], same(1)),
        ([3, 5, 1, 1], [3, 5, 1, 1], ConvolutionOptions::default()),
        ([1, 3, 130, 150], [5, 3, 3, 3], same(1)),
        ([1, 70, 7, 9], [130, 70, 1, 1], ConvolutionOptions::default()),
        ([2, 12, 9, 9], [12, 1, 3, 3], ConvolutionOptions { groups: 12, ..same(1) }),
    ];
    shapes.into_iter().map(|(input, shape, options)| Case::new(rng, input, shape, options)).collect()
}

#[test]
fn convolutions_match_the_definition_on_every_instruction_set_and_path() {
    let mut rng = Rng::with_seed(1);
    for _ in 0..150 {
        Case::random(&mut rng).check();
    }
}

#[test]
fn special_shapes_match_the_definition() {
    special_cases(&mut Rng::with_seed(2)).iter().for_each(Case::check);
}

#[test]
fn the_order_of_the_codes_in_memory_does_not_matter() {
    let mut rng = Rng::with_seed(9);
    for _ in 0..20 {
        let case = Case::random(&mut rng);
        let scales = Scales::PerRow { w_pos: &case.w_pos, w_neg: &case.w_neg };
        let [out, channels, height, width] = case.shape;
        // In the order [height, width, in, out].
        let strides = [1, out, width * channels * out, channels * out];
        let mut t = vec![0; case.t.len()];
        for (index, value) in case.t.iter().enumerate() {
            let position = [index / (channels * height * width), index / (height * width) % channels];
            let position = [position[0], position[1], index / width % height, index % width];
            t[position.iter().zip(strides).map(|(i, stride)| i * stride).sum::<usize>()] = *value;
        }
        let codes = Codes::pack(&t).unwrap();
        let view = CodesView::with_strides(&codes, case.shape, strides).unwrap();
        let one = PackedConvolution::new(view, case.options, scales).unwrap();
        let other = pack(case.shape, case.options, scales, &case.t).unwrap();
        assert_eq!(case.forward(&one), case.forward(&other), "{case:?}");
    }
}

#[test]
fn integer_sums_match_the_definition() {
    let mut rng = Rng::with_seed(3);
    let mut cases: Vec<Case> = (0..60).map(|_| Case::random(&mut rng)).collect();
    cases.extend(special_cases(&mut rng));
    for mut case in cases {
        (case.affine, case.relu) = (None, false);
        // Scales that return P, -N, or P - N.
        let integers = case.integers();
        for [pos, neg] in [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]] {
            case.w_pos.fill(pos);
            case.w_neg.fill(neg);
            for level in Level::available() {
                let packed = case.packed().with_level(level).unwrap().with_activations(Activations::Int8);
                for (y, ([p, n], factor)) in case.forward(&packed).into_iter().zip(&integers) {
                    let expected = pos as i64 * p - neg as i64 * n;
                    assert_eq!(
                        y,
                        factor * expected as f32,
                        "{level:?} {:?} {:?} {:?}",
                        case.input,
                        case.shape,
                        case.options
                    );
                }
            }
        }
    }
}

#[test]
fn int8_results_are_identical_on_every_instruction_set() {
    let mut rng = Rng::with_seed(4);
    for _ in 0..100 {
        let case = Case::random(&mut rng);
        let packed = case.packed().with_activations(Activations::Int8);
        let portable = case.forward(&packed.clone().with_level(Level::Portable).unwrap());
        for level in Level::available() {
            let y = case.forward(&packed.clone().with_level(level).unwrap());
            assert!(y.iter().zip(&portable).all(|(a, b)| a.to_bits() == b.to_bits()), "{level:?} {case:?}");
        }
    }
}

#[test]
fn the_bias_of_a_call_is_that_of_the_affine_map() {
    let mut rng = Rng::with_seed(10);
    let mut scratch = Scratch::new();
    for _ in 0..60 {
        let case = Case::random(&mut rng);
        let (packed, bias) = (case.packed(), floats(&mut rng, case.shape[0]));
        for packed in [
            packed.clone(),
            packed.clone().with_path(ConvolutionPath::Sparse),
            packed.clone().with_path(ConvolutionPath::Dense),
            packed.with_activations(Activations::Int8),
        ] {
            let mut y = vec![f32::NAN; packed.output_shape(case.input).unwrap().iter().product()];
            packed.forward_with_bias(&case.x, case.input, Some(&bias), &mut y, &mut scratch).unwrap();
            assert_eq!(y, case.forward(&packed.with_bias(&bias).unwrap()), "{case:?}");
        }
    }
}

#[cfg(feature = "std")]
#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let mut rng = Rng::with_seed(5);
    let options = ConvolutionOptions { padding: [[1; 2]; 2], ..Default::default() };
    for input in [[1, 32, 40, 40], [5, 32, 20, 20]] {
        let case = Case::new(&mut rng, input, [48, 32, 3, 3], options);
        let packed = case.packed();
        for packed in [
            packed.clone(),
            packed.clone().with_path(ConvolutionPath::Sparse),
            packed.clone().with_path(ConvolutionPath::Dense),
            packed.with_activations(Activations::Int8),
        ] {
            let on = |threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| case.forward(&packed))
            };
            let single = on(1);
            assert!([2, 3, 7].into_iter().all(|threads| on(threads) == single), "{input:?} {:?}", packed.path());
        }
    }
}

#[test]
fn buffers_can_be_reused_for_other_shapes() {
    let mut rng = Rng::with_seed(6);
    let mut scratch = Scratch::new();
    for _ in 0..20 {
        let case = Case::random(&mut rng);
        for activations in [Activations::Int8, Activations::Float32] {
            let packed = case.packed().with_activations(activations);
            let mut y = vec![f32::NAN; packed.output_shape(case.input).unwrap().iter().product()];
            packed.forward(&case.x, case.input, &mut y, &mut scratch).unwrap();
            assert_eq!(y, case.forward(&packed));
        }
    }
}

#[test]
fn the_default_path_is_sparse_for_many_zeros_and_dense_for_few() {
    let scales = Scales::PerTensor { w_pos: 1.0, w_neg: 2.0 };
    let packed = |every: usize| {
        let t: Vec<i8> = (0..32 * 144).map(|i| i8::from(i % 100 < every)).collect();
        pack([32, 16, 3, 3], ConvolutionOptions::default(), scales, &t).unwrap()
    };
    assert_eq!(packed(10).path(), ConvolutionPath::Sparse);
    assert_eq!(packed(100).path(), ConvolutionPath::Dense);
    assert_eq!(packed(10).with_activations(Activations::Int8).path(), ConvolutionPath::Dense);
    assert!((packed(10).sparsity() - 0.9).abs() < 0.01);
}

#[test]
fn weights_can_be_read_back_in_the_form_of_every_path() {
    let mut rng = Rng::with_seed(7);
    for _ in 0..40 {
        let case = Case::random(&mut rng);
        let packed = case.packed();
        let weights: usize = case.shape[1..].iter().product();
        for packed in [
            packed.clone(),
            packed.clone().with_path(ConvolutionPath::Sparse),
            packed.clone().with_path(ConvolutionPath::Sparse).with_path(ConvolutionPath::Dense),
            packed.with_path(ConvolutionPath::Sparse).with_activations(Activations::Int8),
        ] {
            let values = (0..case.t.len()).map(|index| packed.value(index / weights, index % weights));
            assert!(values.eq(case.t.iter().copied()), "{:?} {case:?}", packed.path());
            assert_eq!(packed.values(), case.t, "{:?} {case:?}", packed.path());
        }
    }
}

#[test]
fn options_of_a_packed_weight_can_be_changed() {
    let mut rng = Rng::with_seed(8);
    for _ in 0..40 {
        let case = Case::random(&mut rng);
        let groups = case.options.groups;
        let packed = Case { options: ConvolutionOptions { groups, ..Default::default() }, ..case.clone() }.packed();
        assert_eq!(case.forward(&packed.with_options(case.options).unwrap()), case.forward(&case.packed()), "{case:?}");
    }
}

#[test]
fn invalid_arguments_are_rejected() {
    let scales = Scales::PerTensor { w_pos: 1.0, w_neg: 1.0 };
    let options = ConvolutionOptions { groups: 2, ..Default::default() };
    let new = |shape: [usize; 4], options| pack(shape, options, scales, &vec![0; shape.iter().product()]);
    assert!(matches!(new([3, 2, 3, 3], options), Err(KernelError::Dimension { value: 3, .. })));
    let no_stride = ConvolutionOptions { stride: [1, 0], ..options };
    assert!(matches!(new([4, 2, 3, 3], no_stride), Err(KernelError::Dimension { value: 0, .. })));
    let packed = new([4, 2, 3, 3], options).unwrap();
    let change = |options| packed.clone().with_options(options).map(|_| ());
    assert!(matches!(change(no_stride), Err(KernelError::Dimension { value: 0, .. })));
    let other_groups = ConvolutionOptions { groups: 4, ..options };
    assert!(matches!(change(other_groups), Err(KernelError::Dimension { value: 4, .. })));
    assert!(matches!(packed.output_shape([1, 2, 5, 5]), Err(KernelError::Dimension { value: 2, .. })));
    let small = KernelError::InputTooSmall { input: 2, padding: 0, kernel: 3 };
    assert_eq!(packed.output_shape([1, 4, 5, 2]), Err(small));
    assert!(matches!(packed.output_shape([1, 4, 0, 5]), Err(KernelError::Dimension { value: 0, .. })));
    // Three times the dilation and one more is 0 in 64 bits.
    let wide = ConvolutionOptions { dilation: [1, usize::MAX / 3], ..ConvolutionOptions::default() };
    let wide = new([1, 1, 1, 4], wide).unwrap();
    assert!(matches!(wide.output_shape([1, 1, 1, 8]), Err(KernelError::InputTooSmall { .. })));
    let padded = ConvolutionOptions { padding: [[0, 0], [u32::MAX as usize; 2]], ..ConvolutionOptions::default() };
    let padded = new([1, 1, 1, 4], padded).unwrap().output_shape([1, 1, 1, 8]);
    assert!(matches!(padded, Err(KernelError::Dimension { what: "the padding", .. })), "{padded:?}");
    let length = KernelError::Length { what: "y", expected: 4, found: 3 };
    assert_eq!(packed.forward(&[0.0; 36], [1, 4, 3, 3], &mut [0.0; 3], &mut Scratch::new()), Err(length));
    assert_eq!(
        packed.with_bias(&[0.0]).map(|_| ()),
        Err(KernelError::Length { what: "shift or bias", expected: 4, found: 1 })
    );
}
