//! The backends of this workspace that are another backend but for some operations.

use std::collections::BTreeSet;

/// A backend, ours, and the one that does its work.
pub(super) struct Target {
    /// Name of the crate.
    pub(super) package: &'static str,
    /// What is delegated, for the head of the file.
    pub(super) about: &'static str,
    /// What the file imports besides Burn's operations.
    pub(super) imports: &'static str,
    /// The parameters of its type.
    pub(super) generics: &'static str,
    /// Its type.
    pub(super) ours: &'static str,
    /// The type of the other.
    pub(super) inner: &'static str,
    /// Methods that are the crate's own: functions of its module `ops`.
    pub(super) own: &'static [&'static str],
    /// The type arguments of those functions.
    pub(super) arguments: &'static str,
    /// Methods that stay as the trait has them, made of the backend's other operations.
    pub(super) left: Left,
}

pub(super) enum Left {
    /// Those that Flex does not implement.
    ThoseOfFlex,
    /// These.
    These(&'static [&'static str]),
}

impl Target {
    /// The methods that are named here.
    pub(super) fn named(&self) -> BTreeSet<&'static str> {
        let left = match self.left {
            Left::ThoseOfFlex => &[],
            Left::These(methods) => methods,
        };
        self.own.iter().chain(left).copied().collect()
    }
}

pub(super) const TARGETS: [Target; 2] = [
    Target {
        package: "ttq-cpu",
        about: "\
//! The operations of a Burn backend: those that Flex implements are delegated to it, some are this crate's own. What Flex
//! leaves to the default of a trait is left to it here as well, and then made of this backend's operations.
",
        imports: "use burn_flex::Flex; use crate::Cpu;",
        generics: "",
        ours: "Cpu",
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
            "float_reshape",
            "float_ones",
            "float_sum",
            "float_sum_dim",
            "float_mean",
            "float_mean_dim",
            "conv2d",
            "conv2d_x_backward",
            "conv2d_weight_backward",
            "relu",
            "relu_backward",
        ],
        arguments: "",
        left: Left::ThoseOfFlex,
    },
    Target {
        package: "ttq-autocast",
        about: "\
//! The operations of a Burn backend: all are delegated to the inner backend but products. Some of these are this crate's own;
//! the others are left to the defaults of the traits, which make them of those.
",
        imports: "use crate::{Autocast, Half};",
        generics: "<B: Backend, P: Half>",
        ours: "Autocast<B, P>",
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
        left: Left::These(&[
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
];
