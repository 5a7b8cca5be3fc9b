//! Networks on packed weights give the results of dense ternary weights.

use burn::backend::Flex;
use burn::prelude::*;
use burn::tensor::TensorData;
use burn_ndarray::NdArray;
use ttq_cpu::Cpu;
use ttq_inference::{Int8, Packed, load};
use ttq_packed::PackedModel;

use crate::networks::{
    Attention, ColumnMajor, Conv1ds, Conv2ds, Encoder, Network, OneConv3d, OneGru, OneLstm, TiedModel, TwoLstm, UNet,
};
use crate::ternary::{assert_close, difference, file_for, packed_parameters};

/// Compares the network on packed weights with the dense one, which is computed on Flex.
fn equals_dense<N: Network>(backends: &[fn(&PackedModel) -> [TensorData; 2]]) {
    let device = Default::default();
    for per_channel in [false, true] {
        let file = file_for(&N::new::<Flex>(&device), per_channel);
        let dense = load(N::new::<Flex>(&device), &file).unwrap();
        assert_eq!(packed_parameters(&dense), 0);
        let expected = N::forward(&dense, &device);
        for results in backends {
            results(&file).iter().for_each(|found| assert_close(found, &expected, 1e-5));
        }
    }
}

/// The results of two forward passes: the second one is that of prepared kernels.
fn results<N: Network, B: Backend>(file: &PackedModel) -> [TensorData; 2] {
    let device = Default::default();
    let network = load(N::new::<Packed<B>>(&device), file).unwrap();
    [(); 2].map(|()| {
        let found = N::forward(&network, &device);
        assert_eq!(packed_parameters(&network), file.weights.len(), "the forward pass leaves the weights packed");
        found
    })
}

/// Int8 activations change a result by less than 5 % of its largest magnitude, and do change it.
fn int8_is_close<N: Network>() {
    let device = Default::default();
    let file = file_for(&N::new::<Flex>(&device), true);
    let expected = N::forward(&load(N::new::<Flex>(&device), &file).unwrap(), &device);
    let packed = load(N::new::<Packed<Flex, Int8>>(&device), &file).unwrap();
    let found = N::forward(&packed, &device);
    assert_close(&found, &expected, 0.05);
    assert!(difference(&found, &expected) > 1e-5, "activations are quantized");
}

macro_rules! networks {
    ($($test:ident: $network:ident, $int8:literal;)*) => {$(
        mod $test {
            use super::*;

            #[test]
            fn packed_equals_dense() {
                equals_dense::<$network>(&[
                    results::<$network, Flex>,
                    results::<$network, Cpu>,
                    results::<$network, NdArray>,
                ]);
                if $int8 {
                    int8_is_close::<$network>();
                }
            }
        }
    )*};
}

networks! {
    transformer_encoder: Encoder, true;
    multi_head_attention: Attention, true;
    lstm: OneLstm, true;
    gru: OneGru, true;
    bidirectional_lstm: TwoLstm, true;
    one_dimensional_convolutions: Conv1ds, true;
    two_dimensional_convolutions: Conv2ds, true;
    three_dimensional_convolution: OneConv3d, false;
    u_net: UNet, true;
    language_model: TiedModel, true;
    column_major_linear: ColumnMajor, true;
}
