//! The task of classifying images: their batches, loaders and mistakes.

use std::hash::{Hash, Hasher};
use std::ops::Range;
use std::sync::Arc;

use anyhow::{Result, bail};
use burn::data::dataloader::batcher::Batcher;
use burn::prelude::*;
use burn::tensor::backend::AutodiffBackend;
use serde::Serialize;
use ttq_report::record::{Evidence, Mistake, Picture};
use ttq_train::{ItemKey, ReproducibleLoader};

use super::{ImageSet, Images, normalize};
use crate::model::{Batch, MnistNet, Network, ResNet};
use crate::task::{Loader, Score, Task};
use crate::{Job, RunConfig, Trains};

/// Images in a batch of validation and evaluation.
const BATCH: usize = 250;
/// Number of mistakes that are kept with their images.
const MISTAKES: usize = 24;

/// The configuration of a packed network: what a program needs to classify an image with it.
#[derive(Debug, Serialize)]
struct PackedConfig<'a> {
    /// The network: name of the example.
    network: &'a str,
    /// Depth of a ResNet.
    depth: Option<usize>,
    classes: &'a [String],
    /// Mean of each channel; pixels between 0 and 1 are normalized by `(pixel - mean) / std`.
    mean: &'a [f32],
    std: &'a [f32],
}

impl Task for Images {
    /// Normalized images, `[n, channels, height, width]`.
    type Inputs<B: Backend> = Tensor<B, 4>;
    /// The normalized pixels of an image, and its class.
    type Item = (Vec<f32>, u8);
    /// Height and width.
    type Size = [usize; 2];
    const SCORE: Score = Score::Accuracy;

    fn source(&self) -> &str {
        &self.source
    }

    fn hash_data(&self, hasher: &mut impl Hasher) {
        [&self.train, &self.valid, &self.test].hash(hasher);
    }

    fn classes(&self) -> usize {
        self.classes
    }

    fn size(&self) -> [usize; 2] {
        let [_, height, width] = self.test.shape();
        [height, width]
    }

    fn configure(&mut self, config: &RunConfig) {
        self.train.truncate(config.limit.unwrap_or(usize::MAX));
        let tenth = self.train.len() / 10;
        if config.validation > tenth {
            crate::print_line(format_args!(
                "validation: {tenth} images, a tenth of those for training, not {}",
                config.validation
            ));
        }
        let (train, valid) = self.train.split(config.validation.min(tenth), config.seed);
        (self.train, self.valid) = (train, valid.center_crop(self.size()));
    }

    fn check(&self) -> Result<()> {
        if self.train.is_empty() || self.valid.is_empty() {
            let (train, valid) = (self.train.len(), self.valid.len());
            bail!(
                "images to train on: {train}, to validate on (at most a tenth): {valid}; raise --limit to 10 or more, and --validation \
                 to 1 or more"
            );
        }
        Ok(())
    }

    fn check_test(&self) -> Result<()> {
        if self.test.is_empty() {
            bail!("there are no images to test on in {}: give others by --data", self.source);
        }
        Ok(())
    }

    fn check_batch_of_one<B: Backend, N: Network<B, Task = Self>>(
        &self,
        network: &N,
        device: &B::Device,
    ) -> Result<()> {
        let first = self.train.image(0);
        let Some(other) = (1..self.train.len()).find(|index| self.train.image(*index) != first) else { return Ok(()) };
        let logits = |index: usize| {
            let batch = batch(&self.train, self, index..index + 1, device);
            network.forward(batch.inputs).into_data()
        };
        if logits(0) == logits(other) {
            bail!(
                "--batch-size: with one image in a batch, batch normalization of vectors makes the output independent of \
                 the image, so that nothing is learned: use at least 2 images for each device"
            );
        }
        Ok(())
    }

    fn training<B: Backend>(self: &Arc<Self>, config: &RunConfig, device: B::Device) -> Loader<B, Self> {
        let (images, augmentation) = (self.clone(), config.augmentation);
        let shape = self.test.shape();
        let item = move |key: ItemKey| {
            let mut pixels = vec![0.0; shape.iter().product()];
            let (set, statistics) = (&images.train, [&images.mean[..], &images.std[..]]);
            let size = images.size();
            augmentation.apply(
                set.image(key.index),
                set.shape(),
                statistics,
                key.seed,
                size,
                images.distort,
                &mut pixels,
            );
            (pixels, set.label(key.index))
        };
        let batch_size = config.batch_size.min(self.train.len()).max(1);
        ReproducibleLoader::new(self.train.len(), Arc::new(item), Arc::new(ImageBatcher(shape)), batch_size, device)
            .shuffle(config.seed)
            .workers(std::thread::available_parallelism().map_or(1, usize::from).clamp(2, 8))
            .without_partial_batch()
    }

