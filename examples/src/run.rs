//! A training run, from the command line to the table at its end.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use burn::module::{AutodiffModule, ModuleDisplay};
use burn::prelude::*;
use burn::train::Interrupter;
use ttq_core::{KeepReason, Ternary};
use ttq_report::record::Evidence;
use ttq_train::{Phase, TernaryStep, freeze};

use crate::backend::{RunBackend, select};
use crate::clock::Clock;
use crate::data::{Augmentation, DataError};
use crate::evaluate;
use crate::evidence;
use crate::method_options::check_method;
use crate::model::{Batch, Classifier, Network, TrainableNetwork};
use crate::out::{Out, write_json};
use crate::processes::{self, Processes, is_first, ranks};
use crate::training::Training;
use crate::{Options, Recipe, RunConfig, Score, Summary, Task, Trains, print_line, weights};

/// Runs `example`; prints an error in one sentence and exits with code 1.
pub fn exit(example: impl FnOnce() -> Result<()>) -> ExitCode {
    // A closed standard error is no reason to panic.
    let fail = |error| {
        // Written at once: the launcher writes to the same stream.
        std::io::stderr().write_all(format!("error: {error:#}\n").as_bytes()).ok();
        ExitCode::FAILURE
    };
    let processes = match Processes::start() {
        Ok(processes) => processes,
        Err(error) => return fail(error),
    };
    match example() {
        Ok(()) => {
            processes.finish();
            ExitCode::SUCCESS
        }
        Err(error) => {
            // Most errors are those of all processes: the first one prints them, and ends the others.
            if !is_first() {
                std::thread::sleep(Duration::from_secs(2));
            }
            let code = fail(error);
            processes.abort();
            code
        }
    }
}

/// A run that is ready to start: options checked, data loaded, nothing written.
pub struct Run<T: Task> {
    /// The backend.
    pub backend: RunBackend,
    config: RunConfig,
    out: Out,
    task: Arc<T>,
    dashboard: bool,
    interrupter: Interrupter,
}

/// The networks that a run has trained.
struct Trained<B: Backend, N: Module<B> + ModuleDisplay> {
    /// File of the network in full precision. (A clone of the trained network would share its batch statistics with the
    /// ternary one.)
    full_precision: Option<PathBuf>,
    ternary: Option<Ternary<B, Classifier<B, N>>>,
}

const NO_TEACHER: &str = "there is no network in full precision to distill from: add --init or --teacher, raise --fp-epochs, or give --distill 0";

/// Creates the interrupter of Ctrl-C and `--minutes`.
fn interrupter(minutes: Option<f64>) -> Result<Interrupter> {
    let interrupter = Interrupter::new();
    let handle = interrupter.clone();
    let listens = ctrlc::set_handler(move || {
        if handle.should_stop() {
            std::process::exit(130);
        }
        if is_first() {
            eprintln!("stopping after this batch; press Ctrl-C again to stop at once");
        }
        handle.stop(Some("stopped by the user"));
    });
    match listens {
        // Only the first run of a process listens.
        Ok(()) | Err(ctrlc::Error::MultipleHandlers) => {}
        Err(error) => return Err(error).context("cannot listen for Ctrl-C"),
    }
    if let Some(minutes) = minutes.filter(|_| is_first()) {
        let handle = interrupter.clone();
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_secs_f64(60.0 * minutes));
            handle.stop(Some("the minutes are over"));
        });
    }
    Ok(interrupter)
}

impl<T: Task> Run<T> {
    /// Validates the options and loads the data.
    ///
    /// # Errors
    /// A missing backend, missing or damaged data, contradictory options, options that a run to resume does not have.
    /// In several processes, all fail if one does or if they differ.
    pub fn prepare(
        recipe: &Recipe,
        options: &Options,
        load: fn(Option<&Path>) -> Result<T, DataError>,
    ) -> Result<Self> {
        let run = Self::prepare_alone(recipe, options, load);
        let ranks = ranks();
        if ranks.size() == 1 {
            return run;
        }
        let started = run
            .as_ref()
            .map_err(|error| format!("{error:#}"))
            .and_then(|run| run.identity().map_err(|error| format!("{error:#}")));
        ranks.check_start(started)?;
        run
    }

    /// Returns what must be the same in all processes: names and checksums.
    fn identity(&self) -> Result<Vec<(String, String)>> {
        let config = serde_json::to_string(&RunConfig { data_crc32: None, ..self.config.clone() })?;
        let names =
            ["another build of the program", "another backend", "another configuration", "another --out", "other data"];
        let values = [
            processes::program()?.to_string(),
            self.backend.name().into(),
            config,
            self.out.root().display().to_string(),
            self.config.data_crc32.unwrap_or_default().to_string(),
        ];
        Ok(names.map(String::from).into_iter().zip(values).collect())
    }

