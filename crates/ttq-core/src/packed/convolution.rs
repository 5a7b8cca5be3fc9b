//! A convolution with packed weights.

use std::marker::PhantomData;

use burn::module::{Param, ParamId};
use burn::nn::BatchNorm;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::prelude::*;
use burn::tensor::TensorData;
use ttq_packed::{Codes, TernaryWeight};

#[cfg(feature = "cubecl")]
use super::device;
use super::geometry::Geometry;
#[cfg(feature = "flex")]
use super::kernels;
use super::{ActivationType, Float32, PackedWeight};

/// Burn's [`Conv2d`] with a packed weight of shape `[out, in / groups, kh, kw]`.
///
/// A new layer is all zeros; [`load`](super::load) fills it. `A` is the precision of the activations.
#[derive(Module, Debug)]
pub struct PackedConv2d<B: Backend, A: ActivationType = Float32> {
    /// The packed weight, `[out, in / groups, kh, kw]`.
    pub weight: PackedWeight<B>,
    /// The bias, `[out]`.
    pub bias: Option<Param<Tensor<B, 1>>>,
    #[module(skip)]
    config: Conv2dConfig,
    #[module(skip)]
    activations: PhantomData<A>,
    #[cfg(feature = "flex")]
    #[module(skip)]
    kernel_cache: kernels::Cache<ttq_packed::kernels::PackedConvolution>,
    #[cfg(feature = "cubecl")]
    #[module(skip)]
    device_cache: device::Cache,
}

impl<B: Backend, A: ActivationType> PackedConv2d<B, A> {
    /// Creates a layer whose weight and bias are zero.
    ///
    /// # Panics
    /// Panics if a number of channels is not divisible by the number of groups, or if a size of the kernel, a stride or
    /// a dilation is zero.
    pub fn new(config: &Conv2dConfig, device: &B::Device) -> Self {
        let [input, output] = config.channels;
        let groups = config.groups;
        assert!(
            groups > 0 && input.is_multiple_of(groups) && output.is_multiple_of(groups),
            "PackedConv2d: {input} input and {output} output channels are not divisible by {groups} groups"
        );
        let Conv2dConfig { kernel_size, stride, dilation, .. } = config;
        assert!(
            [kernel_size, stride, dilation].iter().all(|pair| !pair.contains(&0)),
            "PackedConv2d: kernel size {kernel_size:?}, stride {stride:?} and dilation {dilation:?} must be at least 1"
        );
        let [kh, kw] = *kernel_size;
        Self {
            weight: PackedWeight::zeros(vec![output, input / groups, kh, kw], 0, device),
            bias: config.bias.then(|| Param::from_tensor(Tensor::zeros([output], device))),
            config: config.clone(),
            activations: PhantomData,
            #[cfg(feature = "flex")]
            kernel_cache: Default::default(),
            #[cfg(feature = "cubecl")]
            device_cache: Default::default(),
        }
    }

    /// Replaces the weight, `[out, in / groups, kh, kw]`.
    ///
    /// # Panics
    /// Panics if the shape of `weight` differs from that of the layer.
    #[must_use]
    pub fn with_weight(mut self, weight: &TernaryWeight) -> Self {
        assert_eq!(
            weight.shape(),
            self.weight.dims(),
            "PackedConv2d: the shape of the weight differs from that of the layer"
        );
        self.weight = self.weight.with_contents(weight);
        self
    }

    /// Folds the batch normalization that follows the layer into its scales and bias.
    ///
    /// The result is exactly layer and normalization at inference. With
    ///
    /// ```text
    /// a = gamma / sqrt(running_var + epsilon)
    /// ```
    ///
    /// it is for each output channel
    ///
    /// ```text
    /// w_pos' = a w_pos, w_neg' = a w_neg                              a >= 0
    /// w_pos' = -a w_neg, w_neg' = -a w_pos, codes change their sign   a < 0
    /// bias'  = a (bias - running_mean) + beta
    /// ```
    ///
    /// The layer then has one pair of scales for each output channel, and a bias. Reads from the device.
    ///
    /// # Panics
    /// Panics if the number of channels of `norm` differs, or if its values make a scale infinite or NaN.
    #[must_use]
    pub fn fold_batch_norm(self, norm: &BatchNorm<B>) -> Self {
        let floats = |tensor: Tensor<B, 1>| tensor.into_data().iter::<f32>().collect::<Vec<f32>>();
        let weight = self.weight.to_ternary();
        let channels = weight.shape()[0];
        let [gamma, beta, mean, var] =
            [norm.gamma.val(), norm.beta.val(), norm.running_mean.value(), norm.running_var.value()].map(floats);
        assert_eq!(
            gamma.len(),
            channels,
            "PackedConv2d: the number of channels of the normalization differs from that of the layer"
        );
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
        let codes = weight.codes().iter().enumerate();
        let codes: Vec<i8> =
            codes.map(|(index, code)| if factor(index / inner) < 0.0 { -code } else { code }).collect();
        let bias: Vec<f32> =
            (0..channels).map(|channel| factor(channel) * (bias[channel] - mean[channel]) + beta[channel]).collect();
        let codes = Codes::pack(&codes).expect("a code with the opposite sign is a code");
        let folded = TernaryWeight::new(codes, scales, weight.shape(), 0)
            .unwrap_or_else(|error| panic!("PackedConv2d: the normalization cannot be folded into the layer: {error}"));
        let device = norm.gamma.val().device();
        let bias = Tensor::from_data(TensorData::new(bias, [channels]), &device);
        let config = self.config.clone().with_bias(true);
        Self { bias: Some(Param::initialized(ParamId::new(), bias)), config, ..self.with_weight(&folded) }
    }

    /// Applies the convolution.
    ///
    /// # Shapes
    /// - input: `[n, in, h, w]`
    /// - output: `[n, out, h', w']`, with the size of [`Convolution::output_size`](super::Convolution::output_size)
    ///
    /// # Panics
    /// Panics if the number of input channels differs, or if the kernel does not fit into the padded input.
    pub fn forward(&self, input: Tensor<B, 4>) -> Tensor<B, 4> {
        let [_, _, height, width] = input.dims();
        // Panics with the numbers if the kernel does not fit.
        Geometry::of(&self.config).output_size([height, width]);
        #[cfg(feature = "flex")]
        if kernels::supports(&input) {
            let bias = self.bias.as_ref();
            return kernels::conv2d::<B, A>(input, &self.weight, bias, &self.config, &self.kernel_cache);
        }
        #[cfg(feature = "cubecl")]
        if device::supports(&input, &self.weight) {
            let bias = self.bias.as_ref();
            return device::conv2d::<B, A>(input, &self.weight, bias, &self.config, &self.device_cache);
        }
        self.dense().forward(input)
    }

    /// Returns whether [`forward`](Self::forward) computes this input on the packed form. Otherwise it unpacks the
    /// weight and computes the dense layer; the [module documentation](super) lists the cases.
    pub fn computes_packed(&self, input: &Tensor<B, 4>) -> bool {
        super::computes_packed(input, &self.weight)
    }

    /// Returns Burn's layer with the same weights, unpacked on the device.
    pub fn dense(&self) -> Conv2d<B> {
        let Conv2dConfig { kernel_size, stride, dilation, groups, padding, .. } = self.config.clone();
        let weight = Param::initialized(ParamId::new(), self.weight.dense::<4>());
        Conv2d { weight, bias: self.bias.clone(), stride, kernel_size, dilation, groups, padding }
    }

    /// Returns the configuration of the layer. It has a bias if a normalization was folded in.
    pub fn config(&self) -> &Conv2dConfig {
        &self.config
    }
}
