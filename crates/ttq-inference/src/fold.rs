//! Batch normalization folded into the weights of a packed file.

use ttq_packed::file::{TensorError, WeightError};
use ttq_packed::{Codes, DenseTensor, PackedModel, TernaryWeight};

/// A normalization that cannot be folded.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum FoldError {
    /// The file has no such tensor, or no such ternary weight.
    #[error("the normalization cannot be folded: the file has no {kind} `{name}`")]
    Missing {
        /// `ternary weight` or `tensor`.
        kind: &'static str,
        /// Name of the tensor.
        name: String,
    },
    /// A tensor does not have one number for each output channel.
    #[error("the normalization cannot be folded: `{name}` has {found} numbers, but the weight has {expected} channels")]
    Channels {
        /// Name of the tensor.
        name: String,
        /// Number of output channels.
        expected: usize,
        /// Number of elements of the tensor.
        found: usize,
    },
    /// A tensor has no floats.
    #[error("the normalization cannot be folded: `{name}`: {source}")]
    Tensor {
        /// Name of the tensor.
        name: String,
        /// The cause.
        source: TensorError,
    },
    /// The normalization makes a scale infinite or NaN.
    #[error("the normalization cannot be folded into `{name}`: {source}")]
    Weight {
        /// Name of the weight.
        name: String,
        /// The cause.
        source: WeightError,
    },
}

/// Folds the batch normalization `norm` into the ternary layer before it, and removes it from the file.
///
/// The result is exactly layer and normalization at inference: with
///
/// ```text
/// a = gamma / sqrt(running_var + epsilon)
/// ```
///
/// it is for each output channel
///
/// ```text
/// w_pos' = a w_pos, w_neg' = a w_neg                              a >= 0
/// w_pos' = -a w_neg, w_neg' = -a w_pos, codes change their sign   a < 0
/// bias'  = a (bias - running_mean) + beta
/// ```
///
/// The layer then has one pair of scales for each output channel, and a bias `LAYER.bias`; the module that the file is
/// loaded into has no normalization there. `layer` and `norm` are the paths of the layers, and their parameters have
/// Burn's names.
///
/// # Errors
/// Returns [`FoldError`] if a tensor is missing, is not float or has another number of channels, or if a scale becomes
/// infinite or NaN. The file is then unchanged.
pub fn fold_batch_norm(file: &mut PackedModel, layer: &str, norm: &str, epsilon: f64) -> Result<(), FoldError> {
    let name = format!("{layer}.weight");
    let Some(weight) = file.weights.get(&name) else {
        return Err(FoldError::Missing { kind: "ternary weight", name });
    };
    let (axis, shape) = (weight.output_axis(), weight.shape());
    let channels = shape.get(axis).copied().unwrap_or(1);
    let floats = |name: String| -> Result<Vec<f32>, FoldError> {
        let Some(tensor) = file.tensors.get(&name) else {
            return Err(FoldError::Missing { kind: "tensor", name });
        };
        match tensor.to_f32() {
            Ok(values) if values.len() == channels => Ok(values),
            Ok(values) => Err(FoldError::Channels { name, expected: channels, found: values.len() }),
            Err(source) => Err(FoldError::Tensor { name, source }),
        }
    };
    let [gamma, beta, mean, var] =
        ["gamma", "beta", "running_mean", "running_var"].map(|name| floats(format!("{norm}.{name}")));
    let (gamma, beta, mean, var) = (gamma?, beta?, mean?, var?);
    let bias_name = format!("{layer}.bias");
    let bias = match file.tensors.contains_key(&bias_name) {
        true => floats(bias_name.clone())?,
        false => vec![0.0; channels],
    };
    let factors: Vec<f32> = gamma
        .iter()
        .zip(&var)
        .map(|(gamma, var)| (f64::from(*gamma) / (f64::from(*var) + epsilon).sqrt()) as f32)
        .collect();
    let scales = factors.iter().enumerate().map(|(channel, a)| {
        let [w_pos, w_neg] = weight.scales()[if weight.scales().len() == 1 { 0 } else { channel }];
        if *a < 0.0 { [-a * w_neg, -a * w_pos] } else { [a * w_pos, a * w_neg] }
    });
    let run: usize = shape.iter().skip(axis + 1).product();
    let codes = weight.codes().iter().enumerate();
    let codes: Vec<i8> =
        codes.map(|(index, code)| if factors[index / run % channels] < 0.0 { -code } else { code }).collect();
    let folded = Codes::pack(&codes)
        .map_err(WeightError::from)
        .and_then(|codes| TernaryWeight::new(codes, scales.collect::<Vec<_>>(), shape, axis))
        .map_err(|source| FoldError::Weight { name: name.clone(), source })?;
    let bias: Vec<f32> =
        (0..channels).map(|channel| factors[channel] * (bias[channel] - mean[channel]) + beta[channel]).collect();
    let bias = DenseTensor::from_f32([channels], &bias)
        .map_err(|source| FoldError::Tensor { name: bias_name.clone(), source })?;
    file.weights.insert(name, folded);
    file.tensors.insert(bias_name, bias);
    for name in ["gamma", "beta", "running_mean", "running_var"] {
        file.tensors.remove(&format!("{norm}.{name}"));
    }
    Ok(())
}
