//! Tiny ImageNet with the networks of the PyTorch port of TTQ.
//!
//! Evaluate a checkpoint, of the port or of a run of this example:
//! `cargo run --release --example tiny_imagenet -- --eval ttq_densenet_small.pt`
//!
//! The same packed by `ttq pack`, with dense and with packed layers:
//! `cargo run --release --example tiny_imagenet -- --eval ttq_densenet_small.ttq.safetensors`
//!
//! Make a trained network ternary by the port's recipe (100,000 training images; the port took 75 s an epoch for the small
//! DenseNet and 112 s for SqueezeNet on its GPU):
//! `cargo run --release --example tiny_imagenet -- --init densenet_small.pt --data DIR`
//!
//! `--data` is the folder `tiny-imagenet-200` or a `val.tar` of it; with the validation images alone nine tenths of them are
//! trained on and one tenth tested on. `-- --help` lists what can be changed.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Arg;
use clap::builder::EnumValueParser;
use ttq_core::packed::PackedConv2d;
use ttq_examples::model::{Architecture, DenseNet, DenseNetConfig, SqueezeNet};
use ttq_examples::{Cpu, Job, Options, Recipe, compare_packed, data, exit, is_packed, on_backend, tensor_names};

const DATA: &str = "Data: --data is the folder tiny-imagenet-200 (train/<id>/images, val/images, val/val_annotations.txt, \
    wnids.txt), the folder around it, or a tar file of it without train. Without training images --eval takes all validation \
    images, and a training trains on nine tenths of them and tests on the last tenth: --limit 1280 --epochs 1 --batch-size 64 \
    shows in minutes whether it works.";

fn main() -> ExitCode {
    let network = Arg::new("network")
        .long("network")
        .help("The network [default: that of the checkpoint, else densenet-small]; defaults are shown for densenet-small")
        .long_help(
            "The network [default: that of the checkpoint in --init or --eval, else densenet-small]\n\nThe defaults shown \
             are those of densenet-small; the others are trained with --threshold max:0.15 --lr 0.0001, squeezenet with \
             --epochs 10, densenet-121 with --batch-size 64",
        )
        .value_parser(EnumValueParser::<Architecture>::new());
    let (mut options, matches) = Options::parse(&Recipe::tiny_imagenet(Architecture::DenseNetSmall), |command| {
        command.arg(network).after_help(DATA)
    });
    let checkpoint = options.eval.as_ref().or(options.init.as_ref());
    let network = matches.get_one("network").copied();
    let network = network.or_else(|| Architecture::of_names(&tensor_names(checkpoint?)));
    let network = network.unwrap_or(Architecture::DenseNetSmall);
    let recipe = Recipe::tiny_imagenet(network);
    options.network = Some(network);
    exit(|| {
        let starts_from_nothing = checkpoint.is_none() && !options.resume;
        if starts_from_nothing && options.fp_epochs.unwrap_or(recipe.fp_epochs) == 0 {
            bail!("there is no trained network to start from: give --init CHECKPOINT, or train one with --fp-epochs N");
        }
        if let Some(file) = options.eval.as_ref().filter(|file| is_packed(file)) {
            return packed(file, network, options.data.as_deref());
        }
        let load = if options.eval.is_some() { data::tiny_imagenet_validation } else { data::tiny_imagenet };
        let job = Job::prepare(&recipe, &options, load)?;
        match job.config().network.unwrap_or(network) {
            Architecture::SqueezeNet => {
                on_backend!(job, |B, classes, device| SqueezeNet::<B>::new(classes, device))
            }
            densenet => {
                let config = size(densenet);
                on_backend!(job, |B, classes, device| DenseNet::<B>::new(&config, classes, device))
            }
        }
    })
}

fn size(densenet: Architecture) -> DenseNetConfig {
    match densenet {
        Architecture::DenseNet121 => DenseNetConfig::DENSENET_121,
        _ => DenseNetConfig::SMALL,
    }
}

/// Evaluates a packed file with dense and with packed layers.
fn packed(file: &Path, network: Architecture, data: Option<&Path>) -> Result<()> {
    let images = data::tiny_imagenet_validation(data)?;
    let (classes, device) = (images.classes, &Default::default());
    println!("{} test images, {}, checkpoint {}", images.test.len(), images.source, file.display());
    if network == Architecture::SqueezeNet {
        let dense = SqueezeNet::<Cpu>::new(classes, device);
        return compare_packed(dense, SqueezeNet::<Cpu, PackedConv2d<Cpu>>::new(classes, device), file, &images);
    }
    let config = size(network);
    let dense = DenseNet::<Cpu>::new(&config, classes, device);
    compare_packed(dense, DenseNet::<Cpu, PackedConv2d<Cpu>>::new(&config, classes, device), file, &images)
}
