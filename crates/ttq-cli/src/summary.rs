//! What a packed file consists of: numbers for each weight, totals, and what deserves a look.

use std::fmt;

use anyhow::Result;
use serde::Serialize;
use ttq_packed::{Coding, DenseTensor, Dtype, PackedModel, TernaryWeight, file};

use crate::recognition::{self, MIN_RANK, Reason};
use crate::table::{Table, shape, significant};

/// Scales that agree to this share of themselves are equal. Scales that the published sign ties drift apart by rounding alone: 2e-6 is
/// the most in the PyTorch port's DenseNet. Those that learned differ by a hundredth and more in its SqueezeNet.
const EQUAL: f32 = 1e-5;

/// A packed file.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    weights: Vec<Weight>,
    not_ternary: Vec<NotTernary>,
    other: Other,
    total: Total,
    warnings: Vec<Warning>,
}

/// A ternary weight.
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

/// A tensor that could be a weight and is not ternary.
#[derive(Debug, Serialize)]
struct NotTernary {
    name: String,
    shape: Vec<usize>,
    dtype: String,
    reason: Reason,
}

/// All tensors but the ternary weights.
#[derive(Debug, Serialize)]
struct Other {
    tensors: usize,
    elements: usize,
    bytes: usize,
    float32_bytes: usize,
}

/// The whole file.
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

/// What deserves a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Warning {
    /// Of a weight: every value is zero.
    AllZero,
    /// Of a weight: no value is positive, or none is negative.
    OneSided,
    /// Of the file: both scales are the same in every weight.
    EqualScales,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AllZero => "all zero: it passes nothing on",
            Self::OneSided => "one-sided: no value of the other sign",
            Self::EqualScales => {
                "W_p = W_n in every layer: the published sign of the W_n gradient ties them, and TTQ learns no more than one scale; \
                 train with the exact sign (ttq-core's default, see NegativeScaleGradient), unless the method has one \
                 scale by design (TWN, BitNet b1.58)"
            }
        })
    }
}

impl Summary {
    /// Of a model, and of the file that it is written to or was read from.
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
            let reason = recognition::reason(tensor)?;
            let dtype = tensor.dtype().to_string();
            Some(NotTernary { name: name.clone(), shape: tensor.shape().to_vec(), dtype, reason })
        });
        let not_ternary = candidates.collect();
        let two_sided = weights.iter().filter(|weight| weight.scales_are_equal().is_some()).count();
        let tied = two_sided > 0 && total.equal_scales == two_sided;
        let warnings = if tied { vec![Warning::EqualScales] } else { Vec::new() };
        Ok(Self { weights, not_ternary, other, total, warnings })
    }

    /// Ternary weights there are.
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

    /// Is W_p = W_n in every group? None where no group has both.
    fn scales_are_equal(&self) -> Option<bool> {
        let equal = |[w_pos, w_neg]: &[f32; 2]| (w_pos - w_neg).abs() <= EQUAL * w_pos.max(*w_neg);
        let mut both = self.scales.iter().filter(|pair| pair.iter().all(|&scale| scale > 0.0)).peekable();
        both.peek()?;
        Some(both.all(equal))
    }

    /// W_p or W_n; the smallest and the largest where there are several.
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

/// A part of a whole that may be nothing.
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
            let mut table = Table::new(4, ["not ternary", "shape", "type", "why"]);
            for NotTernary { name, shape: dims, dtype, reason } in not_ternary {
                table.row([name.clone(), shape(dims), dtype.clone(), reason.to_string()]);
            }
            writeln!(f, "{table}")?;
        }
        let zeros = 100.0 * total.sparsity;
        writeln!(f, "ternary      {} weights of {} values, {zeros:.1} % zeros", total.weights, total.elements)?;
        writeln!(
            f,
            "bits a value {:.3} in this file; plain {:.3}, archive {:.3}; entropy {:.3} (scales count, the header does not)",
            total.bits, total.plain_bits, total.archive_bits, total.entropy_bits
        )?;
        writeln!(f, "scales       W_p = W_n in {} of {} weights", total.equal_scales, total.weights)?;
        writeln!(
            f,
            "other        {} tensors of {} values, {} bytes; {} of fewer than {MIN_RANK} dimensions",
            other.tensors,
            other.elements,
            other.bytes,
            other.tensors - not_ternary.len()
        )?;
        writeln!(
            f,
            "bytes        {} packed, {} of them the header; {} in float32: {:.2} times smaller",
            total.packed_bytes, total.header_bytes, total.float32_bytes, total.ratio
        )?;
        let of_weights = weights.iter().flat_map(|weight| weight.warnings.iter().map(|w| (Some(&weight.name), w)));
        for (name, warning) in of_weights.chain(warnings.iter().map(|warning| (None, warning))) {
            match name {
                Some(name) => writeln!(f, "warning: {name} is {warning}")?,
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
