//! Sizes of convolutions.

use std::panic::{AssertUnwindSafe, catch_unwind};

use burn::backend::Flex;
use burn::nn::PaddingConfig2d;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::prelude::*;
use ttq_core::packed::{Convolution, PackedConv2d};

/// Returns the number of positions of a kernel on a padded axis.
fn positions(padded: usize, kernel: usize, stride: usize, dilation: usize) -> usize {
    let last = |start: usize| start + dilation * (kernel - 1);
    (0..padded).step_by(stride).filter(|start| last(*start) < padded).count()
}

/// Returns the padding of both sides of the two axes, `[vertical, horizontal]`.
fn padding(config: &Conv2dConfig, size: [usize; 2]) -> [usize; 2] {
    match config.padding {
        PaddingConfig2d::Valid => [0, 0],
        PaddingConfig2d::Explicit(top, left, bottom, right) => [top + bottom, left + right],
        // The smallest padding with which a kernel without dilation has ceil(size / stride) positions.
        PaddingConfig2d::Same => [0, 1].map(|axis| {
            let (kernel, stride) = (config.kernel_size[axis], config.stride[axis]);
            let fits = |padding: &usize| {
                positions(size[axis] + padding, kernel, stride, 1) == size[axis].div_ceil(stride)
                    && size[axis] + padding >= kernel
            };
            // A stride larger than the kernel needs none.
            (0..).find(fits).unwrap_or_default()
        }),
    }
}

#[test]
fn the_output_size_is_that_of_the_forward_pass_for_all_paddings_strides_dilations_and_sizes() {
    let device = Default::default();
    let paddings = [
        PaddingConfig2d::Valid,
        PaddingConfig2d::Same,
        PaddingConfig2d::Explicit(1, 1, 1, 1),
        PaddingConfig2d::Explicit(0, 2, 3, 1),
    ];
    let (mut fitting, mut too_large) = (0, 0);
    for padding_config in paddings {
        for index in 0..4 * 4 * 3 * 3 * 2 * 2_usize {
            let digit = |divisor: usize, base: usize| index / divisor % base + 1;
            let config = Conv2dConfig::new([1, 1], [digit(1, 4), digit(4, 4)])
                .with_stride([digit(16, 3), digit(48, 3)])
                .with_dilation([digit(144, 2), digit(288, 2)])
                .with_padding(padding_config.clone());
            let size = [1 + index % 7, 1 + index % 5];
            let padding = padding(&config, size);
            let expected = [0, 1].map(|axis| {
                let (kernel, stride, dilation) = (config.kernel_size[axis], config.stride[axis], config.dilation[axis]);
                positions(size[axis] + padding[axis], kernel, stride, dilation)
            });
            let packed = PackedConv2d::<Flex>::new(&config, &device);
            let dense: Conv2d<Flex> = config.init(&device);
            if expected.contains(&0) {
                too_large += 1;
                continue;
            }
            fitting += 1;
            let sizes = [Convolution::output_size(&packed, size), Convolution::output_size(&dense, size)];
            assert_eq!(sizes, [expected; 2], "{config} {size:?}");
            let image = Tensor::ones([1, 1, size[0], size[1]], &device);
            let [packed, dense] = [packed.forward(image.clone()), dense.forward(image)].map(|output| output.dims());
            assert_eq!([packed, dense], [[1, 1, expected[0], expected[1]]; 2], "{config} {size:?}");
        }
    }
    assert!(fitting > 1000 && too_large > 100, "{fitting} {too_large}");
}

#[test]
fn a_kernel_larger_than_the_padded_image_is_a_panic_with_the_sizes() {
    let device = Default::default();
    let config = Conv2dConfig::new([1, 1], [1, 5]).with_dilation([1, 2]);
    let packed = PackedConv2d::<Flex>::new(&config, &device);
    let dense: Conv2d<Flex> = config.init(&device);
    let image = || Tensor::ones([1, 1, 4, 8], &device);
    let message = |call: &dyn Fn()| {
        let panic = catch_unwind(AssertUnwindSafe(call)).unwrap_err();
        *panic.downcast::<String>().unwrap()
    };
    for text in [
        message(&|| {
            Convolution::output_size(&packed, [4, 8]);
        }),
        message(&|| {
            Convolution::output_size(&dense, [4, 8]);
        }),
        message(&|| drop(packed.forward(image()))),
        message(&|| drop(Convolution::forward(&dense, image()))),
    ] {
        assert!(text.contains("the width of the input is 8") && text.contains("spans 9"), "{text}");
    }
}
