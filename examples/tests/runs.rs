//! Runs from the command line to their files, on a few images.

use std::fs;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::Result;
use burn::module::{Module, ModuleMapper, Param};
use burn::prelude::*;
use ttq_examples::model::{GptConfig, MnistNet};
use ttq_examples::{Cpu, Job, Options, Recipe, data, save};

/// Writes MNIST with `train` and 20 test images: class `c` has a bright stripe at row `2 c`.
fn write_images(directory: &Path, train: usize) {
    for (name, count) in [("train", train), ("t10k", 20)] {
        let size = (count as u32).to_be_bytes();
        let mut images = [&[0, 0, 8, 3], &size[..], &[0, 0, 0, 28, 0, 0, 0, 28]].concat();
        let mut labels = [&[0, 0, 8, 1], &size[..]].concat();
        for index in 0..count {
            let class = index % 10;
            labels.push(class as u8);
            images.extend((0..784).map(|pixel| {
                let stripe = if pixel / 28 / 2 == class { 200 } else { 0 };
                stripe + ((index * 7 + pixel * 13) % 50) as u8
            }));
        }
        fs::write(directory.join(format!("{name}-images-idx3-ubyte")), images).unwrap();
        fs::write(directory.join(format!("{name}-labels-idx1-ubyte")), labels).unwrap();
    }
}

/// Initial weights are drawn from a generator that the threads of a process share: one test at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Returns the options of a training run in the folder `out` of `directory`; an evaluation has none.
fn training(directory: &Path, out: &str, options: &str) -> String {
    match options.contains("--eval") {
        true => String::new(),
        false => format!("--out {}", directory.join(out).display()),
    }
}

/// Runs `mnist` with the data of `directory`, in its folder `out`.
fn mnist(directory: &Path, out: &str, options: &str) -> Result<()> {
    let (data, out) = (directory.display(), training(directory, out, options));
    let line = format!("mnist --backend cpu --no-tui --data {data} {out} {options}");
    let arguments = line.split_whitespace().map(Into::into).collect::<Vec<std::ffi::OsString>>();
    let recipe = Recipe::mnist();
    let (options, _) = Options::parse_from(&recipe, |command| command, arguments);
    ttq_examples_cpu::run(Job::prepare(&recipe, &options, data::mnist)?)
}

/// Runs `text` on a small network and a text of 600 bytes in `directory`, in its folder `out`.
fn text(directory: &Path, out: &str, options: &str) -> Result<()> {
    text_with(SMALL, directory, out, options)
}

/// The size of the small network.
const SMALL: GptConfig = GptConfig { layers: 1, width: 16, heads: 2, context: 16 };

/// Runs `text` with a network of another size.
fn text_with(size: GptConfig, directory: &Path, out: &str, options: &str) -> Result<()> {
    let path = directory.join("text.txt");
    fs::write(&path, "she sells sea shells by the sea shore\n".repeat(16)).unwrap();
    let out = training(directory, out, options);
    let data = if options.contains("--resume") { String::new() } else { format!("--data {}", path.display()) };
    let line = format!("text --backend cpu --no-tui {data} {out} {options}");
    let arguments = line.split_whitespace().map(Into::into).collect::<Vec<std::ffi::OsString>>();
    let recipe = Recipe::text();
    let (mut options, _) = Options::parse_from(&recipe, |command| command, arguments);
    options.gpt = Some(size);
    ttq_examples_cpu::run_text(Job::prepare(&recipe, &options, data::text)?)
}

struct Poison;

impl<B: Backend> ModuleMapper<B> for Poison {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        param.map(|tensor| if D == 4 { tensor.mul_scalar(f32::NAN) } else { tensor })
    }
}

