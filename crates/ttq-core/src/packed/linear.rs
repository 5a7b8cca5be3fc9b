//! A linear layer on packed weights.

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
#[cfg(any(feature = "cubecl", feature = "flex"))]
use super::prepared::Prepared;
use super::{ActivationType, Float32, PackedWeight};

/// Burn's [`Linear`](burn::nn::Linear) with a packed weight `W` of shape `[in, out]`:
///
/// ```text
/// y = x W + bias        W = +w_pos where the code is +1, 0, -w_neg where it is -1
/// ```
///
/// It has no weights until [`load`](super::load) fills it.
#[derive(Module, Debug)]
pub struct PackedLinear<B: Backend, A: ActivationType = Float32> {
    /// `[in, out]`
    pub weight: PackedWeight<B>,
    /// `[out]`
    pub bias: Option<Param<Tensor<B, 1>>>,
    #[module(skip)]
    activations: PhantomData<A>,
    #[cfg(feature = "flex")]
    #[module(skip)]
    prepared: Prepared<ttq_packed::kernels::PackedMatrix>,
    #[cfg(feature = "cubecl")]
    #[module(skip)]
    on_device: Prepared<device::AnyWeight>,
}

impl<B: Backend, A: ActivationType> PackedLinear<B, A> {
    /// A layer of zeros.
    pub fn new(config: &LinearConfig, device: &B::Device) -> Self {
        let bias = config.bias.then(|| Param::from_tensor(Tensor::zeros([config.d_output], device)));
        Self {
            weight: PackedWeight::zeros(vec![config.d_input, config.d_output], 1, device),
            bias,
            activations: PhantomData,
            #[cfg(feature = "flex")]
            prepared: Prepared::default(),
            #[cfg(feature = "cubecl")]
            on_device: Prepared::default(),
        }
    }

    /// The layer with this weight of shape `[in, out]`.
    ///
    /// # Panics
    /// Where the shape is another.
    #[must_use]
    pub fn with_weight(mut self, weight: &TernaryWeight) -> Self {
        assert_eq!(weight.shape(), self.weight.dims(), "PackedLinear: the weight has another shape than the layer");
        self.weight = self.weight.with(weight);
        self
    }

    /// `[.., in]` to `[.., out]`.
    pub fn forward<const D: usize>(&self, input: Tensor<B, D>) -> Tensor<B, D> {
        #[cfg(feature = "flex")]
        if kernels::apply(&input) {
            let parameters = self.weight.contents().into_iter().chain(self.bias.as_ref().map(|bias| bias.id));
            let matrix = self.prepared.get((parameters.collect(), [0, 0]), || {
                let bias = self.bias.as_ref().map(|bias| kernels::floats(bias.val()));
                kernels::fit(kernels::matrix::<A>(&self.weight.to_ternary(), bias.as_deref()))
            });
            return kernels::multiply(input, &matrix);
        }
        #[cfg(feature = "cubecl")]
        if device::takes(&input, &self.weight) {
            return device::linear::<B, A, D>(input, &self.weight, self.bias.as_ref(), &self.on_device);
        }
        let bias = self.bias.as_ref().map(Param::val);
        linear(input, self.weight.dense(), bias)
    }
}
