//! Compares every operation that this backend implements with Flex: same values for any shape, strides and element
//! type, forward and backward, and same error messages.

use burn::backend::{Autodiff, Flex};
use burn::prelude::*;
use burn::tensor::activation::relu;
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::module::{conv1d, conv2d, linear};
use burn::tensor::ops::ConvOptions;
use burn::tensor::{DType, Distribution, TensorData};
use ttq_cpu::Cpu;

/// Seeded random number generator.
struct Rng(u64);

impl Rng {
    /// xorshift64*
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 20
    }

    fn size(&mut self, from: usize, to: usize) -> usize {
        from + self.next() as usize % (to - from + 1)
    }

    /// Values in ±(0.5..1.5): not near zero, so that they can be divisors.
    fn data(&mut self, shape: &[usize]) -> TensorData {
        let n = shape.iter().product();
        let value = |x: u64| (x % 1000) as f32 / 1000.0 + if x & 1024 == 0 { 0.5 } else { -1.5 };
        TensorData::new((0..n).map(|_| value(self.next())).collect::<Vec<f32>>(), shape.to_vec())
    }
}

/// A view of a tensor with four axes.
#[derive(Debug, Clone, Copy)]
enum View {
    Contiguous,
    Permuted,
    Sliced,
    Flipped,
    Stepped,
    Expanded,
}

const VIEWS: [View; 6] = [View::Contiguous, View::Permuted, View::Sliced, View::Flipped, View::Stepped, View::Expanded];

impl View {
    fn of<B: Backend>(self, x: Tensor<B, 4>) -> Tensor<B, 4> {
        let [a, b, c, d] = x.dims();
        match self {
            View::Contiguous => x,
            View::Permuted => x.permute([2, 0, 3, 1]),
            View::Sliced => x.slice([0..a, b / 2..b, 0..c.div_ceil(2), d / 3..d]),
            View::Flipped => x.flip([0, 3]),
            View::Stepped => x.slice(s![.., ..;2, .., ..;3]),
            View::Expanded => x.slice([0..a, 0..1, 0..c, 0..1]).expand([a, b, c, d]),
        }
    }
}

fn tensor<B: Backend, const D: usize>(data: &TensorData, dtype: DType) -> Tensor<B, D> {
    let data = data.clone().convert_dtype(dtype);
    Tensor::from_data(data, (&Default::default(), dtype))
}

/// Asserts that each error is at most `tolerance`, relative to the larger of 1 and the expected magnitude.
fn assert_close(found: TensorData, expected: TensorData, tolerance: f64, what: &str) {
    assert_eq!((&found.shape, found.dtype), (&expected.shape, expected.dtype), "{what}");
    for (found, expected) in found.iter::<f64>().zip(expected.iter::<f64>()) {
        let error = (found - expected).abs() / expected.abs().max(1.0);
        assert!(error <= tolerance || found == expected, "{what}: {found} for {expected}");
    }
}

/// Runs `work` on both backends and compares the results.
macro_rules! on_both {
    ($tolerance:expr, $what:expr, |$backend:ident| $work:expr) => {{
        let found = {
            type $backend = Cpu;
            $work.into_data()
        };
        let expected = {
            type $backend = Flex;
            $work.into_data()
        };
        assert_close(found, expected, $tolerance, &$what);
    }};
}

