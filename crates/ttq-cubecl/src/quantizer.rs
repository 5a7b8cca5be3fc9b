//! The quantizer's operations on tensors.

use burn::prelude::*;
use burn::tensor::TensorPrimitive;
use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use burn_std::{DType, Shape};

use crate::kernels;
use crate::kernels::gradients::Estimator;
use crate::kernels::layout::{Fold, Groups};
use crate::kernels::threshold::{Pieces, Rule};
use crate::operation::{Erased, Form, Operation, float, run};

/// Rule for the threshold Δ of a group of `n` weights.
#[derive(Debug, Clone)]
pub enum Threshold<B: Backend> {
    /// `t · max|w|`
    MaxFraction(f64),
    /// `f · mean|w|`
    MeanFraction(f64),
    /// These, `[groups, 1]`.
    Given(Tensor<B, 2>),
}

/// Which gradients the backward function gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gradients {
    /// `∂L/∂w = g · (W_p | 1 | W_n)`, or else `g`.
    pub scaled_latent: bool,
    /// `∂L/∂W_n = -Σ g` over the negative side, the exact one, or else `+Σ g`.
    pub exact_sign: bool,
}

/// Do the kernels take this tensor? It must lie on a device of a runtime that they were compiled for, be neither empty nor larger than
/// 2³¹ elements, and be of a float type that the device computes with (float32, float16, bfloat16).
pub fn takes<B: Backend, const D: usize>(weight: &Tensor<B, D>) -> bool {
    let elements = weight.shape().num_elements();
    crate::operation::takes::<B>()
        && (1..=1 << 31).contains(&elements)
        && match weight.dtype() {
            DType::F32 => true,
            dtype @ (DType::F16 | DType::BF16) => B::supports_dtype(&weight.device(), dtype),
            _ => false,
        }
}

/// The threshold of each group of a weight: one for each index along `channel_axis`, or one for all. `[groups, 1]`
///
/// # Panics
/// Where the kernels do not take the weight ([`takes`]).
pub fn threshold<B: Backend, const D: usize>(
    latent: Tensor<B, D>,
    threshold: Threshold<B>,
    channel_axis: Option<usize>,
) -> Tensor<B, 2> {
    let groups = Groups::new(&latent.dims(), channel_axis);
    let rule = match threshold {
        Threshold::Given(thresholds) => return thresholds,
        Threshold::MaxFraction(t) => max(t),
        Threshold::MeanFraction(f) => mean(f, groups),
    };
    tensor(run::<B, _>(&FindThreshold { groups, rule }, vec![float(latent)]).remove(0))
}

/// The `k`-th smallest magnitude of each group of a weight, with `k` from 1 to the number of its members: what sorting them would give.
/// `[groups, 1]`
///
/// # Panics
/// Where the kernels do not take the weight ([`takes`]), or `k` is out of range.
pub fn smallest<B: Backend, const D: usize>(
    latent: Tensor<B, D>,
    k: usize,
    channel_axis: Option<usize>,
) -> Tensor<B, 2> {
    let groups = Groups::new(&latent.dims(), channel_axis);
    assert!((1..=groups.members).contains(&k), "smallest: there is no number {k} of {}", groups.members);
    tensor(run::<B, _>(&FindSmallest { groups, k }, vec![float(latent)]).remove(0))
}

/// The ternary weight of a latent one, in its shape and type:
///
/// ```text
/// q_i = +W_p where w_i > Δ, -W_n where w_i < -Δ, 0 elsewhere
/// ```
///
/// Scales are `[groups, 2]`, W_p then W_n. Nothing is differentiated.
///
/// # Panics
/// Where the kernels do not take the weight ([`takes`]).
pub fn ternarize<B: Backend, const D: usize>(
    latent: Tensor<B, D>,
    scales: Tensor<B, 2>,
    threshold: Threshold<B>,
    channel_axis: Option<usize>,
) -> Tensor<B, D> {
    let groups = Groups::new(&latent.dims(), channel_axis);
    let (rule, given) = rule(threshold, groups);
    let inputs = [float(latent), float(scales)].into_iter().chain(given).collect();
    tensor(run::<B, _>(&Ternarize { groups, rule }, inputs).remove(0))
}

/// The gradients of a latent weight, in its shape and type, and of its scales, `[groups, 2]`, from the gradient `g = ∂L/∂q` of the ternary
/// weight:
///
/// ```text
/// ∂L/∂w_i =  g_i · (W_p where w_i > Δ, W_n where w_i < -Δ, 1 elsewhere)
/// ∂L/∂W_p =  Σ g_i where w_i >  Δ
/// ∂L/∂W_n = -Σ g_i where w_i < -Δ
/// ```
///
/// # Panics
/// Where the kernels do not take the weight ([`takes`]).
pub fn gradients<B: Backend, const D: usize>(
    grad: Tensor<B, D>,
    latent: Tensor<B, D>,
    scales: Tensor<B, 2>,
    threshold: Threshold<B>,
    channel_axis: Option<usize>,
    gradients: Gradients,
) -> (Tensor<B, D>, Tensor<B, 2>) {
    let groups = Groups::new(&latent.dims(), channel_axis);
    let (rule, given) = rule(threshold, groups);
    let estimator = Estimator { scaled: gradients.scaled_latent, sign: if gradients.exact_sign { -1.0 } else { 1.0 } };
    let inputs = [float(grad), float(latent), float(scales)].into_iter().chain(given).collect();
    let mut outputs = run::<B, _>(&PullBack { groups, rule, estimator }, inputs);
    let of_scales = outputs.remove(1);
    (tensor(outputs.remove(0)), tensor(of_scales))
}

