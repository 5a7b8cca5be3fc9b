//! Optimizer groups: decay, clipping, own training loops, rules by rank.

use burn::backend::{Autodiff, Flex};
use burn::data::dataloader::batcher::Batcher;
use burn::grad_clipping::GradientClippingConfig;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{Linear, LinearConfig};
use burn::optim::decay::WeightDecayConfig;
use burn::optim::lr_scheduler::constant::ConstantLr;
use burn::optim::momentum::MomentumConfig;
use burn::optim::{AdamConfig, AdamWConfig, GradientsParams, MuonConfig, Optimizer, SgdConfig};
use burn::prelude::*;
use burn::train::{Learner, TrainStep};
use ttq_core::{QuantizerConfig, SCALE_FLOOR, Ternary, TernaryConfig};
use ttq_testing::points::{Batch, Net, PointBatcher, point};
use ttq_testing::{normal, reproducible, tensor};
use ttq_train::{ByRank, ParamGroup, TernaryModule, TernaryOptimizer, TernaryStep};

type A = Autodiff<Flex>;
type Wrapper = Ternary<A, Net<A>>;

fn wrapper() -> Wrapper {
    Ternary::new(Net::new(false), &TernaryConfig::default()).unwrap()
}

fn batch(number: usize) -> Batch<A> {
    let points = (0..16).map(|index| point(index + 16 * number, 0)).collect();
    Batcher::<A, _, _>::batch(&PointBatcher, points, &Default::default())
}

fn gradients(ternary: &Wrapper, number: usize) -> GradientsParams {
    let view = ternary.leaf_view();
    view.pull_back(TrainStep::step(&*view, batch(number)).grads)
}

fn train(mut optimizer: impl Optimizer<Wrapper, A>, mut ternary: Wrapper, lr: f64, steps: usize) -> Wrapper {
    for number in 0..steps {
        let grads = gradients(&ternary, number);
        ternary = optimizer.step(lr, ternary, grads);
    }
    ternary
}

fn scales<M: burn::module::AutodiffModule<A>>(ternary: &Ternary<A, M>) -> Vec<f32> {
    ternary.layer_values().into_iter().flat_map(|layer| layer.scales).collect()
}

fn latents<M: burn::module::AutodiffModule<A>>(ternary: &Ternary<A, M>) -> Vec<f32> {
    ternary.layer_values().into_iter().flat_map(|layer| layer.latent).collect()
}

#[test]
fn the_decay_of_an_optimizer_does_not_reach_scales() {
    let sgd = || ParamGroup::new(SgdConfig::new().init());
    let start = wrapper();
    let adam = ParamGroup::new(AdamConfig::new().init());
    let expected = scales(&train(TernaryOptimizer::new(sgd(), adam, sgd()), start.clone(), 1e-2, 10));
    assert_ne!(expected, scales(&start));
    let adamw = ParamGroup::new(AdamWConfig::new().with_weight_decay(0.5).init());
    assert_eq!(scales(&train(TernaryOptimizer::new(sgd(), adamw, sgd()), start.clone(), 1e-2, 10)), expected);
    let penalty = Some(WeightDecayConfig { penalty: 0.5 });
    let adam = ParamGroup::new(AdamConfig::new().with_weight_decay(penalty).init());
    assert_eq!(scales(&train(TernaryOptimizer::new(sgd(), adam, sgd()), start.clone(), 1e-2, 10)), expected);
    let asked = ParamGroup::new(AdamConfig::new().init()).with_weight_decay(0.5);
    assert_ne!(scales(&train(TernaryOptimizer::new(sgd(), asked, sgd()), start, 1e-2, 10)), expected);
}

