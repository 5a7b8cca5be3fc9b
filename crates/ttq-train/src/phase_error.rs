//! Errors of a phase of training.

use std::fmt;
use std::io;
use std::path::PathBuf;

use ttq_core::{ConfigError, RecordError};

use crate::{DecayError, HistoryError, OscillationError, Phase, RankError, ScheduleError};

/// An error of a [`PhaseTraining`](crate::PhaseTraining).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PhaseError {
    /// The history of the run to resume cannot be read.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// The schedule is invalid.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// The schedule of the threshold does not fit the threshold of the model.
    #[error(transparent)]
    Threshold(#[from] ConfigError),
    /// The decay of the average is out of range.
    #[error(transparent)]
    Averaging(#[from] DecayError),
    /// A parameter that would be averaged has 16 bits.
    #[error(
        "the weight {weight} has 16 bits, in which an average stands still by rounding: train without averages, or with \
         float32 weights on ttq-autocast's backend"
    )]
    AverageIn16Bits {
        /// Path of the weight.
        weight: String,
    },
    /// The numbers of the freezing of oscillations are out of range.
    #[error(transparent)]
    Oscillations(#[from] OscillationError),
    /// A loader yields no batch.
    #[error(
        "there are {train} training batches and {valid} validation items: both need at least one, use more data \
         or smaller batches"
    )]
    NoData {
        /// Training batches per epoch.
        train: usize,
        /// Validation items.
        valid: usize,
    },
    /// The number of accumulated batches does not fit an epoch.
    #[error("{found} batches cannot be accumulated: an epoch has {batches}, choose 1 to {batches}")]
    AccumulatedBatches {
        /// The number in the configuration.
        found: usize,
        /// Batches per epoch.
        batches: usize,
    },
    /// A batch has too few items for the processes.
    #[error(
        "{processes} processes need batches of at least twice as many items, not {items}: use larger batches or fewer \
         processes"
    )]
    BatchOverRanks {
        /// Items of a batch.
        items: usize,
        /// The number of processes.
        processes: usize,
    },
    /// A batch has too few items for the devices.
    #[error(
        "a batch has {items} items for {devices} devices, and each needs one: leave out the last batch by \
         `ReproducibleLoader::without_partial_batch`, or choose another batch size"
    )]
    BatchOverDevices {
        /// Items of a batch.
        items: usize,
        /// The number of devices.
        devices: usize,
    },
    /// A process of several has more than one device.
    #[error(
        "each of several processes trains on one device, this one has {devices}: start one process for each device"
    )]
    DevicesOfRank {
        /// Devices of the execution strategy.
        devices: usize,
    },
    /// The processes of the training differ, or another one has failed.
    #[error(transparent)]
    Rank(#[from] RankError),
    /// No epoch has the metric that chooses the best one.
    #[error(
        "no epoch in {} has a finite validation metric `{metric}`: register it in `metrics`, correct the name of the \
         goal, or lower the learning rate; the metrics are: {}", directory.display(), found.join(", ")
    )]
    NoMetric {
        /// Directory of the phase.
        directory: PathBuf,
        /// Name of the metric.
        metric: String,
        /// Names of the metrics that are logged.
        found: Vec<String>,
    },
    /// A checkpoint cannot be read, and there is no earlier one that can.
    #[error("cannot read the checkpoint {}: {reason}; restore the file or start a new run", path.display())]
    Checkpoint {
        /// Path of the file without its extension.
        path: PathBuf,
        /// Burn's message.
        reason: String,
    },
    /// A checkpoint is of another selection of ternary weights or of another quantizer.
    #[error(
        "the checkpoint of epoch {epoch} does not fit the model: {source}; to train this one, choose another directory"
    )]
    Record {
        /// The epoch, from 1.
        epoch: usize,
        /// The difference.
        source: RecordError,
    },
    /// A parameter has another shape in a checkpoint than in the model.
    #[error(
        "the checkpoint of epoch {epoch} does not fit the model: `{path}` is {found:?} in it and {wanted:?} in the model; \
         to train this one, choose another directory"
    )]
    ParameterShape {
        /// The epoch, from 1.
        epoch: usize,
        /// Path of the parameter.
        path: String,
        /// Its shape in the checkpoint.
        found: Vec<usize>,
        /// Its shape in the model.
        wanted: Vec<usize>,
    },
    /// The directory holds the checkpoints of the other phase.
    #[error("{} holds checkpoints of the phase {found}, not {wanted}: give each phase a directory of its own", directory.display())]
    OtherPhase {
        /// Directory of the phase.
        directory: PathBuf,
        /// The phase of the checkpoints.
        found: Phase,
        /// The phase of the configuration.
        wanted: Phase,
    },
    /// The directory has a checkpoint after the last epoch of the configuration.
    #[error(
        "{} has a checkpoint of epoch {found}, and the phase has {wanted}: continue with {found} epochs or more, or choose \
         another directory", directory.display()
    )]
    FewerEpochs {
        /// Directory of the phase.
        directory: PathBuf,
        /// The epoch of the newest checkpoint.
        found: usize,
        /// Epochs of the configuration.
        wanted: usize,
    },
    /// What spans all epochs would continue with another number of them.
    #[error(
        "{} was trained for {found} epochs, which {course} spans: continue with {found}, or train {wanted} in another \
         directory", directory.display()
    )]
    OtherLength {
        /// Directory of the phase.
        directory: PathBuf,
        /// Epochs that the checkpoints were trained for.
        found: usize,
        /// Epochs of the configuration.
        wanted: usize,
        /// What spans them.
        course: &'static str,
    },
    /// The file that says what the directory holds is damaged.
    #[error("{}: {reason}; restore the file or choose another directory", path.display())]
    PhaseFile {
        /// Path of the file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A file of a checkpoint cannot be read from the disk.
    #[error("cannot read {}: {source}; correct the cause, or delete the file to continue from the checkpoint before it", path.display())]
    Unreadable {
        /// Path of the file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A number of the configuration is out of range.
    #[error("the {name} of the phase is {value}: choose {range}")]
    Number {
        /// What the number is.
        name: &'static str,
        /// The number.
        value: f64,
        /// The allowed range in words.
        range: &'static str,
    },
    /// A checkpoint is of epochs with another number of batches.
    #[error(
        "the checkpoint of epoch {epoch} was trained with {found} steps per epoch, and the data now have {batches} batches: \
         give the same data, batch size and devices, or choose another directory"
    )]
    EpochLength {
        /// The epoch, from 1.
        epoch: usize,
        /// Steps per epoch of the checkpoint's training.
        found: usize,
        /// Batches per epoch of the data.
        batches: usize,
    },
    /// A weight is not finite (NaN or infinite) before training starts, or in the best epoch. In a parameter that does
    /// not train, such as a mask of -∞, infinite values are allowed.
    #[error("the weight {weight} of {origin} is not finite (NaN or infinite): {}", NotFinite::remedy(origin))]
    NotFinite {
        /// Path of the weight.
        weight: String,
        /// The model.
        origin: NotFinite,
    },
    /// The training diverged. Its checkpoints are those of the epochs before.
    #[error(
        "the training diverged in epoch {epoch} at batch {batch}: {}; lower the learning rate, clip the gradients, or \
         look for values in the data that are not finite",
        symptom(metric.as_ref(), weight.as_deref())
    )]
    Diverged {
        /// The epoch, from 1.
        epoch: usize,
        /// The batch in the epoch, from 1.
        batch: usize,
        /// The training metric that is not finite, and its value. `None` if all are finite, but a weight is not.
        metric: Option<(String, f64)>,
        /// Path of the first weight, in the order of the module, that is not finite at this batch.
        weight: Option<String>,
    },
    /// A file cannot be written. The checkpoints before it are unchanged.
    #[error(
        "cannot write {}: {source}; free space or correct the permissions, then run again to continue",
        path.display()
    )]
    Write {
        /// Path of the file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

fn symptom(metric: Option<&(String, f64)>, weight: Option<&str>) -> String {
    let metric = metric.map(|(name, value)| format!("the metric `{name}` is {value}"));
    let weight =
        weight.map_or("every weight is still finite".into(), |path| format!("the weight {path} is not finite"));
    metric.map_or(weight.clone(), |metric| format!("{metric}, and {weight}"))
}

/// The model that holds a weight that is not finite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotFinite {
    /// The model that training starts from.
    Start,
    /// The model of an epoch.
    Epoch(usize),
}

impl NotFinite {
    fn remedy(&self) -> &'static str {
        match self {
            Self::Start => "start from another checkpoint",
            Self::Epoch(_) => "lower the learning rate or clip the gradients",
        }
    }
}

impl fmt::Display for NotFinite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start => f.write_str("the model that training starts from"),
            Self::Epoch(epoch) => write!(f, "epoch {epoch}"),
        }
    }
}