#[test]
fn arithmetic_matches_flex_for_any_views_and_types() {
    let mut rng = Rng(11);
    for dtype in [DType::F32, DType::F64, DType::F16] {
        for view in VIEWS {
            for other in VIEWS {
                let shape = [rng.size(1, 4), rng.size(2, 5), rng.size(2, 6), rng.size(2, 9)];
                let (x, y) = (rng.data(&shape), rng.data(&shape));
                // The other operand has the shape of the first, or size 1 along some axes.
                let broadcast: [bool; 4] = std::array::from_fn(|_| rng.next().is_multiple_of(3));
                for operation in 0..5 {
                    for swapped in [false, true] {
                        for shared in [false, true] {
                            let what = format!(
                                "{operation} {dtype:?} {view:?} {other:?} {shape:?} {broadcast:?} {swapped} {shared}"
                            );
                            on_both!(0.0, what, |B| {
                                let x = view.of(tensor::<B, 4>(&x, dtype));
                                let [a, b, c, d] = x.dims();
                                let y = other.of(tensor::<B, 4>(&y, dtype)).repeat(&[9, 9, 9, 9]);
                                let size = |axis: usize, size: usize| 0..if broadcast[axis] { 1 } else { size };
                                let y = y.slice([size(0, a), size(1, b), size(2, c), size(3, d)]);
                                // A shared tensor must not be overwritten.
                                let (keep_x, keep_y) = (shared.then(|| x.clone()), shared.then(|| y.clone()));
                                let (l, r) = if swapped { (y, x) } else { (x, y) };
                                let result = match operation {
                                    0 => l.add(r),
                                    1 => l.sub(r),
                                    2 => l.mul(r),
                                    3 => l.div(r),
                                    _ => l.clone().add(r).sub(l),
                                };
                                match (keep_x, keep_y) {
                                    (Some(x), Some(y)) => result.add(x.sub(y)),
                                    _ => result,
                                }
                            });
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn functions_of_one_tensor_match_flex_for_any_view_and_type() {
    let mut rng = Rng(12);
    for (dtype, tolerance) in [(DType::F32, 1e-6), (DType::F64, 0.0), (DType::F16, 0.0)] {
        for view in VIEWS {
            let shape = [rng.size(1, 4), rng.size(2, 5), rng.size(2, 6), rng.size(2, 9)];
            let x = rng.data(&shape);
            for operation in 0..9 {
                let what = format!("{operation} {dtype:?} {view:?} {shape:?}");
                on_both!(tolerance, what, |B| {
                    let x = view.of(tensor::<B, 4>(&x, dtype));
                    match operation {
                        0 => x.add_scalar(0.3),
                        1 => x.sub_scalar(0.3),
                        2 => x.mul_scalar(0.3),
                        3 => x.div_scalar(0.3),
                        4 => x.neg(),
                        5 => relu(x),
                        6 => x.clone().add_scalar(1) + x,
                        7 => x.square().sqrt(),
                        // The copy works around Flex, which sums the memory of the view if it has as many elements as
                        // the view; see `reductions_of_views_are_those_of_copies`.
                        _ => x.mul_scalar(1.0).mean().reshape([1, 1, 1, 1]),
                    }
                });
            }
            for dim in 0..4 {
                on_both!(tolerance, "sum", |B| view.of(tensor::<B, 4>(&x, dtype)).sum_dim(dim));
                on_both!(tolerance, "mean", |B| view.of(tensor::<B, 4>(&x, dtype)).mean_dim(dim));
            }
            on_both!(tolerance * 10.0, "sum", |B| view.of(tensor::<B, 4>(&x, dtype)).mul_scalar(1.0).sum());
        }
    }
}

#[test]
fn reshapes_match_flex_for_any_view() {
    let mut rng = Rng(13);
    for view in VIEWS {
        let x = rng.data(&[4, 6, 6, 12]);
        on_both!(1e-5, format!("{view:?}"), |B| {
            let x = view.of(tensor::<B, 4>(&x, DType::F32));
            let [a, b, c, d] = x.dims();
            let flat = x.clone().reshape([a * b, c * d]);
            let split = x.clone().swap_dims(0, 1).reshape([b, a * c * d]).reshape([b, a, c * d]);
            // A view of a view, and a view that is written to.
            let sum = split.sum_dim(2).reshape([1, a * b]).expand([3, a * b]).reshape([3 * a, b]);
            Tensor::cat(vec![flat.reshape([-1]), x.reshape([-1]), sum.add_scalar(1.0).reshape([-1])], 0)
        });
    }
}

/// Large tensors use several tasks, blocked sums and pooled memory.
#[test]
fn large_tensors_match_flex() {
    let mut rng = Rng(14);
    for shape in [[3, 64, 40, 40], [70, 5, 31, 33], [2, 2, 1, 70_000]] {
        let (x, channel) = (rng.data(&shape), rng.data(&[1, shape[1], 1, 1]));
        for _ in 0..3 {
            on_both!(2e-5, format!("{shape:?}"), |B| {
                let x = tensor::<B, 4>(&x, DType::F32);
                let channel = tensor::<B, 4>(&channel, DType::F32);
                let y = relu(x.clone().mul(channel.clone()).sub(channel.clone()).div(channel.clone()) + x.clone());
                let transposed = y.clone().swap_dims(0, 1).reshape([shape[1], shape[0] * shape[2] * shape[3]]);
                let sums = [
                    transposed.clone().mean_dim(1).reshape([-1]),
                    y.clone()
                        .sum_dim(0)
                        .sum_dim(2)
                        .sum_dim(3)
                        .div_scalar(x.shape().num_elements() as f64)
                        .reshape([-1]),
                    y.clone().mean(),
                    y.sum_dim(1).mean_dim(0).reshape([-1]),
                ];
                Tensor::cat(sums.to_vec(), 0)
            });
        }
    }
}

/// A tensor of ones stores one element. A write to one element must not change the others.
#[test]
fn a_write_to_a_tensor_of_ones_changes_one_element() {
    on_both!(0.0, "ones", |B| {
        let device = Default::default();
        let ones = || Tensor::<B, 2>::ones([80, 80], &device);
        let few = Tensor::<B, 2>::full([2, 3], 5.0, &device);
        let indices = Tensor::<B, 1, Int>::from_ints([3, 7], &device);
        let first_row = Tensor::<B, 2, Int>::zeros([1, 80], &device);
        let mask = ones().slice_assign([1..3, 4..7], few.clone()).greater_elem(2.0);
        let rows = Tensor::<B, 2>::full([2, 80], 2.0, &device);
        let results = vec![
            ones().slice_assign([1..3, 4..7], few),
            ones().mask_fill(mask.clone(), 3.0),
            ones().mask_where(mask, ones().mul_scalar(4.0)),
            ones().select_assign(0, indices.clone(), rows, burn::tensor::IndexingUpdateOp::Add),
            ones().scatter(0, first_row, ones().slice([0..1, 0..80]), burn::tensor::IndexingUpdateOp::Add),
            ones().matmul(ones()),
            ones().transpose().slice([0..80, 3..9]).repeat_dim(1, 2),
            ones().select(0, indices),
            ones().exp().tanh().powf_scalar(1.5).clamp(0.1, 0.9),
            ones().cumsum(1),
            add_indices(ones()),
        ];
        Tensor::cat(results.into_iter().map(|x| x.reshape([-1])).collect(), 0)
    });
}

/// Adds the flat index of each element, in place where the backend can.
fn add_indices<B: Backend>(x: Tensor<B, 2>) -> Tensor<B, 2> {
    let [rows, columns] = x.dims();
    let indices = Tensor::<B, 1, Int>::arange(0..(rows * columns) as i64, &x.device()).float();
    x.add(indices.reshape([rows, columns]))
}

#[derive(Debug)]
struct Convolution {
    x: [usize; 4],
    weight: [usize; 4],
    options: ConvOptions<2>,
    bias: bool,
}

impl Convolution {
    fn random(rng: &mut Rng) -> Self {
        loop {
            let groups = if rng.next().is_multiple_of(4) { rng.size(2, 3) } else { 1 };
            let (channels_in, channels_out) = (groups * rng.size(1, 4), groups * rng.size(1, 9));
            let x = [rng.size(1, 4), channels_in, rng.size(1, 12), rng.size(1, 12)];
            let weight = [channels_out, channels_in / groups, rng.size(1, 4), rng.size(1, 4)];
            let pair = |rng: &mut Rng, from, to| [rng.size(from, to), rng.size(from, to)];
            let (stride, padding) = (pair(rng, 1, 3), pair(rng, 0, 3));
            let dilation = pair(rng, 1, 2);
            let fits = |axis: usize| x[axis + 2] + 2 * padding[axis] > dilation[axis] * (weight[axis + 2] - 1);
            if fits(0) && fits(1) {
                let options = ConvOptions::new(stride, padding, dilation, groups);
                return Self { x, weight, options, bias: rng.next().is_multiple_of(2) };
            }
        }
    }

    /// Returns the output and the gradients of input, weight and bias, concatenated. The input and the output's
    /// gradient are views.
    fn run<B: AutodiffBackend>(&self, data: &[TensorData; 4], dtype: DType) -> TensorData {
        let channels_first = |x: Tensor<B, 4>| x.permute([3, 0, 1, 2]);
        let x = tensor::<B, 4>(&data[0], dtype).require_grad();
        let weight = tensor::<B, 4>(&data[1], dtype).require_grad();
        let bias = self.bias.then(|| tensor::<B, 1>(&data[2], dtype).require_grad());
        let y = conv2d(channels_first(x.clone()), weight.clone(), bias.clone(), self.options.clone());
        let [n, o, h, w] = y.dims();
        let factors = tensor::<B, 1>(&data[3], dtype).slice(s![0..n * o * h * w]).reshape([w, h, o, n]);
        let grads = y.clone().mul(factors.permute([3, 2, 1, 0])).sum().backward();
        let mut parts = vec![y.inner().reshape([-1])];
        parts.push(x.grad(&grads).unwrap().reshape([-1]));
        parts.push(weight.grad(&grads).unwrap().reshape([-1]));
        parts.extend(bias.map(|bias| bias.grad(&grads).unwrap().reshape([-1])));
        Tensor::<B::InnerBackend, 1>::cat(parts, 0).into_data()
    }
}

#[test]
fn convolutions_and_their_gradients_match_flex() {
    let mut rng = Rng(15);
    for case in 0..150 {
        let convolution = Convolution::random(&mut rng);
        let [n, c, h, w] = convolution.x;
        let data = [
            rng.data(&[c, h, w, n]),
            rng.data(&convolution.weight),
            rng.data(&convolution.weight[..1]),
            rng.data(&[4 * 27 * 20 * 20]),
        ];
        let (dtype, tolerance) = if case % 10 == 0 { (DType::F64, 1e-12) } else { (DType::F32, 1e-5) };
        let found = convolution.run::<Autodiff<Cpu>>(&data, dtype);
        let expected = convolution.run::<Autodiff<Flex>>(&data, dtype);
        assert_close(found, expected, tolerance, &format!("{convolution:?} {dtype:?}"));
    }
}

/// Kernels of 3 by 3 with several channels, for which the definition is not evaluated product by product.
#[test]
fn convolutions_with_small_kernels_and_their_gradients_match_flex() {
    let mut rng = Rng(16);
    for _ in 0..30 {
        let x = [rng.size(1, 4), rng.size(8, 27), rng.size(3, 20), rng.size(3, 20)];
        let options = ConvOptions::new([1, 1], [1, 1], [1, 1], 1);
        let convolution = Convolution { x, weight: [rng.size(8, 27), x[1], 3, 3], options, bias: true };
        let data = [
            rng.data(&[x[1], x[2], x[3], x[0]]),
            rng.data(&convolution.weight),
            rng.data(&convolution.weight[..1]),
            rng.data(&[4 * 27 * 20 * 20]),
        ];
        let found = convolution.run::<Autodiff<Cpu>>(&data, DType::F32);
        let expected = convolution.run::<Autodiff<Flex>>(&data, DType::F32);
        assert_close(found, expected, 1e-4, &format!("{convolution:?}"));
    }
}

#[test]
fn convolutions_in_one_dimension_and_their_gradients_match_flex() {
    fn run<B: AutodiffBackend>(data: &[TensorData; 3], options: &ConvOptions<1>) -> TensorData {
        let [x, weight] = [0, 1].map(|i| tensor::<B, 3>(&data[i], DType::F32).require_grad());
        let bias = tensor::<B, 1>(&data[2], DType::F32).require_grad();
        let y = conv1d(x.clone().swap_dims(1, 2), weight.clone(), Some(bias.clone()), options.clone());
        let grads = y.clone().powi_scalar(2).sum().backward();
        let gradients = [x.grad(&grads).unwrap().reshape([-1]), weight.grad(&grads).unwrap().reshape([-1])];
        let parts = gradients.into_iter().chain([y.inner().reshape([-1]), bias.grad(&grads).unwrap()]);
        Tensor::<B::InnerBackend, 1>::cat(parts.collect(), 0).into_data()
    }

    let mut rng = Rng(17);
    for groups in [1, 1, 1, 2] {
        let (c, o, kernel) = (groups * rng.size(1, 5), groups * rng.size(1, 20), rng.size(1, 4));
        let options = ConvOptions::new([rng.size(1, 2)], [rng.size(0, 2)], [rng.size(1, 2)], groups);
        let x = [3, rng.size(8, 20), c];
        let data = [rng.data(&x), rng.data(&[o, c / groups, kernel]), rng.data(&[o])];
        let (found, expected) = (run::<Autodiff<Cpu>>(&data, &options), run::<Autodiff<Flex>>(&data, &options));
        assert_close(found, expected, 1e-5, &format!("{c} {o} {kernel} {options:?}"));
    }
}

#[test]
fn matrix_products_match_flex_for_any_views_and_types() {
    let mut rng = Rng(18);
    for dtype in [DType::F32, DType::F64, DType::F16] {
        for view in VIEWS {
            for transposed in [false, true] {
                let shape = [rng.size(1, 4), rng.size(2, 5), rng.size(2, 20), rng.size(2, 40)];
                let (x, y) = (rng.data(&shape), rng.data(&[4, 5, 40, 40]));
                // The matrices of the right operand are shared along some axes.
                let (shared, n) = ([rng.next().is_multiple_of(2), rng.next().is_multiple_of(2)], rng.size(1, 40));
                let what = format!("{dtype:?} {view:?} {shape:?} {transposed} {shared:?} {n}");
                on_both!(1e-4, what, |B| {
                    let x = view.of(tensor::<B, 4>(&x, dtype));
                    let y = tensor::<B, 4>(&y, dtype).repeat(&[10, 1, 1, 1]).repeat(&[1, 4, 1, 1]);
                    let y = if transposed { y.swap_dims(2, 3) } else { y };
                    let [a, b, _, k] = x.dims();
                    let size = |shared: bool, size: usize| 0..if shared { 1 } else { size };
                    x.matmul(y.slice([size(shared[0], a), size(shared[1], b), 0..k, 0..n]))
                });
            }
        }
    }
}

#[test]
fn linear_layers_and_their_gradients_match_flex() {
    fn run<B: AutodiffBackend, const D: usize>(data: [&TensorData; 4], permute: bool, dtype: DType) -> Vec<TensorData> {
        let [x, weight, bias, dy] = data;
        let (x, dy) = (tensor::<B, D>(x, dtype).require_grad(), tensor::<B, D>(dy, dtype));
        let weight = tensor::<B, 2>(weight, dtype).require_grad();
        let bias = tensor::<B, 1>(bias, dtype).require_grad();
        // Rows that are not evenly spaced.
        let swapped = |x: Tensor<B, D>| if permute { x.swap_dims(0, D - 2) } else { x };
        let y = linear(swapped(x.clone()), weight.clone(), Some(bias.clone()));
        let plain = linear(swapped(x.clone()), weight.clone(), None);
        let grads = ((y.clone() + plain) * swapped(dy)).sum().backward();
        let gradient = |gradient: Option<Tensor<B::InnerBackend, D>>| gradient.unwrap().into_data();
        vec![
            y.into_data(),
            gradient(x.grad(&grads)),
            weight.grad(&grads).unwrap().into_data(),
            bias.grad(&grads).unwrap().into_data(),
        ]
    }
    fn check<const D: usize>(rng: &mut Rng, permute: bool, dtype: DType) {
        let [inputs, outputs] = [rng.size(1, 40), rng.size(1, 40)];
        let mut shape: [usize; D] = std::array::from_fn(|_| rng.size(1, 5));
        shape[D - 1] = inputs;
        let (x, weight, bias) = (rng.data(&shape), rng.data(&[inputs, outputs]), rng.data(&[outputs]));
        shape[D - 1] = outputs;
        let data = [&x, &weight, &bias, &rng.data(&shape)];
        let expected = run::<Autodiff<Flex>, D>(data, permute, dtype);
        for (found, expected) in run::<Autodiff<Cpu>, D>(data, permute, dtype).into_iter().zip(expected) {
            assert_close(found, expected, 1e-4, &format!("{D} {permute} {dtype:?}"));
        }
    }
    let mut rng = Rng(19);
    for dtype in [DType::F32, DType::F64] {
        for permute in [false, true] {
            check::<2>(&mut rng, permute, dtype);
            check::<3>(&mut rng, permute, dtype);
            check::<4>(&mut rng, permute, dtype);
        }
    }
}

/// A network with convolutions, batch normalization, ReLU, a residual connection, pooling and a linear layer.
#[test]
fn gradients_of_a_small_network_match_flex() {
    use burn::nn::conv::Conv2dConfig;
    use burn::nn::{BatchNormConfig, LinearConfig, PaddingConfig2d};

    fn run<B: AutodiffBackend>(data: &TensorData) -> Vec<TensorData> {
        let device = Default::default();
        let weight = |shape: [usize; 4]| {
            let n: usize = shape.iter().product();
            let values = (0..n).map(|i| ((i * 7919 % 101) as f32 / 101.0 - 0.5) * 0.4).collect::<Vec<_>>();
            Tensor::<B, 4>::from_data(TensorData::new(values, shape), &device).require_grad()
        };
        let convolution = |shape: [usize; 4]| {
            let config = Conv2dConfig::new([shape[1], shape[0]], [3, 3]).with_padding(PaddingConfig2d::Same);
            let mut layer = config.init::<B>(&device);
            layer.weight = burn::module::Param::from_tensor(weight(shape));
            layer
        };
        let (first, second) = (convolution([8, 3, 3, 3]), convolution([8, 8, 3, 3]));
        let (norm, norm2) = (BatchNormConfig::new(8).init::<B>(&device), BatchNormConfig::new(8).init::<B>(&device));
        let mut linear = LinearConfig::new(8, 5).with_bias(false).init::<B>(&device);
        linear.weight = burn::module::Param::from_tensor(weight([8, 5, 1, 1]).reshape([8, 5]).detach().require_grad());
        let x = Tensor::<B, 4>::from_data(data.clone(), &device);
        let y = relu(norm.forward(first.forward(x)));
        let z = relu(norm2.forward(second.forward(y.clone())) + y);
        let z = linear.forward(z.mean_dim(2).mean_dim(3).reshape([-1, 8]));
        let loss = burn::tensor::activation::log_softmax(z, 1).slice([0..6, 1..2]).mean().neg();
        let grads = loss.backward();
        vec![
            loss.inner().into_data(),
            first.weight.grad(&grads).unwrap().into_data(),
            second.weight.grad(&grads).unwrap().into_data(),
            norm.gamma.grad(&grads).unwrap().into_data(),
            norm2.beta.grad(&grads).unwrap().into_data(),
            linear.weight.grad(&grads).unwrap().into_data(),
            norm.running_mean.value().inner().into_data(),
            norm2.running_var.value().inner().into_data(),
        ]
    }
    let data = Rng(16).data(&[6, 3, 20, 20]);
    for (found, expected) in run::<Autodiff<Cpu>>(&data).into_iter().zip(run::<Autodiff<Flex>>(&data)) {
        assert_close(found, expected, 1e-5, "network");
    }
}

#[test]
fn invalid_input_panics_with_the_message_of_flex() {
    fn message<B: Backend>(case: usize) -> Option<String> {
        let zeros = |shape: [usize; 4]| Tensor::<B, 4>::zeros(shape, &Default::default());
        let result = std::panic::catch_unwind(|| match case {
            // The kernel is larger than the padded image.
            0 => conv2d(zeros([1, 1, 2, 2]), zeros([1, 1, 5, 5]), None, ConvOptions::new([1, 1], [1, 1], [1, 1], 1)),
            // The numbers of channels differ.
            1 => conv2d(zeros([1, 2, 4, 4]), zeros([1, 3, 3, 3]), None, ConvOptions::new([1, 1], [1, 1], [1, 1], 1)),
            2 => zeros([1, 2, 3, 4]).add(zeros([1, 2, 2, 4])),
            3 => zeros([1, 2, 3, 4]).reshape([1, 2, 3, 5]),
            4 => zeros([1, 2, 3, 4]).matmul(zeros([1, 2, 3, 4])),
            5 => zeros([3, 2, 3, 4]).matmul(zeros([2, 2, 4, 4])),
            _ => zeros([1, 2, 3, 4]).sum_dim(4),
        });
        let error = result.err()?;
        error.downcast_ref::<String>().cloned().or_else(|| error.downcast_ref::<&str>().map(|text| (*text).into()))
    }
    for case in 0..7 {
        assert_eq!(message::<Cpu>(case), message::<Flex>(case), "case {case}");
    }
}

#[test]
fn empty_tensors_match_flex() {
    on_both!(0.0, "empty", |B| {
        let x = Tensor::<B, 4>::zeros([0, 3, 4, 4], &Default::default());
        let sum = relu(x.clone().add_scalar(1.0)).mul(x.clone()).sum_dim(0).reshape([-1]);
        let zeros = |shape: [usize; 2]| Tensor::<B, 2>::zeros(shape, &Default::default());
        let product = zeros([4, 0]).matmul(zeros([0, 3])).reshape([-1]);
        Tensor::cat(vec![sum, product, x.reshape([-1])], 0)
    });
}

#[test]
fn tensors_and_records_can_be_used_on_both_backends() {
    use burn::module::Module;
    use burn::nn::LinearConfig;
    use burn::record::{BinBytesRecorder, FullPrecisionSettings, Recorder};

    let device = Default::default();
    let linear = LinearConfig::new(3, 2).init::<Flex>(&device);
    let expected = linear.weight.val().into_data();
    let recorder = BinBytesRecorder::<FullPrecisionSettings>::default();
    let bytes = Recorder::<Flex>::record(&recorder, linear.into_record(), ()).unwrap();
    let record = Recorder::<Cpu>::load(&recorder, bytes, &device).unwrap();
    let linear = LinearConfig::new(3, 2).init::<Cpu>(&device).load_record(record);
    assert_eq!(linear.weight.val().into_data(), expected);
    // Both backends have the same primitive type, so nothing is copied.
    let primitive = Tensor::<Cpu, 1>::ones([5], &device).into_primitive();
    let flex = Tensor::<Flex, 1>::from_primitive(burn::tensor::TensorPrimitive::Float(primitive.tensor()));
    assert_eq!(flex.into_data(), TensorData::from([1.0_f32; 5]));
}

/// Flex reduces the memory of a view that has as many elements as it.
#[test]
fn reductions_of_views_are_those_of_copies() {
    let device = Default::default();
    for (n, offset) in [(2, 0), (2, 1), (40, 3)] {
        let x = Tensor::<Cpu, 2>::random([n, n], Distribution::Uniform(-1.0, 1.0), &device);
        let view = || x.clone().slice([0..n, offset..offset + 1]).expand([n, n]);
        let copy: Vec<f32> = view().into_data().iter().collect();
        let scalar = |tensor: Tensor<Cpu, 1>| tensor.into_scalar();
        let sum: f32 = copy.iter().sum();
        let [max, min] = [f32::max, f32::min].map(|better| copy.iter().copied().reduce(better).unwrap());
        assert!((scalar(view().sum()) - sum).abs() < 1e-4 * (n * n) as f32, "{n}");
        assert!((scalar(view().mean()) - sum / (n * n) as f32).abs() < 1e-5, "{n}");
        assert_eq!([scalar(view().max()), scalar(view().min()), scalar(view().max_abs())], [max, min, max.max(-min)]);
    }
}

#[test]
fn nan_does_not_depend_on_the_number_of_elements() {
    let device = Default::default();
    for n in [1, 3, 17, 5000] {
        for at in [0, n - 1] {
            let mut values = vec![0.25_f32; n];
            values[at] = f32::NAN;
            let x = || Tensor::<Cpu, 1>::from_floats(values.as_slice(), &device);
            for y in [relu(x()), x().clamp(0.0, 1.0), x().clamp_min(0.0), x().clamp_max(1.0)] {
                let y: Vec<f32> = y.into_data().iter().collect();
                assert!(y.iter().enumerate().all(|(index, value)| value.is_nan() == (index == at)), "{n} {at}");
            }
            for y in [x().max(), x().min(), x().max_abs(), x().max_dim(0)] {
                assert!(y.into_scalar().is_nan(), "{n} {at}");
            }
        }
    }
}
