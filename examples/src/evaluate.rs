//! Accuracy of a network on a set of images.

use std::time::{Duration, Instant};

use burn::prelude::*;
use serde::{Deserialize, Serialize};
use ttq_report::classification::softmax;
use ttq_report::record::{Prediction, Predictions};

use crate::data::{ImageSet, Images, normalize};
use crate::model::{Batch, Classifier, Network};
use crate::print_line;

/// Images in a batch of the evaluation.
pub(crate) const BATCH: usize = 250;
/// Time between two lines of progress.
const INTERVAL: Duration = Duration::from_secs(15);

/// Results of a network on a set of images.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Share of images whose class has the highest logit, in percent.
    pub accuracy: f64,
    /// Share of images whose class is among the five highest logits, in percent.
    pub top5: f64,
    /// Mean cross-entropy in nats.
    pub loss: f64,
}

impl std::fmt::Display for Evaluation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "top-1 {:.2} %, top-5 {:.2} %, cross-entropy {:.4}", self.accuracy, self.top5, self.loss)
    }
}

/// Evaluates a classifier on the test images; returns the results and the predictions.
pub fn evaluate<B: Backend, N: Network<B>>(
    classifier: &Classifier<B, N>,
    images: &Images,
    device: &B::Device,
) -> (Evaluation, Predictions) {
    let (mut first, mut among, mut loss) = (0usize, 0usize, 0.0);
    let mut predictions = Predictions::new(images.classes);
    let n = images.test.len();
    let mut last = Instant::now();
    for start in (0..n).step_by(BATCH) {
        let indices = start..(start + BATCH).min(n);
        let size = indices.len() as f64;
        let output = classifier.classify(batch(&images.test, images, indices, device));
        loss += size * output.loss.into_scalar().elem::<f64>();
        for (logits, target) in rows(output.output).iter().zip(output.targets.into_data().iter::<i64>()) {
            let rank = rank(logits, target as usize);
            predictions.push(&Prediction::new(target as usize, &softmax(logits)));
            first += usize::from(rank == 0);
            among += usize::from(rank < 5);
        }
        if last.elapsed() > INTERVAL {
            last = Instant::now();
            print_line(format_args!("evaluation: {}/{n} images", start + BATCH));
        }
    }
    let percent = |count: usize| 100.0 * count as f64 / n as f64;
    (Evaluation { accuracy: percent(first), top5: percent(among), loss: loss / n as f64 }, predictions)
}

fn rows<B: Backend>(logits: Tensor<B, 2>) -> Vec<Vec<f32>> {
    let classes = logits.dims()[1];
    let values: Vec<f32> = logits.into_data().iter().collect();
    values.chunks(classes).map(<[f32]>::to_vec).collect()
}

/// Returns the rank of the class `target`, from 0: the number of classes with a higher logit, or an equal one and a lower
/// index.
pub fn rank(logits: &[f32], target: usize) -> usize {
    let own = logits[target];
    logits.iter().enumerate().filter(|(class, logit)| **logit > own || (**logit == own && *class < target)).count()
}

/// Returns the images of a set at these indices, normalized, with their classes.
pub fn batch<B: Backend>(
    set: &ImageSet,
    images: &Images,
    indices: std::ops::Range<usize>,
    device: &B::Device,
) -> Batch<B> {
    let size: usize = set.shape().iter().product();
    let mut pixels = vec![0.0; indices.len() * size];
    for (index, out) in indices.clone().zip(pixels.chunks_mut(size)) {
        normalize(set.image(index), set.shape(), &images.mean, &images.std, out);
    }
    let labels: Vec<u8> = indices.map(|index| set.label(index)).collect();
    to_batch(pixels, &labels, set.shape(), device)
}

/// Makes a batch of pixels `[n, channels, height, width]` and `n` labels.
pub(crate) fn to_batch<B: Backend>(
    pixels: Vec<f32>,
    labels: &[u8],
    [channels, height, width]: [usize; 3],
    device: &B::Device,
) -> Batch<B> {
    let targets: Vec<i32> = labels.iter().map(|label| i32::from(*label)).collect();
    Batch {
        images: Tensor::from_data(TensorData::new(pixels, [labels.len(), channels, height, width]), device),
        targets: Tensor::from_ints(targets.as_slice(), device),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rank_of_a_class_is_the_number_of_classes_before_it() {
        let logits = [0.5, 2.0, 2.0, -1.0];
        assert_eq!([0, 1, 2, 3].map(|class| rank(&logits, class)), [2, 0, 1, 3]);
    }
}
