//! Tiny ImageNet with the networks of the PyTorch port of TTQ.
//!
//! Evaluate a checkpoint of the port or of a run of this example:
//! `cargo run --release --features tiny-imagenet --example tiny_imagenet -- --eval ttq_densenet_small.pt`
//!
//! Evaluate the same network, packed by `ttq pack`, with dense and with packed weights:
//! `cargo run --release --features tiny-imagenet --example tiny_imagenet -- --eval ttq_densenet_small.ttq.safetensors`
//!
//! Make a trained network ternary with the recipe of the port (100,000 training images; the port took 75 s per epoch
//! for the small DenseNet and 112 s for SqueezeNet on its GPU): `cargo run --release --features tiny-imagenet --example
//! tiny_imagenet -- --init densenet_small.pt --data DIR`
//!
//! `--data` is the folder `tiny-imagenet-200` or its `val.tar`. If there are validation images only, nine tenths of
//! them are used for training and one tenth for testing. `-- --help` lists the options.

mod architecture;
mod data;
mod distort;
mod jpeg;
mod recipe;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, bail};
use burn::backend::Autodiff;
use burn::tensor::backend::Backend;
use clap::Arg;
use clap::builder::EnumValueParser;
use ttq_examples::data::Images;
use ttq_examples::model::{Classifier, DenseNet, DenseNetConfig, Network, SqueezeNet};
use ttq_examples::{
    Cpu, Job, Options, Out, RunBackend, Trains, check_evaluation, evaluate, exit, is_packed, load, print_line,
    tensor_names,
};
use ttq_inference::Packed;

use crate::architecture::Architecture;
use crate::recipe::recipe;

/// Text below the list of options.
const DATA: &str = "Data: --data is the folder tiny-imagenet-200 (train/<id>/images, val/images, \
    val/val_annotations.txt, wnids.txt), its parent, or a tar file of it without train. --eval uses all validation \
    images. If there are no training images, nine tenths of the validation images are used for training and the last \
    tenth for testing; a test run with --limit 1280 --epochs 1 --batch-size 64 takes minutes.";

/// Options that have no meaning with a packed file in --eval.
const NOT_PACKED: [&str; 3] = ["backend", "precision", "key"];

fn main() -> ExitCode {
    let network = Arg::new("network")
        .long("network")
        .help(
            "Network [default: that of the checkpoint, else densenet-small]; the other defaults are for densenet-small",
        )
        .long_help(
            "Network [default: that of the run to resume, or of the checkpoint in --init or --eval, else \
             densenet-small]\n\nThe defaults of the other options are those of densenet-small. The defaults of the \
             other networks are --threshold max:0.15 --lr 0.0001, and --epochs 10 for squeezenet or \
             --batch-size 64 for densenet-121.",
        )
        .value_parser(EnumValueParser::<Architecture>::new());
    let (mut options, matches) =
        Options::parse(&recipe(Architecture::DenseNetSmall), |command| command.arg(network).after_help(DATA));
    let checkpoint = options.eval.as_ref().or(options.init.as_ref());
    let network = matches.get_one("network").copied().unwrap_or_else(|| default_network(&options));
    let recipe = recipe(network);
    options.network = Some(network.name());
    exit(|| {
        let starts_from_nothing = checkpoint.is_none() && !options.resume;
        if starts_from_nothing && options.fp_epochs.unwrap_or(recipe.full_precision.epochs) == 0 {
            bail!("training needs a trained network: give --init CHECKPOINT, or train one with --fp-epochs N");
        }
        if let Some(file) = options.eval.as_ref().filter(|file| is_packed(file)) {
            check_evaluation(&options)?;
            if let Some(name) = NOT_PACKED.iter().find(|name| options.given.iter().any(|given| given == *name)) {
                bail!("--{name} has no meaning with a packed file, which is evaluated on ttq-cpu: leave it out");
            }
            return evaluate_packed(file, network, options.data.as_deref());
        }
        let load = if options.eval.is_some() { data::validation } else { data::training };
        let job = Job::prepare(&recipe, &options, load)?;
        match job.backend() {
            RunBackend::Cpu => train::<Autodiff<Cpu>>(job, network, |_| Default::default()),
            #[cfg(feature = "cuda")]
            RunBackend::Cuda => {
                train::<Autodiff<burn::backend::Cuda>>(job, network, burn::backend::cuda::CudaDevice::new)
            }
            other => bail!("this example does not run on the backend {}: use cpu or cuda", other.name()),
        }
    })
}

