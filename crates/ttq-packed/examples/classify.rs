//! Classifies digits with the packed network of the example `mnist`, without Burn.
//!
//! The program needs only the packed file and the kernels of this crate. `RUN` is the directory of a run of `mnist`,
//! and the images and labels are the MNIST test set.
//!
//! ```sh
//! gunzip -k t10k-images-idx3-ubyte.gz t10k-labels-idx1-ubyte.gz
//! cargo run --release -p ttq-packed --example classify -- RUN/packed.safetensors t10k-images-idx3-ubyte t10k-labels-idx1-ubyte
//! ```

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use ttq_packed::PackedModel;
use ttq_packed::kernels::{ConvolutionOptions, PackedConvolution, PackedMatrix, Scales, Scratch};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Height and width of an image.
const SIZE: usize = 28;

/// Convolution, pooling, convolution, pooling, linear layer with batch normalization, linear layer.
///
/// The second convolution and the first linear layer are ternary.
struct Network {
    /// Weight `[16, 1, 5, 5]` and bias `[16]`.
    conv1: (Vec<f32>, Vec<f32>),
    /// Weight `[32, 16, 5, 5]`.
    conv2: PackedConvolution,
    /// Weight `[128, 512]` = `[out, in]`.
    hidden: PackedMatrix,
    /// Weight `[128, 10]` = `[in, out]` and bias `[10]`.
    classes: (Vec<f32>, Vec<f32>),
    /// Mean of the pixels, which range from 0 to 1.
    mean: f32,
    /// Standard deviation of the pixels.
    std: f32,
    scratch: Scratch,
}

impl Network {
    fn load(path: &Path) -> Result<Self> {
        let model = PackedModel::load(path)?;
        let floats = |name: &str| -> Result<Vec<f32>> {
            let tensor = model.tensors.get(name).ok_or(format!("{} has no tensor `{name}`", path.display()))?;
            Ok(tensor.to_f32()?)
        };
        let weight =
            |name: &str| model.weights.get(name).ok_or(format!("{} has no ternary weight `{name}`", path.display()));
        let conv2 = weight("conv2.weight")?;
        let inner = 16 * 5 * 5;
        let (w_pos, w_neg) = scales(conv2.scales(), 32);
        let options = ConvolutionOptions { stride: [1, 1], padding: [[0; 2]; 2], dilation: [1, 1], groups: 1 };
        let conv2 = PackedConvolution::new(
            [32, 16, 5, 5],
            options,
            Scales::PerRow { w_pos: &w_pos, w_neg: &w_neg },
            |o, k| conv2.codes().get(o * inner + k),
        )?;
        let hidden = weight("hidden.weight")?;
        let (w_pos, w_neg) = scales(hidden.scales(), 128);
        let hidden = PackedMatrix::new(128, 512, Scales::PerRow { w_pos: &w_pos, w_neg: &w_neg }, |row, column| {
            hidden.codes().get(column * 128 + row)
        })?;
        // Batch normalization at inference is an affine map per output.
        let (gamma, beta) = (floats("norm.gamma")?, floats("norm.beta")?);
        let (mean, var) = (floats("norm.running_mean")?, floats("norm.running_var")?);
        let factor: Vec<f32> = gamma.iter().zip(&var).map(|(gamma, var)| gamma / (var + 1e-5).sqrt()).collect();
        let shift: Vec<f32> = (0..128).map(|i| beta[i] - factor[i] * mean[i]).collect();
        let config: serde_json::Value = serde_json::from_str(model.config.as_deref().unwrap_or("{}"))?;
        let number =
            |name: &str| config[name][0].as_f64().ok_or(format!("the configuration in the file has no `{name}`"));
        Ok(Self {
            conv1: (floats("conv1.weight")?, floats("conv1.bias")?),
            conv2: conv2.with_bias(&floats("conv2.bias")?)?.with_relu(),
            hidden: hidden.with_affine(&factor, &shift)?.with_relu(),
            classes: (floats("classes.weight")?, floats("classes.bias")?),
            mean: number("mean")? as f32,
            std: number("std")? as f32,
            scratch: Scratch::new(),
        })
    }

