//! Models of strangers: each is trained, packed, saved, loaded, compiled and compared, on Flex, ttq-cpu and NdArray.

mod harness;
mod models;

use burn::backend::{Autodiff, Flex};
use burn::module::{AutodiffModule, Module};
use burn::optim::GradientsParams;
use burn::tensor::backend::AutodiffBackend;
use burn_ndarray::NdArray;
use ttq_core::{Granularity, QuantizerConfig, Selection, SelectionConfig, Ternary, TernaryConfig};
use ttq_cpu::Cpu;

use harness::Order::{Declared, Traced};
use harness::{Case, Order, Stranger};
use models::containers::{Containers, Looped, Repeated, Twins};
use models::convolutional::{Normalized, Separable, Signal, Transposed, UNet, Volume};
use models::gpt::{Gpt, GptWithClonedHead};
use models::mlp::{Columns, HeadFirst, Mlp, OneLayer};
use models::own_layers::{OwnLinear, RawMatrices};
use models::random::RandomNet;
use models::recurrent::{GruClassifier, LstmClassifier};

fn default() -> TernaryConfig {
    TernaryConfig::new()
}

fn channelwise() -> TernaryConfig {
    TernaryConfig::new().with_quantizer(QuantizerConfig::ttq().with_granularity(Granularity::Channel))
}

/// The first and the last layer become ternary as well.
fn everything() -> TernaryConfig {
    let selection = SelectionConfig::new().with_keep_first_convolution(false).with_keep_last_layer(false);
    channelwise().with_selection(selection)
}

/// Weights become ternary that Burn's layers do not tell: patterns and channel axes.
fn with_axes(config: TernaryConfig, axes: &[(&str, usize)]) -> TernaryConfig {
    let add = |selection: SelectionConfig, axis: &(&str, usize)| selection.with_axis(axis.0, axis.1);
    let selection = axes.iter().fold(config.selection.clone(), add);
    config.with_selection(selection)
}

/// Stamps a test for each rule, for one model on one backend.
macro_rules! rules {
    ($backend:ty: $name:ident: $($case:ident)::+: [$($rule:ident)*]) => {
        mod $name {
            use super::*;
            use $($case)::+ as case;

            $(#[test]
            fn $rule() {
                $crate::harness::$rule(&case::<$backend>());
            })*
        }
    };
}

macro_rules! strangers {
    ($rules:tt $($name:ident: $model:ident::$new:ident, $config:expr, $order:expr, $ternary:expr;)*) => {
        /// The models, how they become ternary, and which of their weights must.
        mod cases {
            use super::*;

            $(pub(super) fn $name<B: AutodiffBackend>() -> Case<$model<B>> {
                Case::new(|| $model::$new(&Default::default()), $config, $order).with_ternary(&$ternary)
            })*
        }

        mod flex {
            use super::*;
            $(rules!(Autodiff<Flex>: $name: super::super::cases::$name: $rules);)*
        }

        mod cpu {
            use super::*;
            $(rules!(Autodiff<Cpu>: $name: super::super::cases::$name: $rules);)*
        }

        mod ndarray {
            use super::*;
            $(rules!(Autodiff<NdArray>: $name: super::super::cases::$name: $rules);)*
        }
    };
}

