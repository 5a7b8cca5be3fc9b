//! The backends of this workspace that delegate most operations to another backend.

use std::collections::BTreeSet;

/// A generated backend and its inner backend.
pub(super) struct Target {
    /// Name of the crate.
    pub(super) package: &'static str,
    /// Module documentation of the generated file.
    pub(super) about: &'static str,
    /// Imports of the generated file besides Burn's operations.
    pub(super) imports: &'static str,
    /// Generic parameters of the implementations.
    pub(super) generics: &'static str,
    /// Type of the generated backend.
    pub(super) backend: &'static str,
    /// Type of the inner backend.
    pub(super) inner: &'static str,
    /// Methods that the crate implements itself, as functions of its module `ops`.
    pub(super) own: &'static [&'static str],
    /// Type arguments of those functions.
    pub(super) arguments: &'static str,
    /// Function that float tensors go through before a delegated method reads them.
    pub(super) ready: Option<&'static str>,
    /// Function that makes a float tensor of the generated backend from one of the inner backend, if they differ.
    pub(super) wrap: Option<&'static str>,
    /// `true` if a delegated method reports its call: a `Call` with the name of the method takes its arguments and gives
    /// its result.
    pub(super) calls: bool,
    /// Delegated methods that return views or metadata, and read no elements.
    pub(super) views: &'static [&'static str],
    /// Methods that keep the default implementation of the trait, which calls other operations of the generated
    /// backend.
    pub(super) defaults: Defaults,
}

/// The methods that keep the default implementation of their trait.
pub(super) enum Defaults {
    /// The methods that Flex does not implement, and the listed ones.
    AsInFlexAnd(&'static [&'static str]),
    /// The listed methods.
    Listed(&'static [&'static str]),
}

impl Target {
    /// Returns the methods that the target names.
    pub(super) fn named(&self) -> BTreeSet<&'static str> {
        let defaults = match self.defaults {
            Defaults::AsInFlexAnd(methods) | Defaults::Listed(methods) => methods,
        };
        self.own.iter().chain(self.views).chain(defaults).copied().collect()
    }
}

