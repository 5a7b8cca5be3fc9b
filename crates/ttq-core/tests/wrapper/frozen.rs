//! What a user has frozen does not change.

use burn::module::Param;
use burn::nn::conv::Conv2d;
use burn::optim::{AdamConfig, GradientsParams, Optimizer};
use burn::prelude::*;
use ttq_core::*;
use ttq_testing::reproducible;

use crate::{A, Net, channelwise, input};

type Wrapper = Ternary<A, Net<A>>;

fn freeze_convolution(mut net: Net<A>) -> Net<A> {
    net.body = net.body.into_iter().map(|conv: Conv2d<A>| conv.no_grad()).collect();
    net
}

fn net() -> Net<A> {
    reproducible(Net::new(&Default::default()), 1)
}

/// Wrappers with nothing, one layer and everything frozen, before and after wrapping.
fn wrappers(config: &TernaryConfig) -> Vec<(&'static str, Wrapper)> {
    let wrap = |net| Ternary::new(net, config).unwrap();
    let after = wrap(net());
    let model = freeze_convolution(after.latent().clone());
    vec![
        ("nothing", wrap(net())),
        ("a convolution, before", wrap(freeze_convolution(net()))),
        ("a convolution, after", after.with_latent(model).unwrap()),
        ("the module", wrap(net().no_grad())),
        ("the wrapper", wrap(net()).no_grad()),
    ]
}

/// Every number of the wrapper that requires no gradient, without running statistics.
fn frozen(wrapper: &Wrapper) -> Vec<TensorData> {
    struct Values(Vec<TensorData>);
    impl burn::module::ModuleVisitor<A> for Values {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<A, D>>) {
            if !param.is_require_grad() {
                self.0.push(param.val().into_data());
            }
        }
    }
    let mut values = Values(Vec::new());
    let net = wrapper.latent();
    net.entry.visit(&mut values);
    net.body.visit(&mut values);
    net.hidden.visit(&mut values);
    net.head.visit(&mut values);
    values.0
}

fn convolution(wrapper: &Wrapper) -> [TensorData; 2] {
    [wrapper.latent().body[0].weight.val().into_data(), wrapper.scales()[0].val().into_data()]
}

#[test]
fn what_is_frozen_does_not_change_by_a_bit_in_latents_and_scales() {
    for config in
        [TernaryConfig::default(), channelwise(), TernaryConfig::new().with_quantizer(QuantizerConfig::paper())]
    {
        for (name, mut wrapper) in wrappers(&config) {
            let (before, layer) = (frozen(&wrapper), convolution(&wrapper));
            let mut optimizer = AdamConfig::new()
                .with_weight_decay(Some(burn::optim::decay::WeightDecayConfig::new(0.1)))
                .init::<A, Wrapper>();
            for step in 0..4 {
                let loss = |view: &Net<A>| view.loss(input()).backward();
                let grads = if step % 2 == 0 {
                    let view = wrapper.leaf_view();
                    view.pull_back(GradientsParams::from_grads(loss(&view), &*view))
                } else {
                    GradientsParams::from_grads(loss(&wrapper.view()), &wrapper)
                };
                wrapper = optimizer.step(0.01, wrapper, grads).after_step();
            }
            assert_eq!(frozen(&wrapper), before, "{name}");
            assert_eq!(convolution(&wrapper) == layer, name != "nothing", "{name}");
        }
    }
}

#[test]
fn the_gradients_of_view_and_leaf_view_are_of_the_same_parameters_whatever_is_frozen() {
    for (name, wrapper) in wrappers(&TernaryConfig::default()) {
        let through = GradientsParams::from_grads(wrapper.view().loss(input()).backward(), &wrapper);
        let view = wrapper.leaf_view();
        let closed = view.pull_back(GradientsParams::from_grads(view.loss(input()).backward(), &*view));
        assert_eq!(through.len(), closed.len(), "{name}");
        let (latents, scales) = wrapper.parameter_groups();
        let [convolution, hidden] = latents[..] else { panic!("two layers are ternary") };
        let is_frozen = name != "nothing";
        let has = |grads: &GradientsParams, id| grads.get::<burn::backend::Flex, 2>(id).is_some();
        let has_convolution = through.get::<burn::backend::Flex, 4>(convolution).is_some();
        assert_eq!([has_convolution, has(&through, scales[0])], [!is_frozen; 2], "{name}");
        assert_eq!(has(&through, hidden), has(&through, scales[1]), "{name}");
        assert_eq!(
            [has(&closed, scales[0]), has(&closed, scales[1])],
            [has(&through, scales[0]), has(&through, scales[1])]
        );
    }
}

#[test]
fn running_statistics_behave_as_in_burn_frozen_or_not() {
    for frozen in [false, true] {
        let make = || if frozen { net().no_grad() } else { net() };
        let statistics = |net: &Net<A>| {
            [&net.body_norm.running_mean, &net.entry_norm.running_mean].map(|state| state.value_sync().into_data())
        };
        // In full precision the wrapper's module is Burn's.
        let (plain, wrapper) = (make(), Ternary::new(make(), &TernaryConfig::default()).unwrap());
        let before = statistics(&plain);
        for _ in 0..3 {
            let _ = plain.loss(input());
            let _ = wrapper.leaf_view().loss(input());
        }
        // The first norm is before the first ternary layer.
        assert_eq!(statistics(wrapper.latent())[1], statistics(&plain)[1]);
        assert_ne!(statistics(wrapper.latent())[0], before[0]);
        let expected = make();
        let weight = wrapper.materialize().body[0].weight.val();
        let mut expected = expected;
        expected.body[0].weight = Param::from_tensor(weight);
        for _ in 0..3 {
            let _ = expected.loss(input());
        }
        assert_eq!(statistics(wrapper.latent()), statistics(&expected));
    }
}
