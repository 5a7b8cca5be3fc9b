//! Burn's modules on packed weights, compared with dense ternary weights on a CPU.

#[path = "../../../ttq-inference/tests/inference/networks.rs"]
mod networks;
#[path = "../../../ttq-inference/tests/inference/ternary.rs"]
mod ternary;

use burn::backend::Flex;
use burn::prelude::*;
use ttq_inference::{Packed, load};

use self::networks::{
    Attention, ColumnMajor, Conv1ds, Conv2ds, Encoder, Network, OneConv3d, OneGru, OneLstm, TiedModel, TwoLstm, UNet,
};
use self::ternary::{assert_close, file_for, packed_parameters};
use super::{Device, Fused, Plain, device};

fn equals_dense<N: Network, B: Backend<Device = Device>>() {
    let Some(device) = device() else { return };
    let file = file_for(&N::new::<Flex>(&Default::default()), true);
    let dense = load(N::new::<Flex>(&Default::default()), &file).unwrap();
    let packed = load(N::new::<Packed<B>>(&device), &file).unwrap();
    assert_eq!(packed_parameters(&packed), file.weights.len());
    let expected = N::forward(&dense, &Default::default());
    assert_close(&N::forward(&packed, &device), &expected, 1e-5);
}

#[test]
fn attention_and_a_recurrent_network_on_packed_weights_equal_dense_ones() {
    equals_dense::<Encoder, Plain>();
    equals_dense::<OneLstm, Plain>();
}

#[test]
fn convolutional_networks_on_packed_weights_equal_dense_ones() {
    equals_dense::<Conv2ds, Plain>();
    equals_dense::<OneConv3d, Plain>();
}

#[test]
fn a_network_on_packed_weights_equals_the_dense_one_with_fusion() {
    equals_dense::<UNet, Fused>();
}

#[test]
#[ignore = "minutes on a device in software"]
fn further_networks_on_packed_weights_equal_dense_ones() {
    equals_dense::<Attention, Plain>();
    equals_dense::<OneGru, Plain>();
    equals_dense::<TwoLstm, Plain>();
    equals_dense::<TiedModel, Plain>();
    equals_dense::<ColumnMajor, Plain>();
    equals_dense::<Conv1ds, Plain>();
    equals_dense::<UNet, Plain>();
    equals_dense::<Encoder, Fused>();
}