strangers! {
    [
        every_matrix_is_listed_with_a_decision_or_a_reason
        training_lowers_the_loss_and_changes_what_is_not_frozen
        a_loop_on_the_view_lowers_the_loss_and_changes_what_is_not_frozen
        both_views_have_the_same_gradients
        a_materialized_weight_takes_the_three_values_of_its_scales
        a_packed_file_computes_the_same
        a_record_restores_every_view
        copies_compute_the_same_and_train_apart
        a_compiled_network_computes_the_same
    ]
    mlp: Mlp::new, default(), Declared, ["first.weight", "hidden.weight"];
    mlp_with_scales_per_channel: Mlp::new, channelwise(), Declared, ["first.weight", "hidden.weight"];
    frozen_body: Mlp::frozen_body, default(), Declared, ["first.weight", "hidden.weight"];
    frozen: Mlp::frozen, channelwise(), Declared, ["first.weight", "hidden.weight"];
    one_layer: OneLayer::new, everything(), Declared, ["layer.weight"];
    head_first: HeadFirst::new, default(), Traced, ["body.weight", "entry.weight"];
    gpt: Gpt::new, default(), Declared, [
        "decoder.blocks.0.attention.qkv.weight",
        "decoder.blocks.0.attention.out.weight",
        "decoder.blocks.0.up.weight",
        "decoder.blocks.0.down.weight",
        "decoder.blocks.1.attention.qkv.weight",
        "decoder.blocks.1.attention.out.weight",
        "decoder.blocks.1.up.weight",
    ];
    gpt_with_ternary_embedding: Gpt::new, with_axes(everything(), &[("tokens", 0)]), Traced, [
        "decoder.tokens.weight",
        "decoder.blocks.0.attention.qkv.weight",
        "decoder.blocks.0.attention.out.weight",
        "decoder.blocks.0.up.weight",
        "decoder.blocks.0.down.weight",
        "decoder.blocks.1.attention.qkv.weight",
        "decoder.blocks.1.attention.out.weight",
        "decoder.blocks.1.up.weight",
        "decoder.blocks.1.down.weight",
    ];
    lstm: LstmClassifier::new, default(), Declared, [
        "lstm.input_gate.input_transform.weight",
        "lstm.input_gate.hidden_transform.weight",
        "lstm.forget_gate.input_transform.weight",
        "lstm.forget_gate.hidden_transform.weight",
        "lstm.output_gate.input_transform.weight",
        "lstm.output_gate.hidden_transform.weight",
        "lstm.cell_gate.input_transform.weight",
        "lstm.cell_gate.hidden_transform.weight",
    ];
    gru: GruClassifier::new, channelwise(), Traced, [
        "gru.update_gate.input_transform.weight",
        "gru.update_gate.hidden_transform.weight",
        "gru.reset_gate.input_transform.weight",
        "gru.reset_gate.hidden_transform.weight",
        "gru.new_gate.input_transform.weight",
        "gru.new_gate.hidden_transform.weight",
    ];
    u_net: UNet::new, default(), Traced, ["down.weight", "bottom.weight", "merge.weight"];
    u_net_with_transposed: UNet::new, with_axes(channelwise(), &[("^up", 1)]), Declared, [
        "down.weight",
        "bottom.weight",
        "up.weight",
        "merge.weight",
    ];
    signal: Signal::new, channelwise(), Traced, ["body.weight"];
    volume: Volume::new, channelwise(), Declared, ["body.weight"];
    separable: Separable::new, channelwise(), Declared, ["depthwise.weight", "pointwise.weight", "dilated.weight"];
    transposed: Transposed::new, with_axes(everything(), &[("line|plane|space", 1)]), Declared, [
        "line.weight",
        "plane.weight",
        "plane_of_groups.weight",
        "space.weight",
    ];
    normalized: Normalized::new, default(), Declared, ["body.weight"];
    containers: Containers::new, default(), Declared, [
        "pair.0.weight",
        "mixers.0.Dense.weight",
        "gate.weight",
        "heads.0.weight",
        "heads.1.weight",
        "nested.0.0.weight",
        "nested.0.1.0.weight",
        "nested.1.1.0.weight",
    ];
    twins: Twins::new, default(), Traced, [
        "left.first.weight",
        "left.second.weight",
        "right.first.weight",
        "right.second.weight",
    ];
    looped: Looped::new, default(), Traced, ["block.first.weight", "block.second.weight"];
    own_linear: OwnLinear::new, with_axes(channelwise(), &[("first|second", 0)]), Declared, [
        "first.weight",
        "second.weight",
    ];
    raw_matrices: RawMatrices::new, with_axes(channelwise(), &[("project", 1), ("experts", 2)]), Declared, [
        "project",
        "experts",
    ];
}

/// Layers of `LinearLayout::Col`. Burn cannot load a record of them on an autodiff backend.
mod columns {
    use super::*;

