//! The command line that the examples share.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::parser::ValueSource;
use clap::{Args, Command, FromArgMatches, ValueEnum};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use ttq_core::{Granularity, InitialScales, LatentGradient, NegativeScaleGradient, ScaleParameter, Threshold};
use ttq_train::{Averaging, Distillation, KeptEpoch, OscillationFreezing};

use crate::model::GptConfig;
use crate::{Recipe, Strategy};

/// The backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BackendChoice {
    /// CUDA if a device answers, else the CPU.
    Auto,
    /// The CPU, by ttq-cpu.
    Cpu,
    /// The CPU, by Burn's Flex; needs the feature `flex`.
    Flex,
    /// NVIDIA GPUs.
    Cuda,
    /// Other GPUs through Vulkan, Metal or WebGPU; needs the feature `wgpu`.
    Wgpu,
}

/// Type of matrix products and convolutions. Everything else is float32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// float32.
    #[default]
    F32,
    /// bfloat16 (cuda, flex).
    Bf16,
    /// float16 (cuda, wgpu).
    F16,
}

/// The method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// Trained ternary quantization: two learned scales for each layer.
    Ttq,
    /// Trained ternary quantization as in the paper: --slope scaled, --scale-parameter linear.
    TtqPaper,
    /// Ternary weight networks: one scale, the mean of the weights kept.
    Twn,
    /// BitNet b1.58: one scale, the mean of all weights.
    Absmean,
    /// Full precision only.
    Fp,
}

/// Course of the learning rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScheduleChoice {
    /// Constant.
    Constant,
    /// Divided by ten at half and at three quarters of the epochs.
    Steps,
    /// A cosine to zero, after one epoch of warm-up in phases of ten epochs or more.
    Cosine,
    /// Divided by ten when the validation results stop improving.
    Plateau,
}

