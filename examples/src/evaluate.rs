//! Accuracy and cross-entropy of a network on test data.

use std::time::{Duration, Instant};

use burn::prelude::*;
use serde::{Deserialize, Serialize};
use ttq_report::classification::softmax;
use ttq_report::record::{Prediction, Predictions};

use crate::model::{Classifier, Network};
use crate::{Score, Task, print_line};

/// Time between two lines of progress.
const INTERVAL: Duration = Duration::from_secs(15);

/// Results of a network on test data. A text has one row of logits for each byte.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Share of rows whose class has the highest logit, in percent.
    pub accuracy: f64,
    /// Share of rows whose class is among the five highest logits, in percent.
    pub top5: f64,
    /// Mean cross-entropy in nats.
    pub loss: f64,
}

impl Evaluation {
    /// Returns the perplexity, `exp(loss)`.
    pub fn perplexity(&self) -> f64 {
        self.loss.exp()
    }

    /// Returns the cross-entropy in bits.
    pub fn bits(&self) -> f64 {
        self.loss / std::f64::consts::LN_2
    }
}

impl std::fmt::Display for Evaluation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "top-1 {:.2} %, top-5 {:.2} %, cross-entropy {:.4}", self.accuracy, self.top5, self.loss)
    }
}

/// Evaluates a classifier on the test data of its task; returns the results and the predictions, of which a report shows those of
/// images: those of texts are left out.
pub fn evaluate<B: Backend, N: Network<B>>(
    classifier: &Classifier<B, N>,
    task: &N::Task,
    device: &B::Device,
) -> (Evaluation, Predictions) {
    let (mut count, mut first, mut among, mut loss) = (0usize, 0usize, 0usize, 0.0);
    let mut predictions = Predictions::new(task.classes());
    let mut last = Instant::now();
    for batch in task.test(device) {
        let output = classifier.classify(batch);
        loss += output.targets.dims()[0] as f64 * output.loss.into_scalar().elem::<f64>();
        for (logits, target) in rows(output.output).iter().zip(output.targets.into_data().iter::<i64>()) {
            let rank = rank(logits, target as usize);
            if N::Task::SCORE == Score::Accuracy {
                predictions.push(&Prediction::new(target as usize, &softmax(logits)));
            }
            count += 1;
            first += usize::from(rank == 0);
            among += usize::from(rank < 5);
        }
        if last.elapsed() > INTERVAL {
            last = Instant::now();
            print_line(format_args!("evaluation: {count} predictions"));
        }
    }
    let n = count as f64;
    let percent = |count: usize| 100.0 * count as f64 / n;
    (Evaluation { accuracy: percent(first), top5: percent(among), loss: loss / n }, predictions)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rank_of_a_class_is_the_number_of_classes_before_it() {
        let logits = [0.5, 2.0, 2.0, -1.0];
        assert_eq!([0, 1, 2, 3].map(|class| rank(&logits, class)), [2, 0, 1, 3]);
    }
}
