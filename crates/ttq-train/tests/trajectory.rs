//! Forty training steps of a small network, step by step, against PyTorch (`golden/trajectory.json`, written by
//! `make_golden.py` in ttq-core's tests).

use std::collections::BTreeMap;

use burn::backend::{Autodiff, Flex};
use burn::module::{ModuleMapper, Param};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig, PaddingConfig2d};
use burn::optim::SgdConfig;
use burn::optim::lr_scheduler::constant::ConstantLr;
use burn::optim::momentum::MomentumConfig;
use burn::prelude::*;
use burn::tensor::activation::relu;
use burn::train::Learner;
use serde::Deserialize;
use ttq_core::{QuantizerConfig, SelectionConfig, Ternary, TernaryConfig};
use ttq_train::{TernaryOptimizer, TernaryStep};

type A = Autodiff<Flex>;

#[derive(Module, Debug)]
struct Net<B: Backend> {
    conv1: Conv2d<B>,
    bn1: BatchNorm<B>,
    conv2: Conv2d<B>,
    bn2: BatchNorm<B>,
    conv3: Conv2d<B>,
    fc: Linear<B>,
}

impl<B: Backend> Net<B> {
    fn new(device: &B::Device) -> Self {
        let conv = |channels, kernel, padding, stride| {
            Conv2dConfig::new(channels, [kernel; 2])
                .with_padding(PaddingConfig2d::Explicit(padding, padding, padding, padding))
                .with_stride([stride; 2])
                .with_bias(false)
                .init(device)
        };
        Self {
            conv1: conv([1, 6], 3, 1, 1),
            bn1: BatchNormConfig::new(6).init(device),
            conv2: conv([6, 8], 3, 1, 2),
            bn2: BatchNormConfig::new(8).init(device),
            conv3: conv([8, 12], 1, 0, 1),
            fc: LinearConfig::new(12, 10).init(device),
        }
    }

    fn forward(&self, x: Tensor<B, 4>) -> Tensor<B, 2> {
        let x = relu(self.bn1.forward(self.conv1.forward(x)));
        let x = relu(self.bn2.forward(self.conv2.forward(x)));
        let x = self.conv3.forward(x);
        let [n, c, h, w] = x.dims();
        self.fc.forward(x.reshape([n, c, h * w]).mean_dim(2).reshape([n, c]))
    }
}

ttq_testing::classifier!(Net, 4);

#[derive(Deserialize, Clone)]
struct Array {
    shape: Vec<usize>,
    values: Vec<f32>,
}

#[derive(Deserialize)]
struct Step {
    loss: f32,
    conv2_w_p: f32,
    conv2_w_n: f32,
    conv3_w_p: f32,
    conv3_w_n: f32,
    conv2_sparsity: f64,
    conv3_sparsity: f64,
}

#[derive(Deserialize)]
struct Golden {
    init: BTreeMap<String, Array>,
    inputs: Array,
    targets: Vec<Vec<i32>>,
    steps: Vec<Step>,
    r#final: BTreeMap<String, Array>,
    final_bn: BTreeMap<String, Vec<f32>>,
}

/// The reference's name of a parameter of the learner.
fn golden_name(path: &str) -> Option<&'static str> {
    Some(match path {
        "ternary.model.conv1.weight" => "conv1",
        "ternary.model.conv2.weight" => "conv2",
        "ternary.model.conv3.weight" => "conv3",
        "ternary.model.bn1.gamma" => "bn1_w",
        "ternary.model.bn1.beta" => "bn1_b",
        "ternary.model.bn2.gamma" => "bn2_w",
        "ternary.model.bn2.beta" => "bn2_b",
        "ternary.model.fc.weight" => "fc_w",
        "ternary.model.fc.bias" => "fc_b",
        "ternary.scales.conv2.weight" => "conv2_w",
        "ternary.scales.conv3.weight" => "conv3_w",
        _ => return None,
    })
}

/// Values of the reference in Burn's layout: `Linear` is `[in, out]` here and `[out, in]` there, scales are pairs.
fn values(arrays: &BTreeMap<String, Array>, name: &str) -> Vec<f32> {
    match name {
        "fc_w" => {
            let Array { shape, values } = &arrays["fc_w"];
            (0..shape[1]).flat_map(|i| (0..shape[0]).map(move |o| values[o * shape[1] + i])).collect()
        }
        "conv2_w" | "conv3_w" => {
            vec![arrays[&format!("{name}_p")].values[0], arrays[&format!("{name}_n")].values[0]]
        }
        _ => arrays[name].values.clone(),
    }
}

