//! Tests `Ternary` with ordinary Burn modules: selection, views, gradients, invariants, records.

use burn::backend::{Autodiff, Flex};
use burn::module::list_param_ids;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig};
use burn::optim::{GradientsParams, Optimizer, SgdConfig};
use burn::prelude::*;
use burn::record::{BinBytesRecorder, FullPrecisionSettings, Recorder};
use burn::tensor::activation::relu;
use burn::tensor::backend::AutodiffBackend;
use ttq_core::*;
use ttq_testing::{normal, reproducible, tensor};

mod first_step;
mod frozen;
mod records;
mod selection;
mod shared;
mod threshold;
mod tracing;

type A = Autodiff<Flex>;

/// conv - bn - [conv - bn] - [linear] - linear. The layers in brackets become ternary by default.
#[derive(Module, Debug)]
struct Net<B: Backend> {
    entry: Conv2d<B>,
    entry_norm: BatchNorm<B>,
    body: Vec<Conv2d<B>>,
    body_norm: BatchNorm<B>,
    hidden: Linear<B>,
    head: Linear<B>,
}

impl<B: Backend> Net<B> {
    fn new(device: &B::Device) -> Self {
        Self {
            entry: Conv2dConfig::new([1, 4], [3, 3]).init(device),
            entry_norm: BatchNormConfig::new(4).init(device),
            body: vec![Conv2dConfig::new([4, 6], [3, 3]).with_bias(false).init(device)],
            body_norm: BatchNormConfig::new(6).init(device),
            hidden: LinearConfig::new(6 * 4 * 4, 8).init(device),
            head: LinearConfig::new(8, 3).init(device),
        }
    }

    fn forward(&self, x: Tensor<B, 4>) -> Tensor<B, 2> {
        let x = relu(self.entry_norm.forward(self.entry.forward(x)));
        let x = relu(self.body_norm.forward(self.body[0].forward(x)));
        self.head.forward(self.hidden.forward(x.flatten(1, 3)).tanh())
    }

    fn loss(&self, x: Tensor<B, 4>) -> Tensor<B, 1> {
        let device = x.device();
        let targets = (0..x.dims()[0] as i32).map(|i| i % 3).collect::<Vec<_>>();
        let targets = Tensor::<B, 1, Int>::from_ints(targets.as_slice(), &device);
        CrossEntropyLossConfig::new().init(&device).forward(self.forward(x), targets)
    }
}

fn input<B: Backend>() -> Tensor<B, 4> {
    tensor(&normal(&[9, 1, 8, 8], 2))
}

fn wrapped(config: &TernaryConfig) -> Ternary<A, Net<A>> {
    Ternary::new(reproducible(Net::new(&Default::default()), 1), config).unwrap()
}

fn channelwise() -> TernaryConfig {
    let quantizer = QuantizerConfig::ttq().with_granularity(Granularity::Channel);
    TernaryConfig { quantizer, ..TernaryConfig::default() }
}

#[test]
fn every_parameter_of_the_wrapper_receives_a_gradient() {
    for config in [TernaryConfig::default(), channelwise()] {
        let ternary = wrapped(&config);
        let grads = ternary.view().loss(input()).backward();
        let grads = GradientsParams::from_grads(grads, &ternary);
        // The list contains running mean and variance of the two norms, which have no gradient.
        assert_eq!(grads.len(), list_param_ids(&ternary).len() - 4);
    }
}

#[test]
fn pull_back_of_a_leaf_view_gives_the_gradients_of_the_view() {
    let methods = [
        QuantizerConfig::ttq(),
        QuantizerConfig::paper(),
        QuantizerConfig::twn(),
        QuantizerConfig::absmean(),
        QuantizerConfig::ttq().with_scale_granularity(Granularity::Channel),
        QuantizerConfig::paper().with_threshold_granularity(Granularity::Channel),
        channelwise().quantizer,
    ];
    for quantizer in methods {
        let ternary = wrapped(&TernaryConfig { quantizer, ..TernaryConfig::default() });
        let x = input();
        let through = GradientsParams::from_grads(ternary.view().loss(x.clone()).backward(), &ternary);
        let view = ternary.leaf_view();
        let closed = view.pull_back(GradientsParams::from_grads(view.loss(x).backward(), &*view));
        assert_eq!(through.len(), closed.len());
        let (latents, scales) = ternary.parameter_groups();
        assert_eq!(latents.len(), 2);
        let same = |a: TensorData, b: TensorData| a.assert_approx_eq::<f32>(&b, Default::default());
        same(
            through.get::<Flex, 4>(latents[0]).unwrap().into_data(),
            closed.get::<Flex, 4>(latents[0]).unwrap().into_data(),
        );
        same(
            through.get::<Flex, 2>(latents[1]).unwrap().into_data(),
            closed.get::<Flex, 2>(latents[1]).unwrap().into_data(),
        );
        for id in scales {
            same(through.get::<Flex, 2>(id).unwrap().into_data(), closed.get::<Flex, 2>(id).unwrap().into_data());
        }
    }
}

