//! Random models with weights of many shapes, scales per tensor or per output channel, and tensors of several types.

use fastrand::Rng;
use ttq_packed::{Codes, DenseTensor, Dtype, PackedModel, TensorLayout, TernaryWeight};

/// Returns random ternary values. `sparsity` is the probability of zero, and +1 and -1 are equally likely.
pub(crate) fn values(rng: &mut Rng, len: usize, sparsity: f64) -> Vec<i8> {
    let value = |_| match rng.f64() < sparsity {
        true => 0,
        false => rng.bool() as i8 * 2 - 1,
    };
    (0..len).map(value).collect()
}

/// Returns a random weight with scales per output channel or per tensor.
pub(crate) fn weight(rng: &mut Rng, shape: &[usize], sparsity: f64, per_channel: bool) -> TernaryWeight {
    let codes = Codes::pack(&values(rng, shape.iter().product(), sparsity)).unwrap();
    let output_axis = if shape.is_empty() { 0 } else { rng.usize(0..shape.len()) };
    let groups = if per_channel { shape.get(output_axis).copied().unwrap_or(1) } else { 1 };
    let scales: Vec<[f32; 2]> = (0..groups).map(|_| [rng.f32(), 2.0 * rng.f32()]).collect();
    TernaryWeight::new(codes, scales, shape, output_axis).unwrap()
}

/// Returns a random model with fewer than eight weights and eight tensors.
pub(crate) fn model(rng: &mut Rng) -> PackedModel {
    let shape = |rng: &mut Rng| (0..rng.usize(0..5)).map(|_| rng.usize(0..8)).collect::<Vec<_>>();
    let mut model = PackedModel::default();
    for index in 0..rng.usize(0..8) {
        let (shape, sparsity, per_channel) = (shape(rng), rng.f64(), rng.bool());
        model.weights.insert(format!("layer{index}.weight"), weight(rng, &shape, sparsity, per_channel));
    }
    for index in 0..rng.usize(0..8) {
        let dtype = rng.choice([Dtype::F32, Dtype::F16, Dtype::BF16, Dtype::I64, Dtype::U8, Dtype::BOOL]).unwrap();
        let shape = shape(rng);
        let bytes = (0..shape.iter().product::<usize>() * dtype.bitsize() / 8).map(|_| rng.u8(..)).collect();
        model.tensors.insert(format!("layer{index}.bias \"ü\""), DenseTensor::new(dtype, shape, bytes).unwrap());
    }
    model.layout = if rng.bool() { TensorLayout::Burn } else { TensorLayout::Pytorch };
    model.config = rng.bool().then(|| format!("{{\"seed\": {}}}\n", rng.u64(..)));
    model
}
