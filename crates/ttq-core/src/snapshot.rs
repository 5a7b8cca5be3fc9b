//! The ternary weights of a wrapper at one moment, for training metrics.

use std::sync::Arc;

use burn::module::{AutodiffModule, Param};
use burn::prelude::*;
use burn::tensor::DType;
use burn::tensor::backend::AutodiffBackend;

use crate::selected::{LayerVisitor, visit_selected};
use crate::{Ternary, TernaryQuantizer};

/// The latent weights and scales of a [`Ternary`] at one moment, as handles of its tensors.
///
/// Taking a snapshot computes nothing and copies nothing. Its statistics are computed on the devices of the weights when
/// they are asked for. While a snapshot lives, the next update of the weights cannot reuse their memory.
#[derive(Clone)]
pub struct TernarySnapshot<B: Backend> {
    quantizer: TernaryQuantizer<B>,
    layers: Arc<[Layer<B>]>,
}

struct Layer<B: Backend> {
    path: String,
    weights: usize,
    latent: Box<dyn Latent<B>>,
    /// Parameter of the scales, `[groups, 2]`; `None` if the rule of the scales computes them from the latent weight.
    scales: Option<Tensor<B, 2>>,
}

/// A latent weight of any rank.
trait Latent<B: Backend>: Send + Sync {
    /// Computes the codes in one dimension, in float32.
    fn codes(&self, quantizer: &TernaryQuantizer<B>) -> Tensor<B, 1>;

    fn measured_scales(&self, quantizer: &TernaryQuantizer<B>) -> Tensor<B, 2>;
}

struct Handle<B: Backend, const D: usize> {
    latent: Tensor<B, D>,
    channel_axis: usize,
}

impl<B: Backend, const D: usize> Latent<B> for Handle<B, D> {
    fn codes(&self, quantizer: &TernaryQuantizer<B>) -> Tensor<B, 1> {
        let codes = quantizer.float_codes(self.latent.clone(), self.channel_axis);
        let n = codes.shape().num_elements();
        float32(codes.reshape([n]))
    }

    fn measured_scales(&self, quantizer: &TernaryQuantizer<B>) -> Tensor<B, 2> {
        quantizer.measured_scales(self.latent.clone(), self.channel_axis)
    }
}

impl<B: AutodiffBackend, M: AutodiffModule<B>> Ternary<B, M> {
    /// Takes a snapshot of latent weights and scales. It does not synchronize the module: running statistics stay as they
    /// are.
    pub fn snapshot(&self) -> TernarySnapshot<B::InnerBackend> {
        let layers = self.selection().ternary().map(|choice| (choice.path.clone(), choice.len())).collect();
        let scales = self.scales().iter().map(|scales| scales.val().inner()).collect();
        let mut handles = TakeHandles { latents: Vec::new() };
        visit_selected(self.latent(), self.layers(), &mut handles);
        TernarySnapshot::new(self.quantizer().on(), layers, handles.latents, scales)
    }
}

struct TakeHandles<B: AutodiffBackend> {
    latents: Vec<Box<dyn Latent<B::InnerBackend>>>,
}

impl<B: AutodiffBackend> LayerVisitor<B> for TakeHandles<B> {
    fn visit<const D: usize>(&mut self, param: &Param<Tensor<B, D>>, channel_axis: usize) {
        self.latents.push(Box::new(Handle { latent: param.val().inner(), channel_axis }));
    }
}

impl<B: Backend> TernarySnapshot<B> {
    fn new(
        quantizer: TernaryQuantizer<B>,
        layers: Vec<(String, usize)>,
        latents: Vec<Box<dyn Latent<B>>>,
        scales: Vec<Tensor<B, 2>>,
    ) -> Self {
        let mut scales = scales.into_iter();
        let layers = layers.into_iter().zip(latents);
        let layers =
            layers.map(|((path, weights), latent)| Layer { path, weights, latent, scales: scales.next() }).collect();
        Self { quantizer, layers }
    }

    /// Returns path and number of weights of each layer, in the order of [`Selection::ternary`](crate::Selection::ternary).
    pub fn layers(&self) -> impl Iterator<Item = (&str, usize)> {
        self.layers.iter().map(|layer| (layer.path.as_str(), layer.weights))
    }

    /// Computes one row for each layer, `[layers, 4]`, in float32: share of +1, share of -1, W_p, W_n. The scales are means
    /// over the groups.
    ///
    /// Each row is computed on the device of its layer; the result is on that of the first.
    pub fn summary(&self) -> Tensor<B, 2> {
        let rows: Vec<Tensor<B, 2>> = self.layers.iter().map(|layer| layer.row(&self.quantizer)).collect();
        let Some(device) = rows.first().map(Tensor::device) else { return Tensor::zeros([0, 4], &Default::default()) };
        Tensor::cat(rows.into_iter().map(|row| row.to_device(&device)).collect(), 0)
    }

    /// Computes the flip ratio `[1]`, in float32: the share of codes, over all layers, that differ between this snapshot and
    /// `earlier`, from 0 to 1. It is NaN if a code is NaN.
    ///
    /// The codes of each layer are compared on its device; the result is on that of the first.
    ///
    /// # Panics
    /// Panics if the two are not of the same model.
    pub fn flip_ratio(&self, earlier: &Self) -> Tensor<B, 1> {
        assert!(
            self.layers().eq(earlier.layers()),
            "TernarySnapshot::flip_ratio: the snapshots are of different models: compare two of the same wrapper"
        );
        let total: usize = self.layers.iter().map(|layer| layer.weights).sum();
        let changed = self.layers.iter().zip(earlier.layers.iter()).map(|(now, before)| {
            let after = now.latent.codes(&self.quantizer);
            let before = before.latent.codes(&earlier.quantizer).to_device(&after.device());
            // Codes differ by d = 0, 1 or 2, and d (3 - d) / 2 is 0, 1, 1.
            let difference = (after - before).abs();
            let changed = (difference.clone() * difference.neg().add_scalar(3.0)).mul_scalar(0.5);
            changed.mean().mul_scalar(now.weights as f64 / total as f64)
        });
        let sum = changed.reduce(|sum, share| {
            let device = sum.device();
            sum + share.to_device(&device)
        });
        sum.unwrap_or_else(|| Tensor::zeros([1], &Default::default()))
    }
}

impl<B: Backend> Layer<B> {
    /// Computes the row of [`TernarySnapshot::summary`], `[1, 4]`.
    fn row(&self, quantizer: &TernaryQuantizer<B>) -> Tensor<B, 2> {
        let codes = self.latent.codes(quantizer);
        let scales = match &self.scales {
            Some(parameter) => quantizer.config().scale_parameter.scales(parameter.clone()),
            None => self.latent.measured_scales(quantizer),
        };
        let scales = float32(scales.mean_dim(0)).to_device(&codes.device());
        // With s = mean of the codes and m = mean of their magnitudes: share of +1 = (m + s) / 2, of -1 = (m - s) / 2.
        let sum = codes.clone().mean().reshape([1, 1]);
        let magnitude = codes.abs().mean().reshape([1, 1]);
        let [positive, negative] =
            [magnitude.clone() + sum.clone(), magnitude - sum].map(|twice| twice.mul_scalar(0.5));
        Tensor::cat(vec![positive, negative, scales], 1)
    }
}

/// Converts to float32, in which means of many codes are exact enough.
fn float32<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Tensor<B, D> {
    if tensor.dtype() == DType::F32 { tensor } else { tensor.cast(DType::F32) }
}
