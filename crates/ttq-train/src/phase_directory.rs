//! The directory of a phase: what it holds, and its checkpoints.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;

use burn::module::{AutodiffModule, Module, ModuleDisplay, ModuleVisitor, Param};
use burn::prelude::*;
use burn::record::{Record, Recorder, RecorderError};
use burn::tensor::backend::AutodiffBackend;
use serde::{Deserialize, Serialize};
use ttq_core::ModulePath;
use ttq_packed::file::write_atomically;

use crate::checkpoint::PARTS;
use crate::divergence::{Parameters, first_not_finite};
use crate::phase::Checkpoints;
use crate::{NotFinite, Phase, PhaseConfig, PhaseError, Ranks, TernaryStep};

/// The file `checkpoint/phase.json` of a phase's directory: what the checkpoints beside it are.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PhaseFile {
    phase: Phase,
    epochs: usize,
    /// What takes its course over the epochs.
    courses: Vec<String>,
}

impl PhaseFile {
    const NAME: &str = "checkpoint/phase.json";

    /// Checks that the checkpoints in a directory, the last of them of epoch `newest`, can be continued by `config`.
    pub(crate) fn check(directory: &Path, config: &PhaseConfig, newest: usize) -> Result<(), PhaseError> {
        let directory = directory.to_path_buf();
        let (wanted, path) = (config.epochs, directory.join(Self::NAME));
        let Ok(text) = fs::read_to_string(&path) else { return Ok(()) };
        let found: Self =
            serde_json::from_str(&text).map_err(|error| PhaseError::PhaseFile { path, reason: error.to_string() })?;
        if found.phase != config.phase {
            return Err(PhaseError::OtherPhase { directory, found: found.phase, wanted: config.phase });
        }
        if newest > wanted {
            return Err(PhaseError::FewerEpochs { directory, found: newest, wanted });
        }
        match config.spanning_courses().find(|course| found.courses.iter().any(|found| found == course)) {
            Some(course) if found.epochs != wanted => {
                Err(PhaseError::OtherLength { directory, found: found.epochs, wanted, course })
            }
            _ => Ok(()),
        }
    }

    fn write(directory: &Path, config: &PhaseConfig) -> Result<(), PhaseError> {
        let path = directory.join(Self::NAME);
        let courses = config.spanning_courses().map(String::from).collect();
        let text =
            serde_json::to_vec(&Self { phase: config.phase, epochs: config.epochs, courses }).unwrap_or_default();
        write_atomically(&path, |file| file.write_all(&text)).map_err(|source| PhaseError::Write { path, source })
    }
}

/// Creates the directory, the file of the phase, and the log file, whose creation panics in burn-train on an error.
pub(crate) fn create_files(directory: &Path, config: &PhaseConfig) -> Result<(), PhaseError> {
    let (folder, log) = (directory.join("checkpoint"), directory.join("experiment.log"));
    fs::create_dir_all(&folder).map_err(|source| PhaseError::Write { path: folder, source })?;
    PhaseFile::write(directory, config)?;
    let created = File::options().append(true).create(true).open(&log);
    created.map(|_| ()).map_err(|source| PhaseError::Write { path: log, source })
}

/// Checks that all weights are finite.
pub(crate) fn require_finite<B: Backend, M: Module<B>>(
    step: &TernaryStep<B, M>,
    origin: NotFinite,
) -> Result<(), PhaseError> {
    match first_not_finite(step.ternary(), Parameters::All) {
        Some(weight) => Err(PhaseError::NotFinite { weight, origin }),
        None => Ok(()),
    }
}

/// Returns `step` with the network that validated in an epoch.
pub(crate) fn load_model<B, M>(
    step: TernaryStep<B, M>,
    directory: &Path,
    epoch: usize,
    device: &B::Device,
) -> Result<TernaryStep<B, M>, PhaseError>
where
    B: AutodiffBackend,
    M: AutodiffModule<B> + ModuleDisplay,
    M::InnerModule: ModuleDisplay,
{
    let record = load_checkpoint::<B, _>(directory, "model", epoch, device)?;
    step.check_record(&record).map_err(|source| PhaseError::Record { epoch, source })?;
    // Burn replaces parameters by those of a record whatever their shapes.
    let before = Shapes::of(step.ternary().latent());
    let step = step.load_validated(record);
    for (path, found) in Shapes::of(step.ternary().latent()) {
        if let Some(wanted) = before.get(&path).filter(|wanted| **wanted != found).cloned() {
            return Err(PhaseError::ParameterShape { epoch, path, found, wanted });
        }
    }
    Ok(step)
}

/// The shapes of the parameters of a module by path.
#[derive(Default)]
struct Shapes {
    path: ModulePath,
    shapes: BTreeMap<String, Vec<usize>>,
}

impl Shapes {
    fn of<B: Backend, M: Module<B>>(module: &M) -> BTreeMap<String, Vec<usize>> {
        let mut shapes = Self::default();
        module.visit(&mut shapes);
        shapes.shapes
    }

    fn add<const D: usize>(&mut self, dims: [usize; D]) {
        self.shapes.insert(self.path.joined(), dims.into());
    }
}

impl<B: Backend> ModuleVisitor<B> for Shapes {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        self.add(param.val().dims());
    }

    fn visit_int<const D: usize>(&mut self, param: &Param<Tensor<B, D, Int>>) {
        self.add(param.val().dims());
    }

    fn visit_bool<const D: usize>(&mut self, param: &Param<Tensor<B, D, Bool>>) {
        self.add(param.val().dims());
    }
}

/// Checks that the files of a checkpoint can be read, whatever they hold.
pub(crate) fn require_readable(directory: &Path, epoch: usize) -> Result<(), PhaseError> {
    PARTS.iter().try_for_each(|part| {
        let path = directory.join("checkpoint").join(format!("{part}-{epoch}.mpk"));
        fs::read(&path).map(drop).map_err(|source| PhaseError::Unreadable { path, source })
    })
}

/// Returns a file of the checkpoint of process 0.
pub(crate) fn broadcast_checkpoint(
    ranks: &Ranks,
    directory: &Path,
    part: &str,
    epoch: usize,
) -> Result<Vec<u8>, PhaseError> {
    let path = directory.join("checkpoint").join(format!("{part}-{epoch}.mpk"));
    let read =
        || fs::read(&path).map_err(|error| PhaseError::Checkpoint { path: path.clone(), reason: error.to_string() });
    let bytes = ranks.agree(if ranks.is_first() { read() } else { Ok(Vec::new()) })?;
    Ok(ranks.broadcast_bytes(bytes))
}

/// Reads a file of a checkpoint.
pub(crate) fn load_checkpoint<B: AutodiffBackend, R: Record<B>>(
    directory: &Path,
    part: &str,
    epoch: usize,
    device: &B::Device,
) -> Result<R, PhaseError> {
    let path = directory.join("checkpoint").join(format!("{part}-{epoch}"));
    Recorder::<B>::load(&Checkpoints::default(), path.clone(), device).map_err(|error| match error {
        RecorderError::FileNotFound(reason)
        | RecorderError::DeserializeError(reason)
        | RecorderError::Unknown(reason) => {
            // Further lines are about records of Burn before 0.14.
            PhaseError::Checkpoint { path, reason: reason.lines().next().unwrap_or_default().into() }
        }
    })
}
