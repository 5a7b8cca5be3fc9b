//! Statistics of a packed file: numbers for each weight, totals and warnings.

use std::fmt;

use anyhow::Result;
use serde::Serialize;
use ttq_packed::{Coding, DenseTensor, Dtype, PackedModel, TernaryWeight, file};
use ttq_pytorch::Escaped;

use crate::recognition::{self, MIN_RANK, Rejection};
use crate::table::{Table, shape, significant};

/// Relative tolerance for equal scales.
///
/// With the published sign of the W_n gradient, equal scales differ only by rounding, by at most 2e-6 in the PyTorch
/// port's DenseNet. Scales that are learned independently differ by 1 % and more in its SqueezeNet.
const EQUAL: f32 = 1e-5;

/// Statistics of a packed file.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    weights: Vec<Weight>,
    not_ternary: Vec<NotTernary>,
    other: Other,
    total: Total,
    warnings: Vec<Warning>,
}

/// Statistics of a ternary weight.
#[derive(Debug, Serialize)]
struct Weight {
    name: String,
    shape: Vec<usize>,
    output_axis: usize,
    coding: Coding,
    elements: usize,
    negative: usize,
    zero: usize,
    positive: usize,
    sparsity: f64,
    scales: Vec<[f32; 2]>,
    entropy_bits: f64,
    bits: f64,
    bytes: usize,
    two_bit_bytes: usize,
    float32_bytes: usize,
    warnings: Vec<Warning>,
}

/// Tensor of two dimensions or more that is not ternary.
#[derive(Debug, Serialize)]
struct NotTernary {
    name: String,
    shape: Vec<usize>,
    dtype: String,
    reason: Rejection,
}

/// Statistics of all tensors that are not packed.
#[derive(Debug, Serialize)]
struct Other {
    tensors: usize,
    elements: usize,
    bytes: usize,
    float32_bytes: usize,
}

/// Statistics of the whole file.
#[derive(Debug, Serialize)]
struct Total {
    weights: usize,
    elements: usize,
    sparsity: f64,
    entropy_bits: f64,
    bits: f64,
    plain_bits: f64,
    archive_bits: f64,
    equal_scales: usize,
    float32_bytes: usize,
    header_bytes: usize,
    packed_bytes: usize,
    ratio: f64,
}

/// Properties that are usually unintended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Warning {
    /// Every value of a weight is zero.
    AllZero,
    /// A weight has no positive or no negative values.
    OneSided,
    /// W_p and W_n are equal in every weight of the file.
    EqualScales,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AllZero => "all zero: its output is constant",
            Self::OneSided => "one-sided: all nonzero values have the same sign",
            Self::EqualScales => {
                "W_p = W_n in every layer: with the published sign of the W_n gradient, TTQ learns only one scale per \
                 layer; train with the exact sign (NegativeScaleGradient::Exact, the default of ttq-core), unless the \
                 method has one scale by design (TWN, BitNet b1.58)"
            }
        })
    }
}

impl Summary {
    /// Computes the statistics of `model`, where `file` holds the bytes of its packed file.
    pub(crate) fn new(model: &PackedModel, file: &[u8]) -> Result<Self> {
        let stored = file::stored_codes(file)?;
        let weights: Vec<Weight> = model
            .weights
            .iter()
            .map(|(name, weight)| {
                let (coding, codes) = stored.get(name).copied().unwrap_or((Coding::Plain, 0));
                Weight::new(name, weight, coding, codes)
            })
            .collect();
        let other = Other::new(model);
        let total = Total::new(model, &weights, &other, file.len());
        let candidates = model.tensors.iter().filter_map(|(name, tensor)| {
            let reason = recognition::rejection(name, &model.tensors)?;
            let dtype = tensor.dtype().to_string();
            Some(NotTernary { name: name.clone(), shape: tensor.shape().to_vec(), dtype, reason })
        });
        let not_ternary = candidates.collect();
        let two_sided = weights.iter().filter(|weight| weight.scales_are_equal().is_some()).count();
        let all_equal = two_sided > 0 && total.equal_scales == two_sided;
        let warnings = if all_equal { vec![Warning::EqualScales] } else { Vec::new() };
        Ok(Self { weights, not_ternary, other, total, warnings })
    }

    /// Returns the number of ternary weights.
    pub(crate) fn weights(&self) -> usize {
        self.weights.len()
    }
}

impl Weight {
    fn new(name: &str, weight: &TernaryWeight, coding: Coding, codes: usize) -> Self {
        let [negative, zero, positive] = weight.codes().counts();
        let elements = weight.codes().len();
        let scales = size_of_val(weight.scales());
        let bytes = codes + scales;
        let mut warnings = Vec::new();
        if zero == elements {
            warnings.push(Warning::AllZero);
        } else if negative == 0 || positive == 0 {
            warnings.push(Warning::OneSided);
        }
        Self {
            name: name.to_owned(),
            shape: weight.shape().to_vec(),
            output_axis: weight.output_axis(),
            coding,
            elements,
            negative,
            zero,
            positive,
            sparsity: weight.sparsity(),
            scales: weight.scales().to_vec(),
            entropy_bits: weight.entropy(),
            bits: share(8.0 * bytes as f64, elements),
            bytes,
            two_bit_bytes: weight.codes().as_bytes().len() + scales,
            float32_bytes: elements * size_of::<f32>(),
            warnings,
        }
    }

