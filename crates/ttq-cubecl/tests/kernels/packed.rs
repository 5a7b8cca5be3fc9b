//! Linear layers and convolutions with packed weights, through the backend of `ttq-inference`.

use burn::module::Param;
use burn::nn::PaddingConfig2d;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::prelude::*;
use burn::tensor::module::linear;
use burn::tensor::{DType, TensorData};
use ttq_cubecl::PackedLayer;
use ttq_inference::{ActivationType, Float32, Int8, Packed, is_packed, tensor};
use ttq_packed::{Codes, TernaryWeight};

use super::{Device, Fused, Plain, device};
use crate::floats;
use crate::numbers::{assert_near, random};

/// Rows, inputs and outputs: sizes of one, and sizes that do not fill words, tiles or stages. Up to four rows use the
/// vector kernel, more rows the tile kernel.
const LINEAR: [[usize; 3]; 11] = [
    [1, 1, 1],
    [1, 7, 33],
    [1, 1100, 70],
    [2, 64, 16],
    [3, 100, 70],
    [4, 530, 129],
    [5, 1, 1],
    [6, 100, 70],
    [16, 48, 32],
    [65, 37, 18],
    [130, 515, 97],
];

/// Random codes, and scales that differ between channels.
fn weight(shape: &[usize], output_axis: usize, per_channel: bool) -> TernaryWeight {
    let n = shape.iter().product();
    let codes: Vec<i8> = random(n, 21).iter().map(|x| i8::from(*x > 0.1) - i8::from(*x < -0.1)).collect();
    let groups = if per_channel { shape[output_axis] } else { 1 };
    let scales: Vec<[f32; 2]> = (0..groups).map(|g| [0.3 + g as f32 * 0.01, 0.7 - g as f32 * 0.001]).collect();
    TernaryWeight::new(Codes::pack(&codes).expect("codes"), scales, shape, output_axis).expect("a ternary weight")
}

/// Random activations. For int8 they are halves of integers, and the largest magnitude of every row is 63.5, so that
/// quantization is exact.
fn activations<A: ActivationType>(n: usize, row: usize) -> Vec<f32> {
    let exact = |(index, x): (usize, f32)| if index % row == row / 2 { 63.5 } else { (x * 127.0).round() / 2.0 };
    let floats = random(n, 22);
    if A::INT8 { floats.into_iter().enumerate().map(exact).collect() } else { floats }
}

fn assert_linear_matches_reference<B: Backend<Device = Device>, A: ActivationType>() {
    let Some(device) = device() else { return };
    for [rows, inputs, outputs] in LINEAR {
        for per_channel in [false, true] {
            let weight = weight(&[inputs, outputs], 1, per_channel);
            let packed = tensor::<Packed<B, A>, 2>(&weight, &device);
            let bias = random(outputs, 23);
            let data = TensorData::new(bias.clone(), [outputs]);
            let x = activations::<A>(rows * inputs, inputs);
            let input = Tensor::<_, 3>::from_data(TensorData::new(x.clone(), [rows, 1, inputs]), &device);
            let output = linear(input, packed, per_channel.then(|| Tensor::from_data(data, &device)));
            assert_eq!(output.dims(), [rows, 1, outputs]);
            let (y, w) = (floats(output), weight.dequantize());
            for row in 0..rows {
                for output in 0..outputs {
                    let (mut sum, mut size) = if per_channel { (f64::from(bias[output]), 1.0) } else { (0.0, 0.0) };
                    for input in 0..inputs {
                        let product = f64::from(x[row * inputs + input]) * f64::from(w[input * outputs + output]);
                        sum += product;
                        size += product.abs();
                    }
                    assert_near(y[row * outputs + output], sum, size, &format!("{rows} x {inputs} x {outputs}"));
                }
            }
        }
    }
}

#[test]
fn a_linear_layer_matches_the_reference() {
    assert_linear_matches_reference::<Plain, Float32>();
    assert_linear_matches_reference::<Plain, Int8>();
}

#[test]
fn a_linear_layer_matches_the_reference_with_fusion() {
    assert_linear_matches_reference::<Fused, Float32>();
    assert_linear_matches_reference::<Fused, Int8>();
}

