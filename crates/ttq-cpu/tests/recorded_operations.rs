//! Recorded operations against Flex, which computes each at once: random programs, and the parts of networks.

use burn::backend::{Autodiff, Flex};
use burn::module::{Module, ModuleMapper, Param};
use burn::nn::transformer::{TransformerEncoderConfig, TransformerEncoderInput};
use burn::nn::{BatchNormConfig, LayerNormConfig};
use burn::prelude::*;
use burn::tensor::activation::{gelu, log_softmax, relu, sigmoid, softmax};
use burn::tensor::backend::AutodiffBackend;
use ttq_cpu::Cpu;

/// Reproducible random numbers (SplitMix64), equal for all backends.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    fn tensor<B: Backend, const D: usize>(&mut self, shape: [usize; D]) -> Tensor<B, D> {
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| self.float()).collect();
        Tensor::from_data(TensorData::new(values, shape), &B::Device::default())
    }
}

fn values<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Vec<f32> {
    tensor.into_data().convert::<f32>().to_vec().unwrap()
}

fn assert_close(ours: &[f32], theirs: &[f32], tolerance: f32, context: &str) {
    assert_eq!(ours.len(), theirs.len(), "{context}");
    let scale = theirs.iter().fold(1.0_f32, |max, x| max.max(x.abs()));
    for (index, (a, b)) in ours.iter().zip(theirs).enumerate() {
        assert!((a - b).abs() <= tolerance * scale, "{context}: element {index} is {a}, by Flex {b}");
    }
}

/// A program of `steps` random operations over tensors that are broadcast with one another. Returns every tensor that is
/// alive at the end, in a random order of reading.
fn program<B: Backend>(seed: u64, dims: [usize; 4], steps: usize) -> Vec<Vec<f32>> {
    let mut random = Random(seed);
    let mut pool: Vec<Tensor<B, 4>> = vec![random.tensor(dims), random.tensor(dims), random.tensor([1, dims[1], 1, 1])];
    for _ in 0..steps {
        let a = pool[random.below(pool.len())].clone();
        let b = pool[random.below(pool.len())].clone();
        let axis = random.below(4);
        let other = random.below(4);
        let result = match random.below(22) {
            0 => a + b,
            1 => a - b,
            2 => (a * b).tanh(),
            3 => a / (b.abs() + 1.0),
            4 => a.exp().log1p(),
            5 => relu(a) * 0.5,
            6 => gelu(a),
            7 => sigmoid(a),
            8 => a.powi_scalar(2).add_scalar(1.0).sqrt().recip(),
            9 => -a.clamp(-0.5, 0.75),
            10 => a.mean_dim(axis),
            11 => a.sum_dim(axis).tanh(),
            12 => a.max_dim(axis),
            13 => a.clone().mean_dim(axis).mean_dim(other) - a,
            14 => a.swap_dims(axis, other).div_scalar(3.0).swap_dims(axis, other),
            // The sum of a matrix's rows, as batch normalization computes it.
            15 => {
                let [n, c, h, w] = a.dims();
                a.swap_dims(0, 1).reshape([c, n * h * w]).mean_dim(1).reshape([1, c, 1, 1])
            }
            16 => {
                let [n, c, h, w] = a.dims();
                (a.reshape([n * c, h * w]) * 0.9).reshape([n, c, h, w])
            }
            17 => {
                let first = a.dims()[axis];
                let part = a.clone().narrow(axis, first / 2, first - first / 2).mean_dim(axis);
                a * part
            }
            18 => a.clone().flip([axis as isize]) - a,
            19 => {
                let shape: [usize; 4] = core::array::from_fn(|axis| a.dims()[axis].max(b.dims()[axis]));
                a.expand(shape) * 0.5
            }
            20 => {
                let mask = a.clone().greater_elem(0.1);
                a.mask_fill(mask, -0.25)
            }
            _ => {
                let mask = a.clone().lower_elem(0.0);
                let c = a.clone() * 2.0;
                a.mask_where(mask, c.sin())
            }
        };
        // Some tensors are read, some forgotten.
        match random.below(8) {
            0 => drop(values(result.clone())),
            1 => {
                let index = random.below(pool.len());
                pool.swap_remove(index);
            }
            _ => {}
        }
        pool.push(result);
    }
    let mut results = vec![];
    while !pool.is_empty() {
        let index = random.below(pool.len());
        results.push(values(pool.swap_remove(index)));
    }
    results
}

