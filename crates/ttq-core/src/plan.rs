//! What a wrapper and its copies have in common: configuration, selection, and checks of the first training step.

use crate::first_step::FirstStep;
use crate::{Choice, Selection, TernaryConfig};

/// Configuration and selection, which do not change during training.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) config: TernaryConfig,
    pub(crate) selection: Selection,
    /// The selected layers, in the order of the module.
    pub(crate) layers: Vec<Choice>,
    pub(crate) first_step: FirstStep,
}

impl Plan {
    pub(crate) fn new(config: TernaryConfig, selection: Selection) -> Self {
        let layers = selection.ternary().cloned().collect();
        Self { config, selection, layers, first_step: FirstStep::default() }
    }
}