    fn prepare_alone(
        recipe: &Recipe,
        options: &Options,
        load: fn(Option<&Path>) -> Result<T, DataError>,
    ) -> Result<Self> {
        let (out, mut config) = Out::open(options, RunConfig::new(recipe, options))?;
        check_method(options, &config)?;
        if config.fp_epochs + config.epochs == 0 {
            bail!("there is nothing to train: raise --fp-epochs or --epochs");
        }
        let (device, why) = select(options.backend, processes::first_device() + config.devices)?;
        config.strategy.check(device, options)?;
        if options.cutout.is_some() && config.augmentation == Augmentation::Distort {
            bail!("--cutout: this example changes its images in another way: leave the option out");
        }
        let checkpoints = [("init", &config.init), ("teacher", &config.teacher)];
        for (option, path) in checkpoints {
            if let Some(path) = path {
                weights::check_file(option, path, &config)?;
            }
        }
        let is_pytorch = |path: &PathBuf| weights::is_pytorch(path);
        if config.key.is_some() && !checkpoints.iter().any(|(_, path)| path.as_ref().is_some_and(is_pytorch)) {
            bail!("--key is an entry of a PyTorch file, and neither --init nor --teacher is one: leave it out");
        }
        if config.distillation.is_some() && config.fp_epochs == 0 && config.init.is_none() && config.teacher.is_none() {
            bail!("{NO_TEACHER}");
        }
        let mut task = load(config.text.as_deref().or(options.data.as_deref()))?;
        task.configure(&config);
        task.check()?;
        task.check_test()?;
        let mut checksum = crc32fast::Hasher::new();
        task.hash_data(&mut checksum);
        let found = checksum.finalize();
        if config.data_crc32.is_some_and(|crc32| crc32 != found) {
            bail!(
                "the run in {} was started with other data than {}: give the same by --data",
                out.root().display(),
                task.source()
            );
        }
        config.data_crc32 = Some(found);
        let backend = device.in_precision(config.precision)?;
        let several = match ranks().size() {
            1 => String::new(),
            size => format!(" in {size} processes"),
        };
        print_line(format_args!(
            "{} on {}{several} ({why}), run in {}",
            recipe.name,
            backend.name(),
            out.root().display()
        ));
        print_line(format_args!("data: {}", task.source()));
        let interrupter = interrupter(options.minutes)?;
        let dashboard = !options.no_tui;
        Ok(Self { backend, config, out, task: Arc::new(task), dashboard, interrupter })
    }

    /// Returns the directory of the run.
    pub fn directory(&self) -> &Path {
        self.out.root()
    }

    /// Returns the configuration.
    pub fn config(&self) -> &RunConfig {
        &self.config
    }

    /// Trains in full precision, then with ternary weights; evaluates; writes and prints the results.
    ///
    /// # Errors
    /// A checkpoint of another network, a selection without weights, files that cannot be written.
    pub fn train<B, N>(self, devices: Vec<B::Device>, network: impl Fn(usize, &B::Device) -> N) -> Result<()>
    where
        B: Trains,
        N: TrainableNetwork<B, Task = T>,
    {
        let device = devices[0].clone();
        let clock = Clock::start(self.out.root().join("time.json"), Clock::INTERVAL)?;
        if self.config.batch_size < 2 * self.config.devices * ranks().size() {
            self.task.check_batch_of_one(&network(self.task.classes(), &device), &device)?;
        }
        // Each process draws its own random numbers; initial weights are those of the first one.
        B::seed(&device, self.config.seed.wrapping_add(ranks().rank() as u64));
        let load = |path: &Path| -> Result<N> {
            let mut network = network(self.task.classes(), &device);
            let is = |file: &Option<PathBuf>| file.as_deref() == Some(path);
            let has_key = is(&self.config.init) || is(&self.config.teacher) && weights::is_pytorch(path);
            let key = self.config.key.as_deref().filter(|_| has_key);
            weights::load(&mut network, path, key)?;
            Ok(network)
        };
        let start_from = match &self.config.init {
            Some(init) => load(init)?,
            None => network(self.task.classes(), &device),
        };
        let float_bytes = weights::to_bytes(&start_from)?.len();
        let classifier = Classifier::new(start_from).with_label_smoothing(self.config.label_smoothing);
        let trained = self.phases(classifier, &devices, &load)?;
        clock.write()?;
        let Some(Trained { full_precision, ternary }) = trained.filter(|_| is_first()) else { return Ok(()) };

        // The test data are evaluated here, once.
        let evaluate = |model: &Classifier<B, N>| evaluate::evaluate(&model.valid(), &self.task, &Default::default());
        // The report shows single predictions of images alone.
        let shown = |predictions| (T::SCORE == Score::Accuracy).then_some(predictions);
        let mut evidence = Evidence { environment: crate::environment(), ..Evidence::default() };
        let mut summary = Summary {
            example: self.config.example.clone(),
            data: self.task.source().into(),
            backend: self.backend.name().into(),
            float_bytes,
            ..Summary::default()
        };
        if let Some(path) = full_precision {
            let (evaluation, predictions) = evaluate(&Classifier::new(load(&path)?));
            summary = summary.with_full_precision(T::SCORE, evaluation);
            evidence.full_precision = shown(predictions);
        }
        if let Some(ternary) = ternary {
            let (evaluation, predictions) = evaluate(&ternary.materialize());
            let packed_bytes = fs::metadata(self.out.packed_network())?.len();
            summary = summary.with_ternary(T::SCORE, evaluation, ternary.stats(), packed_bytes);
            evidence.ternary = shown(predictions);
            evidence::add_layers(&mut evidence, &ternary, self.task.size());
        }
        self.task.add_to_evidence(&mut evidence);
        summary.seconds = clock.seconds();
        self.conclude(&summary, &evidence)
    }