#[test]
fn gradients_are_clipped_before_weight_decay_is_added_as_in_burn() {
    type Layers = Vec<Linear<A>>;
    let layer = |inputs, outputs| LinearConfig::new(inputs, outputs).with_bias(false).init(&Default::default());
    let model: Layers = reproducible(vec![layer(6, 8), layer(8, 8), layer(8, 3)], 5);
    let loss = |layers: &Layers, step: u64| {
        let x: Tensor<A, 2> = tensor(&normal(&[4, 6], step));
        layers.iter().fold(x, |x, layer| layer.forward(x).tanh()).powi_scalar(2).sum()
    };
    let momentum = MomentumConfig::new().with_momentum(0.9);
    for clipping in [GradientClippingConfig::Norm(1e-2), GradientClippingConfig::Value(1e-3)] {
        let sgd = SgdConfig::new().with_momentum(Some(momentum.clone())).with_gradient_clipping(Some(clipping));
        let decay = Some(WeightDecayConfig { penalty: 0.3 });
        let mut burns = sgd.clone().with_weight_decay(decay.clone()).init::<A, Layers>();
        let mut groups = TernaryOptimizer::uniform(sgd.init()).with_weight_decay(0.3);
        let mut inner = TernaryOptimizer::uniform(sgd.with_weight_decay(decay).init());
        let mut expected = model.clone();
        let mut ours = Ternary::new(model.clone(), &TernaryConfig::default()).unwrap();
        let mut ours_inner = ours.clone();
        for step in 0..20 {
            let grads = GradientsParams::from_grads(loss(&expected, step).backward(), &expected);
            expected = burns.step(0.1, expected, grads);
            let grads = GradientsParams::from_grads(loss(ours.latent(), step).backward(), &ours);
            ours = groups.step(0.1, ours, grads);
            let grads = GradientsParams::from_grads(loss(ours_inner.latent(), step).backward(), &ours_inner);
            ours_inner = inner.step(0.1, ours_inner, grads);
        }
        for ((expected, ours), ours_inner) in expected.iter().zip(ours.latent()).zip(ours_inner.latent()) {
            let expected = expected.weight.val().into_data();
            ours.weight.val().into_data().assert_eq(&expected, true);
            ours_inner.weight.val().into_data().assert_eq(&expected, true);
        }
    }
}

#[test]
fn a_loop_on_a_bare_wrapper_does_what_the_learner_does() {
    let sgd = || TernaryOptimizer::uniform(SgdConfig::new().init()).with_weight_decay(1e-3);
    let start = wrapper();
    let own = train(sgd(), start.clone(), 0.1, 10);
    let mut learner = Learner::new(
        TernaryStep::new(start),
        TernaryOptimizer::uniform(SgdConfig::new().init()).with_weight_decay(1e-3),
        ConstantLr::new(0.1),
    );
    for number in 0..10 {
        learner.lr_step();
        let output = learner.train_step(batch(number));
        learner.optimizer_step(output.grads);
    }
    let learned = learner.model().into_ternary();
    assert_eq!((latents(&own), scales(&own)), (latents(&learned), scales(&learned)));
}

#[test]
fn the_step_of_the_optimizer_alone_keeps_linear_scales_above_their_floor() {
    fn step<W: TernaryModule<A>>(module: W) -> W {
        let (_, scales) = module.ternary().parameter_groups();
        let mut grads = GradientsParams::new();
        grads.register(scales[0], Tensor::<Flex, 2>::from_floats([[1e3, -0.1]], &Default::default()));
        TernaryOptimizer::uniform(SgdConfig::new().init()).step(1.0, module, grads)
    }
    let config = TernaryConfig::new().with_quantizer(QuantizerConfig::paper());
    let wrapper = || Ternary::new(Net::new(false), &config).unwrap();
    let ternary = step(wrapper());
    let step = step(TernaryStep::new(wrapper()));
    for ternary in [&ternary, step.ternary()] {
        assert_eq!(scales(ternary)[0], SCALE_FLOOR as f32);
        assert!(scales(ternary)[1] > 0.1);
    }
}

#[test]
fn gradients_of_several_devices_are_summed_before_they_are_clipped() {
    use burn::optim::MultiGradientsParams;
    let sgd = || {
        let clipping = Some(GradientClippingConfig::Norm(1e-2));
        TernaryOptimizer::uniform(SgdConfig::new().with_gradient_clipping(clipping).init()).with_weight_decay(0.1)
    };
    let start = wrapper();
    let device = <A as burn::tensor::backend::BackendTypes>::Device::default().to_id();
    let parts = (0..2).map(|number| (gradients(&start, number), device)).collect();
    let multi = sgd().step_multi(0.1, start.clone(), MultiGradientsParams { grads: parts });
    let mut accumulator = burn::optim::GradientsAccumulator::new();
    (0..2).for_each(|number| accumulator.accumulate(&start, gradients(&start, number)));
    let single = sgd().step(0.1, start, accumulator.grads());
    assert_eq!((latents(&multi), scales(&multi)), (latents(&single), scales(&single)));
}

