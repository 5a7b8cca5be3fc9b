//! Burn's modules, and networks of them, unchanged.

use burn::nn::attention::{MhaInput, MultiHeadAttention, MultiHeadAttentionConfig};
use burn::nn::conv::{
    Conv1d, Conv1dConfig, Conv2d, Conv2dConfig, Conv3d, Conv3dConfig, ConvTranspose1d, ConvTranspose1dConfig,
    ConvTranspose2d, ConvTranspose2dConfig,
};
use burn::nn::gru::{Gru, GruConfig};
use burn::nn::pool::{MaxPool2d, MaxPool2dConfig};
use burn::nn::transformer::{TransformerEncoder, TransformerEncoderConfig, TransformerEncoderInput};
use burn::nn::{
    BatchNorm, BatchNormConfig, BiLstm, BiLstmConfig, Embedding, EmbeddingConfig, Linear, LinearConfig, LinearLayout,
    Lstm, LstmConfig, PaddingConfig1d, PaddingConfig2d,
};
use burn::prelude::*;
use burn::tensor::TensorData;

use super::ternary::random;

/// A network for any backend.
pub(crate) trait Network {
    type Of<B: Backend>: Module<B>;

    fn new<B: Backend>(device: &B::Device) -> Self::Of<B>;

    fn forward<B: Backend>(net: &Self::Of<B>, device: &B::Device) -> TensorData;
}

pub(crate) struct Encoder;

impl Network for Encoder {
    type Of<B: Backend> = TransformerEncoder<B>;

    fn new<B: Backend>(device: &B::Device) -> Self::Of<B> {
        TransformerEncoderConfig::new(24, 40, 4, 2).init(device)
    }

    fn forward<B: Backend>(net: &Self::Of<B>, _device: &B::Device) -> TensorData {
        net.forward(TransformerEncoderInput::new(random([2, 7, 24], 1))).into_data()
    }
}

pub(crate) struct Attention;

impl Network for Attention {
    type Of<B: Backend> = MultiHeadAttention<B>;

    fn new<B: Backend>(device: &B::Device) -> Self::Of<B> {
        MultiHeadAttentionConfig::new(24, 3).init(device)
    }

    fn forward<B: Backend>(net: &Self::Of<B>, _device: &B::Device) -> TensorData {
        net.forward(MhaInput::self_attn(random([2, 7, 24], 1))).context.into_data()
    }
}

pub(crate) struct OneLstm;

impl Network for OneLstm {
    type Of<B: Backend> = Lstm<B>;

    fn new<B: Backend>(device: &B::Device) -> Self::Of<B> {
        LstmConfig::new(10, 18, true).init(device)
    }

    fn forward<B: Backend>(net: &Self::Of<B>, _device: &B::Device) -> TensorData {
        net.forward(random([2, 5, 10], 1), None).0.into_data()
    }
}

pub(crate) struct OneGru;

impl Network for OneGru {
    type Of<B: Backend> = Gru<B>;

    fn new<B: Backend>(device: &B::Device) -> Self::Of<B> {
        GruConfig::new(10, 18, true).init(device)
    }

    fn forward<B: Backend>(net: &Self::Of<B>, _device: &B::Device) -> TensorData {
        net.forward(random([2, 5, 10], 1), None).into_data()
    }
}

pub(crate) struct TwoLstm;

impl Network for TwoLstm {
    type Of<B: Backend> = BiLstm<B>;

    fn new<B: Backend>(device: &B::Device) -> Self::Of<B> {
        BiLstmConfig::new(10, 18, true).init(device)
    }

    fn forward<B: Backend>(net: &Self::Of<B>, _device: &B::Device) -> TensorData {
        net.forward(random([2, 5, 10], 1), None).0.into_data()
    }
}

pub(crate) struct Conv1ds;

#[derive(Module, Debug)]
pub(crate) struct Signal<B: Backend> {
    first: Conv1d<B>,
    grouped: Conv1d<B>,
    up: ConvTranspose1d<B>,
}

impl Network for Conv1ds {
    type Of<B: Backend> = Signal<B>;

    fn new<B: Backend>(device: &B::Device) -> Self::Of<B> {
        Signal {
            first: Conv1dConfig::new(3, 8, 5).with_padding(PaddingConfig1d::Same).init(device),
            grouped: Conv1dConfig::new(8, 12, 3).with_groups(4).with_dilation(2).with_stride(2).init(device),
            up: ConvTranspose1dConfig::new([12, 6], 3).with_stride(2).init(device),
        }
    }

    fn forward<B: Backend>(net: &Self::Of<B>, _device: &B::Device) -> TensorData {
        net.up.forward(net.grouped.forward(net.first.forward(random([2, 3, 30], 1)))).into_data()
    }
}

pub(crate) struct Conv2ds;

