//! Options that have no meaning with a method.

use anyhow::{Result, bail};
use clap::ValueEnum;

use crate::{Method, Options, RunConfig};

/// Options about ternary weights.
const TERNARY: [&str; 17] = [
    "epochs",
    "threshold",
    "threshold_schedule",
    "threshold_start",
    "granularity",
    "threshold_granularity",
    "slope",
    "scale_parameter",
    "sign",
    "initial_scales",
    "include",
    "exclude",
    "scale_lr_factor",
    "distill",
    "teacher",
    "freeze_oscillations",
    "reestimate_batch_norm",
];

/// Options about learned scales.
const LEARNED_SCALES: [&str; 4] = ["sign", "initial_scales", "scale_parameter", "scale_lr_factor"];

/// Refuses options that have no meaning with the method.
pub(crate) fn check_method(options: &Options, config: &RunConfig) -> Result<()> {
    let (names, reason): (&[&str], _) = match config.method {
        Method::Fp => (&TERNARY, "trains in full precision alone"),
        Method::Twn | Method::Absmean => (&LEARNED_SCALES, "computes its scale from the weights"),
        Method::Ttq | Method::TtqPaper => (&[], ""),
    };
    // `--epochs 0` says what the method does.
    let has_no_meaning = |id: &str| names.contains(&id) && !(id == "epochs" && options.epochs == Some(0));
    if let Some(id) = options.given.iter().find(|id| has_no_meaning(id)) {
        let method = config.method.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
        bail!(
            "--{} has no meaning with --method {method}, which {reason}: leave one of them out",
            id.replace('_', "-")
        );
    }
    if config.teacher.is_some() && config.distillation.is_none() {
        bail!("--teacher has no meaning without distillation: add --distill, or leave it out");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Args, Command};

    #[test]
    fn every_option_that_can_be_refused_exists() {
        let command = Options::augment_args(Command::new("x"));
        let exists = |id: &&str| command.get_arguments().any(|argument| argument.get_id() == *id);
        assert!(TERNARY.iter().chain(&LEARNED_SCALES).all(exists));
        assert!(LEARNED_SCALES.iter().all(|id| TERNARY.contains(id)));
    }
}