    /// Returns the digit on an image of 28×28 bytes.
    fn classify(&mut self, image: &[u8]) -> Result<usize> {
        let pixels: Vec<f32> = image.iter().map(|pixel| (f32::from(*pixel) / 255.0 - self.mean) / self.std).collect();
        let x = pool(&first_convolution(&pixels, &self.conv1), 24);
        let mut y = vec![0.0; 32 * 8 * 8];
        self.conv2.forward(&x, [1, 16, 12, 12], &mut y, &mut self.scratch)?;
        let mut hidden = [0.0; 128];
        self.hidden.forward(&pool(&y, 8), &mut hidden, &mut self.scratch)?;
        let (weight, bias) = &self.classes;
        let logit = |class: usize| bias[class] + (0..128).map(|i| hidden[i] * weight[i * 10 + class]).sum::<f32>();
        Ok((0..10).max_by(|a, b| logit(*a).total_cmp(&logit(*b))).unwrap_or(0))
    }
}

/// Returns `w_pos` and `w_neg` of each output. A file has one pair for the whole weight or one per output.
fn scales(pairs: &[[f32; 2]], outputs: usize) -> (Vec<f32>, Vec<f32>) {
    (0..outputs).map(|i| pairs[i % pairs.len()]).map(|[w_pos, w_neg]| (w_pos, w_neg)).unzip()
}

/// Computes the first convolution, 5×5 from one channel to sixteen, and ReLU. Plain code suffices for its 400 weights.
fn first_convolution(image: &[f32], (weight, bias): &(Vec<f32>, Vec<f32>)) -> Vec<f32> {
    let mut output = Vec::with_capacity(16 * 24 * 24);
    for (weight, bias) in weight.chunks(25).zip(bias) {
        for pixel in 0..24 * 24 {
            let (row, column) = (pixel / 24, pixel % 24);
            let products = (0..25).map(|k| weight[k] * image[(row + k / 5) * SIZE + column + k % 5]);
            output.push((bias + products.sum::<f32>()).max(0.0));
        }
    }
    output
}

/// Computes 2×2 max pooling of images of `size` × `size` pixels.
fn pool(images: &[f32], size: usize) -> Vec<f32> {
    let half = size / 2;
    let maximum = |image: &[f32], pixel: usize| {
        let corner = pixel / half * 2 * size + pixel % half * 2;
        [corner, corner + 1, corner + size, corner + size + 1].iter().fold(f32::MIN, |max, i| max.max(image[*i]))
    };
    images.chunks(size * size).flat_map(|image| (0..half * half).map(move |pixel| maximum(image, pixel))).collect()
}

/// Reads an IDX file of bytes and returns its contents after the header of `header` bytes.
fn idx(path: &str, magic: u32, header: usize) -> Result<Vec<u8>> {
    let bytes = std::fs::read(path).map_err(|error| format!("cannot read {path}: {error}"))?;
    if bytes.len() < header || bytes[..4] != magic.to_be_bytes() {
        return Err(format!(
            "{path} is not the expected IDX file: decompress the .gz file, and pass images before labels"
        )
        .into());
    }
    Ok(bytes[header..].to_vec())
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [network, images, labels] = arguments.as_slice() else {
        return Err("usage: classify NETWORK IMAGES LABELS".into());
    };
    let mut network = Network::load(Path::new(network))?;
    let (images, labels) = (idx(images, 0x803, 16)?, idx(labels, 0x801, 8)?);
    let start = Instant::now();
    let mut right = 0;
    for (image, label) in images.chunks_exact(SIZE * SIZE).zip(&labels) {
        right += usize::from(network.classify(image)? == usize::from(*label));
    }
    let seconds = start.elapsed().as_secs_f64();
    let n = labels.len();
    println!("accuracy: {right} of {n} digits, {:.2} %", 100.0 * right as f64 / n as f64);
    println!("{:.3} ms per image; {:?} convolution", 1e3 * seconds / n as f64, network.conv2.path());
    Ok(())
}
