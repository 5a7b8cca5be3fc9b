//! The items that most trainings use: `use ttq_train::prelude::*;`.

pub use crate::{
    FlipRatioMetric, MetricGoal, NegativeScaleMetric, ParamGroup, Phase, PhaseConfig, PhaseData, PhaseOutcome,
    PhaseTraining, PositiveScaleMetric, ReproducibleLoader, ScheduleConfig, SparsityMetric, TernaryOptimizer,
    TernaryStep, TrainingLength,
};