    fn validation<B: Backend>(self: &Arc<Self>) -> Loader<B, Self> {
        let (images, shape) = (self.clone(), self.valid.shape());
        let item = move |key: ItemKey| {
            let mut pixels = vec![0.0; shape.iter().product()];
            normalize(images.valid.image(key.index), shape, &images.mean, &images.std, &mut pixels);
            (pixels, images.valid.label(key.index))
        };
        let batcher = Arc::new(ImageBatcher(shape));
        ReproducibleLoader::new(self.valid.len(), Arc::new(item), batcher, BATCH, Default::default())
    }

    fn test<B: Backend>(&self, device: &B::Device) -> impl Iterator<Item = Batch<B, Tensor<B, 4>>> {
        let n = self.test.len();
        (0..n).step_by(BATCH).map(move |start| batch(&self.test, self, start..(start + BATCH).min(n), device))
    }

    fn inner<B: AutodiffBackend>(images: Tensor<B, 4>) -> Tensor<B::InnerBackend, 4> {
        images.inner()
    }

    fn packed_config(&self, run: &RunConfig) -> Result<String> {
        Ok(serde_json::to_string(&PackedConfig {
            network: &run.example,
            depth: run.depth,
            classes: &self.class_names,
            mean: &self.mean,
            std: &self.std,
        })?)
    }

    fn add_to_evidence(&self, evidence: &mut Evidence) {
        evidence.classes.clone_from(&self.class_names);
        let Some((_, predictions)) = evidence.predictions() else { return };
        let indices = predictions.most_confident_mistakes(MISTAKES);
        let mistakes = indices.into_iter().filter_map(|index| {
            let prediction = predictions.iter().nth(index)?;
            Some(Mistake {
                index,
                label: prediction.label,
                predicted: prediction.predicted,
                confidence: prediction.confidence,
                label_probability: prediction.label_probability,
                picture: Picture { shape: self.test.shape(), pixels: self.test.image(index).to_vec() },
            })
        });
        evidence.mistakes = mistakes.collect();
    }

    fn start<B: Trains>(job: Job, devices: Vec<B::Device>) -> Result<()> {
        match job.config().depth {
            Some(depth) => job.start::<B, _>(devices, |classes, device| ResNet::<B>::new(depth, classes, device)),
            None => job.start::<B, _>(devices, |classes, device| MnistNet::<B>::new(classes, device)),
        }
    }
}

/// Makes batches of images of the shape `[channels, height, width]`.
struct ImageBatcher([usize; 3]);

impl<B: Backend> Batcher<B, (Vec<f32>, u8), Batch<B, Tensor<B, 4>>> for ImageBatcher {
    fn batch(&self, items: Vec<(Vec<f32>, u8)>, device: &B::Device) -> Batch<B, Tensor<B, 4>> {
        let labels: Vec<u8> = items.iter().map(|(_, label)| *label).collect();
        let mut pixels = Vec::with_capacity(items.len() * self.0.iter().product::<usize>());
        items.iter().for_each(|(image, _)| pixels.extend_from_slice(image));
        to_batch(pixels, &labels, self.0, device)
    }
}

/// Returns the images of a set at these indices, normalized, with their classes.
pub fn batch<B: Backend>(
    set: &ImageSet,
    images: &Images,
    indices: Range<usize>,
    device: &B::Device,
) -> Batch<B, Tensor<B, 4>> {
    let size: usize = set.shape().iter().product();
    let mut pixels = vec![0.0; indices.len() * size];
    for (index, out) in indices.clone().zip(pixels.chunks_mut(size)) {
        normalize(set.image(index), set.shape(), &images.mean, &images.std, out);
    }
    let labels: Vec<u8> = indices.map(|index| set.label(index)).collect();
    to_batch(pixels, &labels, set.shape(), device)
}

/// Makes a batch of pixels `[n, channels, height, width]` and `n` labels.
fn to_batch<B: Backend>(
    pixels: Vec<f32>,
    labels: &[u8],
    [channels, height, width]: [usize; 3],
    device: &B::Device,
) -> Batch<B, Tensor<B, 4>> {
    let targets: Vec<i32> = labels.iter().map(|label| i32::from(*label)).collect();
    Batch {
        inputs: Tensor::from_data(TensorData::new(pixels, [labels.len(), channels, height, width]), device),
        targets: Tensor::from_ints(targets.as_slice(), device),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ttq_report::record::{Prediction, Predictions};

    #[test]
    fn the_most_confident_mistakes_come_with_their_images() {
        let test = ImageSet::new([1, 1, 1], vec![7, 8, 9], vec![0, 1, 1]);
        let images = Images::new("toy", String::new(), [""; 10], test.clone(), test);
        let mut predictions = Predictions::new(2);
        for (label, probabilities) in [(0, [0.25, 0.75]), (1, [0.5, 0.5]), (1, [0.125, 0.875])] {
            predictions.push(&Prediction::new(label, &probabilities));
        }
        let mut evidence = Evidence { ternary: Some(predictions), ..Evidence::default() };
        images.add_to_evidence(&mut evidence);
        let found: Vec<_> = evidence.mistakes.iter().map(|m| (m.index, m.predicted, m.picture.pixels[0])).collect();
        assert_eq!(found, [(0, 1, 7), (1, 0, 8)]);
    }
}
