//! Scales need no learning rate of their own: latents, scales and everything else train at one rate, whichever the
//! optimizer and the network. The task is the next token of a random Markov chain of order two.
//!
//! `cargo test --profile training -p ttq-train --test one_learning_rate -- --ignored --nocapture` compares with hand-tuned factors
//! on the learning rate of the scales and prints a table.

use burn::backend::Autodiff;
use burn::module::{AutodiffModule, ModuleDisplay};
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::transformer::{TransformerEncoder, TransformerEncoderConfig, TransformerEncoderInput};
use burn::nn::{
    BatchNorm, BatchNormConfig, Embedding, EmbeddingConfig, Linear, LinearConfig, Lstm, LstmConfig,
    attention::generate_autoregressive_mask,
};
use burn::optim::adaptor::OptimizerAdaptor;
use burn::optim::momentum::MomentumConfig;
use burn::optim::{Adam, AdamConfig, GradientsParams, Optimizer, Sgd, SgdConfig, SimpleOptimizer};
use burn::prelude::*;
use burn::tensor::activation::relu;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use ttq_core::{QuantizerConfig, Ternary, TernaryConfig, Threshold};
use ttq_cpu::Cpu;
use ttq_testing::reproducible;
use ttq_train::{ParamGroup, TernaryOptimizer};

type I = Cpu;
type A = Autodiff<I>;

const SYMBOLS: usize = 8;
const TOKENS: usize = 16;
const WIDTH: usize = 32;
const BATCH: usize = 16;

/// Sequences `[n, TOKENS + 1]` of a Markov chain of order two. The chain is always the same.
fn sequences<B: Backend>(n: usize, seed: u64) -> Tensor<B, 2, Int> {
    let logits = ttq_testing::normal(&[SYMBOLS * SYMBOLS, SYMBOLS], 1).to_vec::<f32>().unwrap();
    let weights: Vec<f32> = logits.iter().map(|logit| (2.0 * logit).exp()).collect();
    let mut random = StdRng::seed_from_u64(seed);
    let mut tokens = Vec::with_capacity(n * (TOKENS + 1));
    for _ in 0..n {
        let mut context = (random.random_range(0..SYMBOLS), random.random_range(0..SYMBOLS));
        for _ in 0..=TOKENS {
            let row = &weights[(context.0 * SYMBOLS + context.1) * SYMBOLS..][..SYMBOLS];
            let mut rest = random.random_range(0.0..row.iter().sum::<f32>());
            let next = row.iter().position(|weight| {
                rest -= weight;
                rest < 0.0
            });
            context = (context.1, next.unwrap_or(SYMBOLS - 1));
            tokens.push(context.1 as i32);
        }
    }
    Tensor::<B, 1, Int>::from_ints(tokens.as_slice(), &Default::default()).reshape([n, TOKENS + 1])
}

/// A network for the next token.
trait Network<B: Backend>: Module<B> + ModuleDisplay {
    fn new() -> Self;

    /// Logits `[n, TOKENS, SYMBOLS]` of the token after each of `[n, TOKENS]`.
    fn logits(&self, tokens: Tensor<B, 2, Int>) -> Tensor<B, 3>;

    /// Mean cross-entropy in nats of sequences `[n, TOKENS + 1]`.
    fn loss(&self, sequences: Tensor<B, 2, Int>) -> Tensor<B, 1> {
        let n = sequences.dims()[0];
        let targets = sequences.clone().slice([0..n, 1..TOKENS + 1]).reshape([n * TOKENS]);
        let logits = self.logits(sequences.slice([0..n, 0..TOKENS])).reshape([n * TOKENS, SYMBOLS]);
        CrossEntropyLossConfig::new().init(&logits.device()).forward(logits, targets)
    }
}

/// Three linear layers on the last two tokens, with batch normalization or without.
#[derive(Module, Debug)]
struct Mlp<B: Backend, const NORM: bool> {
    embedding: Embedding<B>,
    first: Linear<B>,
    second: Linear<B>,
    norms: Option<(BatchNorm<B>, BatchNorm<B>)>,
    head: Linear<B>,
}

