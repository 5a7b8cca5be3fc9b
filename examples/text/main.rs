//! A small GPT with ternary weights, on the bytes of a text: `cargo run --release --example text`. `-- --help` lists the
//! options. At its end a run writes a passage. A trained network writes more with
//! `cargo run --release --example text -- --generate "Alice was" --from runs/text-1`.

mod generate;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{Arg, ArgMatches, Command, value_parser};
use ttq_examples::model::GptConfig;
use ttq_examples::{Job, Options, Recipe, check_only, data, exit, is_first};

use crate::generate::{Sampling, Trained};

/// Options that have no meaning in this example, and why.
const OTHERS: [(&str, &str); 3] = [
    ("cutout", "there are no images"),
    ("reestimate_batch_norm", "the network has no batch normalization"),
    ("validation", "a tenth of the text is for validation"),
];

/// The options that have a meaning with `--generate`.
const GENERATION: [&str; 6] = ["generate", "from", "tokens", "temperature", "seed", "no_tui"];

fn main() -> ExitCode {
    let recipe = Recipe::text();
    let (mut options, matches) = Options::parse(&recipe, arguments);
    exit(|| {
        let sampling = Sampling {
            tokens: number(&matches, "tokens"),
            temperature: matches.get_one("temperature").copied().unwrap_or_default(),
            seed: options.seed,
        };
        if let (Some(prompt), Some(from)) = (matches.get_one::<String>("generate"), matches.get_one::<PathBuf>("from"))
        {
            check_only(&options, &GENERATION, "--generate, which trains nothing")?;
            return match Trained::open(from)? {
                Some(trained) => trained.write(prompt, &sampling),
                None => bail!("{} has no trained network: the run has not ended", from.display()),
            };
        }
        if let Some((name, reason)) = OTHERS.iter().find(|(name, _)| options.given.iter().any(|given| given == name)) {
            bail!("--{}: {reason}: leave the option out", name.replace('_', "-"));
        }
        options.gpt = Some(size(&matches)?);
        let job = Job::prepare(&recipe, &options, data::text)?;
        let directory = job.directory().map(Path::to_path_buf);
        if job.backend().is_gpu() {
            ttq_examples_gpu::run_text(job)?
        } else {
            ttq_examples_cpu::run_text(job)?
        }
        if !is_first() {
            return Ok(());
        }
        match directory.map(|directory| Trained::open(&directory)).transpose()?.flatten() {
            Some(trained) => trained.write("", &sampling),
            None => Ok(()),
        }
    })
}

/// Adds the arguments of this example.
fn arguments(command: Command) -> Command {
    let default = GptConfig::default();
    let sizes = [
        ("layers", "Number of transformer layers", default.layers),
        ("width", "Number of features of a byte", default.width),
        ("heads", "Number of attention heads, a divisor of --width", default.heads),
        ("context", "Largest number of bytes that the network reads", default.context),
        ("tokens", "Number of bytes to write", 500),
    ];
    let sizes = sizes.map(|(name, help, default)| {
        let default: &'static str = default.to_string().leak();
        Arg::new(name)
            .long(name)
            .value_name("N")
            .help(help)
            .default_value(default)
            .value_parser(value_parser!(u32).range(1..))
    });
    let generate = Arg::new("generate")
        .long("generate")
        .value_name("PROMPT")
        .requires("from")
        .help("Continue this text with a trained network, without training");
    let from = Arg::new("from")
        .long("from")
        .value_name("PATH")
        .requires("generate")
        .value_parser(value_parser!(PathBuf))
        .help("Directory of a run, or packed file, with the network of --generate");
    let temperature = Arg::new("temperature")
        .long("temperature")
        .value_name("T")
        .default_value("0.8")
        .value_parser(temperature)
        .help("Divisor of the logits before a byte is drawn; 0 for the most probable byte");
    let command = OTHERS.into_iter().fold(command, |command, (name, _)| command.mut_arg(name, |arg| arg.hide(true)));
    command
        .mut_arg("data", |arg| {
            arg.value_name("FILE").help(
                "Text to learn; its last tenth is for testing, the tenth before for validation [default: Alice's \
                 Adventures in Wonderland and As You Like It, part of this program]",
            )
        })
        .mut_arg("batch_size", |arg| arg.help("Sequences of --context bytes in a batch, over all devices"))
        .mut_arg("limit", |arg| arg.help("Train on the first N bytes of the training text only"))
        .args(sizes)
        .args([generate, from, temperature])
}

/// Returns the value of an argument with a default.
fn number(matches: &ArgMatches, name: &str) -> usize {
    matches.get_one::<u32>(name).map_or(0, |value| *value as usize)
}

/// Returns the size of the network.
fn size(matches: &ArgMatches) -> Result<GptConfig> {
    let [layers, width, heads, context] = ["layers", "width", "heads", "context"].map(|name| number(matches, name));
    if !width.is_multiple_of(heads) {
        bail!("--heads {heads} does not divide --width {width}: choose a divisor");
    }
    Ok(GptConfig { layers, width, heads, context })
}

fn temperature(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(temperature) if temperature >= 0.0 && f64::is_finite(temperature) => Ok(temperature),
        _ => Err("must be a number from 0 on".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> (Options, ArgMatches) {
        Options::parse_from(&Recipe::text(), arguments, line.split_whitespace().map(Into::into))
    }

    #[test]
    fn the_size_of_the_network_is_that_of_the_options() {
        let found = size(&parse("text --layers 2 --width 12 --heads 3 --context 9").1).unwrap();
        assert_eq!(found, GptConfig { layers: 2, width: 12, heads: 3, context: 9 });
        assert_eq!(size(&parse("text").1).unwrap(), GptConfig::default());
        let error = size(&parse("text --width 12 --heads 5").1).unwrap_err().to_string();
        assert!(error.contains("--heads 5"), "{error}");
    }

    #[test]
    fn options_of_images_are_options_of_the_program() {
        let (options, _) = parse("text --cutout 3 --reestimate-batch-norm 2 --validation 9");
        for (name, _) in OTHERS {
            assert!(options.given.iter().any(|given| given == name), "{name}");
        }
    }

    #[test]
    fn options_of_training_have_no_meaning_with_a_trained_network() {
        let check = |line: &str| {
            let line = format!("text --generate x --from runs/text-1 {line}");
            check_only(&parse(&line).0, &GENERATION, "--generate")
        };
        assert!(check("--tokens 9 --temperature 0 --seed 3").is_ok());
        for option in ["--lr 1", "--context 9", "--backend cpu", "--data x", "--resume --out x"] {
            let error = check(option).unwrap_err().to_string();
            assert!(error.starts_with(option.split(' ').next().unwrap()), "{option}: {error}");
        }
    }

    #[test]
    fn a_temperature_is_a_number_from_zero_on() {
        assert_eq!(temperature("0"), Ok(0.0));
        assert!(["-1", "nan", "inf", "x"].iter().all(|text| temperature(text).is_err()));
    }
}
