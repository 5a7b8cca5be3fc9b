//! The items that most trainings use: `use ttq_train::prelude::*;`.

pub use crate::{
    EarlyStoppingConfig, FlipRatioMetric, History, MetricGoal, NegativeScaleMetric, ParamGroup, Phase, PhaseConfig,
    PhaseData, PhaseError, PhaseOutcome, PhaseTraining, PositiveScaleMetric, ReproducibleLoader, ScheduleConfig,
    SparsityMetric, TernaryOptimizer, TernaryStep, TrainingLength, freeze,
};
