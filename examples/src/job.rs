//! What a command line asks for: to train a network, or to evaluate a checkpoint.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::backend::{RunBackend, select};
use crate::data::{DataError, Images};
use crate::model::{Classifier, TrainableNetwork};
use crate::processes::is_first;
use crate::{Options, Recipe, Run, RunConfig, Task, Trains, check_evaluation, evaluate, print_line, weights};

/// A job that is ready to start.
pub enum Job<T: Task = Images> {
    /// Training.
    Train(Box<Run<T>>),
    /// Evaluation of a checkpoint.
    Evaluate(Box<CheckpointTest<T>>),
}

/// A checkpoint and the data that it is evaluated on.
pub struct CheckpointTest<T> {
    checkpoint: PathBuf,
    backend: RunBackend,
    config: RunConfig,
    task: T,
}

impl<T: Task> Job<T> {
    /// Validates the options and loads the data.
    ///
    /// # Errors
    /// A missing backend, missing or damaged data, a missing checkpoint, and the errors of [`Run::prepare`].
    pub fn prepare(
        recipe: &Recipe,
        options: &Options,
        load: fn(Option<&Path>) -> Result<T, DataError>,
    ) -> Result<Self> {
        let Some(checkpoint) = options.eval.clone() else {
            return Ok(Self::Train(Box::new(Run::prepare(recipe, options, load)?)));
        };
        check_evaluation(options)?;
        let config = RunConfig::new(recipe, options);
        let (backend, why) = select(options.backend, options.devices)?;
        let backend = backend.in_precision(options.precision)?;
        weights::check_file("eval", &checkpoint, &config)?;
        let mut task = load(options.data.as_deref())?;
        print_line(format_args!("{} on {} ({why}), checkpoint {}", recipe.name, backend.name(), checkpoint.display()));
        print_line(format_args!("data: {}", task.source()));
        task.configure(&config);
        task.check_test()?;
        Ok(Self::Evaluate(Box::new(CheckpointTest { checkpoint, backend, config, task })))
    }

    /// Returns the backend.
    pub fn backend(&self) -> RunBackend {
        match self {
            Self::Train(run) => run.backend,
            Self::Evaluate(test) => test.backend,
        }
    }

    /// Returns the directory of the run; `None` for an evaluation.
    pub fn directory(&self) -> Option<&Path> {
        match self {
            Self::Train(run) => Some(run.directory()),
            Self::Evaluate(_) => None,
        }
    }

    /// Returns the configuration.
    pub fn config(&self) -> &RunConfig {
        match self {
            Self::Train(run) => run.config(),
            Self::Evaluate(test) => &test.config,
        }
    }

    /// Runs the job on the devices with the network that `network` creates for a number of classes.
    ///
    /// # Errors
    /// A checkpoint of another network, and the errors of [`Run::train`].
    pub fn start<B, N>(self, devices: Vec<B::Device>, network: impl Fn(usize, &B::Device) -> N) -> Result<()>
    where
        B: Trains,
        N: TrainableNetwork<B, Task = T>,
    {
        match self {
            Self::Train(run) => run.train(devices, network),
            Self::Evaluate(_) if !is_first() => Ok(()),
            Self::Evaluate(test) => {
                let mut network = network(test.task.classes(), &devices[0]);
                weights::load(&mut network, &test.checkpoint, test.config.key.as_deref())?;
                let classifier = Classifier::new(network.valid());
                let (evaluation, _) = evaluate::evaluate(&classifier, &test.task, &devices[0]);
                print_line(format_args!("test data: {}", T::SCORE.line(&evaluation)));
                Ok(())
            }
        }
    }
}