/// Visits every parameter that the reference knows: sets it or holds it against the reference.
struct WithGolden<'a> {
    path: Vec<String>,
    arrays: &'a BTreeMap<String, Array>,
    compare: bool,
    seen: usize,
}

impl<B: Backend> ModuleMapper<B> for WithGolden<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let Some(name) = golden_name(&self.path.join(".")) else { return param };
        self.seen += 1;
        let golden = values(self.arrays, name);
        if self.compare {
            for (found, expected) in param.val().into_data().iter::<f32>().zip(golden) {
                assert!((found - expected).abs() < 1e-4, "{name}: {found} instead of {expected}");
            }
            return param;
        }
        param.map(|old| Tensor::from_data(TensorData::new(golden, old.dims()), &old.device()).set_require_grad(true))
    }
}

#[test]
fn forty_steps_follow_pytorch() {
    let device = Default::default();
    let golden: Golden = serde_json::from_str(include_str!("golden/trajectory.json")).unwrap();
    let selection = SelectionConfig { include: vec!["conv[23]".into()], ..SelectionConfig::default() };
    let config = TernaryConfig { quantizer: QuantizerConfig::paper(), selection };
    let step = TernaryStep::new(Ternary::new(Net::<A>::new(&device), &config).unwrap());
    let mut set = WithGolden { path: vec![], arrays: &golden.init, compare: false, seen: 0 };
    let step = step.map(&mut set);
    assert_eq!(set.seen, 11);

    // PyTorch's momentum has no dampening, Burn's has 0.1 by default.
    let momentum = MomentumConfig::new().with_momentum(0.9).with_dampening(0.0);
    let sgd = SgdConfig::new().with_momentum(Some(momentum)).init();
    let optimizer = TernaryOptimizer::uniform(sgd).with_weight_decay(2e-4);
    let mut learner = Learner::new(step, optimizer, ConstantLr::new(0.05));

    let shape: [usize; 5] = golden.inputs.shape.clone().try_into().unwrap();
    let inputs = Tensor::<A, 5>::from_data(TensorData::new(golden.inputs.values.clone(), shape), &device);
    for (index, expected) in golden.steps.iter().enumerate() {
        let sparsity: Vec<f64> = learner.model().ternary().stats().layers.iter().map(|layer| layer.sparsity).collect();
        assert_eq!(sparsity.len(), 2);
        assert!((sparsity[0] - expected.conv2_sparsity).abs() < 1e-6, "step {index}");
        assert!((sparsity[1] - expected.conv3_sparsity).abs() < 1e-6, "step {index}");
        let x = inputs.clone().narrow(0, index % 4, 1).squeeze_dim::<4>(0);
        let y = Tensor::from_ints(golden.targets[index % 4].as_slice(), &device);
        learner.lr_step();
        let output = learner.train_step((x, y));
        let loss: f32 = burn::train::ItemLazy::sync(output.item).output.loss.into_scalar();
        assert!((loss - expected.loss).abs() < 1e-4, "step {index}: loss {loss} instead of {}", expected.loss);
        learner.optimizer_step(output.grads);
        let scales: Vec<f32> = learner
            .model()
            .ternary()
            .scales()
            .iter()
            .flat_map(|p| p.val().into_data().iter().collect::<Vec<f32>>())
            .collect();
        let expected = [expected.conv2_w_p, expected.conv2_w_n, expected.conv3_w_p, expected.conv3_w_n];
        for (found, expected) in scales.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-4, "step {index}: scale {found} instead of {expected}");
        }
    }

    let model = learner.model();
    let mut check = WithGolden { path: vec![], arrays: &golden.r#final, compare: true, seen: 0 };
    let model = model.map(&mut check);
    assert_eq!(check.seen, 11);
    let net = model.into_ternary().into_latent();
    for (norm, name) in [(&net.bn1, "1"), (&net.bn2, "2")] {
        let mean: Vec<f32> = norm.running_mean.value_sync().into_data().iter().collect();
        for (found, expected) in mean.iter().zip(&golden.final_bn[&format!("mean{name}")]) {
            assert!((found - expected).abs() < 1e-4, "running mean {found} instead of {expected}");
        }
    }
}
