//! The defaults of an example, and the configuration of a run.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use ttq_core::{QuantizerConfig, ScaleParameter, SelectionConfig, TernaryConfig, Threshold};
use ttq_train::{
    Averaging, Distillation, KeptEpoch, OscillationFreezing, Phase, PlateauConfig, ScheduleConfig, ThresholdSchedule,
};

use crate::data::Augmentation;
use crate::model::GptConfig;
use crate::{Method, OptimizerChoice, Options, Precision, ScheduleChoice, Score, Strategy};

/// The numbers of a phase.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PhaseRecipe {
    /// Epochs.
    pub epochs: usize,
    /// Learning rate and weight decay.
    pub rates: Rates,
}

/// Learning rate and weight decay of a phase.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    /// Learning rate at the start.
    pub learning_rate: f64,
    /// L2 penalty of the weights that are or become ternary.
    pub latent_weight_decay: f64,
    /// L2 penalty of the other weights.
    pub weight_decay: f64,
}

impl PhaseRecipe {
    /// Creates the numbers of a phase, with the same weight decay for all weights.
    pub const fn new(epochs: usize, learning_rate: f64, weight_decay: f64) -> Self {
        Self { epochs, rates: Rates { learning_rate, latent_weight_decay: weight_decay, weight_decay } }
    }
}

/// The defaults of an example.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// Name of the example.
    pub name: &'static str,
    /// Name of this recipe if the example has several, else empty.
    pub variant: &'static str,
    /// Description for `--help`, in one line.
    pub about: &'static str,
    /// The phase in full precision.
    pub full_precision: PhaseRecipe,
    /// The phase with ternary weights.
    pub ternary: PhaseRecipe,
    /// Images in a batch, or sequences of bytes.
    pub batch_size: usize,
    /// Course of the learning rate.
    pub schedule: ScheduleChoice,
    /// The optimizer.
    pub optimizer: OptimizerChoice,
    /// The epoch whose network each phase keeps.
    pub checkpoint: KeptEpoch,
    /// Distillation in the ternary phase.
    pub distillation: Option<Distillation>,
    /// Training batches from which batch normalization is estimated anew after the ternary phase.
    pub reestimate_batch_norm: usize,
    /// Threshold of TTQ.
    pub threshold: Threshold,
    /// Regular expressions on the paths of weights that stay in full precision, besides the first convolution and the last
    /// linear layer.
    pub exclude: &'static [&'static str],
    /// Whether the first convolution keeps its weights in the ternary phase.
    pub freeze_first_convolution: bool,
    /// Factor on the learning rate of W_p and W_n as linear parameters. Their gradients are sums over a layer, so that the
    /// learning rate of the weights is too large for them; about one over the square root of a layer's size makes the
    /// relative steps alike (Esser et al., "Learned Step Size Quantization", section 2.2). Logarithms need no factor.
    pub linear_scale_lr_factor: f64,
    /// Training images held out for validation.
    pub validation: usize,
    /// Random changes of training images.
    pub augmentation: Augmentation,
}

impl Recipe {
    /// MNIST, on a CPU in one to two minutes.
    pub fn mnist() -> Self {
        Self {
            name: "mnist",
            variant: "",
            about: "Trains a small convolutional network on MNIST, first in full precision, then with ternary weights",
            full_precision: PhaseRecipe::new(3, 0.05, 1e-4),
            ternary: PhaseRecipe::new(3, 0.05, 1e-4),
            batch_size: 64,
            schedule: ScheduleChoice::Cosine,
            optimizer: OptimizerChoice::Sgd,
            checkpoint: KeptEpoch::Best,
            distillation: None,
            reestimate_batch_norm: 0,
            threshold: Threshold::default(),
            exclude: &[],
            freeze_first_convolution: false,
            linear_scale_lr_factor: 0.01,
            validation: 5000,
            augmentation: Augmentation::Shift { padding: 0, flip: false, cutout: 0 },
        }
    }

    /// A language model on bytes.
    pub fn text() -> Self {
        Self {
            name: "text",
            about: "Trains a small GPT on the bytes of a text, first in full precision, then with ternary weights; writes a \
                    passage",
            full_precision: PhaseRecipe::new(10, 1e-3, 0.0),
            ternary: PhaseRecipe::new(10, 1e-3, 0.0),
            batch_size: 8,
            optimizer: OptimizerChoice::Adam,
            threshold: Threshold::MeanFraction(0.7),
            validation: 0,
            ..Self::mnist()
        }
    }