/// The options of all examples.
#[derive(Debug, Clone, Args)]
// A group of all options would be among the identifiers in `given`.
#[group(skip)]
pub struct Options {
    /// Backend to compute on.
    #[arg(long, value_enum, default_value = "auto")]
    pub backend: BackendChoice,
    /// Type of matrix products and convolutions; everything else is float32.
    #[arg(long, value_enum, default_value = "f32")]
    pub precision: Precision,
    /// Method that makes weights ternary.
    #[arg(long, value_enum, default_value = "ttq")]
    pub method: Method,
    /// Threshold below which weights are zero: max:T (T times the largest magnitude), mean:F (F times the mean magnitude)
    /// or zeros:R (a share R of zeros).
    #[arg(long)]
    pub threshold: Option<Threshold>,
    /// Move the threshold from --threshold-start to --threshold along a half cosine over this share of the ternary phase.
    #[arg(long, value_name = "SHARE", value_parser = learning_rate)]
    pub threshold_schedule: Option<f64>,
    /// Threshold at the start of --threshold-schedule, of the same rule as --threshold [default: that rule with 0].
    #[arg(long, value_name = "THRESHOLD", requires = "threshold_schedule")]
    pub threshold_start: Option<Threshold>,
    /// Weights that share a threshold and scales: all of a layer, or those of an output channel.
    #[arg(long, value_parser = named::<Granularity, _>(["tensor", "channel"]), default_value = "tensor")]
    pub granularity: Granularity,
    /// Weights that share a threshold, if others than --granularity says.
    #[arg(long, value_name = "GRANULARITY", value_parser = named::<Granularity, _>(["tensor", "channel"]))]
    pub threshold_granularity: Option<Granularity>,
    /// Factor of latent gradients outside the zero zone: the scale relative to the mean scale of the layer, the scale as in
    /// the paper, or 1 [default: ttq relative, ttq-paper scaled, others identity].
    #[arg(long, value_parser = named::<LatentGradient, _>(["relative", "scaled", "identity"]))]
    pub slope: Option<LatentGradient>,
    /// Parameters that learned scales are trained as: their logarithms, or the scales themselves as in the paper [default: ttq
    /// logarithm, ttq-paper linear].
    #[arg(long, value_parser = named::<ScaleParameter, _>(["logarithm", "linear"]))]
    pub scale_parameter: Option<ScaleParameter>,
    /// Sign of the gradient of W_n (ttq): exact, or as printed in the paper and computed by its PyTorch port, which is wrong
    /// (to reproduce the port and to measure the cost of the error).
    #[arg(long, value_parser = named::<NegativeScaleGradient, _>(["exact", "published"]), default_value = "exact")]
    pub sign: NegativeScaleGradient,
    /// Start of learned scales (ttq): the mean magnitude of each side, or 1 as in the paper and its PyTorch port.
    #[arg(long, value_parser = named::<InitialScales, _>(["least-squares", "ones"]), default_value = "least-squares")]
    pub initial_scales: InitialScales,
    /// Make only those weights ternary whose path matches this regular expression (can be repeated).
    #[arg(long, value_name = "REGEX")]
    pub include: Vec<String>,
    /// Keep those weights in full precision whose path matches this regular expression (can be repeated).
    #[arg(long, value_name = "REGEX")]
    pub exclude: Vec<String>,
    /// Number of epochs with ternary weights.
    #[arg(long, value_name = "N", value_parser = number)]
    pub epochs: Option<usize>,
    /// Number of epochs in full precision before that; 0 to start from --init or from random weights.
    #[arg(long, value_name = "N", value_parser = number)]
    pub fp_epochs: Option<usize>,
    /// Inputs in a batch, over all devices.
    #[arg(long, value_name = "N", value_parser = positive)]
    pub batch_size: Option<usize>,
    /// Number of batches whose gradients make one update.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = positive)]
    pub accumulate: usize,
    /// Initial learning rate.
    #[arg(long = "lr", value_name = "RATE", value_parser = learning_rate)]
    pub learning_rate: Option<f64>,
    /// Initial learning rate of the phase in full precision
    #[arg(long = "fp-lr", value_name = "RATE", value_parser = learning_rate)]
    pub fp_learning_rate: Option<f64>,
    /// L2 penalty of weights, but not of biases, normalization layers and scales.
    #[arg(long, value_name = "FACTOR", value_parser = zero_to_one)]
    pub weight_decay: Option<f64>,
    /// L2 penalty in the phase in full precision
    #[arg(long, value_name = "FACTOR", value_parser = zero_to_one)]
    pub fp_weight_decay: Option<f64>,
    /// Factor on the learning rate of the scales W_p and W_n
    #[arg(long, value_name = "FACTOR", value_parser = learning_rate)]
    pub scale_lr_factor: Option<f64>,
    /// Label smoothing: share of the target that is divided among all classes alike, from 0 to 1. With --distill it changes the
    /// targets of the own loss alone.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = zero_to_one)]
    pub label_smoothing: f64,
    /// Train the ternary network towards the logits of the network in full precision too (distillation): weight of these from
    /// 0 (no distillation) to 1, and temperature, 4 if it is left out.
    #[arg(long, value_name = "WEIGHT[:TEMPERATURE]")]
    pub distill: Option<Distillation>,
    /// Checkpoint of the teacher of --distill [default: the network that the ternary phase starts from].
    #[arg(long, value_name = "CHECKPOINT")]
    pub teacher: Option<PathBuf>,
    /// Average the weights and scales over the updates with this decay, such as 0.999: the average is validated, tested and
    /// saved.
    #[arg(long, value_name = "DECAY", value_parser = averaging)]
    pub average: Option<Averaging>,
    /// Freeze codes that flip to and fro in the ternary phase: thresholds of their frequency per update in the first quarter
    /// and at the end, such as 0.1:0.01, and the weight of the last update in frequencies, 0.001 if it is left out.
    #[arg(long, value_name = "START:END[:MOMENTUM]")]
    pub freeze_oscillations: Option<OscillationFreezing>,
    /// Course of the learning rate.
    #[arg(long, value_enum)]
    pub schedule: Option<ScheduleChoice>,
    /// Side of a square of pixels that is cut out of each training image at a random place (cutout); 0 for none.
    #[arg(long, value_name = "PIXELS")]
    pub cutout: Option<usize>,
    /// Epoch whose network each phase keeps: the one that validates best, or the last one. The test data are evaluated on it
    /// alone.
    #[arg(long, value_parser = named::<KeptEpoch, _>(["best", "last"]))]
    pub checkpoint: Option<KeptEpoch>,
    /// Stop a phase when the validation results stop improving.
    #[arg(long)]
    pub early_stopping: bool,
    /// Train on the first N training images only.
    #[arg(long, value_name = "N", value_parser = positive)]
    pub limit: Option<usize>,
    /// Training images that are held out for validation, at most a tenth.
    #[arg(long, value_name = "N")]
    pub validation: Option<usize>,
    /// Seed of initial weights, data order and augmentation.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Evaluate this checkpoint of the network on the test data, without training.
    #[arg(long, value_name = "CHECKPOINT")]
    pub eval: Option<PathBuf>,
    /// Start from this checkpoint of the network: .safetensors, .bpk, .pt or .pth.
    #[arg(long, value_name = "CHECKPOINT")]
    pub init: Option<PathBuf>,
    /// Entry of the PyTorch file in --eval, --init or --teacher that holds the network [default: the only one with a
    /// name such as state_dict or model].
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,
    /// Continue the run in --out.
    #[arg(long, requires = "out")]
    pub resume: bool,
    /// Stop after this number of minutes; --resume continues. The running epoch starts again.
    #[arg(long, value_name = "N", value_parser = minutes)]
    pub minutes: Option<f64>,
    /// Directory of the run [default: a new one under runs/].
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Directory of the data [default: $TTQ_DATA, else the user's cache, else a download].
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Number of devices that share each batch.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = positive)]
    pub devices: usize,
    /// Strategy that sums the gradients of several devices.
    #[arg(long, value_enum, default_value = "multi")]
    pub strategy: Strategy,
    /// Estimate the running statistics of batch normalization anew after the ternary phase, from this number of training
    /// batches; 0 keeps those of the training.
    #[arg(long, value_name = "BATCHES")]
    pub reestimate_batch_norm: Option<usize>,
    /// Print plain lines instead of Burn's dashboard.
    #[arg(long)]
    pub no_tui: bool,
    /// Depth of the ResNet: 20, 32, 44 or 56.
    #[arg(skip)]
    pub depth: Option<usize>,
    /// Name of the network for Tiny ImageNet.
    #[arg(skip)]
    pub network: Option<String>,
    /// Size of the language model.
    #[arg(skip)]
    pub gpt: Option<GptConfig>,
    /// Identifiers of the arguments on the command line.
    #[arg(skip)]
    pub given: Vec<String>,
}