impl<B: Backend, const NORM: bool> Network<B> for Mlp<B, NORM> {
    fn new() -> Self {
        let device = Default::default();
        let norm = || BatchNormConfig::new(2 * WIDTH).init(&device);
        Self {
            embedding: EmbeddingConfig::new(SYMBOLS, WIDTH).init(&device),
            first: LinearConfig::new(2 * WIDTH, 2 * WIDTH).init(&device),
            second: LinearConfig::new(2 * WIDTH, 2 * WIDTH).init(&device),
            norms: NORM.then(|| (norm(), norm())),
            head: LinearConfig::new(2 * WIDTH, SYMBOLS).init(&device),
        }
    }

    fn logits(&self, tokens: Tensor<B, 2, Int>) -> Tensor<B, 3> {
        let n = tokens.dims()[0];
        let now = self.embedding.forward(tokens);
        let before =
            Tensor::cat(vec![Tensor::zeros([n, 1, WIDTH], &now.device()), now.clone().slice([0..n, 0..TOKENS - 1])], 1);
        let x = Tensor::cat(vec![before, now], 2).reshape([n * TOKENS, 2 * WIDTH]);
        let x = self.first.forward(x);
        let x = self.norms.as_ref().map_or(x.clone(), |norms| norms.0.forward(x));
        let x = self.second.forward(relu(x));
        let x = self.norms.as_ref().map_or(x.clone(), |norms| norms.1.forward(x));
        self.head.forward(relu(x)).reshape([n, TOKENS, SYMBOLS])
    }
}

/// Burn's LSTM.
#[derive(Module, Debug)]
struct Recurrent<B: Backend> {
    embedding: Embedding<B>,
    lstm: Lstm<B>,
    head: Linear<B>,
}

impl<B: Backend> Network<B> for Recurrent<B> {
    fn new() -> Self {
        let device = Default::default();
        Self {
            embedding: EmbeddingConfig::new(SYMBOLS, WIDTH).init(&device),
            lstm: LstmConfig::new(WIDTH, WIDTH, true).init(&device),
            head: LinearConfig::new(WIDTH, SYMBOLS).init(&device),
        }
    }

    fn logits(&self, tokens: Tensor<B, 2, Int>) -> Tensor<B, 3> {
        self.head.forward(self.lstm.forward(self.embedding.forward(tokens), None).0)
    }
}

/// Burn's transformer with a causal mask.
#[derive(Module, Debug)]
struct Gpt<B: Backend> {
    embedding: Embedding<B>,
    positions: Embedding<B>,
    encoder: TransformerEncoder<B>,
    head: Linear<B>,
}

impl<B: Backend> Network<B> for Gpt<B> {
    fn new() -> Self {
        let device = Default::default();
        let encoder = TransformerEncoderConfig::new(WIDTH, 2 * WIDTH, 2, 2).with_dropout(0.0).with_norm_first(true);
        Self {
            embedding: EmbeddingConfig::new(SYMBOLS, WIDTH).init(&device),
            positions: EmbeddingConfig::new(TOKENS, WIDTH).init(&device),
            encoder: encoder.init(&device),
            head: LinearConfig::new(WIDTH, SYMBOLS).init(&device),
        }
    }

    fn logits(&self, tokens: Tensor<B, 2, Int>) -> Tensor<B, 3> {
        let (n, device) = (tokens.dims()[0], tokens.device());
        let positions = Tensor::arange(0..TOKENS as i64, &device).unsqueeze();
        let x = self.embedding.forward(tokens) + self.positions.forward(positions);
        let mask = generate_autoregressive_mask(n, TOKENS, &device);
        self.head.forward(self.encoder.forward(TransformerEncoderInput::new(x).mask_attn(mask)))
    }
}

/// A network that trains on `A`, with its inner module.
trait Trainable: Network<A> + AutodiffModule<A, InnerModule: Network<I>> {}
impl<M: Network<A> + AutodiffModule<A, InnerModule: Network<I>>> Trainable for M {}

/// An optimizer of Burn, its name, and the larger of the two learning rates of the tests.
trait Rule {
    type Optimizer: SimpleOptimizer<I>;
    const NAME: &str;
    const LARGEST: f64;
    fn init<M: AutodiffModule<A>>() -> OptimizerAdaptor<Self::Optimizer, M, A>;
}

