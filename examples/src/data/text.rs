//! Text, and the task of predicting its next byte.

use std::hash::{Hash, Hasher};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, bail};
use burn::data::dataloader::batcher::Batcher;
use burn::prelude::*;
use burn::tensor::backend::AutodiffBackend;
use serde::{Deserialize, Serialize};
use ttq_report::record::Evidence;
use ttq_train::{ItemKey, ReproducibleLoader};

use super::DataError;
use super::cache::read;
use crate::model::{Batch, Gpt, GptConfig};
use crate::task::{Loader, Score, Task};
use crate::{Job, RunConfig, Trains};

/// Number of values of a byte.
pub(crate) const BYTES: usize = 256;
/// Windows in a batch of validation and evaluation.
const BATCH: usize = 32;

/// The texts that are part of this program: data/README.md.
const EMBEDDED: [&[u8]; 2] = [include_bytes!("../../data/alice29.txt"), include_bytes!("../../data/asyoulik.txt")];

/// The configuration of a packed language model: what a program needs to use it.
#[derive(Debug, Serialize, Deserialize)]
pub struct PackedText {
    /// Size of the network.
    pub gpt: GptConfig,
}

/// Text in bytes: the first eight tenths are for training, then one each for validation and testing.
#[derive(Debug, Clone)]
pub struct Text {
    source: String,
    context: usize,
    train: Vec<u8>,
    valid: Vec<u8>,
    test: Vec<u8>,
}

/// Loads the text file at `path`, or the texts that are part of this program. A file need not be UTF-8.
///
/// # Errors
/// [`DataError`] if the path is not that of a readable file, or if the file is empty.
pub fn text(path: Option<&Path>) -> Result<Text, DataError> {
    let Some(path) = path else {
        let source =
            "Lewis Carroll, Alice's Adventures in Wonderland, and Shakespeare, As You Like It, part of this program";
        return Ok(Text::new(source.into(), &EMBEDDED));
    };
    if !path.is_file() {
        return Err(DataError::NoFile { path: path.into() });
    }
    let bytes = read(path)?;
    if bytes.is_empty() {
        return Err(DataError::Empty { path: path.into() });
    }
    Ok(Text::new(format!("{} bytes of {}", bytes.len(), path.display()), &[&bytes]))
}

impl Text {
    /// Splits each of several texts, and joins the parts for training, for validation and for testing.
    pub fn new(source: String, texts: &[&[u8]]) -> Self {
        let [mut train, mut valid, mut test] = [const { Vec::new() }; 3];
        for text in texts {
            let tenth = text.len() / 10;
            let (rest, last) = text.split_at(text.len() - tenth);
            let (first, middle) = rest.split_at(rest.len() - tenth);
            train.extend_from_slice(first);
            valid.extend_from_slice(middle);
            test.extend_from_slice(last);
        }
        Self { source, context: GptConfig::default().context, train, valid, test }
    }

    /// Checks that a part of the text has a whole window.
    fn check_part(&self, part: &str, len: usize) -> Result<()> {
        let context = self.context;
        if len <= context {
            bail!(
                "the text is too short: its part for {part} has {len} bytes, and a context of {context} needs {}; give a \
                 longer text, raise --limit if it is given, or lower --context",
                context + 1
            );
        }
        Ok(())
    }

    /// Returns the number of windows of the context with the byte after each, in a text of `len` bytes.
    fn windows(&self, len: usize) -> usize {
        len.saturating_sub(1) / self.context
    }
}

impl Task for Text {
    /// Bytes, `[n, tokens]`. The class of each byte is the one that follows.
    type Inputs<B: Backend> = Tensor<B, 2, Int>;
    /// The bytes of a window and the one after it.
    type Item = Vec<u8>;
    /// The number of bytes.
    type Size = usize;
    const SCORE: Score = Score::Perplexity;

    fn source(&self) -> &str {
        &self.source
    }

    fn hash_data(&self, hasher: &mut impl Hasher) {
        [&self.train, &self.valid, &self.test].hash(hasher);
    }

    fn classes(&self) -> usize {
        BYTES
    }

