//! Mixed precision: the kernels support its tensors, and a module's gradients are close to those in float32.

use burn::backend::{Autodiff, Flex};
use burn::prelude::*;
use burn::tensor::TensorData;
use ttq_autocast::Autocast;
use ttq_core::QuantizerConfig;

use super::training::{config, gradients};
use super::{Fused, Half, Plain, device};
use crate::numbers::random;
use crate::print_line;

/// Returns the device if there is one and it supports the 16-bit type.
fn device_with_half() -> Option<super::Device> {
    let device = device()?;
    let supported = Autocast::<Plain, Half>::is_supported(&device);
    if !supported {
        print_line("the device does not support the 16-bit type: the tests of mixed precision are skipped");
    }
    supported.then_some(device)
}

#[test]
fn the_ternary_weight_is_the_same_in_mixed_precision() {
    fn ternary<B: Backend>(device: &B::Device) -> TensorData {
        let latent = Tensor::<B, 2>::from_data(TensorData::new(random(32 * 48, 1), [32, 48]), device);
        assert!(ttq_cubecl::supports(&latent));
        let quantizer = QuantizerConfig::ttq().init::<B>().expect("a valid configuration");
        let scales = quantizer.initial_scales(latent.clone(), 1);
        quantizer.ternarize(latent, scales, 1).into_data()
    }
    let Some(device) = device_with_half() else { return };
    assert_eq!(ternary::<Autocast<Fused, Half>>(&device), ternary::<Fused>(&device));
    assert_eq!(ternary::<Autocast<Plain, Half>>(&device), ternary::<Plain>(&device));
}

fn assert_gradients_close_to_float32<B: Backend<Device = super::Device>>(device: &B::Device) {
    let config = config(QuantizerConfig::ttq());
    let [expected, _] = gradients::<Autodiff<Flex>>(&config, &Default::default());
    let [found, _] = gradients::<Autodiff<B>>(&config, device);
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!((found.dtype, &found.shape), (expected.dtype, &expected.shape));
        let size = expected.iter::<f32>().map(f32::abs).fold(1e-6, f32::max);
        for (found, expected) in found.iter::<f32>().zip(expected.iter::<f32>()) {
            assert!((found - expected).abs() <= 0.02 * size, "found {found}, expected {expected}");
        }
    }
    assert_ne!(found, expected, "all products were computed in float32");
}

#[test]
fn gradients_of_a_module_are_close_to_float32() {
    let Some(device) = device_with_half() else { return };
    assert_gradients_close_to_float32::<Autocast<Plain, Half>>(&device);
}

#[test]
fn gradients_of_a_module_are_close_to_float32_with_fusion() {
    let Some(device) = device_with_half() else { return };
    assert_gradients_close_to_float32::<Autocast<Fused, Half>>(&device);
}
