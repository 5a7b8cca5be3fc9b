//! Options beside `--resume`.

use anyhow::{Result, bail};
use serde_json::Value;
use ttq_train::latest_checkpoint;

use crate::out::Out;
use crate::{RunConfig, ScheduleChoice};

/// The options that decide the outcome of a run: identifier, name, field of the configuration. (Without `--epochs` and
/// `--fp-epochs`, which may grow.)
const DECISIVE: [(&str, &str, &str); 45] = [
    ("recipe", "recipe", "/recipe"),
    ("precision", "precision", "/precision"),
    ("method", "method", "/method"),
    ("threshold", "threshold", "/ternary/quantizer/threshold"),
    ("threshold_schedule", "threshold-schedule", "/threshold_schedule/share"),
    ("threshold_start", "threshold-start", "/threshold_schedule/start"),
    ("granularity", "granularity", "/ternary/quantizer/scale_granularity"),
    ("threshold_granularity", "threshold-granularity", "/ternary/quantizer/threshold_granularity"),
    ("slope", "slope", "/ternary/quantizer/latent_gradient"),
    ("scale_parameter", "scale-parameter", "/ternary/quantizer/scale_parameter"),
    ("sign", "sign", "/ternary/quantizer/negative_scale_gradient"),
    ("initial_scales", "initial-scales", "/ternary/quantizer/initial_scales"),
    ("include", "include", "/ternary/selection/include"),
    ("exclude", "exclude", "/ternary/selection/exclude"),
    ("batch_size", "batch-size", "/batch_size"),
    ("accumulate", "accumulate", "/accumulate"),
    ("learning_rate", "lr", "/learning_rate"),
    ("fp_learning_rate", "fp-lr", "/full_precision/learning_rate"),
    ("weight_decay", "weight-decay", "/weight_decay"),
    ("fp_weight_decay", "fp-weight-decay", "/full_precision/weight_decay"),
    ("scale_lr_factor", "scale-lr-factor", "/scale_lr_factor"),
    ("schedule", "schedule", "/schedule"),
    ("cutout", "cutout", "/augmentation"),
    ("checkpoint", "checkpoint", "/checkpoint"),
    ("early_stopping", "early-stopping", "/early_stopping"),
    ("limit", "limit", "/limit"),
    ("validation", "validation", "/validation"),
    ("seed", "seed", "/seed"),
    ("init", "init", "/init"),
    ("key", "key", "/key"),
    ("distill", "distill", "/distillation"),
    ("teacher", "teacher", "/teacher"),
    ("label_smoothing", "label-smoothing", "/label_smoothing"),
    ("average", "average", "/averaging"),
    ("freeze_oscillations", "freeze-oscillations", "/oscillation_freezing"),
    ("reestimate_batch_norm", "reestimate-batch-norm", "/reestimate_batch_norm"),
    ("devices", "devices", "/devices"),
    ("strategy", "strategy", "/strategy"),
    ("depth", "depth", "/depth"),
    ("network", "network", "/network"),
    ("layers", "layers", "/gpt/layers"),
    ("width", "width", "/gpt/width"),
    ("heads", "heads", "/gpt/heads"),
    ("context", "context", "/gpt/context"),
    ("data", "data", "/text"),
];

/// Returns the name of an option on the command line.
pub(crate) fn option_name(id: &str) -> String {
    let known = DECISIVE.iter().find(|(known, ..)| *known == id);
    known.map_or_else(|| id.replace('_', "-"), |(_, name, _)| (*name).into())
}

/// Returns the configuration of a run that continues: the saved one, with more epochs if the options ask for them. `given`
/// are the identifiers of the options on the command line, `new` is the configuration that they would start.
///
/// # Errors
/// An option that would change the outcome of what is trained.
pub(crate) fn resumed(saved: RunConfig, new: &RunConfig, given: &[String], out: &Out) -> Result<RunConfig> {
    let is_given = |id: &str| given.iter().any(|found| found == id);
    let (old, wanted) = (serde_json::to_value(&saved)?, serde_json::to_value(new)?);
    for (_, name, field) in DECISIVE.iter().filter(|(id, _, _)| is_given(id)) {
        let value = |config: &Value| config.pointer(field).cloned().unwrap_or_default();
        if value(&old) != value(&wanted) {
            bail!(
                "--{name} cannot change the run in {}, which was started with {}: leave the option out, or start a new run in \
                 another --out",
                out.root().display(),
                value(&old)
            );
        }
    }
    let mut config = saved;
    let [full_precision, ternary] =
        [out.full_precision(), out.ternary()].map(|phase| latest_checkpoint(phase).is_some());
    if is_given("fp_epochs") && new.fp_epochs != config.fp_epochs {
        if ternary {
            bail!(
                "--fp-epochs comes too late: the ternary phase has begun, which starts from the phase in full precision"
            );
        }
        check_length("fp-epochs", &config, full_precision, [config.fp_epochs, new.fp_epochs])?;
        config.fp_epochs = new.fp_epochs;
    }
    if is_given("epochs") && new.epochs != config.epochs {
        check_length("epochs", &config, ternary, [config.epochs, new.epochs])?;
        config.epochs = new.epochs;
    }
    Ok(config)
}