    /// Returns whether W_p = W_n in every group with two nonzero scales; `None` if there is no such group.
    fn scales_are_equal(&self) -> Option<bool> {
        let equal = |[w_pos, w_neg]: &[f32; 2]| (w_pos - w_neg).abs() <= EQUAL * w_pos.max(*w_neg);
        let mut both = self.scales.iter().filter(|pair| pair.iter().all(|&scale| scale > 0.0)).peekable();
        both.peek()?;
        Some(both.all(equal))
    }

    /// Formats W_p (`side` 0) or W_n (`side` 1); with several groups, the range of its values.
    fn scale(&self, side: usize) -> String {
        let values = self.scales.iter().map(|pair| pair[side]);
        let least = values.clone().fold(f32::INFINITY, f32::min);
        let most = values.fold(0.0, f32::max);
        match self.scales.len() {
            0 => String::new(),
            1 => significant(most),
            _ => format!("{}..{}", significant(least), significant(most)),
        }
    }
}

impl Other {
    fn new(model: &PackedModel) -> Self {
        let elements = |tensor: &DenseTensor| tensor.shape().iter().product::<usize>();
        let float32 = |tensor: &DenseTensor| match tensor.dtype() {
            Dtype::F16 | Dtype::BF16 | Dtype::F32 | Dtype::F64 => elements(tensor) * size_of::<f32>(),
            _ => tensor.as_bytes().len(),
        };
        let tensors = model.tensors.values();
        Self {
            tensors: tensors.len(),
            elements: tensors.clone().map(elements).sum(),
            bytes: tensors.clone().map(|tensor| tensor.as_bytes().len()).sum(),
            float32_bytes: tensors.map(float32).sum(),
        }
    }
}

impl Total {
    fn new(model: &PackedModel, weights: &[Weight], other: &Other, file: usize) -> Self {
        let elements = weights.iter().map(|weight| weight.elements).sum();
        let mean = |value: &dyn Fn(&Weight) -> f64| {
            share(weights.iter().map(|weight| value(weight) * weight.elements as f64).sum(), elements)
        };
        let coded = |coding| {
            let bits =
                model.weights.values().map(|weight| weight.bits_per_weight(coding) * weight.codes().len() as f64);
            share(bits.sum(), elements)
        };
        let bytes: usize = weights.iter().map(|weight| weight.bytes).sum();
        let float32_bytes = weights.iter().map(|weight| weight.float32_bytes).sum::<usize>() + other.float32_bytes;
        Self {
            weights: weights.len(),
            elements,
            sparsity: mean(&|weight| weight.sparsity),
            entropy_bits: mean(&|weight| weight.entropy_bits),
            bits: mean(&|weight| weight.bits),
            plain_bits: coded(Coding::Plain),
            archive_bits: coded(Coding::Archive),
            equal_scales: weights.iter().filter(|weight| weight.scales_are_equal() == Some(true)).count(),
            float32_bytes,
            header_bytes: file - bytes - other.bytes,
            packed_bytes: file,
            ratio: share(float32_bytes as f64, file),
        }
    }
}

/// Returns `part / whole`, or 0 if `whole` is 0.
fn share(part: f64, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part / whole as f64 }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { weights, not_ternary, other, total, warnings } = self;
        if !weights.is_empty() {
            writeln!(f, "{}", weight_table(weights))?;
        }
        if !not_ternary.is_empty() {
            let mut table = Table::new(4, ["not ternary", "shape", "type", "reason"]);
            for NotTernary { name, shape: dims, dtype, reason } in not_ternary {
                table.row([name.clone(), shape(dims), dtype.clone(), reason.to_string()]);
            }
            writeln!(f, "{table}")?;
        }
        let zeros = 100.0 * total.sparsity;
        writeln!(f, "ternary      {} weights of {} values, {zeros:.1} % zeros", total.weights, total.elements)?;
        writeln!(
            f,
            "bits/value   {:.3} in this file; plain {:.3}, archive {:.3} (with scales, without header); entropy {:.3}",
            total.bits, total.plain_bits, total.archive_bits, total.entropy_bits
        )?;
        writeln!(f, "scales       W_p = W_n in {} of {} weights", total.equal_scales, total.weights)?;
        writeln!(
            f,
            "other        {} tensors of {} values, {} bytes; {} with fewer than {MIN_RANK} dimensions",
            other.tensors,
            other.elements,
            other.bytes,
            other.tensors - not_ternary.len()
        )?;
        writeln!(
            f,
            "bytes        {} packed (header {}), {} in float32: {:.2} times smaller",
            total.packed_bytes, total.header_bytes, total.float32_bytes, total.ratio
        )?;
        let of_weights = weights.iter().flat_map(|weight| weight.warnings.iter().map(|w| (Some(&weight.name), w)));
        for (name, warning) in of_weights.chain(warnings.iter().map(|warning| (None, warning))) {
            match name {
                Some(name) => writeln!(f, "warning: {} is {warning}", Escaped(name))?,
                None => writeln!(f, "warning: {warning}")?,
            }
        }
        Ok(())
    }
}

fn weight_table(weights: &[Weight]) -> Table {
    let heading =
        ["ternary", "shape", "coding", "zeros", "W_p", "W_n", "entropy", "bits", "2-bit bytes", "float32 bytes"];
    let mut table = Table::new(3, heading);
    for weight in weights {
        let coding = if weight.coding == Coding::Plain { "plain" } else { "archive" };
        table.row([
            weight.name.clone(),
            shape(&weight.shape),
            coding.to_owned(),
            format!("{:.1} %", 100.0 * weight.sparsity),
            weight.scale(0),
            weight.scale(1),
            format!("{:.3}", weight.entropy_bits),
            format!("{:.3}", weight.bits),
            weight.two_bit_bytes.to_string(),
            weight.float32_bytes.to_string(),
        ]);
    }
    table
}
