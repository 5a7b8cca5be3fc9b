//! What networks learn: data in batches, and the measure by which networks are compared.

use std::fmt::{self, Debug};
use std::hash::Hasher;
use std::sync::Arc;

use anyhow::Result;
use burn::prelude::*;
use burn::tensor::backend::AutodiffBackend;
use ttq_report::record::Evidence;
use ttq_train::{MetricGoal, ReproducibleLoader};

use crate::evaluate::Evaluation;
use crate::model::{Batch, Network};
use crate::{Job, RunConfig, Trains};

/// A task: data whose inputs belong to one of several classes each, and everything in a run that depends on their kind.
pub trait Task: Send + Sync + Sized + 'static {
    /// The inputs of a batch.
    type Inputs<B: Backend>: Clone + Debug + Send + 'static;
    /// An item of the data before it becomes part of a batch.
    type Item: Send + 'static;
    /// The size of an input, on which the number of a layer's output positions depends.
    type Size: Copy;
    /// The measure by which networks are compared.
    const SCORE: Score;

    /// Returns the origin of the data, in one line.
    fn source(&self) -> &str;

    /// Adds all data to a checksum.
    fn hash_data(&self, hasher: &mut impl Hasher);

    /// Returns the number of classes.
    fn classes(&self) -> usize;

    /// Returns the size of an input.
    fn size(&self) -> Self::Size;

    /// Adopts the settings of a run: limits the training data and holds out those for validation.
    fn configure(&mut self, config: &RunConfig);

    /// Checks that there are data to train on and to validate on.
    ///
    /// # Errors
    /// Too few data.
    fn check(&self) -> Result<()>;

    /// Checks that there are data to test on.
    ///
    /// # Errors
    /// Too few data.
    fn check_test(&self) -> Result<()>;

    /// Checks that a network in training learns from batches of one input.
    ///
    /// # Errors
    /// An output that does not depend on the input.
    fn check_batch_of_one<B: Backend, N: Network<B, Task = Self>>(
        &self,
        network: &N,
        device: &B::Device,
    ) -> Result<()> {
        let _ = (network, device);
        Ok(())
    }

    /// Returns the loader of training batches on a device.
    fn training<B: Backend>(self: &Arc<Self>, config: &RunConfig, device: B::Device) -> Loader<B, Self>;

    /// Returns the loader of validation batches.
    fn validation<B: Backend>(self: &Arc<Self>) -> Loader<B, Self>;

    /// Returns the batches of the test data.
    fn test<B: Backend>(&self, device: &B::Device) -> impl Iterator<Item = Batch<B, Self::Inputs<B>>>;

    /// Returns inputs without the graph of the autodiff backend.
    fn inner<B: AutodiffBackend>(inputs: Self::Inputs<B>) -> Self::Inputs<B::InnerBackend>;

    /// Returns the configuration of a packed network, as JSON: what a program needs to use it.
    ///
    /// # Errors
    /// A value that JSON does not have.
    fn packed_config(&self, run: &RunConfig) -> Result<String>;

    /// Adds what a report shows of the data: classes, and the predictions that are most wrong.
    fn add_to_evidence(&self, evidence: &mut Evidence);

    /// Runs a job with the network of its configuration.
    ///
    /// # Errors
    /// The errors of [`Job::start`].
    fn start<B: Trains>(job: Job<Self>, devices: Vec<B::Device>) -> Result<()>;
}

/// The loader of a task's batches.
pub type Loader<B, T> = ReproducibleLoader<B, <T as Task>::Item, Batch<B, <T as Task>::Inputs<B>>>;

/// The measure by which networks are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Score {
    /// The share of inputs whose class has the highest logit.
    Accuracy,
    /// The exponential of the mean cross-entropy: the number of equally probable classes with the same uncertainty.
    Perplexity,
}

impl Score {
    /// Returns the validation metric that decides between epochs.
    pub(crate) fn goal(self) -> MetricGoal {
        match self {
            Self::Accuracy => MetricGoal::maximize("Accuracy"),
            Self::Perplexity => MetricGoal::minimize("Loss"),
        }
    }

    /// Returns the change of that metric that counts as an improvement: a percentage point, or 0.01 nats.
    pub(crate) fn improvement(self) -> f64 {
        match self {
            Self::Accuracy => 1.0,
            Self::Perplexity => 0.01,
        }
    }

    /// Writes the results of a network in one line.
    pub(crate) fn line(self, evaluation: &Evaluation) -> impl fmt::Display {
        match self {
            Self::Accuracy => evaluation.to_string(),
            Self::Perplexity => format!(
                "perplexity {:.3} per byte, {:.3} bits per byte, {:.2} % of the next bytes right",
                evaluation.perplexity(),
                evaluation.bits(),
                evaluation.accuracy
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evaluation(loss: f64, accuracy: f64) -> Evaluation {
        Evaluation { accuracy, top5: 100.0, loss }
    }

    /// The value of the metric that a goal watches.
    fn watched(goal: &MetricGoal, evaluation: Evaluation) -> f64 {
        if goal.metric() == "Accuracy" { evaluation.accuracy } else { evaluation.loss }
    }

    #[test]
    fn the_better_epoch_has_the_higher_accuracy_or_the_lower_perplexity() {
        // The second epoch is more accurate, the first one is less perplexed.
        let (first, second) = (evaluation(1.0, 50.0), evaluation(1.5, 60.0));
        let second_is_better = |score: Score| {
            let goal = score.goal();
            goal.is_better(watched(&goal, second), watched(&goal, first))
        };
        assert!(second_is_better(Score::Accuracy) && !second_is_better(Score::Perplexity));
        assert!(first.perplexity() < second.perplexity());
    }
}
