//! Detection of a training that diverges.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use burn::module::{Module, ModuleVisitor, Param};
use burn::prelude::*;
use burn::train::logger::MetricLogger;
use burn::train::metric::store::{EpochSummary, EventStoreClient, MetricsUpdate, Split};
use burn::train::metric::{MetricDefinition, MetricId, NumericEntry};
use burn::train::{EarlyStoppingStrategy, Interrupter};
use ttq_core::{ModulePath, Ternary};

use crate::{EarlyStopping, History};

/// Name of Burn's [`LossMetric`](burn::train::metric::LossMetric).
const LOSS: &str = "Loss";

/// A value that is not finite, and where it appeared.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Divergence {
    pub(crate) epoch: usize,
    pub(crate) batch: usize,
    /// The metric that is not finite. `None` if a weight is not finite and all metrics are.
    pub(crate) metric: Option<(String, f64)>,
    /// The first weight that is not finite in this step.
    pub(crate) weight: Option<String>,
}

/// Finds the first weight that is not finite in the model of one training step.
pub(crate) type WeightProbe = Box<dyn FnOnce() -> Option<String> + Send>;

/// Watches the metrics of a training, and the weights after the last batch of each epoch. Within an epoch it reads no
/// tensor while the metrics are finite: each step leaves handles of its weights, and the logger drops them when it has
/// seen the metrics of that step. It is a handle: clones share one state.
#[derive(Clone)]
pub(crate) struct Watch {
    shared: Arc<Mutex<State>>,
    history: History,
    /// Stops the training at once. Workers of a distributed training ask for it at different batches, and those that go on
    /// would wait for the others: without it, [`EndOfEpoch`] stops them.
    interrupter: Option<Interrupter>,
    /// Number of outputs of one step.
    devices: usize,
}

#[derive(Default)]
struct State {
    probes: VecDeque<WeightProbe>,
    names: HashMap<MetricId, String>,
    outputs: usize,
    /// The weights of the last output.
    last: Option<WeightProbe>,
    found: Option<Divergence>,
    /// The last epoch after which a worker asked whether to stop, and the answer.
    answer: Option<(usize, bool)>,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}

impl Watch {
    pub(crate) fn new(history: History, interrupter: Option<Interrupter>, devices: usize) -> Self {
        Self { shared: Arc::default(), history, interrupter, devices }
    }

    /// Adds the weights of a step. burn-train synchronizes the output of a step right before it computes its metrics,
    /// so that probes arrive in the order of the logger's calls.
    pub(crate) fn push(&self, probe: WeightProbe) {
        self.lock().probes.push_back(probe);
    }

