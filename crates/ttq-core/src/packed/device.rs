//! Packed layers with the GPU kernels of `ttq-cubecl`, for tensors that they support.

use std::any::Any;

use burn::module::Param;
use burn::nn::conv::Conv2dConfig;
use burn::prelude::*;
use ttq_cubecl::{DeviceWeight, LayerParameters, Window};

use super::geometry::Geometry;
use super::kernel_cache::KernelCache;
use super::{ActivationType, PackedWeight};

/// Cache of the [`DeviceWeight`] of a layer. The type of the cache must not depend on the backend.
pub(super) type Cache = KernelCache<Box<dyn Any + Send + Sync>>;

/// Returns whether the kernels support this input for a layer with this weight.
pub(super) fn supports<B: Backend, const D: usize>(input: &Tensor<B, D>, weight: &PackedWeight<B>) -> bool {
    ttq_cubecl::supports(input) && ttq_cubecl::supports_codes(&weight.codes())
}

/// Computes a linear layer: input `[.., in]`, output `[.., out]`.
pub(super) fn linear<B: Backend, A: ActivationType, const D: usize>(
    input: Tensor<B, D>,
    weight: &PackedWeight<B>,
    bias: Option<&Param<Tensor<B, 1>>>,
    cache: &Cache,
) -> Tensor<B, D> {
    let dims = weight.dims();
    with_weight(
        weight,
        cache,
        |codes| DeviceWeight::linear(codes, [dims[0], dims[1]]),
        |on_device| ttq_cubecl::linear(input, on_device, layer::<B, A>(weight, bias)),
    )
}

/// Computes a convolution: input `[n, in, h, w]`, output `[n, out, h', w']`.
pub(super) fn conv2d<B: Backend, A: ActivationType>(
    input: Tensor<B, 4>,
    weight: &PackedWeight<B>,
    bias: Option<&Param<Tensor<B, 1>>>,
    config: &Conv2dConfig,
    cache: &Cache,
) -> Tensor<B, 4> {
    let shape: [usize; 4] = weight.dims().try_into().expect("a convolution's weight has four dimensions");
    let [_, _, height, width] = input.dims();
    let window = window(config, [height, width]);
    with_weight(
        weight,
        cache,
        |codes| DeviceWeight::convolution(codes, shape),
        |on_device| ttq_cubecl::conv2d(input, on_device, layer::<B, A>(weight, bias), window),
    )
}

/// Calls `work` with the cached weight of the device, which `build` creates if it is missing or out of date.
fn with_weight<B: Backend, T>(
    weight: &PackedWeight<B>,
    cache: &Cache,
    build: impl FnOnce(Tensor<B, 1, Int>) -> DeviceWeight<B>,
    work: impl FnOnce(&DeviceWeight<B>) -> T,
) -> T {
    let codes = weight.codes();
    let is_current = |cached: &Box<dyn Any + Send + Sync>| {
        cached.downcast_ref::<DeviceWeight<B>>().is_some_and(|cached| cached.is_built_from(&codes))
    };
    let on_device = cache.get_or_build(is_current, || Box::new(build(codes.clone())));
    work(on_device.downcast_ref().expect("a current weight is of this backend"))
}

fn layer<B: Backend, A: ActivationType>(
    weight: &PackedWeight<B>,
    bias: Option<&Param<Tensor<B, 1>>>,
) -> LayerParameters<B> {
    LayerParameters { scales: weight.scales(), bias: bias.map(Param::val), int8: A::INT8 }
}

/// Returns the parameters of the convolution kernel for images of size `[height, width]`.
fn window(config: &Conv2dConfig, size: [usize; 2]) -> Window {
    let geometry = Geometry::of(config);
    let Geometry { kernel, stride, dilation, .. } = geometry;
    let padding = geometry.padding_of(size).map(|[before, _]| before);
    Window { kernel, stride, dilation, padding, output: geometry.output_size(size), groups: config.groups }
}