#[test]
fn random_programs_have_the_results_of_flex() {
    for seed in 0..150 {
        let dims = [[2, 3, 4, 5], [4, 8, 6, 10], [3, 16, 9, 7], [1, 40, 1, 33], [6, 2, 30, 5]][seed as usize % 5];
        let ours = program::<Cpu>(seed, dims, 30);
        let theirs = program::<Flex>(seed, dims, 30);
        assert_eq!(ours.len(), theirs.len());
        for (index, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
            assert_close(ours, theirs, 2e-4, &format!("program {seed}, tensor {index}"));
        }
    }
}

#[test]
fn long_chains_do_not_exhaust_the_stack() {
    let mut random = Random(1);
    let mut sum = random.tensor::<Cpu, 2>([64, 64]);
    let mut theirs = values(sum.clone());
    let step = random.tensor::<Cpu, 2>([64, 64]);
    let mut mean = step.clone().mean();
    for _ in 0..20_000 {
        sum = sum + step.clone();
        mean = mean * 0.5;
    }
    for (sum, step) in theirs.iter_mut().zip(values(step)) {
        (0..20_000).for_each(|_| *sum += step);
    }
    assert_eq!(values(sum), theirs);
    assert_eq!(values(mean), [0.0]);
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    let run = || program::<Cpu>(7, [8, 16, 30, 31], 40);
    let bits = |results: Vec<Vec<f32>>| -> Vec<Vec<u32>> {
        results.into_iter().map(|values| values.into_iter().map(f32::to_bits).collect()).collect()
    };
    let one = bits(pool(1).install(run));
    assert_eq!(one, bits(pool(2).install(run)));
    assert_eq!(one, bits(pool(3).install(run)));
    assert_eq!(one, bits(run()));
}

#[test]
fn a_tensor_can_be_read_by_many_threads_at_once() {
    let mut random = Random(3);
    let (x, y) = (random.tensor::<Cpu, 2>([300, 400]), random.tensor::<Cpu, 2>([300, 400]));
    let product = (x * y).tanh();
    let sum = product.clone().sum_dim(1);
    let expected = values(product.clone().sum_dim(1));
    std::thread::scope(|scope| {
        for _ in 0..16 {
            let (product, sum, expected) = (product.clone(), sum.clone(), &expected);
            scope.spawn(move || {
                assert_eq!(values(sum), *expected);
                assert_eq!(values(product).len(), 120_000);
            });
        }
    });
}

/// Replaces every parameter with reproducible numbers.
struct Parameters(Random);

impl<B: Backend> ModuleMapper<B> for Parameters {
    fn map_float<const D: usize>(&mut self, parameter: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let random = &mut self.0;
        parameter.map(|tensor| {
            let values = random.tensor::<B, D>(tensor.dims()) * 0.3;
            Tensor::from_data(values.into_data(), &tensor.device()).require_grad()
        })
    }
}

/// Output, gradient of the input, and gradient of each element of the parameters of a network.
fn gradients<B: AutodiffBackend, M: Module<B>, const D: usize>(
    model: M,
    shape: [usize; D],
    forward: impl Fn(&M, Tensor<B, D>) -> Tensor<B, D>,
) -> Vec<Vec<f32>> {
    let model = model.map(&mut Parameters(Random(5)));
    let x = Random(6).tensor::<B, D>(shape).require_grad();
    let y = forward(&model, x.clone());
    let weights = Random(8).tensor::<B, D>(y.dims());
    let gradients = (y.clone() * weights).sum().backward();
    let mut results = vec![values(y), values(x.grad(&gradients).unwrap())];
    struct Visitor<'a, B: AutodiffBackend>(&'a B::Gradients, &'a mut Vec<Vec<f32>>);
    impl<B: AutodiffBackend> burn::module::ModuleVisitor<B> for Visitor<'_, B> {
        fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<B, D>>) {
            if let Some(gradient) = parameter.grad(self.0) {
                self.1.push(values(gradient));
            }
        }
    }
    model.visit(&mut Visitor::<B>(&gradients, &mut results));
    results
}

macro_rules! same_as_flex {
    ($name:ident, $tolerance:expr, |$b:ident| $results:expr) => {
        #[test]
        fn $name() {
            fn run<$b: AutodiffBackend>() -> Vec<Vec<f32>> {
                $results
            }
            let (ours, theirs) = (run::<Autodiff<Cpu>>(), run::<Autodiff<Flex>>());
            assert_eq!(ours.len(), theirs.len());
            for (index, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
                assert_close(ours, theirs, $tolerance, &format!("{}, result {index}", stringify!($name)));
            }
        }
    };
}