/// Returns the network of the run to resume, or that of the checkpoint, or the small DenseNet.
fn default_network(options: &Options) -> Architecture {
    let saved = || Out::ended(options.out.as_ref().filter(|_| options.resume)?).ok()?.1.network;
    let checkpoint = || options.eval.as_ref().or(options.init.as_ref());
    let named = || Architecture::from_parameter_names(&tensor_names(checkpoint()?, options.key.as_deref()));
    saved().and_then(|name| Architecture::from_name(&name)).or_else(named).unwrap_or(Architecture::DenseNetSmall)
}

/// Runs the job with its network, or with `network` if its configuration has none.
fn train<B: Trains>(job: Job, network: Architecture, device: fn(usize) -> B::Device) -> Result<()> {
    let devices = (0..job.config().devices).map(device).collect();
    let saved = job.config().network.as_deref().and_then(Architecture::from_name);
    match saved.unwrap_or(network) {
        Architecture::SqueezeNet => job.start::<B, _>(devices, |classes, device| SqueezeNet::<B>::new(classes, device)),
        densenet => {
            let config = densenet_config(densenet);
            job.start::<B, _>(devices, move |classes, device| DenseNet::<B>::new(&config, classes, device))
        }
    }
}

/// Returns the configuration of a DenseNet.
fn densenet_config(densenet: Architecture) -> DenseNetConfig {
    match densenet {
        Architecture::DenseNet121 => DenseNetConfig::DENSENET_121,
        _ => DenseNetConfig::SMALL,
    }
}

/// Evaluates a packed file with dense and with packed weights.
fn evaluate_packed(file: &Path, network: Architecture, data: Option<&Path>) -> Result<()> {
    let images = data::validation(data)?;
    let (classes, device) = (images.classes, &Default::default());
    print_line(format_args!("{} test images, {}, checkpoint {}", images.test.len(), images.source, file.display()));
    if network == Architecture::SqueezeNet {
        let dense = SqueezeNet::<Cpu>::new(classes, device);
        return compare(dense, SqueezeNet::<Packed<Cpu>>::new(classes, device), file, &images);
    }
    let config = densenet_config(network);
    let dense = DenseNet::<Cpu>::new(&config, classes, device);
    compare(dense, DenseNet::<Packed<Cpu>>::new(&config, classes, device), file, &images)
}

/// Evaluates a packed file with a dense and with a packed network; prints both results and the number of images whose
/// predictions differ.
fn compare(
    dense: impl Network<Cpu, Task = Images>,
    packed: impl Network<Packed<Cpu>, Task = Images>,
    file: &Path,
    images: &Images,
) -> Result<()> {
    let dense = predictions("dense", dense, file, images)?;
    let packed = predictions("packed", packed, file, images)?;
    let different = dense.iter().zip(&packed).filter(|(dense, packed)| dense != packed).count();
    print_line(format_args!("{different} of {} predictions differ", images.test.len()));
    Ok(())
}

/// Evaluates a network with the weights in `file`, prints the results and returns the predicted classes.
fn predictions<B: Backend>(
    name: &str,
    mut network: impl Network<B, Task = Images>,
    file: &Path,
    images: &Images,
) -> Result<Vec<usize>> {
    load(&mut network, file, None)?;
    let start = Instant::now();
    let (evaluation, predictions) = evaluate(&Classifier::new(network), images, &Default::default());
    let rate = images.test.len() as f64 / start.elapsed().as_secs_f64();
    print_line(format_args!("{name:8} {evaluation}, {rate:.0} images per second"));
    Ok(predictions.iter().map(|prediction| prediction.predicted).collect())
}