/// A phase that has begun can become longer if its learning rate does not depend on its length.
fn check_length(name: &str, config: &RunConfig, has_begun: bool, [old, new]: [usize; 2]) -> Result<()> {
    if !has_begun {
        return Ok(());
    }
    if new < old {
        bail!("--{name} {new}: the phase was started with {old} epochs and cannot become shorter: start a new run");
    }
    let courses = [
        (config.threshold_schedule.is_some(), "the threshold (--threshold-schedule)"),
        (config.oscillation_freezing.is_some(), "the freezing of codes (--freeze-oscillations)"),
    ];
    if let Some((_, course)) = courses.iter().find(|(is_set, _)| *is_set && name == "epochs") {
        bail!(
            "--epochs {new}: {course} follows a course over {old} epochs, so that a longer phase would have begun differently: \
             start a new run; --init latent.safetensors starts it from these weights, with scales fitted anew"
        );
    }
    match config.schedule {
        ScheduleChoice::Constant | ScheduleChoice::Plateau => Ok(()),
        ScheduleChoice::Steps | ScheduleChoice::Cosine => bail!(
            "--{name} {new}: the learning rate (--schedule {}) follows a course over {old} epochs, so that a longer phase would \
             have begun differently: start a new run; --init latent.safetensors starts it from these weights, with scales fitted anew",
            config.schedule.name()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Options, Recipe};
    use clap::{Args, Command};
    use std::path::Path;

    fn parse(arguments: &str) -> (RunConfig, Vec<String>) {
        parse_with(&Recipe::mnist(), arguments)
    }

    fn parse_with(recipe: &Recipe, arguments: &str) -> (RunConfig, Vec<String>) {
        let arguments = format!("mnist --resume --out x {arguments}");
        let arguments = arguments.split_whitespace().map(Into::into).collect::<Vec<std::ffi::OsString>>();
        let (options, _) = Options::parse_from(recipe, |command| command, arguments);
        (RunConfig::new(recipe, &options), options.given)
    }

    /// Resumes, with `options`, a run that was started with `started`; phases with a checkpoint have begun.
    fn resume(started: &str, begun: &[&str], options: &str) -> Result<RunConfig> {
        let directory = tempfile::tempdir().unwrap();
        for phase in begun {
            let folder = directory.path().join(phase).join("checkpoint");
            std::fs::create_dir_all(&folder).unwrap();
            for part in ["model", "optim", "scheduler"] {
                std::fs::write(folder.join(format!("{part}-1.mpk")), "").unwrap();
            }
        }
        let (new, given) = parse(options);
        resumed(parse(started).0, &new, &given, &Out::at(directory.path()))
    }

    const BOTH: &[&str] = &["full-precision", "ternary"];

    /// Options that decide the outcome, with other values than the recipes have.
    const CHANGES: &str = "--precision bf16|--method twn|--threshold max:0.1|--threshold-schedule 0.5|\
        --granularity channel|--threshold-granularity channel|--slope scaled|--scale-parameter linear|--sign published|\
        --initial-scales ones|--include x|--exclude x|--batch-size 9|--accumulate 2|--lr 0.5|--fp-lr 0.5|\
        --weight-decay 0.5|--fp-weight-decay 0.5|--scale-lr-factor 0.5|--schedule plateau|--cutout 3|\
        --early-stopping|--limit 7|--validation 8|--seed 9|--init x|--key x|--distill 0.5:2|\
        --checkpoint last|--label-smoothing 0.1|--average 0.9|--freeze-oscillations 0.1:0.01|\
        --reestimate-batch-norm 5|--devices 2|--strategy ddp";

    #[test]
    fn an_option_that_would_change_a_resumed_run_is_refused_by_name() {
        for change in CHANGES.split('|') {
            let name = change.split_whitespace().next().unwrap();
            let error = resume("", &[], change).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{name} cannot change")), "{change}: {error}");
            assert!(resume(change, BOTH, change).is_ok(), "the same value again: {change}");
            assert!(resume(change, BOTH, "").is_ok(), "{change}");
        }
    }

    #[test]
    fn each_option_of_the_start_is_accepted_alone_whatever_the_other_options_and_the_recipe_were() {
        let all = CHANGES.replace('|', " ");
        for recipe in [Recipe::cifar(), Recipe::cifar_fast(), Recipe::cifar_paper()] {
            for option in CHANGES.split('|') {
                // The recipe of the command line is the default one.
                let (new, given) = parse_with(&Recipe::cifar(), option);
                for started in [option, all.as_str()] {
                    let (saved, _) = parse_with(&recipe, started);
                    let config = resumed(saved.clone(), &new, &given, &Out::at(Path::new("x")));
                    assert_eq!(config.unwrap_or_else(|error| panic!("{option} after {started}: {error}")), saved);
                }
            }
        }
        let started = "--threshold-schedule 0.5 --threshold-start max:0.01";
        let error =
            resume(started, &[], "--threshold-schedule 0.5 --threshold-start max:0.02").unwrap_err().to_string();
        assert!(error.starts_with("--threshold-start cannot change"), "{error}");
    }

    #[test]
    fn options_that_do_not_decide_the_outcome_are_allowed() {
        let config = resume("--seed 4", BOTH, "--minutes 3 --data y --backend cpu --no-tui").unwrap();
        assert_eq!(config, parse("--seed 4").0);
    }

    #[test]
    fn a_phase_becomes_longer_if_its_learning_rate_does_not_depend_on_its_length() {
        for schedule in ["constant", "plateau"] {
            let started = format!("--schedule {schedule} --fp-epochs 2 --epochs 2");
            assert_eq!(resume(&started, BOTH, "--epochs 6").unwrap().epochs, 6);
            assert_eq!(resume(&started, &BOTH[..1], "--fp-epochs 3").unwrap().fp_epochs, 3);
            let error = resume(&started, BOTH, "--epochs 1").unwrap_err().to_string();
            assert!(error.contains("cannot become shorter"), "{error}");
        }
        for schedule in ["steps", "cosine"] {
            let started = format!("--schedule {schedule} --fp-epochs 2 --epochs 2");
            let error = resume(&started, BOTH, "--epochs 6").unwrap_err().to_string();
            assert!(error.contains(&format!("--schedule {schedule}")), "{error}");
            assert_eq!(resume(&started, &BOTH[..1], "--epochs 6").unwrap().epochs, 6, "the phase has not begun");
        }
        for course in ["--threshold-schedule 0.5", "--freeze-oscillations 0.1:0.01"] {
            let started = format!("--schedule constant {course} --epochs 2");
            let error = resume(&started, BOTH, "--epochs 6").unwrap_err().to_string();
            assert!(error.contains(course.split(' ').next().unwrap()), "{error}");
        }
        let error = resume("", BOTH, "--fp-epochs 9").unwrap_err().to_string();
        assert!(error.contains("--fp-epochs comes too late"), "{error}");
        assert!(resume("", BOTH, "--fp-epochs 3 --epochs 3").is_ok(), "the numbers that it was started with");
    }

    #[test]
    fn every_option_decides_the_outcome_or_is_known_not_to() {
        const OTHERS: [&str; 9] =
            ["backend", "data", "out", "resume", "minutes", "no_tui", "eval", "epochs", "fp_epochs"];
        for argument in Options::augment_args(Command::new("x")).get_arguments() {
            let id = argument.get_id().as_str();
            let decisive = DECISIVE.iter().any(|(known, _, _)| *known == id);
            assert!(decisive || OTHERS.contains(&id), "what does --resume do with {id}?");
        }
        let config = RunConfig { gpt: Some(Default::default()), ..parse("--threshold-schedule 0.5").0 };
        let config = serde_json::to_value(config).unwrap();
        for (_, _, field) in DECISIVE {
            assert!(config.pointer(field).is_some(), "{field}");
        }
    }
}