#[test]
fn one_learning_rate_for_everything_trains_stably() {
    fn check(name: &str, mut optimizer: impl Optimizer<Wrapper, A>, lr: f64) {
        for norm in [false, true] {
            let mut ternary = Ternary::new(Net::new(norm), &TernaryConfig::default()).unwrap();
            let start = scales(&ternary);
            let mut losses = Vec::new();
            for number in 0..200 {
                let view = ternary.leaf_view();
                let output = TrainStep::step(&*view, batch(number));
                losses.push(output.item.loss.into_scalar());
                let grads = view.pull_back(output.grads);
                ternary = optimizer.step(lr, ternary.clone(), grads);
            }
            let mean = |losses: &[f32]| losses.iter().sum::<f32>() / losses.len() as f32;
            let (first, last) = (mean(&losses[..20]), mean(&losses[180..]));
            assert!(last.is_finite() && last < 0.97 * first, "{name} {lr}, norm {norm}: {first} to {last}");
            let factors = scales(&ternary).into_iter().zip(start).map(|(after, before)| after / before);
            assert!(factors.clone().all(|f| (0.05..20.0).contains(&f)), "{name} {lr}, norm {norm}: {factors:?}");
            let warnings: Vec<_> =
                ternary.stats().warnings().map(|(path, warning)| (path.to_owned(), warning)).collect();
            assert!(warnings.is_empty(), "{name} {lr}, norm {norm}: {warnings:?}");
        }
    }
    for lr in [0.1, 0.01] {
        let momentum = MomentumConfig::new().with_momentum(0.9).with_dampening(0.0);
        check("SGD", TernaryOptimizer::uniform(SgdConfig::new().init()), lr);
        check("momentum", TernaryOptimizer::uniform(SgdConfig::new().with_momentum(Some(momentum)).init()), lr);
    }
    for lr in [1e-2, 1e-3] {
        check("Adam", TernaryOptimizer::uniform(AdamConfig::new().init()), lr);
        check("AdamW", TernaryOptimizer::uniform(AdamWConfig::new().init()), lr);
    }
}

/// Convolutions and linear layers.
#[derive(Module, Debug)]
struct Mixed<B: Backend> {
    convolutions: Vec<Conv2d<B>>,
    linear: Vec<Linear<B>>,
}

impl<B: Backend> Mixed<B> {
    fn forward(&self, x: Tensor<B, 4>) -> Tensor<B, 2> {
        let x = self.convolutions.iter().fold(x, |x, layer| layer.forward(x).tanh());
        self.linear.iter().fold(x.flatten(1, 3), |x, layer| layer.forward(x).tanh())
    }
}

#[test]
fn muon_trains_matrices_while_sgd_trains_convolutions() {
    let device = Default::default();
    let convolution = |inputs| Conv2dConfig::new([inputs, 3], [3, 3]).init(&device);
    let linear = |inputs, outputs| LinearConfig::new(inputs, outputs).init(&device);
    let model = Mixed { convolutions: vec![convolution(2), convolution(3)], linear: vec![linear(12, 8), linear(8, 2)] };
    let mut ternary = Ternary::<A, _>::new(reproducible(model, 3), &TernaryConfig::default()).unwrap();
    let start = ternary.clone();
    let sgd = ParamGroup::new(SgdConfig::new().init());
    let by_rank = ByRank::new(MuonConfig::new().init(), SgdConfig::new().init());
    let mut optimizer = TernaryOptimizer::new(ParamGroup::new(by_rank), sgd.clone(), sgd);
    let mut losses = Vec::new();
    for _ in 0..10 {
        let x: Tensor<A, 4> = tensor(&normal(&[8, 2, 6, 6], 1));
        let loss = (ternary.view().forward(x) - 0.5).powi_scalar(2).mean();
        losses.push(loss.clone().into_scalar());
        let grads = GradientsParams::from_grads(loss.backward(), &ternary);
        ternary = optimizer.step(0.02, ternary, grads);
    }
    assert!(losses[9] < 0.8 * losses[0], "{losses:?}");
    for (before, after) in start.layer_values().iter().zip(ternary.layer_values()) {
        assert_ne!(before.latent, after.latent, "{}", after.choice.path);
    }
    // Its record holds both states.
    let record = Optimizer::<Ternary<A, Mixed<A>>, A>::to_record(&optimizer);
    assert_eq!((record.0.0.len(), record.0.1.len()), (1, 1));
}
