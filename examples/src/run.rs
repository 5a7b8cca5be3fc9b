//! A run from the command line to the table at its end.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use burn::module::{AutodiffModule, ModuleDisplay};
use burn::prelude::*;
use burn::train::Interrupter;
use serde::{Deserialize, Serialize};
use ttq_core::Ternary;
use ttq_report::record::Evidence;
use ttq_train::{Phase, TernaryStep};

use crate::backend::{Backends, select};
use crate::data::{DataError, ImageSet, Images};
use crate::deploy;
use crate::evaluate;
use crate::evidence;
use crate::freeze::freeze_first_convolution;
use crate::model::{Classifier, Network};
use crate::out::{Out, read_json, write_json};
use crate::phase::{End, Plan, train};
use crate::{Options, Recipe, RunConfig, Summary, Trains, weights};

/// Runs `example`. An error is one sentence and exit code 1.
pub fn exit(example: impl FnOnce() -> Result<()>) -> ExitCode {
    match example() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A run that is ready to start: its configuration is settled, its directory made, its data loaded.
pub struct Run {
    /// The backend it was given.
    pub backend: Backends,
    config: RunConfig,
    out: Out,
    images: Images,
    dashboard: bool,
    interrupter: Interrupter,
}

/// What a run has trained.
struct Trained<B: Backend, N: Module<B> + ModuleDisplay> {
    /// File of the network in full precision. (A clone of the trained one would share its batch statistics with the ternary
    /// network.)
    full_precision: Option<PathBuf>,
    ternary: Option<Ternary<B, Classifier<B, N>>>,
}

/// Time spent in earlier sittings, `time.json`.
#[derive(Serialize, Deserialize)]
struct Time {
    seconds: f64,
}

/// Stops training where the user or the clock says so.
fn interrupter(minutes: Option<f64>) -> Result<Interrupter> {
    let interrupter = Interrupter::new();
    let handle = interrupter.clone();
    ctrlc::set_handler(move || {
        if handle.should_stop() {
            std::process::exit(130);
        }
        eprintln!("stopping after this batch; press Ctrl-C again to stop at once");
        handle.stop(Some("stopped by the user"));
    })
    .context("cannot listen for Ctrl-C")?;
    if let Some(minutes) = minutes {
        let handle = interrupter.clone();
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_secs_f64(60.0 * minutes));
            handle.stop(Some("the minutes are over"));
        });
    }
    Ok(interrupter)
}

impl Run {
    /// Settles everything that can go wrong before training starts.
    ///
    /// # Errors
    /// A backend that is absent, data that cannot be had, a directory that cannot be written, a configuration that makes no
    /// sense.
    pub fn prepare(
        recipe: &Recipe,
        options: &Options,
        load: fn(Option<&Path>) -> Result<Images, DataError>,
    ) -> Result<Self> {
        let config = RunConfig::new(recipe, options);
        if config.fp_epochs + config.epochs == 0 {
            bail!("there is nothing to train: raise --fp-epochs or --epochs");
        }
        let (device, why) = select(options.backend, options.devices)?;
        device.in_precision(config.precision)?;
        options.strategy.check(device, options)?;
        if let Some(init) = config.init.as_ref().filter(|init| !init.is_file()) {
            bail!("there is no checkpoint at {}: check --init", init.display());
        }
        let images = load(options.data.as_deref())?;
        let (out, config) = Out::open(options, config)?;
        // (A resumed run keeps its precision.)
        let backend = device.in_precision(config.precision)?;
        println!("{} on {} ({why}), run in {}", recipe.name, backend.name(), out.root().display());
        println!("data: {}", images.source);
        let interrupter = interrupter(options.minutes)?;
        Ok(Self { backend, config, out, images, dashboard: !options.no_tui, interrupter })
    }

    /// The configuration.
    pub fn config(&self) -> &RunConfig {
        &self.config
    }

    /// Trains in full precision, then with ternary weights; evaluates; writes and prints the figures.
    ///
    /// # Errors
    /// A checkpoint of another network, a selection that fits nothing, files that cannot be written.
    pub fn train<B, N>(self, devices: Vec<B::Device>, network: impl Fn(usize, &B::Device) -> N) -> Result<()>
    where
        B: Trains,
        N: Network<B> + AutodiffModule<B> + ModuleDisplay + 'static,
        N::InnerModule: Network<B::InnerBackend> + ModuleDisplay,
    {
        let device = devices[0].clone();
        let start = Instant::now();
        let time = self.out.root().join("time.json");
        let before = if time.is_file() { read_json::<Time>(&time)?.seconds } else { 0.0 };
        B::seed(&device, self.config.seed);
        let load = |path: &Path| -> Result<N> {
            let mut network = network(self.images.classes, &device);
            weights::load(&mut network, path)?;
            Ok(network)
        };
        let start_from = match &self.config.init {
            Some(init) => load(init)?,
            None => network(self.images.classes, &device),
        };
        let float_bytes = 4 * Module::num_params(&start_from);
        let trained = self.phases(Classifier::new(start_from), &devices)?;
        let seconds = before + start.elapsed().as_secs_f64();
        write_json(&time, &Time { seconds })?;
        let Some(Trained { full_precision, ternary }) = trained else { return Ok(()) };

        // The test images are looked at here, once.
        let evaluate = |model: &Classifier<B, N>| evaluate::on_test(&model.valid(), &self.images, &Default::default());
        let mut evidence = evidence::begin(&self.images);
        let mut summary = Summary {
            example: self.config.example.clone(),
            data: self.images.source.clone(),
            backend: self.backend.name().into(),
            full_precision_accuracy: None,
            full_precision_top5: None,
            ternary_accuracy: None,
            ternary_top5: None,
            sparsity: None,
            float_bytes,
            packed_bytes: None,
            seconds: 0.0,
            layers: None,
        };
        if let Some(path) = full_precision {
            let (evaluation, predictions) = evaluate(&Classifier::new(load(&path)?));
            summary = summary.with_full_precision(evaluation);
            evidence.full_precision = Some(predictions);
        }
        if let Some(ternary) = ternary {
            let (evaluation, predictions) = evaluate(&ternary.materialize());
            summary = summary.with_ternary(evaluation, ternary.stats());
            evidence.ternary = Some(predictions);
            evidence::add_layers(&mut evidence, &ternary, self.images.test.shape());
        }
        evidence::add_mistakes(&mut evidence, &self.images.test);
        summary.seconds = before + start.elapsed().as_secs_f64();
        self.conclude(&summary, &evidence)
    }

