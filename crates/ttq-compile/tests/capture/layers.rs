//! Layers and functions of tensors.

use burn::nn::conv::{Conv1dConfig, Conv2dConfig, ConvTranspose1dConfig, ConvTranspose2dConfig};
use burn::nn::interpolate::{Interpolate1dConfig, Interpolate2dConfig, InterpolateMode};
use burn::nn::pool::{AdaptiveAvgPool1dConfig, AvgPool2dConfig, MaxPool1dConfig, MaxPool2dConfig};
use burn::nn::{
    BatchNormConfig, GroupNormConfig, InstanceNormConfig, LayerNormConfig, LinearConfig, PReluConfig, PaddingConfig1d,
    PaddingConfig2d, RmsNormConfig, SwiGluConfig,
};
use burn::tensor::{Tensor, activation};

use crate::agreement::{agrees, nothing};

/// One test for each function of a tensor without parameters.
macro_rules! functions {
    ($($test:ident $dims:expr, |$x:ident| $function:expr;)*) => {$(
        #[test]
        fn $test() {
            agrees(nothing(), $dims, |_, $x| $function);
        }
    )*};
}

functions! {
    relu [1, 7], |x| activation::relu(x);
    leaky_relu [1, 7], |x| activation::leaky_relu(x, 0.2);
    sigmoid [1, 7], |x| activation::sigmoid(x);
    hard_sigmoid [1, 7], |x| activation::hard_sigmoid(x * 3.0, 0.2, 0.5);
    log_sigmoid [1, 7], |x| activation::log_sigmoid(x);
    tanh [1, 7], |x| x.tanh();
    gelu [1, 7], |x| activation::gelu(x);
    silu [1, 7], |x| activation::silu(x);
    mish [1, 7], |x| activation::mish(x);
    softplus [1, 7], |x| activation::softplus(x, 1.0);
    elu [1, 7], |x| activation::elu(x, 0.7);
    celu [1, 7], |x| activation::celu(x, 0.7);
    selu [1, 7], |x| activation::selu(x);
    thresholded_relu [1, 7], |x| activation::thresholded_relu(x, 0.2);
    shrink [1, 7], |x| activation::hard_shrink(x.clone(), 0.2) + activation::soft_shrink(x, 0.3);
    choice_between_values [1, 3, 3], |x| {
        let transposed = x.clone().transpose();
        x.clone().mask_where(x.greater(transposed.clone()), transposed * 2.0)
    };
    masks_of_masks [1, 3, 4], |x| {
        let inside = x.clone().lower_equal_elem(0.4).bool_and(x.clone().greater_equal_elem(-0.4));
        let first = x.clone().not_equal_elem(0.25).slice_dim(2, 0..1).expand([-1, 3, 4]);
        let other = first.permute([0, 2, 1]).reshape([0, 3, 4]).not_equal(x.clone().lower_elem(0.1));
        let mask = inside.bool_not().bool_or(other);
        x.mask_fill(mask.clone(), 3.0) + mask.float()
    };
    softmax_over_the_last_axis [1, 3, 4], |x| activation::softmax(x, 2);
    softmax_over_another_axis [1, 3, 4], |x| activation::softmax(x, 1);
    log_softmax [1, 3, 4], |x| activation::log_softmax(x, 2);
    clamp [1, 7], |x| x.clamp(-0.3, 0.4);
    clamp_min [1, 7], |x| x.clamp_min(-0.3);
    powers [1, 7], |x| x.clone().powf_scalar(2.0) + x.clone().powi_scalar(3) + x.abs().sqrt();
    exponential_and_logarithm [1, 7], |x| (x.clone().exp() + 1.0).log() / (x + 3.0);
    sums_along_axes [1, 3, 4], |x| x.clone().sum_dim(1) * x.mean_dim(2);
    maximum_and_minimum_along_an_axis [1, 3, 4], |x| x.clone().max_dim(1) - x.min_dim(1);
    variance [1, 3, 4], |x| x.var(2);
    reshape [1, 6, 4], |x| x.reshape([0, 8, 3]);
    batch_joined_with_an_axis [1, 3, 4], |x| {
        let [n, a, b] = x.dims();
        activation::softmax(x.reshape([n * a, b]), 1).reshape([n, a * b])
    };
    permutation_of_the_batch [1, 3, 4], |x| activation::softmax(x.permute([1, 2, 0]), 0).permute([2, 1, 0]);
    transpose_and_product [1, 3, 4], |x| x.clone().matmul(x.transpose());
    product_of_a_constant_with_items_as_rows [1, 4], |x| {
        let [n, size] = x.dims();
        let matrices = Tensor::arange(0..24, &x.device()).float().reshape([2, 4, 3]);
        x.reshape([1, n, size]).expand([2, n, size]).matmul(matrices).permute([1, 0, 2])
    };
    product_of_a_constant_with_items_as_columns [1, 2, 4], |x| {
        let matrices = Tensor::arange(0..24, &x.device()).float().reshape([2, 3, 4]);
        matrices.matmul(x.permute([1, 2, 0])).permute([2, 0, 1])
    };
    product_of_a_constant_with_several_rows_per_item [1, 3, 4], |x| {
        let n = x.dims()[0];
        let matrices = Tensor::arange(0..24, &x.device()).float().reshape([2, 4, 3]);
        x.reshape([1, 3 * n, 4]).expand([2, 3 * n, 4]).matmul(matrices).permute([1, 0, 2])
    };
    batched_product [1, 2, 3, 4], |x| x.clone().swap_dims(1, 2).matmul(x.permute([0, 2, 3, 1]));
    slice [1, 5, 6], |x| x.clone().slice([0..x.dims()[0], 1..4, 2..6]);
    slice_with_a_step [1, 5, 6], |x| x.slice_dim(2, burn::tensor::s![1..6;2]);
    narrow_and_concatenate [1, 5, 6], |x| Tensor::cat(vec![x.clone().narrow(1, 3, 2), x.narrow(1, 0, 3)], 1);
    chunks [1, 6, 2], |x| x.chunk(3, 1).into_iter().reduce(|a, b| a * b).unwrap();
    zero_padding [1, 2, 3, 4], |x| x.pad((1, 2, 0, 3), 0.0);
    padding_with_a_value [1, 2, 3], |x| x.pad((1, 2, 0, 1), 1.5);
    slice_assignment [1, 4, 3], |x| {
        let part = x.clone().narrow(1, 0, 2).mul_scalar(2.0);
        let batch = x.dims()[0];
        x.slice_assign([0..batch, 1..3, 0..3], part)
    };
    assignment_over_infinity [1, 4, 3], |x| {
        let [n, ..] = x.dims();
        let mask = Tensor::<_, 2, burn::tensor::Bool>::tril_mask([4, 3], 0, &x.device());
        let scores = x.clone().mask_fill(mask.unsqueeze::<3>().expand([n, 4, 3]), f32::NEG_INFINITY);
        activation::softmax(scores.slice_assign([0..n, 0..4, 0..1], x.narrow(2, 1, 1)), 2)
    };
    repeat [1, 2, 3], |x| x.repeat_dim(1, 3);
    expand [1, 1, 3], |x| { let n = x.dims()[0]; x.expand([n, 4, 3]) };
    select [1, 5, 3], |x| { let device = x.device(); x.select(1, Tensor::from_ints([4, 0, 4, 2], &device)) };
    fixed_mask [1, 4, 4], |x| {
        let [n, size, _] = x.dims();
        let mask = Tensor::<_, 2, burn::tensor::Bool>::tril_mask([size, size], 0, &x.device());
        x.mask_fill(mask.unsqueeze::<3>().expand([n, size, size]), -2.0)
    };
    fixed_choice [1, 4, 4], |x| {
        let [n, size, _] = x.dims();
        let mask = Tensor::<_, 2, burn::tensor::Bool>::tril_mask([size, size], 0, &x.device());
        x.clone().mask_where(mask.unsqueeze::<3>().expand([n, size, size]), x.transpose() * 2.0)
    };
    masked_softmax [1, 4, 4], |x| {
        let [n, size, _] = x.dims();
        let mask = Tensor::<_, 2, burn::tensor::Bool>::tril_mask([size, size], 0, &x.device());
        activation::softmax(x.mask_fill(mask.unsqueeze::<3>().expand([n, size, size]), f32::NEG_INFINITY), 2)
    };
    constant_of_the_batch [1, 4], |x| { let ones = x.ones_like(); Tensor::cat(vec![x, ones], 1) };
    casts [1, 4], |x| x.cast(burn::tensor::DType::F64).cast(burn::tensor::DType::F32) * 2.0;
}

