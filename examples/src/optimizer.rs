//! SGD and Adam as one type: burn-train is compiled for each type of optimizer, which takes long.

use burn::optim::adaptor::OptimizerAdaptor;
use burn::optim::momentum::MomentumConfig;
use burn::optim::{Adam, AdamConfig, AdamState, LearningRate, Sgd, SgdConfig, SgdState, SimpleOptimizer};
use burn::prelude::*;
use burn::record::Record;
use burn::tensor::backend::AutodiffBackend;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// The optimizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OptimizerChoice {
    /// Stochastic gradient descent with momentum 0.9.
    Sgd,
    /// Adam with PyTorch's defaults.
    Adam,
}

/// SGD or Adam.
#[derive(Clone)]
pub(crate) enum Rule<B: Backend> {
    Sgd(Sgd<B>),
    Adam(Adam),
}

/// The state of the optimizer.
#[derive(Record, Clone)]
pub(crate) struct RuleState<B: Backend, const D: usize> {
    sgd: Option<SgdState<B, D>>,
    adam: Option<AdamState<B, D>>,
}

impl OptimizerChoice {
    /// Creates the optimizer of a module's parameters.
    pub(crate) fn init<B: AutodiffBackend, M: burn::module::AutodiffModule<B>>(
        self,
    ) -> OptimizerAdaptor<Rule<B::InnerBackend>, M, B> {
        OptimizerAdaptor::from(match self {
            // As in PyTorch; Burn's default dampening is 0.1.
            Self::Sgd => {
                let momentum = MomentumConfig::new().with_momentum(0.9).with_dampening(0.0);
                Rule::Sgd(SgdConfig::new().with_momentum(Some(momentum)).build())
            }
            // As in PyTorch; Burn's default epsilon is 1e-5.
            Self::Adam => Rule::Adam(AdamConfig::new().with_epsilon(1e-8).build()),
        })
    }
}

impl<B: Backend> SimpleOptimizer<B> for Rule<B> {
    type State<const D: usize> = RuleState<B, D>;

    fn step<const D: usize>(
        &self,
        lr: LearningRate,
        tensor: Tensor<B, D>,
        grad: Tensor<B, D>,
        state: Option<RuleState<B, D>>,
    ) -> (Tensor<B, D>, Option<RuleState<B, D>>) {
        match self {
            Self::Sgd(sgd) => {
                let (tensor, sgd) = sgd.step(lr, tensor, grad, state.and_then(|state| state.sgd));
                (tensor, Some(RuleState { sgd, adam: None }))
            }
            Self::Adam(adam) => {
                let (tensor, adam) = adam.step(lr, tensor, grad, state.and_then(|state| state.adam));
                (tensor, Some(RuleState { sgd: None, adam }))
            }
        }
    }

    fn to_device<const D: usize>(state: RuleState<B, D>, device: &B::Device) -> RuleState<B, D> {
        RuleState {
            sgd: state.sgd.map(|state| Sgd::<B>::to_device(state, device)),
            adam: state.adam.map(|state| <Adam as SimpleOptimizer<B>>::to_device(state, device)),
        }
    }
}
