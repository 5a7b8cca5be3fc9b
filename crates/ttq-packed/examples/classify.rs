//! Classifies digits with the network of the example `mnist`, without Burn.
//!
//! `RUN` is the directory of a run of `mnist`, in which the example `deploy` has written `network.safetensors`. The images and
//! labels are the MNIST test set.
//!
//! ```sh
//! gunzip -k t10k-images-idx3-ubyte.gz t10k-labels-idx1-ubyte.gz
//! cargo run --release -p ttq-packed --example classify -- RUN/network.safetensors t10k-images-idx3-ubyte t10k-labels-idx1-ubyte
//! ```

use std::error::Error;
use std::time::Instant;

use ttq_packed::PackedModel;
use ttq_packed::network::{Arena, CompileOptions, Network};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

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
    let [file, images, labels] = arguments.as_slice() else {
        return Err("usage: classify NETWORK IMAGES LABELS".into());
    };
    let (images, labels) = (idx(images, 0x803, 16)?, idx(labels, 0x801, 8)?);
    let bytes = std::fs::read(file).map_err(|error| format!("cannot read {file}: {error}"))?;
    let network = Network::read(&bytes, &CompileOptions::default())?;
    // The example `mnist` writes the mean and standard deviation of its pixels, which range from 0 to 1.
    let config: serde_json::Value = serde_json::from_str(PackedModel::read(&bytes)?.config.as_deref().unwrap_or("{}"))?;
    let number = |name: &str| config[name][0].as_f64().ok_or(format!("the configuration in {file} has no `{name}`"));
    let (mean, std) = (number("mean")? as f32, number("std")? as f32);

    let start = Instant::now();
    let pixels: Vec<f32> = images.iter().map(|pixel| (f32::from(*pixel) / 255.0 - mean) / std).collect();
    let mut logits = vec![0.0; labels.len() * 10];
    network.run(&mut Arena::new(), &pixels, &mut logits)?;
    let digit = |logits: &[f32]| (0..10).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap_or(0);
    let right = logits.chunks(10).zip(&labels).filter(|(logits, label)| digit(logits) == usize::from(**label)).count();
    let (n, seconds) = (labels.len(), start.elapsed().as_secs_f64());
    println!("accuracy: {right} of {n} digits, {:.2} %", 100.0 * right as f64 / n as f64);
    println!("{:.4} ms per image, in one batch", 1e3 * seconds / n as f64);
    Ok(())
}
