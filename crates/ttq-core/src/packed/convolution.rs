//! A convolution on packed weights.

use std::marker::PhantomData;

use burn::module::{Param, ParamId};
use burn::nn::BatchNorm;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::prelude::*;
use burn::tensor::TensorData;
use ttq_packed::{Codes, TernaryWeight};

#[cfg(feature = "cubecl")]
use super::device;
#[cfg(feature = "flex")]
use super::kernels;
#[cfg(any(feature = "cubecl", feature = "flex"))]
use super::prepared::Prepared;
use super::{ActivationType, Float32, PackedWeight};

/// Burn's [`Conv2d`] with a packed weight of shape `[out, in / groups, kh, kw]`. It has no weights until [`load`](super::load) fills
/// it.
#[derive(Module, Debug)]
pub struct PackedConv2d<B: Backend, A: ActivationType = Float32> {
    /// `[out, in / groups, kh, kw]`
    pub weight: PackedWeight<B>,
    /// `[out]`
    pub bias: Option<Param<Tensor<B, 1>>>,
    #[module(skip)]
    config: Conv2dConfig,
    #[module(skip)]
    activations: PhantomData<A>,
    #[cfg(feature = "flex")]
    #[module(skip)]
    prepared: Prepared<ttq_packed::kernels::PackedConvolution>,
    #[cfg(feature = "cubecl")]
    #[module(skip)]
    on_device: Prepared<device::AnyWeight>,
}

impl<B: Backend, A: ActivationType> PackedConv2d<B, A> {
    /// A layer of zeros.
    ///
    /// # Panics
    /// Where the channels cannot be divided by the number of groups.
    pub fn new(config: &Conv2dConfig, device: &B::Device) -> Self {
        let [input, output] = config.channels;
        let groups = config.groups;
        assert!(
            groups > 0 && input.is_multiple_of(groups) && output.is_multiple_of(groups),
            "PackedConv2d: {input} and {output} channels cannot be divided by {groups} groups"
        );
        let [kh, kw] = config.kernel_size;
        Self {
            weight: PackedWeight::zeros(vec![output, input / groups, kh, kw], 0, device),
            bias: config.bias.then(|| Param::from_tensor(Tensor::zeros([output], device))),
            config: config.clone(),
            activations: PhantomData,
            #[cfg(feature = "flex")]
            prepared: Prepared::default(),
            #[cfg(feature = "cubecl")]
            on_device: Prepared::default(),
        }
    }

    /// The layer with this weight of shape `[out, in / groups, kh, kw]`.
    ///
    /// # Panics
    /// Where the shape is another.
    #[must_use]
    pub fn with_weight(mut self, weight: &TernaryWeight) -> Self {
        assert_eq!(weight.shape(), self.weight.dims(), "PackedConv2d: the weight has another shape than the layer");
        self.weight = self.weight.with(weight);
        self
    }

    /// The layer with the normalization behind it folded in, as it is at inference, exactly: with
    ///
    /// ```text
    /// a = gamma / sqrt(running_var + epsilon)
    /// ```
    ///
    /// for each output channel
    ///
    /// ```text
    /// w_pos' = a w_pos, w_neg' = a w_neg                              a >= 0
    /// w_pos' = -a w_neg, w_neg' = -a w_pos, codes change their sign   a < 0
    /// bias'  = a (bias - running_mean) + beta
    /// ```
    ///
    /// The scales are then one pair for each output channel.
    ///
    /// # Panics
    /// Where the normalization has another number of channels, or values that make a scale infinite or NaN.
    #[must_use]
    pub fn fold_batch_norm(self, norm: &BatchNorm<B>) -> Self {
        let floats = |tensor: Tensor<B, 1>| tensor.into_data().iter::<f32>().collect::<Vec<f32>>();
        let weight = self.weight.to_ternary();
        let channels = weight.shape()[0];
        let [gamma, beta, mean, var] =
            [norm.gamma.val(), norm.beta.val(), norm.running_mean.value(), norm.running_var.value()].map(floats);
        assert_eq!(gamma.len(), channels, "PackedConv2d: the normalization has another number of channels");
        let bias = self.bias.as_ref().map_or_else(|| vec![0.0; channels], |bias| floats(bias.val()));
        let factor =
            |channel: usize| (f64::from(gamma[channel]) / (f64::from(var[channel]) + norm.epsilon).sqrt()) as f32;
        let scales: Vec<[f32; 2]> = (0..channels)
            .map(|channel| {
                let a = factor(channel);
                let [w_pos, w_neg] = weight.scales()[if weight.scales().len() == 1 { 0 } else { channel }];
                if a < 0.0 { [-a * w_neg, -a * w_pos] } else { [a * w_pos, a * w_neg] }
            })
            .collect();
        let inner = weight.codes().len() / channels;
        let turned = weight.codes().iter().enumerate();
        let codes: Vec<i8> =
            turned.map(|(index, code)| if factor(index / inner) < 0.0 { -code } else { code }).collect();
        let bias: Vec<f32> =
            (0..channels).map(|channel| factor(channel) * (bias[channel] - mean[channel]) + beta[channel]).collect();
        let codes = Codes::pack(&codes).expect("codes with another sign are codes");
        let folded = TernaryWeight::new(codes, scales, weight.shape(), 0)
            .unwrap_or_else(|error| panic!("PackedConv2d: the normalization cannot be folded in: {error}"));
        let device = norm.gamma.val().device();
        let bias = Tensor::from_data(TensorData::new(bias, [channels]), &device);
        let config = self.config.clone().with_bias(true);
        Self { bias: Some(Param::initialized(ParamId::new(), bias)), config, ..self.with_weight(&folded) }
    }

    /// `[n, in, h, w]` to `[n, out, h', w']`.
    pub fn forward(&self, input: Tensor<B, 4>) -> Tensor<B, 4> {
        #[cfg(feature = "flex")]
        if kernels::apply(&input)
            && let [_, _, height, width] = input.dims()
            && let Some(options) = kernels::options(&self.config, [height, width])
        {
            let parameters = self.weight.contents().into_iter().chain(self.bias.as_ref().map(|bias| bias.id));
            let convolution = self.prepared.get((parameters.collect(), options.padding), || {
                let bias = self.bias.as_ref().map(|bias| kernels::floats(bias.val()));
                kernels::fit(kernels::convolution::<A>(&self.weight.to_ternary(), options, bias.as_deref()))
            });
            return kernels::convolve(input, &convolution);
        }
        #[cfg(feature = "cubecl")]
        if device::takes(&input, &self.weight) {
            let bias = self.bias.as_ref();
            return device::conv2d::<B, A>(input, &self.weight, bias, &self.config, &self.on_device);
        }
        self.dense().forward(input)
    }

    /// Burn's layer with the same weights.
    pub fn dense(&self) -> Conv2d<B> {
        let Conv2dConfig { kernel_size, stride, dilation, groups, padding, .. } = self.config.clone();
        let weight = Param::initialized(ParamId::new(), self.weight.dense::<4>());
        Conv2d { weight, bias: self.bias.clone(), stride, kernel_size, dilation, groups, padding }
    }

    /// The configuration it was made with, with a bias where a folded normalization has brought one.
    pub fn config(&self) -> &Conv2dConfig {
        &self.config
    }
}
