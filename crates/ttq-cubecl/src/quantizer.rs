//! Threshold, ternary weight and gradients, as operations on tensors.

use burn::prelude::*;
use burn::tensor::TensorPrimitive;
use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use burn_std::{DType, Shape};

use crate::kernels;
use crate::kernels::gradients::Estimator;
pub use crate::kernels::gradients::Slope;
use crate::kernels::layout::{Fold, Groups};
use crate::kernels::threshold::{Partials, ScaledFold};
use crate::operation::{ErasedTensor, Operation, TensorSpec, float, run};

/// Rule for the threshold Δ of each group of weights.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum ThresholdRule<B: Backend> {
    /// `Δ = t · max|w|` over the group.
    MaxFraction(f64),
    /// `Δ = f · mean|w|` over the group.
    MeanFraction(f64),
    /// The given thresholds, `[groups, 1]`.
    Given(Tensor<B, 2>),
}

/// The axes whose indices divide a weight into groups. With `None` the whole weight is one group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupAxes {
    /// Groups of weights that share a threshold.
    pub threshold: Option<usize>,
    /// Groups of weights that share a pair of scales. If both axes are set, they are equal.
    pub scales: Option<usize>,
}

impl GroupAxes {
    /// Groups that share a threshold and a pair of scales.
    pub fn both(axis: Option<usize>) -> Self {
        Self { threshold: axis, scales: axis }
    }

    /// Returns the axis of the smaller groups.
    fn finer(self) -> Option<usize> {
        self.scales.or(self.threshold)
    }
}

/// Variants of the gradients that [`gradients`] computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GradientOptions {
    /// Slope of the latent gradient.
    pub slope: Slope,
    /// Sign of the gradient of W_n: `∂L/∂W_n = -Σ g` over the negative codes if true (exact), `+Σ g` if false (as
    /// published).
    pub exact_sign: bool,
}

/// Returns whether the kernels support this tensor.
///
/// A tensor is supported if all of the following hold:
/// - Its backend is one that the crate is compiled for, see the [crate documentation](crate).
/// - It has between 1 and 2³¹ elements.
/// - Its type is float32, or float16 or bfloat16 on a device that supports the type.
pub fn supports<B: Backend, const D: usize>(tensor: &Tensor<B, D>) -> bool {
    let elements = tensor.shape().num_elements();
    crate::operation::supports_backend::<B>()
        && (1..=1 << 31).contains(&elements)
        && match tensor.dtype() {
            DType::F32 => true,
            dtype @ (DType::F16 | DType::BF16) => B::supports_dtype(&tensor.device(), dtype),
            _ => false,
        }
}

/// Computes the threshold of each group of a weight, in the type of the weight: NaN if a weight of the group is NaN. Given
/// thresholds are returned unchanged.
///
/// # Shapes
/// - latent: any; a group is one index along `channel_axis`, or the whole weight with `None`
/// - output: `[groups, 1]`
///
/// # Panics
/// Panics if the backend is not supported or `channel_axis` is out of range. The caller must check the other conditions
/// of [`supports`].
pub fn threshold<B: Backend, const D: usize>(
    latent: Tensor<B, D>,
    threshold: ThresholdRule<B>,
    channel_axis: Option<usize>,
) -> Tensor<B, 2> {
    let groups = Groups::new(&latent.dims(), channel_axis);
    let rule = match threshold {
        ThresholdRule::Given(thresholds) => return thresholds,
        ThresholdRule::MaxFraction(t) => max(t),
        ThresholdRule::MeanFraction(f) => mean(f, groups),
    };
    tensor(run::<B, _>(&FindThreshold { groups, rule }, vec![float(latent)]).remove(0))
}

/// Computes the `k`-th smallest magnitude of each group of a weight, in the type of the weight: the element `k - 1` of
/// the sorted magnitudes. Nothing is sorted.
///
/// # Shapes
/// - latent: any; a group is one index along `channel_axis`, or the whole weight with `None`
/// - output: `[groups, 1]`
///
/// # Panics
/// Panics if `k` is not between 1 and the number of weights in a group, if the backend is not supported, or if
/// `channel_axis` is out of range. The caller must check the other conditions of [`supports`].
pub fn kth_smallest_magnitude<B: Backend, const D: usize>(
    latent: Tensor<B, D>,
    k: usize,
    channel_axis: Option<usize>,
) -> Tensor<B, 2> {
    let groups = Groups::new(&latent.dims(), channel_axis);
    assert!(
        (1..=groups.members).contains(&k),
        "kth_smallest_magnitude: k = {k} is out of range: a group has {} weights",
        groups.members
    );
    tensor(run::<B, _>(&FindKthSmallest { groups, k }, vec![float(latent)]).remove(0))
}