#[test]
fn linear_layers_with_batches_in_several_axes() {
    let device = Default::default();
    agrees(LinearConfig::new(5, 3).init(&device), [1, 5], |layer, x| layer.forward(x));
    agrees(LinearConfig::new(5, 3).with_bias(false).init(&device), [1, 5], |layer, x| layer.forward(x));
    agrees(LinearConfig::new(5, 3).init(&device), [1, 4, 5], |layer, x| layer.forward(x));
    agrees(LinearConfig::new(5, 3).init(&device), [1, 2, 4, 5], |layer, x| layer.forward(x));
}

#[test]
fn two_dimensional_convolutions() {
    let device = Default::default();
    let config = Conv2dConfig::new([4, 6], [3, 3]);
    let same = config.clone().with_padding(PaddingConfig2d::Same);
    let asymmetric = config.clone().with_padding(PaddingConfig2d::Explicit(1, 2, 0, 1)).with_bias(false);
    let strided = config.clone().with_stride([2, 1]).with_dilation([1, 2]);
    for config in [config.clone(), same, asymmetric, strided, config.with_groups(2)] {
        agrees(config.init(&device), [1, 4, 9, 8], |layer, x| layer.forward(x));
    }
}

#[test]
fn one_dimensional_convolutions() {
    let device = Default::default();
    let config = Conv1dConfig::new(4, 6, 3);
    let same = config.clone().with_padding(PaddingConfig1d::Same).with_dilation(2);
    for config in [config.clone(), same, config.with_stride(2).with_groups(2)] {
        agrees(config.init(&device), [1, 4, 9], |layer, x| layer.forward(x));
    }
}