/// Returns W_p and W_n of the convolution, which batch normalization follows, after each step of gradient descent.
fn scales_over_training(sign: NegativeScaleGradient, steps: usize) -> Vec<[f32; 2]> {
    let quantizer =
        QuantizerConfig::paper().with_initial_scales(InitialScales::Ones).with_negative_scale_gradient(sign);
    let selection = SelectionConfig { include: vec!["body".into()], ..SelectionConfig::default() };
    let mut ternary = wrapped(&TernaryConfig { quantizer, selection });
    let x = input();
    let mut optimizer = SgdConfig::new().init::<A, Ternary<A, Net<A>>>();
    let mut log = Vec::new();
    for _ in 0..steps {
        let grads = ternary.view().loss(x.clone()).backward();
        let grads = GradientsParams::from_grads(grads, &ternary);
        ternary = optimizer.step(0.02, ternary, grads);
        let scales: Vec<f32> = ternary.scales()[0].val().into_data().iter().collect();
        log.push([scales[0], scales[1]]);
    }
    log
}

#[test]
fn before_batch_norm_gradient_descent_keeps_the_sum_of_squares_of_the_scales_but_not_their_equality() {
    let log = scales_over_training(NegativeScaleGradient::Exact, 60);
    for [w_pos, w_neg] in &log {
        assert!((w_pos * w_pos + w_neg * w_neg - 2.0).abs() < 0.01, "{w_pos} {w_neg}");
    }
    let [w_pos, w_neg] = log[log.len() - 1];
    assert!((w_pos - w_neg).abs() > 0.02, "{w_pos} {w_neg}");
}

#[test]
fn the_published_sign_keeps_the_scales_equal_and_breaks_the_invariant() {
    let log = scales_over_training(NegativeScaleGradient::Published, 60);
    let [w_pos, w_neg] = log[log.len() - 1];
    assert!((w_pos - w_neg).abs() < 1e-4, "the published sign keeps the scales equal: {w_pos} {w_neg}");
    assert!((w_pos * w_pos + w_neg * w_neg - 2.0).abs() > 0.01, "{w_pos} {w_neg}");
}

#[test]
fn a_materialized_module_has_three_values_per_channel_and_computes_the_same_as_the_view() {
    let ternary = wrapped(&channelwise());
    let plain = ternary.materialize();
    let x = input();
    let (a, b) = (plain.forward(x.clone()).into_data(), ternary.view().forward(x).into_data());
    a.assert_eq(&b, true);
    let weights: Vec<f32> = plain.body[0].weight.val().into_data().iter().collect();
    for channel in weights.chunks(4 * 9) {
        let mut values = channel.to_vec();
        values.sort_by(f32::total_cmp);
        values.dedup();
        assert!(values.len() <= 3, "{values:?}");
    }
    plain.entry.weight.val().into_data().assert_eq(&ternary.latent().entry.weight.val().into_data(), true);
}

#[test]
fn views_on_the_inner_backend_need_no_autodiff() {
    fn valid<B: AutodiffBackend>(ternary: &Ternary<B, Net<B>>) -> Ternary<B::InnerBackend, Net<B::InnerBackend>> {
        burn::module::AutodiffModule::valid(ternary)
    }
    let ternary = wrapped(&TernaryConfig::default());
    let inner = valid(&ternary);
    assert_eq!(inner.stats(), ternary.stats());
    let x = input::<Flex>();
    inner.view().forward(x.clone()).into_data().assert_eq(&inner.materialize().forward(x).into_data(), true);
}

#[test]
fn a_record_restores_latents_and_scales() {
    let device = Default::default();
    let recorder = BinBytesRecorder::<FullPrecisionSettings>::default();
    let ternary = wrapped(&TernaryConfig::default());
    let bytes = Recorder::<A>::record(&recorder, ternary.clone().into_record(), ()).unwrap();
    let other = Ternary::new(reproducible(Net::new(&device), 99), &TernaryConfig::default()).unwrap();
    assert_ne!(other.stats(), ternary.stats());
    let loaded = other.load_record(Recorder::<A>::load(&recorder, bytes, &device).unwrap());
    assert_eq!(loaded.stats(), ternary.stats());
    assert_eq!(loaded.snapshot().flip_ratio(&ternary.snapshot()).into_scalar(), 0.0);
}