/// Computes the ternary weight of a latent weight, in its shape and type. The result is not differentiable.
///
/// ```text
/// q_i = +W_p where w_i > Δ, -W_n where w_i < -Δ, 0 elsewhere; NaN where Δ is
/// ```
///
/// # Shapes
/// - latent and output: any, divided into groups by `axes`
/// - scales: `[groups, 2]`, W_p then W_n
///
/// # Panics
/// Panics if the backend is not supported or an axis is out of range. The caller must check the other conditions
/// of [`supports`].
pub fn ternarize<B: Backend, const D: usize>(
    latent: Tensor<B, D>,
    scales: Tensor<B, 2>,
    threshold: ThresholdRule<B>,
    axes: GroupAxes,
) -> Tensor<B, D> {
    let (groups, rule, given) = groups_and_rule(&latent, axes, threshold);
    let inputs = [float(latent), float(scales)].into_iter().chain(given).collect();
    tensor(run::<B, _>(&Ternarize { groups, rule }, inputs).remove(0))
}

/// Computes the gradients of a latent weight and of its scales from the gradient `g = ∂L/∂q` of the ternary weight `q`.
///
/// ```text
/// ∂L/∂w_i =  g_i · slope_i
/// ∂L/∂W_p =  Σ g_i where q_i > 0
/// ∂L/∂W_n = -Σ g_i where q_i < 0
/// ```
///
/// `options` selects the slope and the sign in the last equation. The threshold and the slope are treated as constants.
/// The gradients have the types of the ternary weight and of the scales; they are NaN where `q` is, but for the latent
/// gradient of [`Slope::Identity`], which is `g`.
///
/// # Shapes
/// - grad, ternary and latent gradient: any, all equal; a group is one index along `channel_axis`, or the whole weight with
///   `None`
/// - scales and scale gradients: `[groups, 2]`, W_p then W_n
///
/// # Panics
/// Panics if the backend is not supported or `channel_axis` is out of range. The caller must check the other conditions
/// of [`supports`].
pub fn gradients<B: Backend, const D: usize>(
    grad: Tensor<B, D>,
    ternary: Tensor<B, D>,
    scales: Tensor<B, 2>,
    channel_axis: Option<usize>,
    options: GradientOptions,
) -> (Tensor<B, D>, Tensor<B, 2>) {
    let groups = Groups::new(&ternary.dims(), channel_axis);
    let estimator = Estimator { slope: options.slope, sign: if options.exact_sign { -1.0 } else { 1.0 } };
    let grad = grad.cast(ternary.dtype());
    let inputs = vec![float(grad), float(ternary), float(scales)];
    let mut outputs = run::<B, _>(&ComputeGradients { groups, estimator }, inputs);
    let of_scales = outputs.remove(1);
    (tensor(outputs.remove(0)), tensor(of_scales))
}

fn tensor<B: Backend, const D: usize>(primitive: B::FloatTensorPrimitive) -> Tensor<B, D> {
    Tensor::from_primitive(TensorPrimitive::Float(primitive))
}

fn max(fraction: f64) -> ScaledFold {
    ScaledFold { fold: Fold::Max, factor: fraction as f32 }
}

fn mean(fraction: f64, groups: Groups) -> ScaledFold {
    ScaledFold { fold: Fold::Sum, factor: (fraction / groups.members as f64) as f32 }
}

/// Returns the groups that kernels work on, and the rule of a threshold that is computed from the weight or the tensor of
/// given thresholds.
fn groups_and_rule<B: Backend, const D: usize>(
    latent: &Tensor<B, D>,
    axes: GroupAxes,
    threshold: ThresholdRule<B>,
) -> (Groups, Option<GroupedFold>, Option<ErasedTensor>) {
    let groups = Groups::new(&latent.dims(), axes.finer());
    let of_threshold = Groups::new(&latent.dims(), axes.threshold);
    let computed = |fold| Some(GroupedFold { groups: of_threshold, fold });
    match threshold {
        ThresholdRule::MaxFraction(t) => (groups, computed(max(t)), None),
        ThresholdRule::MeanFraction(f) => (groups, computed(mean(f, of_threshold)), None),
        ThresholdRule::Given(thresholds) => (groups, None, Some(float(thresholds.cast(DType::F32)))),
    }
}

