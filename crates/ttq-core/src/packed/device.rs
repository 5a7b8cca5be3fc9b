//! Packed layers by the kernels of `ttq-cubecl`, for tensors that these take.

use std::any::Any;

use burn::module::Param;
use burn::nn::conv::Conv2dConfig;
use burn::prelude::*;
use ttq_cubecl::{Layer, Weight, Window};

use super::prepared::Prepared;
use super::{ActivationType, PackedWeight, padding};

/// A [`Weight`] on a device, whatever the backend: what a layer keeps must not change its type with the backend.
pub(super) type AnyWeight = Box<dyn Any + Send + Sync>;

/// Do the kernels take this input of a layer with this weight?
pub(super) fn takes<B: Backend, const D: usize>(input: &Tensor<B, D>, weight: &PackedWeight<B>) -> bool {
    ttq_cubecl::takes(input) && ttq_cubecl::takes_codes(&weight.codes())
}

/// `[.., in]` to `[.., out]`
pub(super) fn linear<B: Backend, A: ActivationType, const D: usize>(
    input: Tensor<B, D>,
    weight: &PackedWeight<B>,
    bias: Option<&Param<Tensor<B, 1>>>,
    prepared: &Prepared<AnyWeight>,
) -> Tensor<B, D> {
    let dims = weight.dims();
    with_weight(
        weight,
        prepared,
        |codes| Weight::linear(codes, [dims[0], dims[1]]),
        |on_device| ttq_cubecl::linear(input, on_device, layer::<B, A>(weight, bias)),
    )
}

/// `[n, in, h, w]` to `[n, out, h', w']`
pub(super) fn conv2d<B: Backend, A: ActivationType>(
    input: Tensor<B, 4>,
    weight: &PackedWeight<B>,
    bias: Option<&Param<Tensor<B, 1>>>,
    config: &Conv2dConfig,
    prepared: &Prepared<AnyWeight>,
) -> Tensor<B, 4> {
    let shape: [usize; 4] = weight.dims().try_into().expect("a convolution's weight has four dimensions");
    let [_, _, height, width] = input.dims();
    let window = window(config, [height, width]);
    with_weight(
        weight,
        prepared,
        |codes| Weight::convolution(codes, shape),
        |on_device| ttq_cubecl::conv2d(input, on_device, layer::<B, A>(weight, bias), window),
    )
}

/// Calls `work` with the weight that was prepared for its device, or is now.
fn with_weight<B: Backend, T>(
    weight: &PackedWeight<B>,
    prepared: &Prepared<AnyWeight>,
    make: impl FnOnce(Tensor<B, 1, Int>) -> Weight<B>,
    work: impl FnOnce(&Weight<B>) -> T,
) -> T {
    let codes = weight.codes();
    let device = codes.device().to_id();
    let of = (weight.contents().to_vec(), [device.type_id as usize, device.index_id as usize]);
    let on_device = prepared.get(of, || Box::new(make(codes)));
    work(on_device.downcast_ref().expect("clones of a layer that kernels take have one backend"))
}

fn layer<B: Backend, A: ActivationType>(weight: &PackedWeight<B>, bias: Option<&Param<Tensor<B, 1>>>) -> Layer<B> {
    Layer { scales: weight.scales(), bias: bias.map(Param::val), int8: A::INT8 }
}

/// The convolution of images of this height and width.
fn window(config: &Conv2dConfig, size: [usize; 2]) -> Window {
    let Conv2dConfig { kernel_size: kernel, stride, dilation, groups, .. } = *config;
    let around = padding::around(config, size);
    let output = [0, 1].map(|axis| {
        let padded = size[axis] + around[axis][0] + around[axis][1];
        let reach = dilation[axis] * (kernel[axis] - 1) + 1;
        assert!(padded >= reach, "PackedConv2d: a kernel that spans {reach} does not fit into {padded} padded pixels");
        (padded - reach) / stride[axis] + 1
    });
    Window { kernel, stride, dilation, padding: around.map(|[before, _]| before), output, groups }
}