    pub(crate) fn found(&self) -> Option<Divergence> {
        self.lock().found.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Checks the metrics of one output. A loss that is not finite stops the training; any other metric does if a
    /// weight is not finite either, since some metrics are undefined on a batch.
    fn check(&self, update: &MetricsUpdate) {
        let mut state = self.lock();
        state.outputs += 1;
        state.last = state.probes.pop_front();
        if state.found.is_some() {
            return;
        }
        let values = update.entries_numeric.iter().map(|numeric| {
            let name = state.names.get(&numeric.entry.metric_id).cloned().unwrap_or_default();
            (name, numeric.numeric_entry.current())
        });
        let mut undefined: Vec<_> = values.filter(|(_, value)| !value.is_finite()).collect();
        undefined.sort_by_key(|(name, _)| name != LOSS);
        let Some((metric, value)) = undefined.into_iter().next() else { return };
        let weight = state.last.take().and_then(|probe| probe());
        if metric == LOSS || weight.is_some() {
            self.stop(&mut state, Some((metric, value)), weight);
        }
    }

    /// Checks the weights of the last step of an epoch, which metrics can hide: `max(x, 0)` of a NaN is 0 on some
    /// backends.
    fn end_epoch(&self) {
        let mut state = self.lock();
        let weight = state.last.take().and_then(|probe| probe());
        if state.found.is_none() && weight.is_some() {
            self.stop(&mut state, None, weight);
        }
        state.outputs = 0;
    }

    fn stop(&self, state: &mut State, metric: Option<(String, f64)>, weight: Option<String>) {
        let epoch = self.history.epochs().last().map_or(1, |last| last.epoch + 1);
        let batch = state.outputs.div_ceil(self.devices.max(1));
        state.found = Some(Divergence { epoch, batch, metric, weight });
        if let Some(interrupter) = &self.interrupter {
            interrupter.stop(Some("the training diverged"));
        }
    }

    /// Returns whether the training has diverged, with the same answer for all workers that ask after this epoch.
    fn stops_after(&self, epoch: usize) -> bool {
        let mut state = self.lock();
        let found = state.found.is_some();
        match state.answer {
            Some((asked, answer)) if asked == epoch => answer,
            _ => state.answer.insert((epoch, found)).1,
        }
    }
}

/// Ends the training of several workers after the epoch in which it diverged, or by the rule of early stopping.
#[derive(Clone)]
pub(crate) struct EndOfEpoch {
    pub(crate) watch: Watch,
    /// The validation metric of the goal.
    pub(crate) metric: String,
    pub(crate) early_stopping: Option<EarlyStopping>,
}

impl EarlyStoppingStrategy for EndOfEpoch {
    fn should_stop(&mut self, epoch: usize, store: &EventStoreClient) -> bool {
        self.watch.history.wait_valid(epoch, &self.metric);
        let stopped = self.early_stopping.as_mut().is_some_and(|rule| rule.should_stop(epoch, store));
        self.watch.stops_after(epoch) || stopped
    }
}

/// A metric logger that shows the metrics of training to a [`Watch`] before it passes them on.
pub(crate) struct WatchLogger<L> {
    pub(crate) inner: L,
    pub(crate) watch: Watch,
}

impl<L: MetricLogger> MetricLogger for WatchLogger<L> {
    fn log(&mut self, update: MetricsUpdate, epoch: usize, split: &Split) {
        if *split == Split::Train {
            self.watch.check(&update);
        }
        self.inner.log(update, epoch, split);
    }

    fn read_numeric(&mut self, name: &str, epoch: usize, split: &Split) -> Result<Vec<NumericEntry>, String> {
        self.inner.read_numeric(name, epoch, split)
    }

    fn log_metric_definition(&mut self, definition: MetricDefinition) {
        self.watch.lock().names.insert(definition.metric_id.clone(), definition.name.clone());
        self.inner.log_metric_definition(definition);
    }

    fn log_epoch_summary(&mut self, summary: EpochSummary) {
        if summary.split == Split::Train {
            self.watch.end_epoch();
        }
        self.inner.log_epoch_summary(summary);
    }
}

/// The parameters that [`first_not_finite`] reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Parameters {
    /// All. One that does not require a gradient may be infinite, as a mask is, but not NaN.
    All,
    /// Those that require a gradient. Running statistics, which do not, are shared with later steps.
    Trained,
}

/// Returns the path of the first weight of a wrapper that is not finite, in the order of its module; then those of its
/// scales.
pub(crate) fn first_not_finite<B: Backend, M: Module<B>>(
    ternary: &Ternary<B, M>,
    parameters: Parameters,
) -> Option<String> {
    let mut visitor = FirstNotFinite { parameters, path: ModulePath::default(), found: None };
    ternary.latent().visit(&mut visitor);
    let scales = || {
        let paths = ternary.selection().ternary().map(|choice| &choice.path);
        let mut scales = paths.zip(ternary.scales()).filter(|(_, scales)| !is_finite(&scales.val()));
        scales.next().map(|(path, _)| format!("{path} (its scales)"))
    };
    visitor.found.or_else(scales)
}

struct FirstNotFinite {
    parameters: Parameters,
    path: ModulePath,
    found: Option<String>,
}

impl<B: Backend> ModuleVisitor<B> for FirstNotFinite {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        if self.found.is_some() {
            return;
        }
        let is_valid = match (param.is_require_grad(), self.parameters) {
            (true, _) => is_finite(&param.val()),
            (false, Parameters::All) => !has_nan(&param.val()),
            (false, Parameters::Trained) => true,
        };
        if !is_valid {
            self.found = Some(self.path.joined());
        }
    }
}

fn has_nan<B: Backend, const D: usize>(tensor: &Tensor<B, D>) -> bool {
    tensor.clone().is_nan().any().into_data().iter::<bool>().any(|nan| nan)
}

fn is_finite<B: Backend, const D: usize>(tensor: &Tensor<B, D>) -> bool {
    tensor.clone().is_finite().all().into_data().iter::<bool>().all(|finite| finite)
}
