//! Ternary weights and files, inputs, and comparisons of results.

use burn::module::{ModuleVisitor, Param};
use burn::prelude::*;
use burn::tensor::TensorData;
use ttq_inference::is_packed;
use ttq_packed::{Codes, DenseTensor, PackedModel, TernaryWeight};
use ttq_testing::{normal, tensor, uniform};

/// Returns normal numbers that are the same in every run.
pub(crate) fn random<B: Backend, const D: usize>(shape: [usize; D], seed: u64) -> Tensor<B, D> {
    tensor(&normal(&shape, seed))
}

/// Returns a weight with random codes, half of them zero, and one pair of scales or one per output channel.
pub(crate) fn weight(shape: &[usize], axis: usize, per_channel: bool, seed: u64) -> TernaryWeight {
    let code = |x: f32| i8::from(x > 0.5) - i8::from(x < -0.5);
    let codes: Vec<i8> = uniform(shape, seed).iter::<f32>().map(code).collect();
    let outputs = shape.get(axis).copied().unwrap_or(1);
    // Outputs of a network stay of the size of its inputs.
    let size = (shape.iter().product::<usize>() as f32 / outputs as f32).sqrt();
    let pair =
        |group: usize| [1.2 + 0.1 * (group % 5) as f32, 1.8 - 0.2 * (group % 3) as f32].map(|scale| scale / size);
    let scales: Vec<[f32; 2]> = (0..if per_channel { outputs } else { 1 }).map(pair).collect();
    TernaryWeight::new(Codes::pack(&codes).unwrap(), scales, shape, axis).unwrap()
}

/// Returns a file for a module in which all weights are ternary.
pub(crate) fn file_for<B: Backend, M: Module<B>>(module: &M, per_channel: bool) -> PackedModel {
    let mut ternarize =
        Ternarize { path: Vec::new(), container: String::new(), per_channel, file: PackedModel::default(), seed: 0 };
    module.visit(&mut ternarize);
    ternarize.file
}

struct Ternarize {
    path: Vec<String>,
    container: String,
    per_channel: bool,
    file: PackedModel,
    seed: u64,
}

impl<B: Backend> ModuleVisitor<B> for Ternarize {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.push(name.into());
        self.container = container.into();
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        self.seed += 1;
        let dims = param.val().dims();
        if D > 1 {
            let has_outputs_second = self.container == "Struct:Linear" || self.container.contains("Transpose");
            let weight = weight(&dims, usize::from(has_outputs_second), self.per_channel, self.seed);
            return drop(self.file.weights.insert(self.path.join("."), weight));
        }
        // Means of any sign; variances and gains that are positive.
        let is_signed = ["bias", "beta", "running_mean"].iter().any(|name| self.path.last().unwrap() == name);
        let values: Vec<f32> = uniform(&dims, self.seed).iter::<f32>().collect();
        let values: Vec<f32> = values.into_iter().map(|x| if is_signed { 0.3 * x } else { 1.0 + 0.3 * x }).collect();
        self.file.tensors.insert(self.path.join("."), DenseTensor::from_f32(dims, &values).unwrap());
    }
}

/// Returns the number of packed parameters of a module.
pub(crate) fn packed_parameters<B: Backend, M: Module<B>>(module: &M) -> usize {
    struct Count(usize);
    impl<B: Backend> ModuleVisitor<B> for Count {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
            self.0 += usize::from(is_packed(&param.val()));
        }
    }
    let mut count = Count(0);
    module.visit(&mut count);
    count.0
}

/// Returns the largest difference, relative to the largest expected magnitude.
pub(crate) fn difference(found: &TensorData, expected: &TensorData) -> f32 {
    assert_eq!(found.shape, expected.shape);
    let largest = expected.iter::<f32>().map(f32::abs).fold(0.0, f32::max);
    assert!(largest > 0.01, "the result is not trivial");
    let differences = found.iter::<f32>().zip(expected.iter::<f32>()).map(|(found, expected)| (found - expected).abs());
    differences.fold(0.0, |worst: f32, difference| if difference <= worst { worst } else { difference }) / largest
}

#[track_caller]
pub(crate) fn assert_close(found: &TensorData, expected: &TensorData, tolerance: f32) {
    let difference = difference(found, expected);
    assert!(difference <= tolerance, "the relative difference is {difference:e}");
}