    /// Writes and prints the results.
    fn conclude(&self, summary: &Summary, evidence: &Evidence) -> Result<()> {
        write_json(&self.out.summary(), summary)?;
        evidence.write(self.out.root())?;
        let report = ttq_report::write(self.out.root())?;
        print_line(format_args!("\n{summary}"));
        print_line(format_args!("{}\n{}", self.out.summary().display(), report.display()));
        Ok(())
    }

    /// Trains both phases; `None` if the user stopped.
    fn phases<B, N>(
        &self,
        model: Classifier<B, N>,
        devices: &[B::Device],
        load: &dyn Fn(&Path) -> Result<N>,
    ) -> Result<Option<Trained<B, N>>>
    where
        B: Trains,
        N: TrainableNetwork<B, Task = T>,
    {
        let config = &self.config;
        let training = Training::<B, N> {
            config,
            task: &self.task,
            devices,
            interrupter: &self.interrupter,
            dashboard: self.dashboard,
        };
        let wrapped = Ternary::new(model, &config.ternary)?;
        for (phase, epochs, directory) in [
            (Phase::FullPrecision, config.fp_epochs, self.out.full_precision()),
            (Phase::Ternary, config.epochs, self.out.ternary()),
        ] {
            if epochs > 0 {
                training.check(phase, epochs, &directory, &TernaryStep::new(wrapped.clone()))?;
            }
        }
        if is_first() {
            self.out.begin(config)?;
        }
        if config.epochs > 0 {
            print_line(wrapped.selection());
        }

        let (directory, path) = (self.out.full_precision(), self.out.full_precision_network());
        let (model, full_precision) = if config.fp_epochs > 0 {
            let step = TernaryStep::new(wrapped);
            let Some(step) = training.run(Phase::FullPrecision, config.fp_epochs, &directory, step)? else {
                return Ok(self.stopped());
            };
            let model = step.into_ternary().into_latent();
            if is_first() {
                weights::save(model.network(), &path)?;
            }
            // Every process can read the file from here on.
            ranks().any(false);
            (model, Some(path))
        } else {
            // A packed network is none in full precision.
            (wrapped.into_latent(), config.init.clone().filter(|file| !weights::is_packed(file)))
        };
        if config.epochs == 0 {
            return Ok(Some(Trained { full_precision, ternary: None }));
        }

        // Wrapped anew: the scales start from the trained weights.
        let mut wrapped = Ternary::new(model, &config.ternary)?;
        if config.freeze_first_convolution {
            let choices = wrapped.selection().clone();
            let first = choices.choices().iter().find(|choice| choice.kept == Some(KeepReason::FirstConvolution));
            let model = freeze(wrapped.into_latent(), |path| first.is_some_and(|choice| choice.path == path));
            wrapped = Ternary::new(model, &config.ternary)?;
        }
        // The phase fits the scales, with the threshold at its start.
        let mut step = TernaryStep::new(wrapped).with_phase(Phase::FullPrecision);
        if let Some(distillation) = config.distillation {
            let teacher = config.teacher.as_ref().or(full_precision.as_ref()).or(config.init.as_ref());
            let Some(file) = teacher else { bail!("{NO_TEACHER}") };
            // A clone of the network would share its batch statistics with the student.
            let teacher = load(file).with_context(|| format!("the teacher {}", file.display()))?.valid();
            let logits = |teacher: &N::InnerModule, batch: &Batch<B, T::Inputs<B>>| {
                teacher.forward(T::inner::<B>(batch.inputs.clone()))
            };
            step = step.with_model_step(distillation.init(teacher, logits)?);
        }
        let Some(step) = training.run(Phase::Ternary, config.epochs, &self.out.ternary(), step)? else {
            return Ok(self.stopped());
        };
        let ternary = step.into_ternary();
        if !is_first() {
            return Ok(None);
        }
        if config.reestimate_batch_norm > 0 {
            training.reestimate_batch_norm(&ternary);
        }
        weights::save(ternary.materialize().network(), &self.out.ternary_network())?;
        weights::save(ternary.latent().network(), &self.out.latent_network())?;
        weights::pack(&ternary, self.task.packed_config(config)?, &self.out.packed_network())?;
        Ok(Some(Trained { full_precision, ternary: Some(ternary) }))
    }

    fn stopped<M>(&self) -> Option<M> {
        print_line(format_args!("continue with --resume --out {}", self.out.root().display()));
        None
    }
}