/// Words whose rows are not contiguous in memory: a transposed tensor here, gaps between rows on CUDA.
fn assert_views_of_words_match<B: Backend<Device = Device>>() {
    let Some(device) = device() else { return };
    for [rows, inputs, outputs] in LINEAR {
        let count = inputs.div_ceil(16);
        // Two bits of each pair are never set together, and no bits beyond the end of a row.
        let word = |index: usize, output: usize| {
            let used = (inputs - 16 * index).min(16);
            (0..used).fold(0_i32, |word, k| word | [0, 1, 2][(7 * index + 5 * output + k) % 3] << (2 * k))
        };
        let row_major: Vec<i32> = (0..count * outputs).map(|i| word(i / outputs, i % outputs)).collect();
        let column_major: Vec<i32> = (0..count * outputs).map(|i| word(i % count, i / count)).collect();
        let words = Tensor::<B, 2, Int>::from_data(TensorData::new(row_major, [count, outputs]), (&device, DType::I32));
        let view =
            Tensor::<B, 2, Int>::from_data(TensorData::new(column_major, [outputs, count]), (&device, DType::I32));
        let output = |words: Tensor<B, 2, Int>| {
            let x = Tensor::<B, 2>::from_data(TensorData::new(random(rows * inputs, 24), [rows, inputs]), &device);
            let scales = Tensor::from_data([[0.5, 0.25]], &device);
            floats(ttq_cubecl::linear(x, PackedLayer { words, inner: inputs, scales, bias: None, int8: false }))
        };
        assert_eq!(output(view.transpose()), output(words), "{rows} x {inputs} x {outputs}");
    }
}

#[test]
fn words_that_are_a_view_have_the_same_products() {
    assert_views_of_words_match::<Plain>();
}

#[test]
fn words_that_are_a_view_have_the_same_products_with_fusion() {
    assert_views_of_words_match::<Fused>();
}

/// Configurations, and the height and width of their images.
fn convolutions() -> Vec<(Conv2dConfig, [usize; 2])> {
    let plain = Conv2dConfig::new([6, 9], [3, 3]);
    vec![
        (Conv2dConfig::new([1, 1], [1, 1]), [1, 1]),
        (plain.clone(), [11, 8]),
        (plain.clone().with_stride([2, 2]).with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1)), [11, 8]),
        (plain.clone().with_groups(3).with_dilation([2, 1]).with_bias(false), [11, 8]),
        // Asymmetric padding.
        (plain.with_padding(PaddingConfig2d::Explicit(0, 1, 2, 3)), [5, 4]),
        (Conv2dConfig::new([6, 4], [2, 2]).with_padding(PaddingConfig2d::Same), [7, 6]),
        (Conv2dConfig::new([6, 40], [1, 1]).with_stride([2, 1]), [11, 8]),
        (Conv2dConfig::new([20, 70], [3, 3]).with_padding(PaddingConfig2d::Same).with_bias(false), [9, 10]),
        (Conv2dConfig::new([24, 24], [3, 3]).with_groups(24).with_padding(PaddingConfig2d::Same), [6, 6]),
        (Conv2dConfig::new([3, 20], [7, 5]).with_stride([2, 3]), [16, 17]),
    ]
}

/// Number of zeros above and to the left of the image.
fn leading_padding(config: &Conv2dConfig, size: [usize; 2]) -> [usize; 2] {
    match config.padding {
        PaddingConfig2d::Valid => [0, 0],
        PaddingConfig2d::Explicit(top, left, _, _) => [top, left],
        // Valid for a stride of one.
        PaddingConfig2d::Same => [0, 1].map(|axis| (size[axis] + config.kernel_size[axis] - 1 - size[axis]) / 2),
    }
}

fn assert_convolution_matches_reference<B: Backend<Device = Device>, A: ActivationType>() {
    let Some(device) = device() else { return };
    let images = 2;
    for (config, [height, width]) in convolutions() {
        let [inputs, outputs] = config.channels;
        let [kh, kw] = config.kernel_size;
        let per_group = inputs / config.groups;
        let shape = [outputs, per_group, kh, kw];
        let [top, left] = leading_padding(&config, [height, width]);
        for per_channel in [false, true] {
            let weight = weight(&shape, 0, per_channel);
            let mut layer: Conv2d<Packed<B, A>> = config.init(&device);
            layer.weight = Param::from_tensor(tensor(&weight, &device));
            assert!(is_packed(&layer.weight.val()));
            let bias = if config.bias { random(outputs, 23) } else { vec![0.0; outputs] };
            let data = || TensorData::new(bias.clone(), [outputs]);
            layer.bias = layer.bias.map(|_| Param::from_tensor(Tensor::from_data(data(), &device)));
            let n = images * inputs * height * width;
            let x = activations::<A>(n, n / images);
            let at = |image: usize, channel: usize, y: usize, x_: usize| {
                let inside = (top..top + height).contains(&y) && (left..left + width).contains(&x_);
                let index = || ((image * inputs + channel) * height + y - top) * width + x_ - left;
                if inside { f64::from(x[index()]) } else { 0.0 }
            };
            let data = || TensorData::new(x.clone(), [images, inputs, height, width]);
            // The dense layer gives the expected shape.
            let expected = config.init::<B>(&device).forward(Tensor::from_data(data(), &device)).dims();
            let output = layer.forward(Tensor::from_data(data(), &device));
            assert_eq!(output.dims(), expected, "{config:?}");
            let (y, w) = (floats(output), weight.dequantize());
            for (index, found) in y.into_iter().enumerate() {
                let (column, row) = (index % expected[3], index / expected[3] % expected[2]);
                let pixels = expected[2] * expected[3];
                let (channel, image) = (index / pixels % outputs, index / pixels / outputs);
                let group = channel / (outputs / config.groups);
                let (mut sum, mut size) = (f64::from(bias[channel]), 1.0);
                for tap in 0..per_group * kh * kw {
                    let (ky, kx) = (tap / kw % kh, tap % kw);
                    let y = row * config.stride[0] + ky * config.dilation[0];
                    let x = column * config.stride[1] + kx * config.dilation[1];
                    let value = at(image, group * per_group + tap / (kh * kw), y, x);
                    let product = value * f64::from(w[channel * per_group * kh * kw + tap]);
                    sum += product;
                    size += product.abs();
                }
                assert_near(found, sum, size, &format!("{config:?}"));
            }
        }
    }
}