    /// For accuracy and zeros on CIFAR-10: cosine schedules, a threshold that leaves a third to a half of the weights zero,
    /// distillation from the network in full precision.
    pub fn cifar() -> Self {
        Self {
            variant: "accurate",
            full_precision: PhaseRecipe::new(130, 0.1, 5e-4),
            ternary: PhaseRecipe::new(60, 0.05, 2e-4),
            schedule: ScheduleChoice::Cosine,
            checkpoint: KeptEpoch::Last,
            distillation: Some(Distillation::new(0.9)),
            reestimate_batch_norm: 100,
            threshold: Threshold::MeanFraction(0.7),
            // The last epoch is kept, so that validation only shows the course.
            validation: 500,
            ..Self::cifar_paper()
        }
    }

    /// [`cifar`](Self::cifar) with about a tenth of the epochs.
    pub fn cifar_fast() -> Self {
        let of = |phase: PhaseRecipe| PhaseRecipe { epochs: 9, ..phase };
        let recipe = Self::cifar();
        Self { variant: "fast", full_precision: of(recipe.full_precision), ternary: of(recipe.ternary), ..recipe }
    }

    /// The paper's recipe for ResNets on CIFAR-10.
    pub fn cifar_paper() -> Self {
        Self {
            name: "cifar",
            variant: "paper",
            about: "Trains a ResNet on CIFAR-10, first in full precision, then with ternary weights",
            full_precision: PhaseRecipe::new(160, 0.1, 2e-4),
            ternary: PhaseRecipe::new(160, 0.1, 2e-4),
            batch_size: 128,
            schedule: ScheduleChoice::Steps,
            optimizer: OptimizerChoice::Sgd,
            checkpoint: KeptEpoch::Best,
            distillation: None,
            reestimate_batch_norm: 0,
            threshold: Threshold::default(),
            exclude: &[],
            freeze_first_convolution: false,
            linear_scale_lr_factor: 0.003,
            validation: 5000,
            augmentation: Augmentation::Shift { padding: 4, flip: true, cutout: 0 },
        }
    }
}

/// All settings that decide the outcome of a run. `config.json` in its directory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunConfig {
    /// Name of the example.
    pub example: String,
    /// Name of the recipe (cifar).
    pub recipe: String,
    /// Depth of the ResNet (cifar).
    pub depth: Option<usize>,
    /// Name of the network (tiny_imagenet).
    pub network: Option<String>,
    /// Size of the language model (text).
    pub gpt: Option<GptConfig>,
    /// Path of the text, if it is not the one that is part of the program (text).
    pub text: Option<PathBuf>,
    /// The method.
    pub method: Method,
    /// The quantizer and the selection of weights.
    pub ternary: TernaryConfig,
    /// Epochs in full precision.
    pub fp_epochs: usize,
    /// Epochs with ternary weights.
    pub epochs: usize,
    /// Images in a batch, or sequences of bytes, over all devices.
    pub batch_size: usize,
    /// Number of batches whose gradients make one update.
    pub accumulate: usize,
    /// Number of devices that share each batch.
    pub devices: usize,
    /// Strategy that sums their gradients.
    pub strategy: Strategy,
    /// Type of matrix products and convolutions.
    pub precision: Precision,
    /// Learning rate and weight decay of the ternary phase.
    #[serde(flatten)]
    pub rates: Rates,
    /// Those of the phase in full precision.
    pub full_precision: Rates,
    /// Course of the learning rate.
    pub schedule: ScheduleChoice,
    /// Whether a phase stops when the validation accuracy stops rising.
    pub early_stopping: bool,
    /// The optimizer.
    pub optimizer: OptimizerChoice,
    /// Number of batches from which batch normalization is estimated anew after the ternary phase.
    pub reestimate_batch_norm: usize,
    /// Whether the first convolution keeps its weights in the ternary phase.
    pub freeze_first_convolution: bool,
    /// Factor on the learning rate of W_p and W_n.
    pub scale_lr_factor: f64,
    /// Training images held out for validation.
    pub validation: usize,
    /// Number of training images, or of bytes, if not all: the first ones.
    pub limit: Option<usize>,
    /// Random changes of training images.
    pub augmentation: Augmentation,
    /// Seed of all random numbers.
    pub seed: u64,
    /// Checkpoint that training starts from.
    pub init: Option<PathBuf>,
    /// Entry of a PyTorch file that holds the network.
    pub key: Option<String>,
    /// Schedule of the threshold in the ternary phase.
    pub threshold_schedule: Option<ThresholdSchedule>,
    /// Distillation in the ternary phase.
    pub distillation: Option<Distillation>,
    /// Checkpoint of its teacher; the network that the ternary phase starts from if there is none.
    pub teacher: Option<PathBuf>,
    /// The epoch whose network each phase keeps.
    pub checkpoint: KeptEpoch,
    /// Label smoothing of training targets.
    pub label_smoothing: f64,
    /// Average over the updates, in both phases.
    pub averaging: Option<Averaging>,
    /// Freezing of codes that oscillate, in the ternary phase.
    pub oscillation_freezing: Option<OscillationFreezing>,
    /// Checksum (CRC-32) of the data, which a run that continues must have too.
    pub data_crc32: Option<u32>,
    /// Version of this program.
    pub version: String,
}

