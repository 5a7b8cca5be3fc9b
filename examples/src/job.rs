//! The task of a command line: to train a network, or to evaluate a checkpoint.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use burn::module::{AutodiffModule, ModuleDisplay};

use crate::backend::{RunBackend, select};
use crate::data::{DataError, Images};
use crate::model::{Classifier, Network};
use crate::{Options, Recipe, Run, RunConfig, Trains, evaluate, print_line, weights};

/// A job that is ready to start.
pub enum Job {
    /// Training.
    Train(Box<Run>),
    /// Evaluation of a checkpoint.
    Evaluate(Box<CheckpointTest>),
}

/// A checkpoint and the images that it is evaluated on.
pub struct CheckpointTest {
    checkpoint: PathBuf,
    backend: RunBackend,
    config: RunConfig,
    images: Images,
}

impl Job {
    /// Validates the options and loads the data.
    ///
    /// # Errors
    /// A missing backend, missing or damaged data, a missing checkpoint, and the errors of [`Run::prepare`].
    pub fn prepare(
        recipe: &Recipe,
        options: &Options,
        load: fn(Option<&Path>) -> Result<Images, DataError>,
    ) -> Result<Self> {
        let Some(checkpoint) = options.eval.clone() else {
            return Ok(Self::Train(Box::new(Run::prepare(recipe, options, load)?)));
        };
        let (backend, why) = select(options.backend, options.devices)?;
        let backend = backend.in_precision(options.precision)?;
        if !checkpoint.is_file() {
            bail!("there is no checkpoint at {}: check --eval", checkpoint.display());
        }
        let images = load(options.data.as_deref())?;
        print_line(format_args!("{} on {} ({why}), checkpoint {}", recipe.name, backend.name(), checkpoint.display()));
        print_line(format_args!("data: {}", images.source));
        let config = RunConfig::new(recipe, options);
        Ok(Self::Evaluate(Box::new(CheckpointTest { checkpoint, backend, config, images })))
    }

    /// Returns the backend.
    pub fn backend(&self) -> RunBackend {
        match self {
            Self::Train(run) => run.backend,
            Self::Evaluate(test) => test.backend,
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
        N: Network<B> + AutodiffModule<B> + ModuleDisplay + 'static,
        N::InnerModule: Network<B::InnerBackend> + ModuleDisplay,
    {
        match self {
            Self::Train(run) => run.train(devices, network),
            Self::Evaluate(test) => {
                let mut network = network(test.images.classes, &devices[0]);
                weights::load(&mut network, &test.checkpoint, test.config.key.as_deref())?;
                let (evaluation, _) = evaluate::evaluate(&Classifier::new(network.valid()), &test.images, &devices[0]);
                print_line(format_args!("{} images: {evaluation}", test.images.test.len()));
                Ok(())
            }
        }
    }
}