#[derive(Module, Debug)]
pub(crate) struct Image<B: Backend> {
    stem: Conv2d<B>,
    norm: BatchNorm<B>,
    grouped: Conv2d<B>,
    depthwise: Conv2d<B>,
    pointwise: Conv2d<B>,
}

impl Network for Conv2ds {
    type Of<B: Backend> = Image<B>;

    fn new<B: Backend>(device: &B::Device) -> Self::Of<B> {
        // Different padding on opposite sides.
        let padding = PaddingConfig2d::Explicit(0, 1, 2, 3);
        Image {
            stem: Conv2dConfig::new([3, 12], [3, 5]).with_padding(padding).with_stride([1, 2]).init(device),
            norm: BatchNormConfig::new(12).init(device),
            grouped: Conv2dConfig::new([12, 8], [3, 3])
                .with_groups(4)
                .with_dilation([2, 1])
                .with_bias(false)
                .init(device),
            depthwise: Conv2dConfig::new([8, 8], [2, 2])
                .with_groups(8)
                .with_padding(PaddingConfig2d::Same)
                .init(device),
            pointwise: Conv2dConfig::new([8, 5], [1, 1]).with_stride([2, 1]).init(device),
        }
    }

    fn forward<B: Backend>(net: &Self::Of<B>, _device: &B::Device) -> TensorData {
        let x = net.norm.forward(net.stem.forward(random([2, 3, 12, 17], 1)));
        net.pointwise.forward(net.depthwise.forward(net.grouped.forward(x))).into_data()
    }
}

pub(crate) struct OneConv3d;

impl Network for OneConv3d {
    type Of<B: Backend> = Conv3d<B>;

    fn new<B: Backend>(device: &B::Device) -> Self::Of<B> {
        Conv3dConfig::new([3, 4], [2, 3, 2]).init(device)
    }

    fn forward<B: Backend>(net: &Self::Of<B>, _device: &B::Device) -> TensorData {
        net.forward(random([2, 3, 4, 5, 6], 1)).into_data()
    }
}

#[derive(Module, Debug)]
pub(crate) struct UNet<B: Backend = burn::backend::Flex> {
    down: Conv2d<B>,
    bottom: Conv2d<B>,
    up: ConvTranspose2d<B>,
    out: Conv2d<B>,
    pool: MaxPool2d,
}

impl Network for UNet {
    type Of<B: Backend> = UNet<B>;

    fn new<B: Backend>(device: &B::Device) -> Self::Of<B> {
        let conv =
            |input, output| Conv2dConfig::new([input, output], [3, 3]).with_padding(PaddingConfig2d::Same).init(device);
        UNet {
            down: conv(2, 6),
            bottom: conv(6, 12),
            up: ConvTranspose2dConfig::new([12, 6], [2, 2]).with_stride([2, 2]).init(device),
            out: conv(12, 3),
            pool: MaxPool2dConfig::new([2, 2]).with_strides([2, 2]).init(),
        }
    }

    fn forward<B: Backend>(net: &Self::Of<B>, _device: &B::Device) -> TensorData {
        let down = burn::tensor::activation::relu(net.down.forward(random([2, 2, 8, 10], 1)));
        let up = net.up.forward(net.bottom.forward(net.pool.forward(down.clone())));
        net.out.forward(Tensor::cat(vec![down, up], 1)).into_data()
    }
}

/// An embedding whose weight, transposed, is also the last layer.
#[derive(Module, Debug)]
pub(crate) struct TiedModel<B: Backend = burn::backend::Flex> {
    embedding: Embedding<B>,
    hidden: Linear<B>,
}

impl Network for TiedModel {
    type Of<B: Backend> = TiedModel<B>;

    fn new<B: Backend>(device: &B::Device) -> Self::Of<B> {
        TiedModel {
            embedding: EmbeddingConfig::new(33, 20).init(device),
            hidden: LinearConfig::new(20, 20).init(device),
        }
    }

    fn forward<B: Backend>(net: &Self::Of<B>, device: &B::Device) -> TensorData {
        let tokens = Tensor::from_data([[0, 32, 7, 7], [1, 2, 31, 15]], device);
        let x = net.hidden.forward(net.embedding.forward(tokens));
        x.matmul(net.embedding.weight.val().transpose().unsqueeze()).into_data()
    }
}

pub(crate) struct ColumnMajor;

impl Network for ColumnMajor {
    type Of<B: Backend> = Linear<B>;

    fn new<B: Backend>(device: &B::Device) -> Self::Of<B> {
        LinearConfig::new(6, 9).with_layout(LinearLayout::Col).init(device)
    }

    fn forward<B: Backend>(net: &Self::Of<B>, _device: &B::Device) -> TensorData {
        net.forward(random::<B, 2>([3, 6], 1)).into_data()
    }
}
