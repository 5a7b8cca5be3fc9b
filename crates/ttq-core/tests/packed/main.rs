//! Tests packing: what is packed loads again, into the same module.

mod pack;

use burn::backend::Flex;
use burn::module::Param;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig, PaddingConfig2d};
use burn::prelude::*;
use burn::tensor::TensorData;
use burn_ndarray::NdArray;
use ttq_core::packed::pack;
use ttq_core::{Granularity, QuantizerConfig, Ternary, TernaryConfig};
use ttq_inference::{Packed, load};
use ttq_packed::{Coding, PackedModel};
use ttq_testing::{normal, reproducible, tensor};

#[derive(Module, Debug)]
struct Net<B: Backend> {
    stem: Conv2d<B>,
    conv: Conv2d<B>,
    norm: BatchNorm<B>,
    hidden: Linear<B>,
    classes: Linear<B>,
}

impl<B: Backend> Net<B> {
    fn new() -> Self {
        let device = Default::default();
        let conv = Conv2dConfig::new([4, 5], [3, 3]).with_padding(PaddingConfig2d::Same).with_bias(false);
        Self {
            stem: Conv2dConfig::new([2, 4], [3, 3]).init(&device),
            conv: conv.init(&device),
            norm: BatchNormConfig::new(5).init(&device),
            hidden: LinearConfig::new(5 * 36, 9).init(&device),
            classes: LinearConfig::new(9, 3).init(&device),
        }
    }

    fn forward(&self, images: Tensor<B, 4>) -> Tensor<B, 2> {
        let x = self.norm.forward(self.conv.forward(self.stem.forward(images)));
        self.classes.forward(self.hidden.forward(x.flatten(1, 3)))
    }
}

fn ternary<B: Backend>(granularity: Granularity, seed: u64) -> Ternary<B, Net<B>> {
    let quantizer = QuantizerConfig::ttq().with_granularity(granularity);
    let config = TernaryConfig { quantizer, ..TernaryConfig::default() };
    Ternary::new(reproducible(Net::new(), seed), &config).unwrap()
}

fn random<B: Backend, const D: usize>(shape: [usize; D], seed: u64) -> Tensor<B, D> {
    tensor(&normal(&shape, seed))
}

fn assert_close(found: TensorData, expected: TensorData, tolerance: f32) {
    assert_eq!(found.shape, expected.shape);
    let largest = expected.iter::<f32>().map(f32::abs).fold(1e-6, f32::max);
    for (found, expected) in found.iter::<f32>().zip(expected.iter::<f32>()) {
        assert!((found - expected).abs() <= tolerance * largest, "{found} for {expected}");
    }
}

#[test]
fn a_packed_file_loads_into_the_module_with_dense_and_with_packed_weights() {
    for granularity in [Granularity::Tensor, Granularity::Channel] {
        let ternary = ternary::<Flex>(granularity, 1);
        let floats = ternary.materialize();
        let expected = floats.forward(random([3, 2, 8, 8], 5)).into_data();
        let file = pack(&ternary).unwrap().write(Coding::Archive).unwrap();
        let file = PackedModel::read(&file).unwrap();
        assert_eq!(file.weights.keys().collect::<Vec<_>>(), ["conv.weight", "hidden.weight"]);
        let dense = load(Net::<Flex>::new(), &file).unwrap();
        assert_eq!(dense.conv.weight.val().into_data(), floats.conv.weight.val().into_data());
        assert_eq!(dense.hidden.weight.val().into_data(), floats.hidden.weight.val().into_data());
        assert_close(dense.forward(random([3, 2, 8, 8], 5)).into_data(), expected.clone(), 1e-6);
        let packed = load(Net::<Packed<Flex>>::new(), &file).unwrap();
        assert_close(packed.forward(random([3, 2, 8, 8], 5)).into_data(), expected, 1e-5);
        assert_eq!(packed.conv.weight.val().into_data(), floats.conv.weight.val().into_data());
    }
}

#[test]
fn booleans_and_integers_are_packed_and_loaded() {
    use burn::module::ParamId;
    use ttq_core::SelectionConfig;

    #[derive(Module, Debug)]
    struct Masked<B: Backend> {
        hidden: Linear<B>,
        mask: Param<Tensor<B, 1, Bool>>,
        order: Param<Tensor<B, 1, Int>>,
    }

    fn masked<B: Backend>(mask: [bool; 3], order: [i32; 3]) -> Masked<B> {
        let device = Default::default();
        Masked {
            hidden: LinearConfig::new(3, 3).init(&device),
            mask: Param::initialized(ParamId::new(), Tensor::from_data(mask, &device)),
            order: Param::initialized(ParamId::new(), Tensor::from_data(order, &device)),
        }
    }

    fn check<B: Backend>() {
        let selection = SelectionConfig::new().with_keep_last_layer(false);
        let config = TernaryConfig::new().with_selection(selection);
        let ternary = Ternary::new(masked::<B>([true, false, true], [2, -1, 0]), &config).unwrap();
        let loaded = load(masked::<B>([false; 3], [0; 3]), &pack(&ternary).unwrap()).unwrap();
        assert_eq!(loaded.mask.val().into_data().iter::<bool>().collect::<Vec<_>>(), [true, false, true]);
        assert_eq!(loaded.order.val().into_data().iter::<i64>().collect::<Vec<_>>(), [2, -1, 0]);
    }
    check::<Flex>();
    check::<NdArray>();
}
