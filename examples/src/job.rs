//! What a command line asks for: to train a network, or to evaluate a checkpoint.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use burn::module::{AutodiffModule, ModuleDisplay};

use crate::backend::{Backends, select};
use crate::data::{DataError, Images};
use crate::model::{Classifier, Network};
use crate::{Options, Recipe, Run, RunConfig, Trains, evaluate, weights};

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
    backend: Backends,
    config: RunConfig,
    images: Images,
}

impl Job {
    /// Settles everything that can go wrong before the work starts.
    ///
    /// # Errors
    /// A backend that is absent, data or a checkpoint that cannot be had, and what [`Run::prepare`] refuses.
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
        println!("{} on {} ({why}), checkpoint {}", recipe.name, backend.name(), checkpoint.display());
        println!("data: {}", images.source);
        let config = RunConfig::new(recipe, options);
        Ok(Self::Evaluate(Box::new(CheckpointTest { checkpoint, backend, config, images })))
    }

    /// The backend it was given.
    pub fn backend(&self) -> Backends {
        match self {
            Self::Train(run) => run.backend,
            Self::Evaluate(test) => test.backend,
        }
    }

    /// The configuration.
    pub fn config(&self) -> &RunConfig {
        match self {
            Self::Train(run) => run.config(),
            Self::Evaluate(test) => &test.config,
        }
    }

    /// Does the job with the network that `network` makes for a number of classes.
    ///
    /// # Errors
    /// A checkpoint of another network, and what [`Run::train`] refuses.
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
                weights::load(&mut network, &test.checkpoint)?;
                let (evaluation, _) = evaluate::on_test(&Classifier::new(network.valid()), &test.images, &devices[0]);
                println!("{} images: {evaluation}", test.images.test.len());
                Ok(())
            }
        }
    }
}
