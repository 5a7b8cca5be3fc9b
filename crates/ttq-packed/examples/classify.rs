//! Classifies digits with the packed network of a run of the example `mnist`, without Burn: the weights' file and the kernels are all
//! there is.
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

/// Convolution, pooling, convolution, pooling, linear layer with normalization, linear layer; the second and the third are ternary.
struct Network {
    /// `[16, 1, 5, 5]` and `[16]`
    conv1: (Vec<f32>, Vec<f32>),
    conv2: PackedConvolution,
    hidden: PackedMatrix,
    /// `[128, 10]` and `[10]`
    classes: (Vec<f32>, Vec<f32>),
    /// Of pixels between 0 and 1.
    mean: f32,
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
        let options = ConvolutionOptions { stride: [1, 1], padding: [0, 0], dilation: [1, 1], groups: 1 };
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
        // The normalization behind it is a factor and a summand for each output.
        let (gamma, beta) = (floats("norm.gamma")?, floats("norm.beta")?);
        let (mean, var) = (floats("norm.running_mean")?, floats("norm.running_var")?);
        let factor: Vec<f32> = gamma.iter().zip(&var).map(|(gamma, var)| gamma / (var + 1e-5).sqrt()).collect();
        let shift: Vec<f32> = (0..128).map(|i| beta[i] - factor[i] * mean[i]).collect();
        let config: serde_json::Value = serde_json::from_str(model.config.as_deref().unwrap_or("{}"))?;
        let number = |name: &str| config[name][0].as_f64().ok_or(format!("the file's configuration has no `{name}`"));
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

    /// The digit on an image of 28×28 bytes.
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

/// W_p and W_n of each output, of which a file may have one pair for all.
fn scales(pairs: &[[f32; 2]], outputs: usize) -> (Vec<f32>, Vec<f32>) {
    (0..outputs).map(|i| pairs[i % pairs.len()]).map(|[w_pos, w_neg]| (w_pos, w_neg)).unzip()
}

/// 5×5, one channel to sixteen, with relu; as plain as can be, for it has 400 weights.
fn first_convolution(image: &[f32], (weight, bias): &(Vec<f32>, Vec<f32>)) -> Vec<f32> {
    let mut output = Vec::with_capacity(16 * 24 * 24);
    for (weight, bias) in weight.chunks(25).zip(bias) {
        for place in 0..24 * 24 {
            let (row, column) = (place / 24, place % 24);
            let products = (0..25).map(|k| weight[k] * image[(row + k / 5) * SIZE + column + k % 5]);
            output.push((bias + products.sum::<f32>()).max(0.0));
        }
    }
    output
}

/// The largest of each 2×2 of images that are `size` high and wide.
fn pool(images: &[f32], size: usize) -> Vec<f32> {
    let half = size / 2;
    let at = |image: &[f32], place: usize| {
        let corner = place / half * 2 * size + place % half * 2;
        [corner, corner + 1, corner + size, corner + size + 1].iter().fold(f32::MIN, |max, i| max.max(image[*i]))
    };
    images.chunks(size * size).flat_map(|image| (0..half * half).map(move |place| at(image, place))).collect()
}

/// The contents of an IDX file of bytes behind a header of `header` bytes.
fn idx(path: &str, magic: u32, header: usize) -> Result<Vec<u8>> {
    let bytes = std::fs::read(path).map_err(|error| format!("cannot read {path}: {error}"))?;
    if bytes.len() < header || bytes[..4] != magic.to_be_bytes() {
        return Err(format!("{path} is no IDX file of this kind: unpack the .gz and give images, then labels").into());
    }
    Ok(bytes[header..].to_vec())
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [network, images, labels] = arguments.as_slice() else {
        return Err("give the packed network, the images and the labels: classify NETWORK IMAGES LABELS".into());
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
    println!("{right} of {n} digits are right, {:.2} %", 100.0 * right as f64 / n as f64);
    println!(
        "{:.3} ms an image; {} convolution",
        1e3 * seconds / n as f64,
        match network.conv2.path() {
            ttq_packed::kernels::Path::Sparse => "sparse",
            ttq_packed::kernels::Path::Dense => "dense",
        }
    );
    Ok(())
}