impl Options {
    /// Parses the command line of the example of `recipe`, whose values are the defaults that the help shows (options that
    /// are not given stay `None`); `more` adds arguments. Prints the help or an error and ends the process if there is one.
    pub fn parse(recipe: &Recipe, more: impl FnOnce(Command) -> Command) -> (Self, clap::ArgMatches) {
        Self::parse_from(recipe, more, std::env::args_os())
    }

    /// Like [`parse`](Self::parse), with other arguments than those of the process. The first one is the program's name.
    pub fn parse_from(
        recipe: &Recipe,
        more: impl FnOnce(Command) -> Command,
        arguments: impl IntoIterator<Item = OsString>,
    ) -> (Self, clap::ArgMatches) {
        let fixed = |text: String| -> &'static str { text.leak() };
        let added = |arg: clap::Arg, text: String| {
            let help = format!("{} [default: {text}]", arg.get_help().cloned().unwrap_or_default());
            arg.help(help)
        };
        let (full_precision, ternary) = (recipe.full_precision, recipe.ternary);
        let command = Self::augment_args(Command::new(recipe.name))
            .allow_negative_numbers(true)
            .about(recipe.about)
            .version(env!("CARGO_PKG_VERSION"))
            .mut_arg("epochs", |arg| arg.default_value(fixed(ternary.epochs.to_string())))
            .mut_arg("fp_epochs", |arg| arg.default_value(fixed(full_precision.epochs.to_string())))
            .mut_arg("batch_size", |arg| arg.default_value(fixed(recipe.batch_size.to_string())))
            .mut_arg("learning_rate", |arg| arg.default_value(fixed(ternary.rates.learning_rate.to_string())))
            .mut_arg("threshold", |arg| added(arg, format!("ttq {}, twn mean:0.7, absmean mean:0.5", recipe.threshold)))
            .mut_arg("fp_learning_rate", |arg| {
                added(arg, format!("that of --lr if it is given, else {}", full_precision.rates.learning_rate))
            })
            .mut_arg("scale_lr_factor", |arg| added(arg, format!("1, linear scales {}", recipe.linear_scale_lr_factor)))
            .mut_arg("weight_decay", |arg| arg.default_value(fixed(ternary.rates.weight_decay.to_string())))
            .mut_arg("fp_weight_decay", |arg| {
                added(arg, format!("that of --weight-decay if it is given, else {}", full_precision.rates.weight_decay))
            })
            .mut_arg("distill", |arg| {
                arg.default_value(fixed(
                    recipe.distillation.map_or("0".into(), |distillation| distillation.to_string()),
                ))
            })
            .mut_arg("checkpoint", |arg| arg.default_value(name_of(recipe.checkpoint)))
            .mut_arg("reestimate_batch_norm", |arg| arg.default_value(fixed(recipe.reestimate_batch_norm.to_string())))
            .mut_arg("validation", |arg| arg.default_value(fixed(recipe.validation.to_string())))
            .mut_arg("schedule", |arg| arg.default_value(recipe.schedule.name()));
        let parsed = more(command)
            .try_get_matches_from(arguments)
            .and_then(|matches| Ok((Self::from_arg_matches(&matches)?, matches)));
        let (options, matches) = parsed.unwrap_or_else(|error| stop(&error));
        (options.without_defaults(&matches), matches)
    }

