//! Trained ternary quantization for burn-train: the learner step, one optimizer for each group of parameters, schedules,
//! metrics and exact resume.
//!
//! A model that already runs in burn-train keeps its `TrainStep` and `InferenceStep`; only the lines that hand it to the
//! learner change: [`TernaryStep`] around it and [`TernaryOptimizer`] around its optimizer.

mod checkpoint;
mod early_stopping;
mod history;
mod loader;
mod metric;
mod optimizer;
mod output;
mod schedule;
mod step;

pub use checkpoint::{AtomicRecorder, KeepLastAndBest, latest_checkpoint};
pub use early_stopping::EarlyStopping;
pub use history::{EpochMetrics, History, HistoryError};
pub use loader::{MakeItem, ReproducibleLoader};
pub use metric::{FlipRatioMetric, LayersMetric, NegativeScaleMetric, PositiveScaleMetric, SparsityMetric};
pub use optimizer::{ParamGroup, TernaryOptimizer};
pub use output::{LayerState, SyncedTernaryOutput, TernaryOutput, TernaryState};
pub use schedule::{PlateauConfig, Schedule, ScheduleConfig, ScheduleError};
pub use step::{Phase, TernaryStep};