#[test]
fn a_run_that_cannot_start_says_why_and_writes_nothing() {
    let _lock = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let directory = tempfile::tempdir().unwrap();
    write_images(directory.path(), 100);
    let poisoned = directory.path().join("nan.safetensors");
    save(&MnistNet::<Cpu>::new(10, &Default::default()).map(&mut Poison), &poisoned).unwrap();
    let init = format!("--init {}", poisoned.display());
    let [init_with_key, eval_with_key] =
        ["init", "eval"].map(|option| format!("--{option} {} --key model", poisoned.display()));
    for (options, reason) in [
        ("--limit 1", "raise --limit"),
        ("--accumulate 9", "cannot be accumulated"),
        ("--batch-size 1", "--batch-size"),
        (init.as_str(), "conv1.weight"),
        ("--resume", "no run to resume"),
        ("--method fp --distill 0.5", "--distill has no meaning with --method fp"),
        ("--method twn --sign published", "--sign has no meaning with --method twn"),
        ("--distill 0 --teacher x", "--teacher has no meaning"),
        ("--epochs 0 --distill 0.5", "--distill has no meaning with --epochs 0"),
        ("--epochs 0 --threshold-schedule 0.5", "--threshold-schedule has no meaning with --epochs 0"),
        ("--epochs 0 --threshold mean:0.7", "--threshold has no meaning with --epochs 0"),
        ("--fp-epochs 0 --fp-lr 0.1", "--fp-lr has no meaning with --fp-epochs 0"),
        ("--epochs 0 --lr 0.1 --fp-lr 0.1", "--lr has no meaning with --fp-lr"),
        ("--method fp --weight-decay 0 --fp-weight-decay 0", "--weight-decay has no meaning with --fp-weight-decay"),
        ("--key model", "--key is an entry of a PyTorch file"),
        (init_with_key.as_str(), "--key is an entry of a PyTorch file"),
        (eval_with_key.as_str(), "omit --key"),
        ("--eval x --minutes 3", "--minutes has no meaning with --eval"),
        ("--eval x --fp-lr 0.1", "--fp-lr has no meaning with --eval"),
        ("--eval x --init y", "--init has no meaning with --eval"),
    ] {
        let error = mnist(directory.path(), "run", options).unwrap_err().to_string();
        assert!(error.contains(reason), "{options}: {error}");
        assert!(!directory.path().join("run").exists(), "{options}");
    }
}

#[test]
fn a_run_with_more_epochs_equals_one_that_was_started_with_them() {
    let _lock = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let directory = tempfile::tempdir().unwrap();
    write_images(directory.path(), 100);
    let options = "--schedule constant --batch-size 30 --fp-epochs 1";
    mnist(directory.path(), "whole", &format!("{options} --epochs 2")).unwrap();
    mnist(directory.path(), "parts", &format!("{options} --epochs 1")).unwrap();
    let error = mnist(directory.path(), "parts", "--resume --lr 0.5").unwrap_err().to_string();
    assert!(error.contains("--lr cannot change the run"), "{error}");
    mnist(directory.path(), "parts", "--resume --epochs 2").unwrap();
    let packed = |run: &str| fs::read(directory.path().join(run).join("packed.safetensors")).unwrap();
    assert!(packed("parts") == packed("whole"));
    let config = fs::read_to_string(directory.path().join("parts/config.json")).unwrap();
    assert!(config.contains("\"epochs\": 2"), "{config}");
}

#[test]
fn a_run_that_continues_has_its_data_and_drops_results_of_fewer_epochs() {
    let _lock = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let directory = tempfile::tempdir().unwrap();
    write_images(directory.path(), 100);
    let options = "--schedule constant --batch-size 30 --fp-epochs 1 --epochs 1";
    mnist(directory.path(), "run", options).unwrap();
    let results = ["summary.json", "report.html", "packed.safetensors", "latent.safetensors"];
    let exist = || results.map(|file| directory.path().join("run").join(file).is_file());
    assert_eq!(exist(), [true; 4]);
    write_images(directory.path(), 110);
    let error = mnist(directory.path(), "run", "--resume --epochs 2").unwrap_err().to_string();
    assert!(error.contains("was started with other data"), "{error}");
    assert_eq!(exist(), [true; 4]);
    write_images(directory.path(), 100);
    mnist(directory.path(), "run", "--resume --epochs 2 --minutes 0.000001").unwrap();
    assert_eq!(exist(), [false; 4]);
    mnist(directory.path(), "run", "--resume").unwrap();
    assert_eq!(exist(), [true; 4]);
}