struct SgdRule;
impl Rule for SgdRule {
    type Optimizer = Sgd<I>;
    const NAME: &str = "SGD";
    const LARGEST: f64 = 0.1;
    fn init<M: AutodiffModule<A>>() -> OptimizerAdaptor<Sgd<I>, M, A> {
        SgdConfig::new().with_momentum(Some(MomentumConfig::new().with_dampening(0.0))).init()
    }
}

struct AdamRule;
impl Rule for AdamRule {
    type Optimizer = Adam;
    const NAME: &str = "Adam";
    const LARGEST: f64 = 1e-2;
    fn init<M: AutodiffModule<A>>() -> OptimizerAdaptor<Adam, M, A> {
        AdamConfig::new().init()
    }
}

/// Trains for `steps` steps in full precision and as many with ternary weights.
fn train<R: Rule, M: Trainable>(lr: f64, scale_lr_factor: f64, steps: usize, seed: u64) -> Ternary<A, M> {
    let config =
        TernaryConfig::new().with_quantizer(QuantizerConfig::ttq().with_threshold(Threshold::MeanFraction(0.7)));
    let mut model = reproducible(M::new(), seed);
    let mut optimizer = R::init::<M>();
    let batch = |step: usize| sequences::<A>(BATCH, 1000 * seed + step as u64);
    // A linear decline: without one the last steps would be compared with each other's noise.
    let rate = |step: usize| lr * (1.0 - step as f64 / steps as f64);
    for step in 0..steps {
        let grads = GradientsParams::from_grads(model.loss(batch(step)).backward(), &model);
        model = optimizer.step(rate(step), model, grads);
    }
    let mut ternary = Ternary::new(model, &config).unwrap();
    let group = || ParamGroup::new(R::init::<Ternary<A, M>>());
    let mut optimizer = TernaryOptimizer::new(group(), group(), group()).with_scale_lr_factor(scale_lr_factor);
    for step in 0..steps {
        let loss = ternary.view().loss(batch(steps + step));
        let grads = GradientsParams::from_grads(loss.backward(), &ternary);
        ternary = optimizer.step(rate(step), ternary, grads);
    }
    ternary
}

/// Cross-entropy of the ternary network on sequences that it has not seen.
fn test_loss<M: Trainable>(ternary: &Ternary<A, M>) -> f64 {
    ternary.materialize().valid().loss(sequences(256, 7)).into_scalar().elem()
}

/// The rule: no layer one-sided, empty or without zeros, and no scale at a limit.
fn check<M: Trainable>(ternary: &Ternary<A, M>, what: &str) {
    let stats = ternary.stats();
    assert_eq!(stats.warnings().count(), 0, "{what}:\n{stats}");
    for layer in &stats.layers {
        let shares = [layer.positive, layer.negative, layer.sparsity];
        assert!(shares.iter().all(|share| *share > 0.15), "{what}:\n{stats}");
    }
}

/// The rule at the start of training: scales stay with the weights that they stand for, each within a factor of three of the
/// least-squares fit to the latents.
fn check_fit<M: Trainable>(ternary: &Ternary<A, M>, what: &str) {
    let (stats, fit) = (ternary.stats(), ternary.clone().refit().stats());
    for (layer, fit) in stats.layers.iter().zip(&fit.layers) {
        for ratio in [layer.w_pos / fit.w_pos, layer.w_neg / fit.w_neg] {
            assert!((1.0 / 3.0..3.0).contains(&ratio), "{what}, `{}`: {ratio} of the fit\n{stats}", layer.path);
        }
    }
}

/// Runs `of` for every optimizer and learning rate.
macro_rules! for_every_rule {
    ($of:ident::<$network:ty>($($argument:expr),*)) => {{
        $of::<SgdRule, $network>(0.1, $($argument),*);
        $of::<SgdRule, $network>(0.01, $($argument),*);
        $of::<AdamRule, $network>(1e-2, $($argument),*);
        $of::<AdamRule, $network>(1e-3, $($argument),*);
    }};
}

