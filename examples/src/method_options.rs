//! Options that have no meaning with others.

use anyhow::{Result, bail};
use clap::ValueEnum;

use crate::resume::option_name;
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

/// Options about the phase in full precision.
const FULL_PRECISION: [&str; 2] = ["fp_learning_rate", "fp_weight_decay"];

/// The options that have a meaning with `--eval`: what is evaluated, on what, and where.
const EVALUATION: [&str; 12] = [
    "eval",
    "key",
    "backend",
    "precision",
    "data",
    "no_tui",
    "depth",
    "network",
    "layers",
    "width",
    "heads",
    "context",
];

/// Refuses options that have no meaning with the method, or in a phase without epochs.
pub(crate) fn check_method(options: &Options, config: &RunConfig) -> Result<()> {
    let method = config.method.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
    let computes_scale = matches!(config.method, Method::Twn | Method::Absmean);
    let fp = format!("--method {method}, which trains in full precision alone");
    let computed = format!("--method {method}, which computes its scale from the weights");
    let rules: [(bool, &[&str], &str); 4] = [
        (config.method == Method::Fp, &TERNARY, &fp),
        (computes_scale, &LEARNED_SCALES, &computed),
        (config.epochs == 0, &TERNARY, "--epochs 0, which trains in full precision alone"),
        (config.fp_epochs == 0, &FULL_PRECISION, "--fp-epochs 0, which trains ternary weights alone"),
    ];
    // `--epochs 0` says what the method does.
    let says_so = |id: &str| id == "epochs" && options.epochs == Some(0);
    for (_, names, reason) in rules.into_iter().filter(|(applies, ..)| *applies) {
        refuse(options, |id| names.contains(&id) && !says_so(id), reason)?;
    }
    if config.method == Method::Fp || config.epochs == 0 {
        let given = |name: &str| options.given.iter().any(|id| id == name);
        for [both, name] in [["learning_rate", "fp_learning_rate"], ["weight_decay", "fp_weight_decay"]] {
            if given(name) {
                let reason = format!("--{} when no ternary weights are trained", option_name(name));
                refuse(options, |id| id == both, &reason)?;
            }
        }
    }
    if config.teacher.is_some() && config.distillation.is_none() {
        bail!("--teacher has no meaning without distillation: add --distill, or leave it out");
    }
    Ok(())
}

/// Refuses options that do not change an evaluation.
///
/// # Errors
/// The first such option.
pub fn check_evaluation(options: &Options) -> Result<()> {
    check_only(options, &EVALUATION, "--eval, which trains nothing")
}

/// Refuses all options but those with these identifiers.
///
/// # Errors
/// The first other option, which has no meaning with what `reason` names.
pub fn check_only(options: &Options, names: &[&str], reason: &str) -> Result<()> {
    refuse(options, |id| !names.contains(&id), reason)
}

/// Refuses the first given option that has no meaning.
fn refuse(options: &Options, has_no_meaning: impl Fn(&str) -> bool, reason: &str) -> Result<()> {
    match options.given.iter().find(|id| has_no_meaning(id)) {
        Some(id) => bail!("--{} has no meaning with {reason}: leave one of them out", option_name(id)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Args, Command};

    #[test]
    fn every_option_that_can_be_refused_exists() {
        let command = Options::augment_args(Command::new("x"));
        let exists = |id: &&str| command.get_arguments().any(|argument| argument.get_id() == *id);
        assert!(TERNARY.iter().chain(&LEARNED_SCALES).chain(&FULL_PRECISION).all(exists));
        assert!(LEARNED_SCALES.iter().all(|id| TERNARY.contains(id)));
    }
}