impl RunConfig {
    /// Combines a recipe with the options of the command line.
    pub fn new(recipe: &Recipe, options: &Options) -> Self {
        let mut quantizer = match options.method {
            Method::Ttq | Method::Fp => QuantizerConfig::ttq().with_threshold(recipe.threshold),
            Method::TtqPaper => QuantizerConfig::paper().with_threshold(recipe.threshold),
            Method::Twn => QuantizerConfig::twn(),
            Method::Absmean => QuantizerConfig::absmean(),
        };
        if let Some(threshold) = options.threshold {
            quantizer.threshold = threshold;
        }
        quantizer = quantizer.with_granularity(options.granularity);
        quantizer.threshold_granularity = options.threshold_granularity.unwrap_or(options.granularity);
        quantizer.latent_gradient = options.slope.unwrap_or(quantizer.latent_gradient);
        quantizer.scale_parameter = options.scale_parameter.unwrap_or(quantizer.scale_parameter);
        quantizer.negative_scale_gradient = options.sign;
        quantizer.initial_scales = options.initial_scales;
        let scale_lr_factor = match quantizer.scale_parameter {
            ScaleParameter::Linear => recipe.linear_scale_lr_factor,
            _ => 1.0,
        };
        let rates = |phase: &PhaseRecipe, learning_rate: Option<f64>, weight_decay: Option<f64>| Rates {
            learning_rate: learning_rate.unwrap_or(phase.rates.learning_rate),
            latent_weight_decay: weight_decay.unwrap_or(phase.rates.latent_weight_decay),
            weight_decay: weight_decay.unwrap_or(phase.rates.weight_decay),
        };
        let full_precision = rates(
            &recipe.full_precision,
            options.fp_learning_rate.or(options.learning_rate),
            options.fp_weight_decay.or(options.weight_decay),
        );
        let ternary = rates(&recipe.ternary, options.learning_rate, options.weight_decay);
        let selection = SelectionConfig {
            include: options.include.clone(),
            exclude: recipe.exclude.iter().map(|path| (*path).into()).chain(options.exclude.clone()).collect(),
            ..SelectionConfig::default()
        };
        Self {
            example: recipe.name.into(),
            recipe: recipe.variant.into(),
            depth: options.depth,
            network: options.network.clone(),
            gpt: options.gpt,
            text: options.gpt.and(options.data.as_ref()).and_then(|path| std::path::absolute(path).ok()),
            method: options.method,
            ternary: TernaryConfig { quantizer, selection },
            fp_epochs: options.fp_epochs.unwrap_or(recipe.full_precision.epochs),
            epochs: if options.method == Method::Fp { 0 } else { options.epochs.unwrap_or(recipe.ternary.epochs) },
            batch_size: options.batch_size.unwrap_or(recipe.batch_size),
            accumulate: options.accumulate,
            devices: options.devices,
            strategy: options.strategy,
            precision: options.precision,
            rates: ternary,
            full_precision,
            schedule: options.schedule.unwrap_or(recipe.schedule),
            early_stopping: options.early_stopping,
            optimizer: recipe.optimizer,
            reestimate_batch_norm: options.reestimate_batch_norm.unwrap_or(recipe.reestimate_batch_norm),
            freeze_first_convolution: recipe.freeze_first_convolution,
            scale_lr_factor: options.scale_lr_factor.unwrap_or(scale_lr_factor),
            validation: options.validation.unwrap_or(recipe.validation),
            limit: options.limit,
            augmentation: options.cutout.map_or(recipe.augmentation, |side| recipe.augmentation.with_cutout(side)),
            seed: options.seed,
            init: options.init.clone(),
            key: options.key.clone(),
            threshold_schedule: options.threshold_schedule.map(|share| {
                let start = options.threshold_start.unwrap_or(quantizer.threshold.with_number(0.0));
                ThresholdSchedule { start, share }
            }),
            // A weight of 0 is none: the teacher need not be loaded.
            distillation: options.distill.or(recipe.distillation).filter(|distillation| distillation.weight > 0.0),
            teacher: options.teacher.clone(),
            checkpoint: options.checkpoint.unwrap_or(recipe.checkpoint),
            label_smoothing: options.label_smoothing,
            averaging: options.average,
            oscillation_freezing: options.freeze_oscillations,
            data_crc32: None,
            version: env!("CARGO_PKG_VERSION").into(),
        }
    }