    strangers! {
        [
            every_matrix_is_listed_with_a_decision_or_a_reason
            training_lowers_the_loss_and_changes_what_is_not_frozen
            a_loop_on_the_view_lowers_the_loss_and_changes_what_is_not_frozen
            both_views_have_the_same_gradients
            a_materialized_weight_takes_the_three_values_of_its_scales
            a_packed_file_computes_the_same
            copies_compute_the_same_and_train_apart
            a_compiled_network_computes_the_same
        ]
        columns: Columns::new, default(), Declared, ["wide.weight", "narrow.weight"];
        columns_with_scales_per_channel: Columns::new, channelwise(), Traced, ["wide.weight", "narrow.weight"];
    }
}

/// Parameters and arithmetic in float64.
mod float64 {
    use super::*;

    macro_rules! all_rules {
        ($($name:ident)*) => {
            $(rules!(Autodiff<NdArray<f64>>: $name: crate::cases::$name: [
                every_matrix_is_listed_with_a_decision_or_a_reason
                training_lowers_the_loss_and_changes_what_is_not_frozen
                a_loop_on_the_view_lowers_the_loss_and_changes_what_is_not_frozen
                both_views_have_the_same_gradients
                a_materialized_weight_takes_the_three_values_of_its_scales
                a_packed_file_computes_the_same
                a_record_restores_every_view
                copies_compute_the_same_and_train_apart
                a_compiled_network_computes_the_same
            ]);)*
        };
    }

    all_rules!(mlp separable lstm);
}

#[test]
fn every_rule_holds_for_random_modules() {
    type B = Autodiff<Cpu>;
    for seed in 0..16 {
        println!("network {seed}");
        let create = move || RandomNet::<B>::new(seed, &Default::default());
        let config = if seed % 2 == 0 { default() } else { channelwise() };
        let order: Order = if seed % 3 == 0 { Declared } else { Traced };
        harness::all(&Case::new(create, with_axes(config, &create().axes()), order));
    }
}

#[test]
fn a_parameter_at_two_places_cannot_become_ternary_and_the_error_names_both() {
    fn refused<M: Module<Autodiff<Flex>>>(model: M, config: &TernaryConfig) -> String {
        Ternary::new(model, config).unwrap_err().to_string()
    }
    let device = Default::default();
    let message = refused(Repeated::new(&device), &default());
    assert!(message.contains("`blocks.0.first.weight`") && message.contains("`blocks.1.first.weight`"), "{message}");
    let message = refused(GptWithClonedHead::new(&device), &with_axes(default(), &[("^head$", 0)]));
    assert!(message.contains("`head`") && message.contains("`decoder.tokens.weight`"), "{message}");
    // One that stays in full precision is Burn's affair.
    assert!(Ternary::<Autodiff<Flex>, _>::new(GptWithClonedHead::new(&device), &default()).is_ok());
}

#[test]
fn a_users_linear_is_not_taken_for_burns() {
    let model = OwnLinear::<Flex>::new(&Default::default());
    let selection = Selection::of(&model, &SelectionConfig::new().with_keep_last_layer(false)).unwrap();
    assert_eq!(selection.ternary().map(|choice| choice.path.as_str()).collect::<Vec<_>>(), ["head.weight"]);
    assert!(selection.to_string().contains("own_layers::Linear"), "{selection}");
}

#[test]
fn a_new_layer_of_column_layout_trains_as_one_of_row_layout_does() {
    type B = Autodiff<Flex>;
    for order in [Declared, Traced] {
        let model = Columns::<B>::new(&Default::default());
        let config = default();
        let selection = match order {
            Declared => Selection::of(&model.clone(), &config.selection),
            Traced => Selection::traced(&model.clone().valid(), &config.selection, Stranger::outputs),
        };
        let ternary = Ternary::with_selection(model, &config, selection.unwrap()).unwrap();
        let loss = ternary.view().loss();
        let grads = GradientsParams::from_grads(loss.backward(), &ternary);
        let (latents, scales) = ternary.parameter_groups();
        let trained = latents.iter().chain(&scales).all(|id| grads.get::<Flex, 2>(*id).is_some());
        assert!(trained && latents.len() == 2, "{order:?}");
    }
}
