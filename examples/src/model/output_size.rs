//! The size of a convolution's output.

use burn::nn::PaddingConfig2d;
use burn::nn::conv::Conv2d;
use burn::prelude::*;

/// Height and width that `conv` makes of an image's:
/// `floor((size + padding - dilation (kernel - 1) - 1) / stride) + 1`.
pub(crate) fn output_size<B: Backend>(conv: &Conv2d<B>, image: [usize; 2]) -> [usize; 2] {
    let padding = match conv.padding {
        PaddingConfig2d::Valid => [0, 0],
        PaddingConfig2d::Explicit(top, left, bottom, right) => [top + bottom, left + right],
        PaddingConfig2d::Same => return std::array::from_fn(|i| image[i].div_ceil(conv.stride[i])),
    };
    std::array::from_fn(|i| {
        let reach = conv.dilation[i] * (conv.kernel_size[i] - 1) + 1;
        (image[i] + padding[i] - reach) / conv.stride[i] + 1
    })
}

#[cfg(test)]
#[cfg(feature = "flex")]
mod tests {
    use super::*;
    use burn::backend::Flex;
    use burn::nn::conv::Conv2dConfig;

    #[test]
    fn the_size_is_that_of_burns_output() {
        let device = Default::default();
        let paddings =
            [PaddingConfig2d::Valid, PaddingConfig2d::Explicit(1, 2, 1, 0), PaddingConfig2d::Explicit(2, 2, 2, 2)];
        for padding in paddings {
            for (kernel, stride, dilation) in [(3, 1, 1), (3, 2, 1), (1, 2, 1), (3, 1, 2), (5, 3, 1)] {
                let conv = Conv2dConfig::new([1, 2], [kernel, kernel])
                    .with_stride([stride, stride])
                    .with_dilation([dilation, dilation])
                    .with_padding(padding.clone())
                    .init::<Flex>(&device);
                let [_, _, height, width] = conv.forward(Tensor::zeros([1, 1, 11, 14], &device)).dims();
                assert_eq!(output_size(&conv, [11, 14]), [height, width], "{padding:?} {kernel} {stride} {dilation}");
            }
        }
    }
}
