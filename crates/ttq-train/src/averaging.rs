//! Exponential moving averages of the parameters of a training.

use std::any::Any;
use std::collections::{HashMap, HashSet};

use burn::module::{AutodiffModule, Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::optim::GradientsParams;
use burn::prelude::*;
use burn::tensor::backend::AutodiffBackend;
use serde::{Deserialize, Serialize};
use ttq_core::ModulePath;

use crate::batch_norm::is_running_statistic;
use crate::optimizer::with_value;

/// An exponential moving average of a network's parameters, to be evaluated in place of the network (Polyak and Juditsky,
/// "Acceleration of Stochastic Approximation by Averaging", 1992; with decay: Tarvainen and Valpola, "Mean teachers", 2017,
/// arXiv 1703.01780).
///
/// With the values w after the update t = 1, 2, …, the average a and the decay d:
///
/// ```text
/// a_t = d_t a_{t-1} + (1 - d_t) w_t,    d_t = min(d, (1 + t) / (10 + t)),    a_0 = w_0
/// ```
///
/// The smaller d_t of the first updates is that of TensorFlow's `ExponentialMovingAverage`: the start counts little soon.
///
/// What is averaged are all float parameters that train, and the running statistics of batch normalization: to first order,
/// the average of the statistics of many networks is the statistic of their average. (Running statistics are those before the
/// last step, by which Burn's modules show them.) Constants, frozen parameters, integers and booleans are those of the network.
/// Parameters have to be float32: in 16 bits steps of 1 - d would be lost in rounding. Of a
/// [`Ternary`](ttq_core::Ternary) the average has latent weights and the parameters of the scales, by default logarithms,
/// and it is a ternary network like every other: its codes come from the averaged latent weights. Its batch normalization
/// can be fitted to them by [`reestimate_batch_norm`](crate::reestimate_batch_norm).
///
/// [`TernaryStep::with_averaging`](crate::TernaryStep::with_averaging) and [`PhaseConfig`](crate::PhaseConfig) average in a
/// training with burn-train. In a loop of your own:
///
/// ```
/// # use burn::backend::{Autodiff, Flex};
/// # use burn::module::AutodiffModule;
/// # use burn::nn::{Linear, LinearConfig};
/// # use ttq_core::{SelectionConfig, Ternary, TernaryConfig};
/// # use ttq_train::Averaging;
/// # type B = Autodiff<Flex>;
/// # let config = TernaryConfig::new().with_selection(SelectionConfig::new().with_keep_last_layer(false));
/// # let linear: Linear<B> = LinearConfig::new(4, 4).init(&Default::default());
/// # let ternary = Ternary::new(linear, &config)?;
/// let averaging = Averaging::new(0.999);
/// let mut average = ternary.valid();
/// for update in 1..=100 {
///     // ternary = optimizer.step(…);
///     average = averaging.update(average, &ternary, update);
/// }
/// let network = average.materialize();
/// # Ok::<(), ttq_core::TernaryError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Averaging {
    /// The decay d, above 0 and below 1. About the last 1 / (1 - d) updates count.
    pub decay: f64,
}

/// A decay of [`Averaging`] that is out of range.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("the decay of the average is {decay}: choose a number above 0 and below 1, such as 0.999")]
pub struct DecayError {
    /// The decay.
    pub decay: f64,
}

impl Averaging {
    /// Creates the configuration.
    pub fn new(decay: f64) -> Self {
        Self { decay }
    }

    /// Returns the configuration unchanged if the decay is in range.
    ///
    /// # Errors
    /// [`DecayError`].
    pub fn check(self) -> Result<Self, DecayError> {
        let decay = self.decay;
        if decay > 0.0 && decay < 1.0 { Ok(self) } else { Err(DecayError { decay }) }
    }

    /// Returns the decay d_t of the update number `t`, from 1.
    fn decay_of(self, t: usize) -> f64 {
        let t = t as f64;
        self.decay.min((1.0 + t) / (10.0 + t))
    }

    /// Computes the average after the update number `t`, from 1, from the one before it. The first one is `module.valid()`
    /// before the first update.
    pub fn update<B: AutodiffBackend, M: AutodiffModule<B>>(
        self,
        average: M::InnerModule,
        module: &M,
        t: usize,
    ) -> M::InnerModule {
        let values = Values::of(module);
        average.map(&mut Mix { values, rate: 1.0 - self.decay_of(t) })
    }
}