    /// Unsets options that were not given: the recipe of the run, which can differ from that of the help, decides them.
    fn without_defaults(self, matches: &clap::ArgMatches) -> Self {
        let given = |name: &str| matches.value_source(name) == Some(ValueSource::CommandLine);
        Self {
            given: matches.ids().map(clap::Id::as_str).filter(|id| given(id)).map(Into::into).collect(),
            epochs: self.epochs.filter(|_| given("epochs")),
            fp_epochs: self.fp_epochs.filter(|_| given("fp_epochs")),
            batch_size: self.batch_size.filter(|_| given("batch_size")),
            learning_rate: self.learning_rate.filter(|_| given("learning_rate")),
            weight_decay: self.weight_decay.filter(|_| given("weight_decay")),
            validation: self.validation.filter(|_| given("validation")),
            distill: self.distill.filter(|_| given("distill")),
            checkpoint: self.checkpoint.filter(|_| given("checkpoint")),
            reestimate_batch_norm: self.reestimate_batch_norm.filter(|_| given("reestimate_batch_norm")),
            schedule: self.schedule.filter(|_| given("schedule")),
            ..self
        }
    }
}

/// Prints the help, or one sentence for an error; ends the process.
fn stop(error: &clap::Error) -> ! {
    if !error.use_stderr() {
        error.exit()
    }
    let text = error.to_string();
    // The first paragraph is the error; others can be a tip, the usage, and where the help is.
    let mut sentence = text.split("\n\n").next().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some(tip) = text.lines().find_map(|line| line.trim().strip_prefix("tip: ")) {
        sentence = format!("{sentence}: {tip}");
    }
    eprintln!("{sentence} (--help lists the options)");
    std::process::exit(1)
}

impl ScheduleChoice {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Constant => "constant",
            Self::Steps => "steps",
            Self::Cosine => "cosine",
            Self::Plateau => "plateau",
        }
    }
}

/// Returns the name that `--checkpoint` has for an epoch.
fn name_of(epoch: KeptEpoch) -> &'static str {
    match epoch {
        KeptEpoch::Best => "best",
        KeptEpoch::Last => "last",
    }
}

/// Parses a value by the name that configuration files have for it, with hyphens.
fn named<T, const N: usize>(names: [&'static str; N]) -> impl TypedValueParser<Value = T>
where
    T: DeserializeOwned + Clone + Send + Sync + 'static,
{
    PossibleValuesParser::new(names).try_map(|name| serde_json::from_value::<T>(name.replace('-', "_").into()))
}

fn number(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| "must be a whole number from 0 on".into())
}

fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("must be a whole number above 0".into()),
        Ok(number) => Ok(number),
    }
}

fn minutes(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(minutes) if minutes > 0.0 && f64::is_finite(minutes) => Ok(minutes),
        _ => Err("must be a number above 0".into()),
    }
}

fn learning_rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if rate > 0.0 && rate <= 1.0 => Ok(rate),
        _ => Err("must be a number above 0 and at most 1".into()),
    }
}

fn averaging(text: &str) -> Result<Averaging, String> {
    let decay = text.parse().unwrap_or(f64::NAN);
    Averaging::new(decay).check().map_err(|_| "must be a number above 0 and below 1".into())
}

fn zero_to_one(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(number) if (0.0..=1.0).contains(&number) => Ok(number),
        _ => Err("must be a number from 0 to 1".into()),
    }
}