    fn size(&self) -> usize {
        self.context
    }

    fn configure(&mut self, config: &RunConfig) {
        self.context = config.gpt.unwrap_or_default().context;
        self.train.truncate(config.limit.unwrap_or(usize::MAX));
    }

    fn check(&self) -> Result<()> {
        self.check_part("training", self.train.len())?;
        self.check_part("validation", self.valid.len())
    }

    fn check_test(&self) -> Result<()> {
        self.check_part("testing", self.test.len())
    }

    /// An epoch has as many windows as fit side by side in the text; each begins at a random byte.
    fn training<B: Backend>(self: &Arc<Self>, config: &RunConfig, device: B::Device) -> Loader<B, Self> {
        let text = self.clone();
        let item = move |key: ItemKey| {
            let starts = text.train.len() - text.context;
            let start = (key.seed % starts as u64) as usize;
            text.train[start..=start + text.context].to_vec()
        };
        let windows = self.windows(self.train.len());
        let batch_size = config.batch_size.min(windows).max(1);
        ReproducibleLoader::new(windows, Arc::new(item), Arc::new(TextBatcher), batch_size, device)
            .shuffle(config.seed)
            .without_partial_batch()
    }

    /// Windows side by side. A last one that is shorter is left out.
    fn validation<B: Backend>(self: &Arc<Self>) -> Loader<B, Self> {
        let text = self.clone();
        let item = move |key: ItemKey| {
            let start = key.index * text.context;
            text.valid[start..=start + text.context].to_vec()
        };
        let windows = self.windows(self.valid.len());
        ReproducibleLoader::new(windows, Arc::new(item), Arc::new(TextBatcher), BATCH, Default::default())
    }

    /// Windows side by side, the last one shorter: each byte but the first is predicted once, from the bytes before it in
    /// its window.
    fn test<B: Backend>(&self, device: &B::Device) -> impl Iterator<Item = Batch<B, Tensor<B, 2, Int>>> {
        let (text, context) = (&self.test, self.context);
        let starts: Vec<usize> = (0..text.len().saturating_sub(1)).step_by(context).collect();
        let whole = text.len().saturating_sub(1) / context;
        let batches =
            [&starts[..whole], &starts[whole..]].map(|starts| starts.chunks(BATCH).map(<[usize]>::to_vec).collect());
        let batches: Vec<Vec<usize>> = batches.into_iter().flat_map(|batches: Vec<_>| batches).collect();
        batches.into_iter().map(move |starts| {
            let windows = starts.iter().map(|start| text[*start..text.len().min(start + context + 1)].to_vec());
            to_batch(&windows.collect::<Vec<_>>(), device)
        })
    }

    fn inner<B: AutodiffBackend>(bytes: Tensor<B, 2, Int>) -> Tensor<B::InnerBackend, 2, Int> {
        bytes.inner()
    }

    fn packed_config(&self, run: &RunConfig) -> Result<String> {
        Ok(serde_json::to_string(&PackedText { gpt: run.gpt.unwrap_or_default() })?)
    }

    fn add_to_evidence(&self, _evidence: &mut Evidence) {}

    fn start<B: Trains>(job: Job<Self>, devices: Vec<B::Device>) -> Result<()> {
        let config = job.config().gpt.unwrap_or_default();
        job.start::<B, _>(devices, |_, device| Gpt::<B>::new(&config, device))
    }
}

/// Makes batches of windows.
struct TextBatcher;

impl<B: Backend> Batcher<B, Vec<u8>, Batch<B, Tensor<B, 2, Int>>> for TextBatcher {
    fn batch(&self, windows: Vec<Vec<u8>>, device: &B::Device) -> Batch<B, Tensor<B, 2, Int>> {
        to_batch(&windows, device)
    }
}

/// Makes a batch of windows of the same length: all but the last byte of each are inputs, all but the first are targets.
fn to_batch<B: Backend>(windows: &[Vec<u8>], device: &B::Device) -> Batch<B, Tensor<B, 2, Int>> {
    let tokens = windows.first().map_or(0, |window| window.len() - 1);
    let bytes = |skipped: usize| -> Vec<i32> {
        windows
            .iter()
            .flat_map(|window| window[skipped..skipped + tokens].iter().map(|byte| i32::from(*byte)))
            .collect()
    };
    Batch {
        inputs: Tensor::from_data(TensorData::new(bytes(0), [windows.len(), tokens]), device),
        targets: Tensor::from_ints(bytes(1).as_slice(), device),
    }
}

