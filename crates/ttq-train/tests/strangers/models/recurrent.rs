//! Recurrent networks on Burn's LSTM and GRU.

use burn::nn::{Gru, GruConfig, Linear, LinearConfig, Lstm, LstmConfig};
use burn::prelude::*;
use ttq_testing::{normal, tensor};

use crate::harness::Stranger;

/// Sequences `[3, 4, 5]`.
fn sequences<B: Backend>() -> Tensor<B, 3> {
    tensor(&normal(&[3, 4, 5], 4))
}

#[derive(Module, Debug)]
pub(crate) struct LstmClassifier<B: Backend> {
    lstm: Lstm<B>,
    head: Linear<B>,
}

impl<B: Backend> LstmClassifier<B> {
    pub(crate) fn new(device: &B::Device) -> Self {
        Self { lstm: LstmConfig::new(5, 6, true).init(device), head: LinearConfig::new(6, 3).init(device) }
    }
}

impl<B: Backend> Stranger<B> for LstmClassifier<B> {
    type Input = Tensor<B, 3>;

    fn input() -> Tensor<B, 3> {
        sequences()
    }

    fn forward(&self, x: Tensor<B, 3>) -> Tensor<B, 2> {
        let (_, state) = self.lstm.forward(x, None);
        self.head.forward(state.hidden)
    }
}

crate::train_step!(LstmClassifier);

/// The head is declared before the layer whose output it reads.
#[derive(Module, Debug)]
pub(crate) struct GruClassifier<B: Backend> {
    head: Linear<B>,
    gru: Gru<B>,
}

impl<B: Backend> GruClassifier<B> {
    pub(crate) fn new(device: &B::Device) -> Self {
        Self { head: LinearConfig::new(6, 3).init(device), gru: GruConfig::new(5, 6, true).init(device) }
    }
}

impl<B: Backend> Stranger<B> for GruClassifier<B> {
    type Input = Tensor<B, 3>;

    fn input() -> Tensor<B, 3> {
        sequences()
    }

    fn forward(&self, x: Tensor<B, 3>) -> Tensor<B, 2> {
        let hidden = self.gru.forward(x, None).narrow(1, 3, 1);
        self.head.forward(hidden.squeeze_dim(1))
    }
}

crate::train_step!(GruClassifier);
