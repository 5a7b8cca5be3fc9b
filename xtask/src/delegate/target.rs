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

pub(super) const TARGETS: [Target; 3] = [
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
        views: &[],
        defaults: Defaults::Listed(&["embedding"]),
    },
];