fn tensor<B: Backend, const D: usize>(primitive: B::FloatTensorPrimitive) -> Tensor<B, D> {
    Tensor::from_primitive(TensorPrimitive::Float(primitive))
}

fn max(fraction: f64) -> Rule {
    Rule { fold: Fold::Max, factor: fraction as f32 }
}

fn mean(fraction: f64, groups: Groups) -> Rule {
    Rule { fold: Fold::Sum, factor: (fraction / groups.members as f64) as f32 }
}

/// The rule of a threshold that is to be found, or the threshold.
fn rule<B: Backend>(threshold: Threshold<B>, groups: Groups) -> (Option<Rule>, Option<Erased>) {
    match threshold {
        Threshold::MaxFraction(t) => (Some(max(t)), None),
        Threshold::MeanFraction(f) => (Some(mean(f, groups)), None),
        Threshold::Given(thresholds) => (None, Some(float(thresholds.cast(DType::F32)))),
    }
}

/// The pieces of the threshold: those of the weight, or the threshold as the only one.
fn pieces<R: CubeRuntime>(
    rule: Option<Rule>,
    groups: Groups,
    latent: &CubeTensor<R>,
    given: Option<CubeTensor<R>>,
) -> Pieces<R> {
    match (rule, given) {
        (Some(rule), _) => Pieces::of(latent, groups, rule),
        (None, Some(given)) => {
            let pieces = burn_cubecl::kernel::into_contiguous(given);
            Pieces { pieces, rule: Rule { fold: Fold::Max, factor: 1.0 } }
        }
        (None, None) => unreachable!("a threshold is found or given"),
    }
}

#[derive(Debug, Clone)]
struct FindThreshold {
    groups: Groups,
    rule: Rule,
}

impl Operation for FindThreshold {
    const NAME: &'static str = "ttq_threshold";

    fn outputs(&self, inputs: &[Form]) -> Vec<Form> {
        vec![(Shape::from([self.groups.groups, 1]), inputs[0].1)]
    }

    fn run<R: CubeRuntime>(&self, inputs: Vec<CubeTensor<R>>) -> Vec<CubeTensor<R>> {
        let latent = &inputs[0];
        vec![Pieces::of(latent, self.groups, self.rule).finish(latent.dtype)]
    }
}

#[derive(Debug, Clone)]
struct FindSmallest {
    groups: Groups,
    k: usize,
}

impl Operation for FindSmallest {
    const NAME: &'static str = "ttq_smallest";

    fn outputs(&self, inputs: &[Form]) -> Vec<Form> {
        vec![(Shape::from([self.groups.groups, 1]), inputs[0].1)]
    }

    fn run<R: CubeRuntime>(&self, inputs: Vec<CubeTensor<R>>) -> Vec<CubeTensor<R>> {
        inputs.into_iter().map(|latent| kernels::order::smallest(latent, self.groups, self.k)).collect()
    }
}

#[derive(Debug, Clone)]
struct Ternarize {
    groups: Groups,
    rule: Option<Rule>,
}

impl Operation for Ternarize {
    const NAME: &'static str = "ttq_ternarize";

    fn outputs(&self, inputs: &[Form]) -> Vec<Form> {
        vec![inputs[0].clone()]
    }

    fn run<R: CubeRuntime>(&self, inputs: Vec<CubeTensor<R>>) -> Vec<CubeTensor<R>> {
        let mut inputs = inputs.into_iter();
        let [latent, scales] = [0; 2].map(|_| inputs.next().expect("a latent weight and its scales"));
        let pieces = pieces(self.rule, self.groups, &latent, inputs.next());
        vec![kernels::ternarize::ternarize(latent, scales, pieces, self.groups)]
    }
}

#[derive(Debug, Clone)]
struct PullBack {
    groups: Groups,
    rule: Option<Rule>,
    estimator: Estimator,
}

impl Operation for PullBack {
    const NAME: &'static str = "ttq_gradients";

    fn outputs(&self, inputs: &[Form]) -> Vec<Form> {
        vec![inputs[1].clone(), inputs[2].clone()]
    }

    fn run<R: CubeRuntime>(&self, inputs: Vec<CubeTensor<R>>) -> Vec<CubeTensor<R>> {
        let mut inputs = inputs.into_iter();
        let [grad, latent, scales] = [0; 3].map(|_| inputs.next().expect("a gradient, a latent weight and its scales"));
        let pieces = pieces(self.rule, self.groups, &latent, inputs.next());
        kernels::gradients::gradients(grad, latent, scales, pieces, self.groups, self.estimator).into()
    }
}
