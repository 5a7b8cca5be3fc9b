//! A linear layer with packed weights.

use std::marker::PhantomData;

use burn::module::Param;
use burn::nn::LinearConfig;
use burn::prelude::*;
use burn::tensor::module::linear;
use ttq_packed::TernaryWeight;

#[cfg(feature = "cubecl")]
use super::device;
#[cfg(feature = "flex")]
use super::kernels;
use super::{ActivationType, Float32, PackedWeight};

/// Burn's [`Linear`](burn::nn::Linear) with a packed weight `W` of shape `[in, out]`:
///
/// ```text
/// y = x W + bias        W = +w_pos where the code is +1, 0 where it is 0, -w_neg where it is -1
/// ```
///
/// A new layer is all zeros; [`load`](super::load) fills it. `A` is the precision of the activations.
#[derive(Module, Debug)]
pub struct PackedLinear<B: Backend, A: ActivationType = Float32> {
    /// The packed weight, `[in, out]`.
    pub weight: PackedWeight<B>,
    /// The bias, `[out]`.
    pub bias: Option<Param<Tensor<B, 1>>>,
    #[module(skip)]
    activations: PhantomData<A>,
    #[cfg(feature = "flex")]
    #[module(skip)]
    kernel_cache: kernels::Cache<ttq_packed::kernels::PackedMatrix>,
    #[cfg(feature = "cubecl")]
    #[module(skip)]
    device_cache: device::Cache,
}

impl<B: Backend, A: ActivationType> PackedLinear<B, A> {
    /// Creates a layer whose weight and bias are zero.
    pub fn new(config: &LinearConfig, device: &B::Device) -> Self {
        let bias = config.bias.then(|| Param::from_tensor(Tensor::zeros([config.d_output], device)));
        Self {
            weight: PackedWeight::zeros(vec![config.d_input, config.d_output], 1, device),
            bias,
            activations: PhantomData,
            #[cfg(feature = "flex")]
            kernel_cache: Default::default(),
            #[cfg(feature = "cubecl")]
            device_cache: Default::default(),
        }
    }

    /// Replaces the weight, `[in, out]`.
    ///
    /// # Panics
    /// Panics if the shape of `weight` differs from that of the layer.
    #[must_use]
    pub fn with_weight(mut self, weight: &TernaryWeight) -> Self {
        assert_eq!(
            weight.shape(),
            self.weight.dims(),
            "PackedLinear: the shape of the weight differs from that of the layer"
        );
        self.weight = self.weight.with_contents(weight);
        self
    }

    /// Applies the layer.
    ///
    /// # Shapes
    /// - input: `[.., in]`
    /// - output: `[.., out]`
    ///
    /// # Panics
    /// Panics if the last dimension of `input` is not `in`.
    pub fn forward<const D: usize>(&self, input: Tensor<B, D>) -> Tensor<B, D> {
        #[cfg(feature = "flex")]
        if kernels::supports(&input) {
            return kernels::linear::<B, A, D>(input, &self.weight, self.bias.as_ref(), &self.kernel_cache);
        }
        #[cfg(feature = "cubecl")]
        if device::supports(&input, &self.weight) {
            return device::linear::<B, A, D>(input, &self.weight, self.bias.as_ref(), &self.device_cache);
        }
        let bias = self.bias.as_ref().map(Param::val);
        linear(input, self.weight.dense(), bias)
    }

    /// Returns whether [`forward`](Self::forward) computes this input on the packed form. Otherwise it unpacks the
    /// weight and computes the dense layer; the [module documentation](super) lists the cases.
    pub fn computes_packed<const D: usize>(&self, input: &Tensor<B, D>) -> bool {
        super::computes_packed(input, &self.weight)
    }
}