#[cfg(all(test, feature = "cpu"))]
mod tests {
    use super::*;
    use crate::model::{Classifier, Network};
    use crate::{Cpu, evaluate};

    #[test]
    fn each_text_gives_its_last_tenth_for_testing_and_the_one_before_for_validation() {
        let texts = [b"abcdefghijklmnopqrst".as_slice(), b"0123456789x"];
        let text = Text::new(String::new(), &texts);
        assert_eq!([&text.train[..], &text.valid, &text.test], [&b"abcdefghijklmnop012345678"[..], b"qr9", b"stx"]);
        let all = text.train.len() + text.valid.len() + text.test.len();
        assert_eq!(all, texts.concat().len());
    }

    #[test]
    fn perplexity_is_the_inverse_geometric_mean_of_the_probabilities_of_all_bytes_but_the_first() {
        let config = GptConfig { layers: 1, width: 8, heads: 2, context: 7 };
        let device = Default::default();
        let network = Gpt::<Cpu>::new(&config, &device);
        let all: Vec<u8> = (0..400).map(|i| (i * i % 251) as u8).collect();
        let mut text = Text::new(String::new(), &[&all]);
        text.context = config.context;
        let logarithm = |position: usize| -> f64 {
            let start = (position - 1) / config.context * config.context;
            let read: Vec<i32> = text.test[start..position].iter().map(|byte| i32::from(*byte)).collect();
            let read = Tensor::from_data(TensorData::new(read, [1, position - start]), &device);
            let logits: Vec<f64> = network.forward(read).into_data().iter().collect();
            let last = &logits[logits.len() - BYTES..];
            last[usize::from(text.test[position])] - last.iter().map(|logit| logit.exp()).sum::<f64>().ln()
        };
        assert_eq!(text.test.len(), 40, "five windows and a shorter one");
        let mean = (1..text.test.len()).map(logarithm).sum::<f64>() / (text.test.len() - 1) as f64;
        let (evaluation, _) = evaluate(&Classifier::new(network.clone()), &text, &device);
        assert!((evaluation.perplexity() / (-mean).exp() - 1.0).abs() < 1e-5, "{}", evaluation.perplexity());
        assert!((evaluation.bits() + mean / 2f64.ln()).abs() < 1e-5);
    }

    #[test]
    fn a_path_without_a_text_is_named_with_the_reason() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("empty.txt");
        let error = |path: &Path| text(Some(path)).unwrap_err().to_string();
        assert!(error(&path).contains("empty.txt") && error(&path).contains("no file"), "{}", error(&path));
        assert!(error(directory.path()).contains("no file"));
        std::fs::write(&path, "").unwrap();
        assert!(error(&path).contains("empty.txt") && error(&path).contains("is empty"), "{}", error(&path));
    }

    #[test]
    fn a_text_that_is_shorter_than_the_context_needs_is_refused() {
        let with = |bytes: usize, context: usize| {
            let text = Text { context, ..Text::new(String::new(), &[&vec![0; bytes]]) };
            [text.check(), text.check_test()]
        };
        assert!(with(90, 8).iter().all(Result::is_ok));
        for error in with(90, 9).map(|result| result.unwrap_err().to_string()) {
            assert!(error.contains("9 bytes") && error.contains("--context"), "{error}");
        }
    }

    #[test]
    fn a_window_and_its_targets_are_one_byte_apart() {
        let batch = to_batch::<Cpu>(&[b"abcd".to_vec(), b"wxyz".to_vec()], &Default::default());
        assert_eq!(batch.inputs.into_data().iter::<u8>().collect::<Vec<_>>(), b"abcwxy");
        assert_eq!(batch.targets.into_data().iter::<u8>().collect::<Vec<_>>(), b"bcdxyz");
    }
}