/// The parameters of a module on the inner backend, by identifier.
struct Values {
    path: ModulePath,
    values: GradientsParams,
    /// Integer and boolean tensors.
    others: HashMap<ParamId, Box<dyn Any + Send>>,
    /// Those that are averaged.
    averaged: HashSet<ParamId>,
}

impl Values {
    fn of<B: AutodiffBackend, M: Module<B>>(module: &M) -> Self {
        let mut values = Self {
            path: ModulePath::default(),
            values: GradientsParams::new(),
            others: HashMap::new(),
            averaged: HashSet::new(),
        };
        module.visit(&mut values);
        values
    }

    /// Returns an integer or boolean tensor.
    fn other<T: Clone + 'static>(&self, id: ParamId) -> Option<T> {
        self.others.get(&id)?.downcast_ref().cloned()
    }
}

impl<B: AutodiffBackend> ModuleVisitor<B> for Values {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        self.values.register(param.id, param.val().inner());
        if param.is_require_grad() || is_running_statistic(&self.path) {
            self.averaged.insert(param.id);
        }
    }

    fn visit_int<const D: usize>(&mut self, param: &Param<Tensor<B, D, Int>>) {
        self.others.insert(param.id, Box::new(param.val().inner()));
    }

    fn visit_bool<const D: usize>(&mut self, param: &Param<Tensor<B, D, Bool>>) {
        self.others.insert(param.id, Box::new(param.val().inner()));
    }
}

/// Returns the path of the first parameter that trains in a type of 16 bits.
pub(crate) fn first_in_16_bits<B: Backend, M: Module<B>>(module: &M) -> Option<String> {
    let mut visitor = FirstIn16Bits::default();
    module.visit(&mut visitor);
    visitor.found
}

#[derive(Default)]
struct FirstIn16Bits {
    path: ModulePath,
    found: Option<String>,
}

impl<B: Backend> ModuleVisitor<B> for FirstIn16Bits {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        if self.found.is_none() && param.is_require_grad() && param.val().dtype().size() < 4 {
            self.found = Some(self.path.joined());
        }
    }
}

/// Moves averages towards the values of their network.
struct Mix {
    values: Values,
    rate: f64,
}

impl<B: Backend> ModuleMapper<B> for Mix {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let Some(value) = self.values.values.get::<B, D>(param.id) else { return param };
        let is_averaged = self.values.averaged.contains(&param.id);
        param.map(|average| {
            if !is_averaged {
                return value;
            }
            // In this form the average of equal values is exactly that value.
            let average = average.to_device(&value.device());
            average.clone() + (value - average).mul_scalar(self.rate)
        })
    }

    fn map_int<const D: usize>(&mut self, param: Param<Tensor<B, D, Int>>) -> Param<Tensor<B, D, Int>> {
        let value = self.values.other(param.id);
        param.map(|average| value.unwrap_or(average))
    }

    fn map_bool<const D: usize>(&mut self, param: Param<Tensor<B, D, Bool>>) -> Param<Tensor<B, D, Bool>> {
        let value = self.values.other(param.id);
        param.map(|average| value.unwrap_or(average))
    }
}

/// Returns `module` with the values of its average. It shares running statistics with all its clones, which change too.
pub(crate) fn with_values_of<B: AutodiffBackend, M: Module<B>>(module: M, average: &M) -> M {
    module.map(&mut Replace { values: Values::of(average) })
}

struct Replace {
    values: Values,
}

impl<B: AutodiffBackend> ModuleMapper<B> for Replace {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        match self.values.values.get::<B::InnerBackend, D>(param.id) {
            Some(value) => with_value(param, value),
            None => param,
        }
    }

    fn map_int<const D: usize>(&mut self, param: Param<Tensor<B, D, Int>>) -> Param<Tensor<B, D, Int>> {
        let value = self.values.other(param.id);
        param.map(|own| value.map_or(own, Tensor::from_inner))
    }

    fn map_bool<const D: usize>(&mut self, param: Param<Tensor<B, D, Bool>>) -> Param<Tensor<B, D, Bool>> {
        let value = self.values.other(param.id);
        param.map(|own| value.map_or(own, Tensor::from_inner))
    }
}