#[test]
fn transposed_convolutions() {
    let device = Default::default();
    let config = ConvTranspose2dConfig::new([4, 6], [3, 2]);
    let strided = config.clone().with_stride([2, 3]).with_padding([1, 0]).with_padding_out([1, 2]);
    let dilated = config.clone().with_dilation([2, 1]).with_stride([1, 2]).with_bias(false);
    for config in [config.clone(), strided, dilated, config.with_groups(2)] {
        agrees(config.init(&device), [1, 4, 5, 4], |layer, x| layer.forward(x));
    }
    let config = ConvTranspose1dConfig::new([4, 6], 3);
    for config in [config.clone(), config.with_stride(2).with_padding(1).with_groups(2)] {
        agrees(config.init(&device), [1, 4, 9], |layer, x| layer.forward(x));
    }
}

#[test]
fn interpolation() {
    let modes = [InterpolateMode::Nearest, InterpolateMode::Linear, InterpolateMode::Cubic, InterpolateMode::Lanczos];
    for (mode, align_corners) in modes.iter().flat_map(|mode| [(mode, false), (mode, true)]) {
        for size in [[10, 8], [3, 9]] {
            let config = Interpolate2dConfig::new().with_output_size(Some(size)).with_mode(mode.clone());
            let layer = config.with_align_corners(align_corners).init();
            agrees(nothing(), [1, 3, 5, 4], |_, x| layer.forward(x));
        }
    }
    let layer = Interpolate1dConfig::new().with_scale_factor(Some(2.0)).init();
    agrees(nothing(), [1, 3, 5], |_, x| layer.forward(x));
}

#[test]
fn pooling() {
    let config = MaxPool2dConfig::new([3, 2]).with_strides([2, 2]);
    for config in [
        config.clone(),
        config.clone().with_padding(PaddingConfig2d::Explicit(1, 0, 1, 0)),
        config.with_ceil_mode(true),
    ] {
        agrees(nothing(), [1, 2, 8, 7], |_, x| config.init().forward(x));
    }
    let config = AvgPool2dConfig::new([3, 3]).with_strides([2, 2]).with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1));
    for config in [config.clone(), config.with_count_include_pad(false)] {
        agrees(nothing(), [1, 2, 8, 7], |_, x| config.init().forward(x));
    }
    agrees(nothing(), [1, 2, 8], |_, x| MaxPool1dConfig::new(3).with_stride(2).init().forward(x));
    agrees(nothing(), [1, 2, 8], |_, x| AdaptiveAvgPool1dConfig::new(3).init().forward(x));
    agrees(nothing(), [1, 2, 8, 5], |_, x| activation::relu(burn::tensor::module::adaptive_avg_pool2d(x, [3, 2])));
}

#[test]
fn normalization() {
    let device = Default::default();
    agrees(BatchNormConfig::new(4).init(&device), [1, 4, 5, 5], |layer, x| layer.forward(x));
    agrees(LayerNormConfig::new(6).init(&device), [1, 3, 6], |layer, x| layer.forward(x));
    agrees(RmsNormConfig::new(6).init(&device), [1, 3, 6], |layer, x| layer.forward(x));
    agrees(GroupNormConfig::new(2, 4).init(&device), [1, 4, 3, 3], |layer, x| layer.forward(x));
    agrees(InstanceNormConfig::new(4).init(&device), [1, 4, 3, 3], |layer, x| layer.forward(x));
}

#[test]
fn activations_with_parameters() {
    let device = Default::default();
    agrees(PReluConfig::new().with_num_parameters(4).init(&device), [1, 4, 3], |layer, x| layer.forward(x));
    agrees(SwiGluConfig::new(4, 6).init(&device), [1, 3, 4], |layer, x| layer.forward(x));
}
