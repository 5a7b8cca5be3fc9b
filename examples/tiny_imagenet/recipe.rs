//! The training recipe of the PyTorch port.

use ttq_core::Threshold;
use ttq_examples::data::Augmentation;
use ttq_examples::{OptimizerChoice, PhaseRecipe, Rates, Recipe, ScheduleChoice};
use ttq_train::KeptEpoch;

use crate::architecture::Architecture;

/// Returns the recipe of the PyTorch port for Tiny ImageNet. Training starts from a trained network and has no phase in
/// full precision.
///
/// Differences from the port:
///
/// - Latent gradients do not depend on the size of the scales, which are trained as logarithms (`--method ttq-paper`: as in
///   the port).
/// - The sign of the gradient of W_n is exact.
/// - W_p and W_n start at the mean magnitude of the positive and negative weights instead of 1.
/// - Validation images are held out from the training images.
/// - The learning rate is lowered on a plateau for all networks. The port trains SqueezeNet at a constant rate, which
///   its plateau rule would not have lowered, and lowers the rate of DenseNet-121 manually after 15 epochs.
pub(crate) fn recipe(network: Architecture) -> Recipe {
    let phase = |epochs, learning_rate| PhaseRecipe {
        epochs,
        rates: Rates { learning_rate, latent_weight_decay: 0.0, weight_decay: 1e-4 },
    };
    let small = Recipe {
        name: "tiny_imagenet",
        variant: "",
        about: "Makes a trained network for Tiny ImageNet ternary as in the PyTorch port of TTQ, or evaluates one",
        full_precision: phase(0, 1e-3),
        ternary: phase(20, 1e-3),
        batch_size: 512,
        schedule: ScheduleChoice::Plateau,
        optimizer: OptimizerChoice::Adam,
        checkpoint: KeptEpoch::Best,
        distillation: None,
        reestimate_batch_norm: 0,
        threshold: Threshold::MaxFraction(0.05),
        exclude: &[],
        freeze_first_convolution: true,
        linear_scale_lr_factor: 1.0,
        validation: 5000,
        augmentation: Augmentation::Distort,
    };
    let others = Recipe {
        full_precision: phase(0, 1e-4),
        ternary: phase(20, 1e-4),
        threshold: Threshold::MaxFraction(0.15),
        ..small
    };
    match network {
        Architecture::DenseNetSmall => small,
        // The last layer is a convolution, which the default selection does not exclude.
        Architecture::SqueezeNet => Recipe { ternary: phase(10, 1e-4), exclude: &[r"classes\.weight$"], ..others },
        Architecture::DenseNet121 => Recipe { batch_size: 64, ..others },
    }
}
