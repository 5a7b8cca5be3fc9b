//! Trained ternary quantization for burn-train: the learner step, one optimizer for each group of parameters, training
//! in phases, schedules, metrics and exact resume.
//!
//! A model that trains with burn-train keeps its `TrainStep` and `InferenceStep`. Only the lines that pass it to the
//! learner change: [`TernaryStep`] wraps the model, [`TernaryOptimizer`] wraps its optimizer.
//!
//! | to do | use |
//! |---|---|
//! | train a model of your own with burn-train | [`TernaryStep`], [`TernaryOptimizer`] |
//! | train in a loop of your own, without burn-train | [`TernaryOptimizer`] |
//! | train in full precision, then with ternary weights, with checkpoints and resume | [`PhaseTraining`] |
//! | train in several processes, on one machine or many | [`Ranks`]: [`PhaseTraining::with_ranks`] |
//! | train towards a teacher's logits too | [`Distillation`] |
//! | evaluate and save an average over updates | [`Averaging`]: [`PhaseConfig::with_averaging`], [`TernaryStep::with_averaging`] |
//! | freeze codes that flip to and fro | [`OscillationFreezing`]; in a loop of your own [`Oscillations`] |
//! | raise the share of zeros step by step | [`ThresholdSchedule`]; in a loop of your own `Ternary::with_threshold` |
//! | fit batch normalization to the final ternary weights | [`reestimate_batch_norm`] |
//! | log sparsity, scales and flip ratio | [`SparsityMetric`], [`PositiveScaleMetric`], [`NegativeScaleMetric`], [`FlipRatioMetric`], [`OscillatingMetric`], [`FrozenMetric`] |
//! | resume bit for bit | [`ReproducibleLoader`], [`History`], [`Schedule`], [`AtomicRecorder`] |
//!
//! The example `learner` (`cargo run --release -p ttq-train --example learner`) shows a whole program.

mod accumulation;
mod averaging;
mod batch_norm;
mod checkpoint;
mod devices;
mod distillation;
mod divergence;
mod early_stopping;
mod freeze;
mod history;
mod loader;
mod metric;
mod metric_files;
mod metric_goal;
mod optimizer;
mod oscillation;
mod output;
mod phase;
mod phase_config;
mod phase_directory;
mod phase_error;
pub mod prelude;
mod progress;
mod rank_strategy;
mod rank_tensors;
mod ranks;
mod schedule;
mod seed;
mod step;
mod threshold_schedule;
mod training_state;

pub use accumulation::Accumulated;
pub use averaging::{Averaging, DecayError};
pub use batch_norm::reestimate_batch_norm;
pub use checkpoint::{AtomicRecorder, KeepLastAndBest, latest_checkpoint};
pub use devices::steps_per_epoch;
pub use distillation::{Distillation, DistillationError, Logits};
pub use early_stopping::{EarlyStopping, EarlyStoppingConfig};
pub use freeze::freeze;
pub use history::{EpochMetrics, History, HistoryError};
pub use loader::{ItemKey, MakeItem, ReproducibleLoader};
pub use metric::{
    FlipRatioMetric, FrozenMetric, LayersMetric, NegativeScaleMetric, OscillatingMetric, PositiveScaleMetric,
    SparsityMetric,
};
pub use metric_goal::MetricGoal;
pub use optimizer::{ByRank, ParamGroup, TernaryModule, TernaryOptimizer};
pub use oscillation::{OscillationError, OscillationFreezing, Oscillations};
pub use output::{LayerState, OnOutput, OutputInput, SyncedTernaryOutput, TernaryOutput, TernaryState};
pub use phase::{PhaseData, PhaseOutcome, PhaseTraining, TernaryTraining};
pub use phase_config::{KeptEpoch, Phase, PhaseConfig};
pub use phase_error::{NotFinite, PhaseError};
pub use progress::{EpochLines, ProgressLines};
pub use ranks::{Communicator, RankError, Ranks};
pub use schedule::{PlateauConfig, Schedule, ScheduleConfig, ScheduleError, TrainingLength};
pub use seed::item_seed;
pub use step::TernaryStep;
pub use threshold_schedule::ThresholdSchedule;
