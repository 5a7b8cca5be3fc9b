//! Activation functions.

use burn_backend::ops::ActivationOps;
use burn_flex::{Flex, FlexTensor};

use super::arithmetic::combine;
use super::scalar::map;

pub(crate) fn relu(tensor: FlexTensor) -> FlexTensor {
    map(tensor, |x| x.max(0.0), <Flex as ActivationOps<Flex>>::relu)
}

pub(crate) fn relu_backward(output: FlexTensor, grad: FlexTensor) -> FlexTensor {
    let passes = |output: f32, grad: f32| if output > 0.0 { grad } else { 0.0 };
    combine(output, grad, passes, <Flex as ActivationOps<Flex>>::relu_backward)
}