pub(super) const TARGETS: [Target; 4] = [
    Target {
        package: "ttq-cpu",
        about: "\
//! Implementations of Burn's operation traits. Operations are delegated to Flex, except those that this crate
//! implements in `ops`. Operations for which Flex uses the default of the trait use it here too, so they call the
//! operations of this backend.
",
        imports: "use burn_flex::Flex; use crate::Cpu;",
        generics: "",
        backend: "Cpu",
        inner: "Flex",
        own: &[
            "float_add",
            "float_sub",
            "float_mul",
            "float_div",
            "float_add_scalar",
            "float_sub_scalar",
            "float_mul_scalar",
            "float_div_scalar",
            "float_neg",
            "float_matmul",
            "float_reshape",
            "float_ones",
            "float_sum",
            "float_sum_dim",
            "float_mean",
            "float_mean_dim",
            "linear",
            "linear_x_backward",
            "linear_weight_backward",
            "linear_bias_backward",
            "conv1d",
            "conv1d_x_backward",
            "conv1d_weight_backward",
            "conv2d",
            "conv2d_x_backward",
            "conv2d_weight_backward",
            "relu",
            "relu_backward",
            "gelu",
            "gelu_backward",
            "sigmoid",
            "sigmoid_backward",
            "float_abs",
            "float_recip",
            "float_sqrt",
            "float_exp",
            "float_log",
            "float_log1p",
            "float_tanh",
            "float_erf",
            "float_clamp",
            "float_clamp_min",
            "float_clamp_max",
            "float_mask_where",
            "bool_into_float",
            "float_equal",
            "float_equal_elem",
            "float_not_equal",
            "float_not_equal_elem",
            "float_greater",
            "float_greater_elem",
            "float_greater_equal",
            "float_greater_equal_elem",
            "float_lower",
            "float_lower_elem",
            "float_lower_equal",
            "float_lower_equal_elem",
            "float_mask_fill",
            "float_max",
            "float_max_dim",
            "float_powi_scalar",
            "float_powf_scalar",
        ],
        arguments: "",
        ready: Some("ops::ready"),
        wrap: None,
        calls: false,
        views: &[
            "float_device",
            "float_to_device",
            "float_transpose",
            "float_swap_dims",
            "float_permute",
            "float_flip",
            "float_expand",
            "float_slice",
        ],
        defaults: Defaults::AsInFlexAnd(&["softmax"]),
    },
    Target {
        package: "ttq-autocast",
        about: "\
//! Implementations of Burn's operation traits. All operations but products are delegated to the inner backend. Products
//! are implemented in `ops`, or keep the default of the trait, which calls those operations.
",
        imports: "use crate::{Autocast, Half};",
        generics: "<B: Backend, P: Half>",
        backend: "Autocast<B, P>",
        inner: "B",
        own: &[
            "float_matmul",
            "conv1d",
            "conv1d_x_backward",
            "conv1d_weight_backward",
            "conv2d",
            "conv2d_x_backward",
            "conv2d_weight_backward",
            "conv3d",
            "conv3d_x_backward",
            "conv3d_weight_backward",
            "conv_transpose1d",
            "conv_transpose2d",
            "conv_transpose3d",
        ],
        arguments: "::<B, P>",
        ready: None,
        wrap: None,
        calls: false,
        views: &[],
        defaults: Defaults::Listed(&[
            "linear",
            "linear_x_backward",
            "linear_weight_backward",
            "conv_transpose1d_x_backward",
            "conv_transpose1d_weight_backward",
            "conv_transpose2d_x_backward",
            "conv_transpose2d_weight_backward",
            "conv_transpose3d_x_backward",
            "conv_transpose3d_weight_backward",
        ]),
    },
    Target {
        package: "ttq-inference",
        about: "\
//! Implementations of Burn's operation traits. All operations are delegated to the inner backend, for which ternary
//! weights are unpacked, except those that `ops` implements.
",
        imports: "use crate::{ActivationType, Packed}; use crate::tensor::{unpacked, wrap};",
        generics: "<B: Backend, A: ActivationType>",
        backend: "Packed<B, A>",
        inner: "B",
        own: &[
            "float_random",
            "float_device",
            "float_to_device",
            "float_cast",
            "float_detach",
            "float_set_require_grad",
            "float_is_require_grad",
            "float_transpose",
            "float_swap_dims",
            "float_permute",
            "float_reshape",
            "float_select",
            "float_matmul",
            "linear",
            "conv1d",
            "conv2d",
        ],
        arguments: "::<B, A>",
        ready: Some("unpacked::<B>"),
        wrap: Some("wrap"),
        calls: false,
        views: &[],
        defaults: Defaults::Listed(&["embedding"]),
    },
    Target {
        package: "ttq-compile",
        about: "\
//! Implementations of Burn's operation traits. All operations are delegated to the inner backend. Those that a graph has
//! are recorded by `ops`; a result of another one that depends on the input cannot be captured.
",
        imports: "use crate::Capture; use crate::call::Call;",
        generics: "<B: Backend>",
        backend: "Capture<B>",
        inner: "B",
        own: &[
            "float_device",
            "int_device",
            "bool_device",
            "float_to_device",
            "int_to_device",
            "bool_to_device",
            "float_detach",
            "float_set_require_grad",
            "float_cast",
            "int_cast",
            "int_into_float",
            "float_add",
            "float_sub",
            "float_mul",
            "float_div",
            "float_powf",
            "float_add_scalar",
            "float_sub_scalar",
            "float_mul_scalar",
            "float_div_scalar",
            "float_powf_scalar",
            "float_powi_scalar",
            "float_clamp",
            "float_clamp_min",
            "float_clamp_max",
            "float_neg",
            "float_recip",
            "float_exp",
            "float_log",
            "float_log1p",
            "float_sqrt",
            "float_abs",
            "float_tanh",
            "float_erf",
            "relu",
            "leaky_relu",
            "gelu",
            "prelu",
            "sigmoid",
            "log_sigmoid",
            "softmax",
            "float_sum_dim",
            "float_mean_dim",
            "float_max_dim",
            "float_min_dim",
            "float_matmul",
            "linear",
            "conv2d",
            "max_pool2d",
            "avg_pool2d",
            "adaptive_avg_pool2d",
            "attention",
            "float_reshape",
            "int_reshape",
            "float_transpose",
            "float_swap_dims",
            "int_transpose",
            "int_swap_dims",
            "float_permute",
            "int_permute",
            "float_expand",
            "float_repeat_dim",
            "float_cat",
            "float_slice",
            "int_slice",
            "float_slice_assign",
            "float_select",
            "float_mask_fill",
            "float_mask_where",
            "bool_argwhere",
            "float_is_require_grad",
        ],
        arguments: "::<B>",
        ready: None,
        wrap: None,
        calls: true,
        views: &[],
        defaults: Defaults::Listed(&[
            "embedding",
            "layer_norm",
            "conv1d",
            "avg_pool1d",
            "max_pool1d",
            "adaptive_avg_pool1d",
            "hard_sigmoid",
            "softmin",
            "log_softmax",
        ]),
    },
];