same_as_flex!(batch_normalization_trains_as_on_flex, 1e-4, |B| {
    let model = BatchNormConfig::new(8).init::<B>(&Default::default());
    gradients(model, [4, 8, 9, 10], |model, x| relu(model.forward(x.clone()) + x))
});

same_as_flex!(batch_normalization_of_channels_last_trains_as_on_flex, 1e-4, |B| {
    let model = BatchNormConfig::new(8).init::<B>(&Default::default());
    gradients(model, [4, 9, 10, 8], |model, x| {
        let x = x.permute([0, 3, 1, 2]);
        let y = relu(model.forward(x.clone()) + x);
        let z = relu(model.forward(y.clone()) + y);
        z.permute([0, 2, 3, 1])
    })
});

same_as_flex!(layer_normalization_trains_as_on_flex, 1e-4, |B| {
    let model = LayerNormConfig::new(24).init::<B>(&Default::default());
    gradients(model, [3, 20, 24], |model, x| gelu(model.forward(x)))
});

same_as_flex!(softmax_trains_as_on_flex, 1e-4, |B| {
    let model = LayerNormConfig::new(40).init::<B>(&Default::default());
    gradients(model, [2, 4, 20, 40], |model, x| softmax(model.forward(x.clone()) * 2.0, 3) + log_softmax(x, 2))
});

same_as_flex!(a_transformer_trains_as_on_flex, 5e-4, |B| {
    let config = TransformerEncoderConfig::new(32, 64, 4, 2).with_dropout(0.0);
    let model = config.init::<B>(&Default::default());
    gradients(model, [3, 16, 32], |model, x| model.forward(TransformerEncoderInput::new(x)))
});

/// Every use of every comparison, on few distinct values with NaN among them.
fn masks<B: Backend>() -> Vec<Vec<u32>> {
    let mut random = Random(5);
    let mut tensor = |shape: [usize; 3]| {
        let choices = [-1.0, -0.0, 0.0, 0.5, f32::NAN];
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| choices[random.below(choices.len())]).collect();
        Tensor::<B, 3>::from_data(TensorData::new(values, shape), &B::Device::default())
    };
    let (a, b, c) = (tensor([3, 70, 9]), tensor([3, 1, 9]), tensor([70, 3, 9]));
    let masks = [
        a.clone().equal(b.clone()),
        a.clone().not_equal(b.clone()),
        a.clone().greater(b.clone()),
        a.clone().greater_equal(b.clone()),
        a.clone().lower(b.clone()),
        a.clone().lower_equal(b.clone()),
        a.clone().equal_elem(0.0),
        a.clone().not_equal_elem(0.5),
        a.clone().greater_elem(0.0),
        a.clone().greater_equal_elem(0.0),
        a.clone().lower_elem(0.5),
        a.clone().lower_equal_elem(-1.0),
        a.clone().neg().greater(b.expand([3, 70, 9])),
    ];
    let uses = |mask: Tensor<B, 3, Bool>| {
        [
            mask.clone().float(),
            mask.clone().swap_dims(0, 1).float() + c.clone(),
            a.clone().mask_fill(mask.clone(), 7.0),
            a.clone().mask_where(mask.clone(), c.clone().swap_dims(0, 1)),
            mask.clone().slice([1..2, 5..30]).float(),
            // These read and write the bytes.
            mask.clone().bool_not().float(),
            mask.clone().int().float(),
            mask.float(),
        ]
    };
    let bits = |tensor| values(tensor).into_iter().map(f32::to_bits).collect();
    masks.into_iter().flat_map(uses).map(bits).collect()
}

#[test]
fn comparisons_are_those_of_flex() {
    assert_eq!(masks::<Cpu>(), masks::<Flex>());
}

#[test]
fn a_mask_that_is_written_in_place_forgets_its_numbers() {
    let tensor = Random(6).tensor::<Cpu, 2>([40, 50]);
    let expected: Vec<f32> = values(tensor.clone()).iter().map(|x| f32::from(u8::from(*x <= 0.0))).collect();
    let inverted = tensor.greater_elem(0.0).bool_not();
    assert_eq!(values(inverted.clone().float()), expected);
    assert_eq!(values(inverted.bool_not().bool_not().float()), expected);
}