    /// Returns learning rate and weight decay of a phase.
    pub(crate) fn rates(&self, phase: Phase) -> Rates {
        match phase {
            Phase::FullPrecision => self.full_precision,
            Phase::Ternary => self.rates,
        }
    }

    /// Returns the schedule of a phase of `epochs` epochs.
    pub(crate) fn schedule(&self, epochs: usize, score: Score) -> ScheduleConfig {
        match self.schedule {
            ScheduleChoice::Constant => ScheduleConfig::Constant,
            // The paper's milestones, 80 and 120 of 160 epochs, at the same fractions of a run of any length.
            ScheduleChoice::Steps => {
                ScheduleConfig::MultiStep { milestones: vec![epochs.div_ceil(2), (3 * epochs).div_ceil(4)], gamma: 0.1 }
            }
            ScheduleChoice::Cosine => {
                ScheduleConfig::WarmupCosine { warmup_epochs: usize::from(epochs >= 10), min_factor: 0.0 }
            }
            ScheduleChoice::Plateau => ScheduleConfig::Plateau(PlateauConfig::new(score.improvement())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(arguments: &[&str]) -> RunConfig {
        let recipe = Recipe::mnist();
        let arguments = std::iter::once(&"mnist").chain(arguments).map(Into::into);
        let (options, _) = Options::parse_from(&recipe, |command| command, arguments);
        RunConfig::new(&recipe, &options)
    }

    #[test]
    fn a_configuration_loads_as_it_was_saved() {
        let lines: [&[&str]; 2] = [&[], &["--precision", "bf16", "--method", "ttq-paper", "--fp-lr", "0.3"]];
        for config in lines.map(config) {
            let saved = serde_json::to_value(&config).unwrap();
            assert_eq!(serde_json::from_value::<RunConfig>(saved).unwrap(), config);
        }
    }

    #[test]
    fn only_linear_scales_have_a_learning_rate_of_their_own_by_default() {
        assert_eq!(config(&[]).ternary.quantizer, QuantizerConfig::ttq());
        assert_eq!(config(&["--method", "ttq-paper"]).ternary.quantizer, QuantizerConfig::paper());
        let parts = ["--slope", "scaled", "--scale-parameter", "linear"];
        assert_eq!(config(&parts).ternary.quantizer, QuantizerConfig::paper());
        assert_eq!([config(&[]), config(&parts)].map(|config| config.scale_lr_factor), [1.0, 0.01]);
        assert_eq!(config(&["--scale-lr-factor", "0.5"]).scale_lr_factor, 0.5);
    }

    #[test]
    fn a_phase_has_rates_of_its_own_unless_one_rate_is_given_for_both() {
        let rates = |arguments: &[&str]| {
            let recipe = Recipe::cifar();
            let arguments = std::iter::once(&"cifar").chain(arguments).map(Into::into);
            let (options, _) = Options::parse_from(&recipe, |command| command, arguments);
            let config = RunConfig::new(&recipe, &options);
            [Phase::FullPrecision, Phase::Ternary]
                .map(|phase| (config.rates(phase).learning_rate, config.rates(phase).weight_decay))
        };
        assert_eq!(rates(&[]), [(0.1, 5e-4), (0.05, 2e-4)]);
        assert_eq!(rates(&["--lr", "0.2"]), [(0.2, 5e-4), (0.2, 2e-4)]);
        assert_eq!(rates(&["--lr", "0.2", "--fp-lr", "0.3"]), [(0.3, 5e-4), (0.2, 2e-4)]);
        assert_eq!(rates(&["--weight-decay", "0", "--fp-weight-decay", "1e-3"]), [(0.1, 1e-3), (0.05, 0.0)]);
    }

    #[test]
    fn distillation_with_weight_zero_is_none() {
        assert_eq!(config(&["--distill", "0"]).distillation, None);
        assert_eq!(config(&["--distill", "0.5"]).distillation, Some(Distillation::new(0.5)));
    }
}