#[test]
fn clamping_keeps_linear_scales_positive_and_trainable() {
    let mut ternary = wrapped(&TernaryConfig::new().with_quantizer(QuantizerConfig::paper()));
    let mut optimizer = SgdConfig::new().init::<A, Ternary<A, Net<A>>>();
    let mut grads = GradientsParams::new();
    let (_, scales) = ternary.parameter_groups();
    grads.register(scales[0], Tensor::<Flex, 2>::from_floats([[1e3, -0.1]], &Default::default()));
    ternary = optimizer.step(1.0, ternary, grads).after_step();
    let values: Vec<f32> = ternary.scales()[0].val().into_data().iter().collect();
    assert_eq!(values[0], SCALE_FLOOR as f32);
    assert!(values[1] > 0.1);
    assert!(ternary.scales()[0].val().is_require_grad());
    let warnings: Vec<Warning> = ternary.stats().warnings().map(|(_, warning)| warning).collect();
    assert_eq!(warnings, [Warning::ScaleNearZero]);
}

#[test]
fn a_layer_that_is_not_finite_has_a_warning_and_no_shares_and_the_others_have_theirs() {
    for spoiled in [f32::NAN, f32::INFINITY] {
        let mut net: Net<A> = reproducible(Net::new(&Default::default()), 1);
        let mut values = normal(&[6, 4, 3, 3], 3);
        values.as_mut_slice::<f32>().unwrap()[5] = spoiled;
        net.body[0].weight = burn::module::Param::from_tensor(tensor(&values));
        let ternary = Ternary::new(net, &channelwise()).unwrap();
        let stats = ternary.stats();
        let [body, hidden] = &stats.layers[..] else { panic!("two layers are ternary") };
        assert_eq!(body.warnings, [Warning::NotFinite], "{spoiled}");
        assert!([body.sparsity, body.positive, body.negative, body.entropy_bits].iter().all(|share| share.is_nan()));
        assert!(hidden.warnings.is_empty() && hidden.sparsity > 0.0, "{spoiled}: {:?}", hidden.warnings);
        assert!(stats.sparsity().is_nan() && stats.to_string().contains("! not finite"));
    }
}

#[test]
fn statistics_of_a_known_weight_are_exact() {
    let device = Default::default();
    let mut net = Net::<A>::new(&device);
    let values: Vec<f32> = (0..216).map(|i| [1.0, 0.0, 0.0, -0.5][i % 4]).collect();
    let weight = Tensor::from_data(TensorData::new(values, [6, 4, 3, 3]), &device);
    net.body[0].weight = burn::module::Param::from_tensor(weight);
    let zero = Tensor::zeros([96, 8], &device);
    net.hidden.weight = burn::module::Param::from_tensor(zero);
    let ternary = Ternary::new(net, &TernaryConfig::default()).unwrap();
    let stats = ternary.stats();
    let [body, hidden] = &stats.layers[..] else { panic!("two layers are ternary") };
    assert_eq!((body.sparsity, body.positive, body.negative), (0.5, 0.25, 0.25));
    assert_eq!((body.w_pos, body.w_neg, body.entropy_bits), (1.0, 0.5, 1.5));
    assert_eq!((body.packed_bytes, body.float_bytes), (216 / 4 + 8, 216 * 4));
    assert_eq!(hidden.warnings, [Warning::AllZero]);
    assert_eq!(hidden.entropy_bits, 0.0);
    let values = &ternary.layer_values()[0];
    assert_eq!((&values.latent[..4], &values.codes[..4]), (&[1.0, 0.0, 0.0, -0.5][..], &[1, 0, 0, -1][..]));
    assert_eq!((&values.thresholds[..], &values.scales[..]), (&[0.05][..], &[1.0, 0.5][..]));
    let summary: Vec<f32> = ternary.snapshot().summary().into_data().iter().collect();
    assert_eq!(summary[..4], [0.25, 0.25, 1.0, 0.5]);
    assert!(stats.to_string().lines().nth(2).unwrap().ends_with("! all zero"));
    assert_eq!(stats.float_bytes(), 4 * ternary.latent().num_params());
}
