//! Activation functions and their gradients.

use burn_backend::ops::ActivationOps;
use burn_flex::{Flex, FlexTensor};

use super::arithmetic::combine;
use super::scalar::each;
use crate::kernels::tape::Operation;

pub(crate) fn relu(tensor: FlexTensor) -> FlexTensor {
    each(Operation::Relu, tensor, <Flex as ActivationOps<Flex>>::relu)
}

pub(crate) fn relu_backward(output: FlexTensor, grad: FlexTensor) -> FlexTensor {
    combine(Operation::ReluBackward, output, grad, <Flex as ActivationOps<Flex>>::relu_backward)
}

pub(crate) fn gelu(tensor: FlexTensor) -> FlexTensor {
    each(Operation::Gelu, tensor, <Flex as ActivationOps<Flex>>::gelu)
}

pub(crate) fn gelu_backward(x: FlexTensor, grad: FlexTensor) -> FlexTensor {
    combine(Operation::GeluBackward, x, grad, <Flex as ActivationOps<Flex>>::gelu_backward)
}

pub(crate) fn sigmoid(tensor: FlexTensor) -> FlexTensor {
    each(Operation::Sigmoid, tensor, <Flex as ActivationOps<Flex>>::sigmoid)
}

pub(crate) fn sigmoid_backward(output: FlexTensor, grad: FlexTensor) -> FlexTensor {
    combine(Operation::SigmoidBackward, output, grad, <Flex as ActivationOps<Flex>>::sigmoid_backward)
}