fn stays_healthy<R: Rule, M: Trainable>(lr: f64, name: &str, steps: usize) {
    let what = format!("{name}, {} {lr}", R::NAME);
    let ternary = train::<R, M>(lr, 1.0, steps, 1);
    check(&ternary, &what);
    check_fit(&ternary, &what);
    let loss = test_loss(&ternary);
    // The loss of equal logits, and some noise: 25 steps are few at the small rates.
    assert!(loss < 1.02 * (SYMBOLS as f64).ln(), "{what}: {loss}");
}

#[test]
fn a_network_with_batch_normalization_stays_healthy() {
    for_every_rule!(stays_healthy::<Mlp<A, true>>("MLP with batch normalization", 80));
}

#[test]
fn a_network_without_normalization_stays_healthy() {
    for_every_rule!(stays_healthy::<Mlp<A, false>>("MLP", 80));
}

#[test]
fn an_lstm_stays_healthy() {
    for_every_rule!(stays_healthy::<Recurrent<A>>("LSTM", 25));
}

#[test]
fn a_gpt_stays_healthy() {
    for_every_rule!(stays_healthy::<Gpt<A>>("GPT", 25));
}

const FACTORS: [f64; 5] = [0.01, 0.1, 0.3, 3.0, 10.0];

/// Steps of each phase of [`compare`]: ten times as many at a tenth of the rate. A network that has hardly begun to learn is
/// better with whatever makes it faster.
fn steps<R: Rule>(lr: f64) -> usize {
    (600.0 * R::LARGEST / lr).round() as usize
}

/// Prints a row of the table, the loss with one learning rate and that with the best of [`FACTORS`]; adds the ratio of both to
/// `ratios`.
fn compare<R: Rule, M: Trainable>(lr: f64, name: &str, ratios: &mut Vec<(String, f64)>) {
    let what = format!("{name} | {} {lr}", R::NAME);
    // The same seeds for every factor: one draw of data and weights is compared with itself.
    let loss = |factor: f64| {
        let runs = [1, 2].map(|seed| {
            let ternary = train::<R, M>(lr, factor, steps::<R>(lr), seed);
            if factor == 1.0 {
                check(&ternary, &format!("{what}, seed {seed}"));
            }
            test_loss(&ternary)
        });
        runs.iter().sum::<f64>() / runs.len() as f64
    };
    let (one, tuned) = (loss(1.0), FACTORS.map(loss));
    let best = (0..FACTORS.len()).min_by(|a, b| tuned[*a].total_cmp(&tuned[*b])).unwrap();
    let ratio = one / tuned[best];
    println!("| {what} | {one:.4} | {:.4} ({}) | {ratio:.3} |", tuned[best], FACTORS[best]);
    ratios.push((what, ratio));
}

/// Prints the rows of a network; no factor may be five percent better than none.
macro_rules! compare_factors {
    ($network:ty, $name:literal) => {{
        println!("| network | optimizer | one learning rate | best other factor | ratio |\n|---|---|---:|---:|---:|");
        let mut ratios = Vec::new();
        for_every_rule!(compare::<$network>($name, &mut ratios));
        let worse: Vec<_> = ratios.iter().filter(|(_, ratio)| *ratio > 1.05).collect();
        assert!(worse.is_empty(), "{worse:?}");
    }};
}

#[test]
#[ignore = "takes minutes: prints rows of a table"]
fn no_factor_is_five_percent_better_for_a_network_with_batch_normalization() {
    compare_factors!(Mlp<A, true>, "MLP with batch normalization");
}

#[test]
#[ignore = "takes minutes: prints rows of a table"]
fn no_factor_is_five_percent_better_for_a_network_without_normalization() {
    compare_factors!(Mlp<A, false>, "MLP");
}

#[test]
#[ignore = "takes minutes: prints rows of a table"]
fn no_factor_is_five_percent_better_for_an_lstm() {
    compare_factors!(Recurrent<A>, "LSTM");
}

#[test]
#[ignore = "takes minutes: prints rows of a table"]
fn no_factor_is_five_percent_better_for_a_gpt() {
    compare_factors!(Gpt<A>, "GPT");
}
