//! A weight that the forward pass uses twice.

use burn::backend::Flex;
use burn::module::Param;
use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig};
use burn::optim::GradientsParams;
use burn::prelude::*;
use ttq_core::*;
use ttq_testing::reproducible;

use crate::A;

/// A language model whose head is the transpose of its embedding.
#[derive(Module, Debug)]
struct Tied<B: Backend> {
    tokens: Embedding<B>,
    body: Linear<B>,
}

impl<B: Backend> Tied<B> {
    fn new() -> Self {
        let device = &Default::default();
        let model =
            Self { tokens: EmbeddingConfig::new(7, 4).init(device), body: LinearConfig::new(4, 4).init(device) };
        reproducible(model, 6)
    }

    /// Computes a loss; the gradient flows through the uses of the embedding that `first` and `second` name.
    fn loss(&self, first: bool, second: bool) -> Tensor<B, 1> {
        let tokens = Tensor::<B, 2, Int>::from_ints([[0, 3, 3, 6]], &Default::default());
        let x = self.tokens.forward(tokens);
        let x = self.body.forward(if first { x } else { x.detach() }).tanh();
        let head = self.tokens.weight.val().transpose();
        x.matmul(if second { head } else { head.detach() }.unsqueeze()).tanh().powi_scalar(2).sum()
    }
}

#[test]
fn a_weight_that_is_used_twice_has_one_pair_of_scales_and_the_sum_of_both_gradients() {
    let selection = SelectionConfig::new().with_axis("^tokens", 0).with_keep_last_layer(false);
    let ternary = Ternary::new(Tied::<A>::new(), &TernaryConfig::new().with_selection(selection)).unwrap();
    assert_eq!(ternary.scales().len(), 2);
    let (latents, scales) = ternary.parameter_groups();
    let ids = [latents[0], scales[0]];
    let gradients = |grads: GradientsParams| ids.map(|id| grads.get::<Flex, 2>(id).unwrap());
    let closed = |first, second| {
        let view = ternary.leaf_view();
        gradients(view.pull_back(GradientsParams::from_grads(view.loss(first, second).backward(), &*view)))
    };
    let both = closed(true, true);
    let through = gradients(GradientsParams::from_grads(ternary.view().loss(true, true).backward(), &ternary));
    let parts = [closed(true, false), closed(false, true)];
    for index in 0..2 {
        let [first, second] = [&parts[0][index], &parts[1][index]];
        let sum = (first.clone() + second.clone()).into_data();
        both[index].to_data().assert_approx_eq::<f32>(&sum, Default::default());
        both[index].to_data().assert_approx_eq::<f32>(&through[index].to_data(), Default::default());
        assert!(first.clone().abs().sum().into_scalar() > 0.0 && second.clone().abs().sum().into_scalar() > 0.0);
    }
}

#[test]
fn a_layer_with_the_identifier_of_an_embedding_is_refused_only_if_it_would_become_ternary() {
    let mut model = Tied::<A>::new();
    let weight = model.tokens.weight.val().slice([0..4, 0..4]).detach().require_grad();
    model.body.weight = Param::initialized(model.tokens.weight.id, weight);
    let config = |keep| TernaryConfig::new().with_selection(SelectionConfig::new().with_keep_last_layer(keep));
    let error = Ternary::new(model.clone(), &config(false)).unwrap_err().to_string();
    assert!(error.contains("`body.weight` and `tokens.weight` have the same parameter identifier"), "{error}");
    let error = Ternary::new(model, &config(true)).unwrap_err().to_string();
    assert!(error.contains("no weight of the model is selected"), "{error}");
}