/// The threshold of each group.
#[derive(Debug, Clone, Copy)]
struct GroupedFold {
    groups: Groups,
    fold: ScaledFold,
}

/// Returns the partial results of the threshold: those of the weight, or the given threshold as the only one.
fn partials<R: CubeRuntime>(
    rule: Option<GroupedFold>,
    latent: &CubeTensor<R>,
    given: Option<CubeTensor<R>>,
) -> Partials<R> {
    match (rule, given) {
        (Some(GroupedFold { groups, fold }), _) => Partials::of(latent, groups, fold),
        (None, Some(given)) => {
            let values = burn_cubecl::kernel::into_contiguous(given);
            // The sum of one number; unlike the maximum it keeps NaN.
            Partials { values, rule: ScaledFold { fold: Fold::Sum, factor: 1.0 } }
        }
        (None, None) => unreachable!("a threshold is computed or given"),
    }
}

#[derive(Debug, Clone)]
struct FindThreshold {
    groups: Groups,
    rule: ScaledFold,
}

impl Operation for FindThreshold {
    const NAME: &'static str = "ttq_threshold";

    fn outputs(&self, inputs: &[TensorSpec]) -> Vec<TensorSpec> {
        vec![(Shape::from([self.groups.groups, 1]), inputs[0].1)]
    }

    fn run<R: CubeRuntime>(&self, inputs: Vec<CubeTensor<R>>) -> Vec<CubeTensor<R>> {
        let latent = &inputs[0];
        vec![Partials::of(latent, self.groups, self.rule).finish(latent.dtype)]
    }
}

#[derive(Debug, Clone)]
struct FindKthSmallest {
    groups: Groups,
    k: usize,
}

impl Operation for FindKthSmallest {
    const NAME: &'static str = "ttq_smallest";

    fn outputs(&self, inputs: &[TensorSpec]) -> Vec<TensorSpec> {
        vec![(Shape::from([self.groups.groups, 1]), inputs[0].1)]
    }

    fn run<R: CubeRuntime>(&self, inputs: Vec<CubeTensor<R>>) -> Vec<CubeTensor<R>> {
        inputs.into_iter().map(|latent| kernels::order::kth_smallest(latent, self.groups, self.k)).collect()
    }
}

#[derive(Debug, Clone)]
struct Ternarize {
    groups: Groups,
    rule: Option<GroupedFold>,
}

impl Operation for Ternarize {
    const NAME: &'static str = "ttq_ternarize";

    fn outputs(&self, inputs: &[TensorSpec]) -> Vec<TensorSpec> {
        vec![inputs[0].clone()]
    }

    fn run<R: CubeRuntime>(&self, inputs: Vec<CubeTensor<R>>) -> Vec<CubeTensor<R>> {
        let mut inputs = inputs.into_iter();
        let [latent, scales] = [0; 2].map(|_| inputs.next().expect("a latent weight and its scales"));
        let partials = partials(self.rule, &latent, inputs.next());
        vec![kernels::ternarize::ternarize(latent, scales, partials, self.groups)]
    }
}

#[derive(Debug, Clone)]
struct ComputeGradients {
    groups: Groups,
    estimator: Estimator,
}

impl Operation for ComputeGradients {
    const NAME: &'static str = "ttq_gradients";

    fn outputs(&self, inputs: &[TensorSpec]) -> Vec<TensorSpec> {
        vec![inputs[1].clone(), inputs[2].clone()]
    }

    fn run<R: CubeRuntime>(&self, inputs: Vec<CubeTensor<R>>) -> Vec<CubeTensor<R>> {
        let mut inputs = inputs.into_iter();
        let [grad, ternary, scales] =
            [0; 3].map(|_| inputs.next().expect("a gradient, a ternary weight and its scales"));
        kernels::gradients::gradients(grad, ternary, scales, self.groups, self.estimator).into()
    }
}