#[test]
fn a_resumed_run_is_refused_what_a_new_one_is() {
    let _lock = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let directory = tempfile::tempdir().unwrap();
    write_images(directory.path(), 100);
    mnist(directory.path(), "run", "--minutes 0.000001").unwrap();
    let path = directory.path().join("run/config.json");
    let config = fs::read_to_string(&path).unwrap().replace("\"strategy\": \"multi\"", "\"strategy\": \"ddp\"");
    fs::write(&path, config).unwrap();
    for (run, options) in [("new", "--strategy ddp --minutes 9"), ("run", "--resume --minutes 9")] {
        let error = mnist(directory.path(), run, options).unwrap_err().to_string();
        assert!(error.contains("distributed strategy"), "{options}: {error}");
    }
}

#[test]
fn a_language_model_resumes_exactly_and_reports_its_perplexity() {
    let _lock = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let directory = tempfile::tempdir().unwrap();
    let options = "--schedule constant --fp-epochs 2 --average 0.9 --distill 0.5";
    text(directory.path(), "whole", &format!("{options} --epochs 2")).unwrap();
    text(directory.path(), "parts", &format!("{options} --epochs 1")).unwrap();
    let other = text(directory.path(), "parts", "--resume --data other.txt").unwrap_err().to_string();
    assert!(other.contains("--data cannot change the run"), "{other}");
    text(directory.path(), "parts", "--resume --epochs 2").unwrap();
    let read = |path: &str| fs::read(directory.path().join(path)).unwrap();
    for file in ["packed.safetensors", "ternary.safetensors", "full-precision.safetensors"] {
        assert!(read(&format!("parts/{file}")) == read(&format!("whole/{file}")), "{file}");
    }
    let eval = format!("--eval {}", directory.path().join("whole/packed.safetensors").display());
    text(directory.path(), "eval", &eval).unwrap();
    // The number of heads changes no shape.
    for options in [&eval, &eval.replace("--eval", "--init")] {
        let size = GptConfig { heads: 4, ..SMALL };
        let error = text_with(size, directory.path(), "other", options).unwrap_err().to_string();
        assert!(error.contains("--heads 2") && error.contains("--heads 4"), "{options}: {error}");
    }
    let summary: serde_json::Value = serde_json::from_slice(&read("parts/summary.json")).unwrap();
    for network in ["full_precision", "ternary"] {
        let [perplexity, bits] =
            ["perplexity", "bits_per_byte"].map(|name| summary[format!("{network}_{name}")].as_f64().unwrap());
        assert!((1.0..300.0).contains(&perplexity) && (perplexity.log2() - bits).abs() < 1e-9, "{perplexity} {bits}");
    }
    let report = String::from_utf8(read("parts/report.html")).unwrap();
    assert!(report.contains("Perplexity") && !report.contains("Confusion matrix") && !report.contains("Top-1"));
}

#[test]
fn a_language_model_that_cannot_start_says_why_and_writes_nothing() {
    let _lock = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let directory = tempfile::tempdir().unwrap();
    for (options, reason) in [
        ("--limit 16", "16 bytes, and a context of 16 needs 17"),
        ("--eval missing.safetensors", "no checkpoint"),
        ("--resume", "no run to resume"),
    ] {
        let error = text(directory.path(), "run", options).unwrap_err().to_string();
        assert!(error.contains(reason), "{options}: {error}");
        assert!(!directory.path().join("run").exists(), "{options}");
    }
    let long = GptConfig { context: 60, ..SMALL };
    let error = text_with(long, directory.path(), "run", "--eval Cargo.toml").unwrap_err().to_string();
    assert!(error.contains("its part for testing has 60 bytes"), "{error}");
}