    /// Writes and prints what the run came to.
    fn conclude(&self, summary: &Summary, evidence: &Evidence) -> Result<()> {
        write_json(&self.out.summary(), summary)?;
        evidence.write(self.out.root())?;
        let report = ttq_report::write(self.out.root())?;
        println!("\n{summary}");
        println!("{}\n{}", self.out.summary().display(), report.display());
        Ok(())
    }

    /// Both phases, each where its result is not there yet; `None` where the user stopped.
    fn phases<B, N>(&self, model: Classifier<B, N>, devices: &[B::Device]) -> Result<Option<Trained<B, N>>>
    where
        B: Trains,
        N: Network<B> + AutodiffModule<B> + ModuleDisplay + 'static,
        N::InnerModule: Network<B::InnerBackend> + ModuleDisplay,
    {
        let config = &self.config;
        let mut all = self.images.train.clone();
        all.truncate(config.limit.unwrap_or(usize::MAX));
        // A tenth at most is held out where training images are few.
        let (train_set, valid_set) = all.split(config.validation.min(all.len() / 10), config.seed);
        let [_, height, width] = self.images.test.shape();
        let (train_set, valid_set) = (Arc::new(train_set), Arc::new(valid_set.center_crop([height, width])));
        let wrapped = Ternary::new(model, &config.ternary)?;
        self.out.begin(config)?;
        if config.epochs > 0 {
            println!("{}", wrapped.selection());
        }
        let plan = |phase, epochs, directory| self.plan(phase, epochs, directory, &train_set, &valid_set, devices);

        let (directory, path) = (self.out.full_precision(), self.out.full_precision_network());
        let (model, full_precision) = if config.fp_epochs > 0 {
            let plan = plan(Phase::FullPrecision, config.fp_epochs, &directory);
            let step = TernaryStep::new(wrapped);
            let step = match train(step, &plan)? {
                End::Done(step) => step,
                End::Stopped(epoch) => return Ok(self.stopped(epoch)),
            };
            let model = step.into_ternary().into_latent();
            weights::save(model.network(), &path)?;
            (model, Some(path))
        } else {
            (wrapped.into_latent(), config.init.clone())
        };
        if config.epochs == 0 {
            return Ok(Some(Trained { full_precision, ternary: None }));
        }

        // Wrapped anew: the scales start from the trained weights.
        let directory = self.out.ternary();
        let mut wrapped = Ternary::new(model, &config.ternary)?;
        if config.freeze_first_convolution {
            let selection = wrapped.selection().clone();
            wrapped = Ternary::new(freeze_first_convolution(wrapped.into_latent(), &selection), &config.ternary)?;
        }
        let step = TernaryStep::new(wrapped);
        let step = match train(step, &plan(Phase::Ternary, config.epochs, &directory))? {
            End::Done(step) => step,
            End::Stopped(epoch) => return Ok(self.stopped(epoch)),
        };
        let ternary = step.into_ternary();
        weights::save(ternary.materialize().network(), &self.out.ternary_network())?;
        weights::save(ternary.latent().network(), &self.out.latent_network())?;
        deploy::pack_network(&ternary, config, &self.images, &self.out.packed_network())?;
        Ok(Some(Trained { full_precision, ternary: Some(ternary) }))
    }

    fn plan<'a, B: Backend>(
        &'a self,
        phase: Phase,
        epochs: usize,
        directory: &'a Path,
        train: &Arc<ImageSet>,
        valid: &Arc<ImageSet>,
        devices: &'a [B::Device],
    ) -> Plan<'a, B> {
        Plan {
            config: &self.config,
            epochs,
            phase,
            directory,
            train: train.clone(),
            valid: valid.clone(),
            images: &self.images,
            devices,
            interrupter: &self.interrupter,
            dashboard: self.dashboard,
        }
    }

    fn stopped<T>(&self, epochs: usize) -> Option<T> {
        let out = self.out.root().display();
        println!("stopped; {epochs} epochs of this phase are saved, go on with --resume --out {out}");
        None
    }
}