#[test]
fn a_convolution_matches_the_reference() {
    assert_convolution_matches_reference::<Plain, Float32>();
    assert_convolution_matches_reference::<Plain, Int8>();
}

#[test]
fn a_convolution_matches_the_reference_with_fusion() {
    assert_convolution_matches_reference::<Fused, Float32>();
    assert_convolution_matches_reference::<Fused, Int8>();
}

#[test]
fn int8_activations_have_a_nonzero_error_of_at_most_half_a_step() {
    let Some(device) = device() else { return };
    let [rows, inputs, outputs] = [7, 90, 20];
    let weight = weight(&[inputs, outputs], 1, false);
    let mut x = random(rows * inputs, 31);
    // The factor of a row of zeros is zero.
    x[3 * inputs..4 * inputs].fill(0.0);
    fn product<A: ActivationType>(x: TensorData, weight: &TernaryWeight, device: &Device) -> Vec<f32> {
        floats(Tensor::<Packed<Plain, A>, 2>::from_data(x, device).matmul(tensor(weight, device)))
    }
    let data = || TensorData::new(x.clone(), [rows, inputs]);
    let (found, expected) = (product::<Int8>(data(), &weight, &device), product::<Float32>(data(), &weight, &device));
    let w = weight.dequantize();
    for (row, x) in x.chunks(inputs).enumerate() {
        let half = x.iter().map(|x| x.abs()).fold(0.0, f32::max) / 254.0;
        let pairs = (0..outputs).map(|output| (found[row * outputs + output], expected[row * outputs + output]));
        for (output, (found, expected)) in pairs.enumerate() {
            let size: f32 = (0..inputs).map(|input| w[input * outputs + output].abs()).sum();
            assert!((found - expected).abs() <= half * size * 1.001);
            assert_eq!(found == expected, row == 3);
        }
    }
}

#[test]
fn products_support_strided_inputs() {
    let Some(device) = device() else { return };
    let weight = tensor::<Packed<Plain>, 2>(&weight(&[12, 20], 1, true), &device);
    for rows in [3, 40] {
        let data = TensorData::new(random(12 * rows, 41), [12, rows]);
        let transposed = Tensor::<Packed<Plain>, 2>::from_data(data, &device).transpose();
        let contiguous = Tensor::from_data(transposed.clone().into_data(), &device);
        let expected = floats(contiguous.matmul(weight.clone()));
        assert_eq!(floats(transposed.matmul(weight.clone())), expected);
    }
}

#[test]
fn float16_activations_give_float16_results() {
    let Some(device) = device() else { return };
    if !Plain::supports_dtype(&device, DType::F16) {
        return crate::print_line("the device does not support float16: its test of packed layers is skipped");
    }
    for rows in [2, 20] {
        let weight = weight(&[100, 30], 1, true);
        let data = TensorData::new(random(100 * rows, 51), [rows, 100]);
        let input = Tensor::<Packed<Plain>, 2>::from_data(data, &device).cast(DType::F16);
        let output = input.clone().matmul(tensor(&weight, &device).cast(DType::F16));
        assert_eq!(output.dtype(), DType::F16);
        let (y, x, w) = (floats(output), floats(input), weight.dequantize());
        for (index, found) in y.into_iter().enumerate() {
            let products = (0..100).map(|k| x[index / 30 * 100 + k] * w[k * 30 + index % 30]);
            let (sum, size) = products.fold((0.0, 0.0), |(sum, size), product| (sum + product, size + product.abs()));
            assert!((found - sum).abs() <= 3e-3 * size, "found {found}, expected {sum}");
        }
    }
}
