//! What a training step hands to the metrics.

use burn::prelude::*;
use burn::train::ItemLazy;
use burn::train::metric::{
    AccuracyInput, Adaptor, AurocInput, CerInput, ConfusionStatsInput, HammingScoreInput, LossInput, PerplexityInput,
    TopKAccuracyInput, WerInput,
};
use ttq_core::Ternary;

/// The output of the model's own training step, with the state of the ternary weights it was computed with.
///
/// The state stays on the device until the metrics' thread asks for it.
pub struct TernaryOutput<B: Backend, O> {
    output: O,
    state: Option<LazyState<B>>,
}

struct LazyState<B: Backend> {
    /// `[layers, 4]`, see [`Ternary::summary`].
    summary: Tensor<B, 2>,
    weights: Vec<usize>,
    flip_ratio: Tensor<B, 1>,
}

impl<B: Backend, O> TernaryOutput<B, O> {
    pub(crate) fn full_precision(output: O) -> Self {
        Self { output, state: None }
    }

    pub(crate) fn new<M: Module<B>>(output: O, ternary: &Ternary<B, M>, flip_ratio: Tensor<B, 1>) -> Self {
        let weights = ternary.selection().ternary().map(|choice| choice.len()).collect();
        Self { output, state: Some(LazyState { summary: ternary.summary(), weights, flip_ratio }) }
    }
}

/// The synchronized [`TernaryOutput`]. Every metric that reads the model's own output reads this one as well.
pub struct SyncedTernaryOutput<O> {
    /// The model's output.
    pub output: O,
    /// The state of the ternary weights; `None` while training in full precision.
    pub state: Option<TernaryState>,
}

/// State of all ternary weights at one training step: the input of the metrics in this crate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TernaryState {
    /// Share of zeros among all ternary weights, between 0 and 1.
    pub sparsity: f64,
    /// W_p, the mean over layers.
    pub w_pos: f64,
    /// W_n, the mean over layers.
    pub w_neg: f64,
    /// Share of codes that the last update changed, between 0 and 1.
    pub flip_ratio: f64,
}

impl<B: Backend> LazyState<B> {
    fn sync(self) -> TernaryState {
        let summary: Vec<f64> = self.summary.into_data().iter().collect();
        let layers = self.weights.len() as f64;
        let total: usize = self.weights.iter().sum();
        let rows = || summary.chunks_exact(4);
        let nonzero: f64 = rows().zip(&self.weights).map(|(row, n)| (row[0] + row[1]) * *n as f64).sum();
        TernaryState {
            sparsity: 1.0 - nonzero / total as f64,
            w_pos: rows().map(|row| row[2]).sum::<f64>() / layers,
            w_neg: rows().map(|row| row[3]).sum::<f64>() / layers,
            flip_ratio: self.flip_ratio.into_data().iter().next().unwrap_or(0.0),
        }
    }
}

impl<B: Backend, O: ItemLazy> ItemLazy for TernaryOutput<B, O> {
    type ItemSync = SyncedTernaryOutput<O::ItemSync>;

    fn sync(self) -> Self::ItemSync {
        SyncedTernaryOutput { output: self.output.sync(), state: self.state.map(LazyState::sync) }
    }
}

impl<O> Adaptor<Option<TernaryState>> for SyncedTernaryOutput<O> {
    fn adapt(&self) -> Option<TernaryState> {
        self.state
    }
}

/// Burn's own metric inputs pass through. (One implementation for every input is not possible: Burn implements the input
/// `()` for every type.) For an input of your own, implement `Adaptor<MyInput> for SyncedTernaryOutput<MyOutput>`.
macro_rules! pass_through {
    ($($input:ident),*) => {$(
        impl<B: Backend, O: Adaptor<$input<B>>> Adaptor<$input<B>> for SyncedTernaryOutput<O> {
            fn adapt(&self) -> $input<B> {
                self.output.adapt()
            }
        }
    )*};
}

pass_through!(
    AccuracyInput,
    AurocInput,
    CerInput,
    ConfusionStatsInput,
    HammingScoreInput,
    LossInput,
    PerplexityInput,
    TopKAccuracyInput,
    WerInput
);
